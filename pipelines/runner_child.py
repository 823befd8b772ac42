"""The child that `pipelines.runner` starts: reads requests, does steps, writes verdicts.

Only this process imports torch. Its standard output is the protocol; what libraries print goes
nowhere, because it may hold patient data.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from models.limits import MEMORY_LIMIT
from pipelines.base import JobSpec

_PR_SET_PDEATHSIG = 1
PROGRESS_EVERY_SECONDS = 0.2
WARM_AFTER_SECONDS = 2.0
"""Not at once: while a node starts, its receiver is to listen first."""
_NEEDED: Mapping[str, Sequence[str]] = {
    "convert": ("pipelines.steps.run", "pipelines.steps.convert"),
    "infer": ("pipelines.steps.run", "pipelines.steps.infer", "torch"),
    "report": ("pipelines.steps.run", "pipelines.steps.report"),
}
"""Modules that take long to import: before a job comes is the time."""


Report = Callable[[float, str], None]
Serve = Callable[[Path, Any, Report], dict[str, Any]]
"""Does one step in a job's folder; the verdict as a mapping."""


def main(parent: int, faults: int, serve: Serve, steps: Sequence[str] = ()) -> None:
    """Serve requests until standard input ends; import what `steps` need while there are none."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(file=faults)
    out = os.dup(1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    _warm_up(steps)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        os.environ[MEMORY_LIMIT] = str(request.get("memory_bytes", 0))
        _send(out, {"verdict": serve(Path(request["folder"]), request["step"], _reporter(out))})


def _warm_up(steps: Sequence[str]) -> None:
    seconds = WARM_AFTER_SECONDS
    for module in (module for step in steps for module in _NEEDED[step]):
        if select.select([sys.stdin], [], [], seconds)[0]:
            return  # a request comes first
        with contextlib.suppress(Exception):  # the step that needs it says what is wrong
            import_module(module)
        seconds = 0.0


def serve_step(folder: Path, step: Any, report: Report) -> dict[str, Any]:
    """Do the step that ``job.json`` describes."""
    from pipelines.steps.run import run_step

    spec = JobSpec.from_json((folder / "job.json").read_text())
    return asdict(run_step(spec, step, folder, report))


def _reporter(out: int) -> Report:
    """Pass progress on, not too often."""
    last = 0.0

    def report(fraction: float, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_EVERY_SECONDS:
            last = time.monotonic()
            _send(out, {"progress": fraction, "note": note})

    return report


def _send(out: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), serve_step, sys.argv[3:])
