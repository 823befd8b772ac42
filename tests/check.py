"""Runs what CI runs: ``python -m tests.check [--quick | --static]``.

Tests that are marked slow or need servers run one after the other, all others two at a time.
--quick leaves out types and the former; --static runs no test.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest"]
STATIC = [
    [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
    [str(BIN / "ruff"), "check", "--quiet", "."],
    [str(BIN / "lint-imports")],
    [str(BIN / "mypy")],
]


def main(arguments: list[str]) -> int:
    """Run every command, tests last; the first failure's status."""
    quick = [*PYTEST, "-m", "not slow and not services", "-n", "2", "--dist", "loadfile"]
    others = [*PYTEST, "-m", "slow or services"]
    match arguments:
        case ["--quick"]:
            commands = [*STATIC[:-1], quick]  # types take a minute when cold
        case ["--static"]:
            commands = STATIC
        case _:
            commands = [*STATIC, quick, others]
    for command in commands:
        began = time.monotonic()
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        name = " ".join(Path(command[0]).name if i == 0 else a for i, a in enumerate(command))
        print(f"== {name}: {'ok' if status == 0 else 'FAILED'}, {time.monotonic() - began:.0f} s")
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
