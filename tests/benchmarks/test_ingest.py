"""Every receiver that is compared takes a small load whole, so that a figure is of work done."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import Case
from benchmarks.ingest import run
from benchmarks.servers import ORTHANC, OURS, OURS_LOOSE, PYNETDICOM, STORESCP

pytestmark = pytest.mark.slow


def test_a_round_of_the_ingest_benchmark(tmp_path: Path) -> None:
    cases = [Case("ct", 2), Case("tiny", 1, one_each=True), Case("ct", 1, is_tls=True)]

    found = run(cases, {"ct": 6, "tiny": 6}, 1, tmp_path)

    assert all(one.failed == 0 for one in found)
    assert all(one.instances_per_second > 0 for one in found)
    compared = {one.server for one in found if not one.case.is_tls}
    assert {OURS, OURS_LOOSE, PYNETDICOM, STORESCP, ORTHANC} <= compared
    assert {one.server for one in found if one.case.is_tls} >= {OURS, STORESCP}
