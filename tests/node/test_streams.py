"""A command whose standard streams its caller has closed."""

from __future__ import annotations

import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

WHERE_THEY_LEAD = """
import os
from node.cli import output
output.console.print("said to nobody")
report = os.open({report!r}, os.O_WRONLY | os.O_CREAT)
os.write(report, repr([os.path.realpath(f"/proc/self/fd/{{fd}}") for fd in range(3)]).encode())
"""


@pytest.mark.parametrize(
    ("closed", "descriptors"), [(">&-", [1]), ("<&- >&- 2>&-", [0, 1, 2])], ids=["output", "all"]
)
def test_nothing_lands_where_a_closed_stream_was(
    tmp_path: Path, closed: str, descriptors: list[int]
) -> None:
    report = tmp_path / "report"
    code = WHERE_THEY_LEAD.format(report=str(report))
    command = f'exec "$0" -c "$1" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, code], check=False, timeout=60)
    assert done.returncode == 0
    found = literal_eval(report.read_text())
    assert {found[number] for number in descriptors} == {"/dev/null"}
