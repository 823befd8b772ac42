"""The status of a package, however its lines are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.catalogue import MANIFEST
from models.package import manifest_digest
from models.status import set_status, status_of

REST = b"family: shades\nversion: 1.0.0\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"status: recalled\nstatus_reason: Reads too little blood\n  in small heads\n",
        b"status: recalled\nstatus_reason: >-\n  Reads too little blood\n  in small heads\n",
    ],
)
def test_a_reason_of_several_lines_is_taken_out_whole(tmp_path: Path, lines: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(lines + REST)
    assert status_of(tmp_path) == ("recalled", "Reads too little blood in small heads")

    set_status(tmp_path, "active", "")

    assert (tmp_path / MANIFEST).read_bytes() == REST
    assert manifest_digest(lines + REST) == manifest_digest(REST)


@pytest.mark.parametrize("line", [b'"status": recalled\n', b"status : recalled\n"])
def test_a_recall_is_seen_in_every_way_of_writing_it(tmp_path: Path, line: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(REST + line)

    assert status_of(tmp_path)[0] == "recalled"
