"""Finishes a package whose code is trusted, in a process of its own; says in JSON how it went."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from models.base import BrokenPackage
from models.packaging import finish_package, load_sample


def main(folder: Path, sample: Path | None) -> None:
    """Finish a package; one line of JSON tells how it went."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a model prints is not our answer
    try:
        package = finish_package(folder, load_sample(sample) if sample else None, trust_code=True)
        answer = {"ok": True, "sentences": [package.identity.sha256]}
    except BrokenPackage as error:
        answer = {"ok": False, "sentences": error.mistakes or [str(error)]}
    except OSError as error:
        sentence = f"{error.filename or folder} cannot be used: {error.strerror}."
        answer = {"ok": False, "sentences": [sentence]}
    os.write(out, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
