"""Other people's programs, as independent readers of what we write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FROM_PYPI = frozenset({"dcm2niix", "segimage2itkimage", "tid1500reader"})


def tool(name: str) -> str:
    """Path of somebody else's program; skips without it, fails without it in CI.

    DCMTK's programs are looked up in /usr/bin only: pynetdicom installs scripts of the same
    names (storescu, echoscu, ...) into a virtual environment.
    """
    folder = str(Path(sys.executable).parent) if name in FROM_PYPI else "/usr/bin:/usr/local/bin"
    path = shutil.which(name, path=folder)
    if path is None:
        reason = f"the program {name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program and keep what it says."""
    command = [tool(name), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, check=False, timeout=120, encoding="utf-8", errors="replace"
    )
