"""Where the real DICOM data lies: beside the project, outside its repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"


def shared(*parts: str) -> Path:
    """Path of a file or folder of the shared data; skips without it, fails without it in CI."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        reason = f"../shared/data/{'/'.join(parts)} is not there"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
