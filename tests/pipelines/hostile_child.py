"""A runner child whose steps misbehave as the name of the job's folder says."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.runner_child import Report, main


def misbehave(folder: Path, step: Any, report: Report) -> dict[str, Any]:
    match folder.name:
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            ctypes.CDLL(None).sleep(600)
        case "allocate":
            kept = []
            while True:
                kept.append(bytearray(os.urandom(1 << 20) * 32))
        case "exit":
            os._exit(3)
        case "print":
            print("PATIENT^PLANTED")
            sys.stderr.write("PATIENT^PLANTED")
        case "environment":
            return _ok(",".join(sorted(os.environ)))
        case "pid":
            return _ok(str(os.getpid()))
        case "progress":
            for fraction in (0.0, 0.25, 0.5):
                report(fraction, "slices")
                time.sleep(0.3)
    return _ok("")


def _ok(sentence: str) -> dict[str, Any]:
    return {"outcome": "ok", "reason": "", "sentence": sentence, "facts": {}}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), misbehave)
