"""Runs what CI runs: ``python -m tests.check [--quick | --static]``.

Two tests run at a time, except slow ones of `ALONE`, which measure. --quick
leaves out types, and tests that are marked slow or need servers, and runs three at a time,
because many wait for a peer; --static runs no test.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest"]
TWO, THREE = ([*PYTEST, "-n", str(n), "--dist", "loadfile"] for n in (2, 3))
ALONE = ["tests/attacks", "tests/benchmarks"]
STATIC = [
    [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
    [str(BIN / "ruff"), "check", "--quiet", "."],
    [str(BIN / "lint-imports")],
    [str(BIN / "mypy")],
]


def main(arguments: list[str]) -> int:
    """Run every command, tests last; the first failure's status."""
    quick = ["-m", "not slow and not services"]
    slow = [*TWO, "-m", "slow or services", *(f"--ignore={folder}" for folder in ALONE)]
    alone = [*PYTEST, "-m", "slow or services", *ALONE]
    match arguments:
        case ["--quick"]:
            commands = [*STATIC[:-1], [*THREE, *quick]]  # types take a minute when cold
        case ["--static"]:
            commands = STATIC
        case _:
            commands = [*STATIC, [*TWO, *quick], slow, alone]
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
