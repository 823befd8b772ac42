"""What a result came from, what replaces it, and how it is taken back: with a real node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.end_to_end.harness import NodeUnderTest
from tests.end_to_end.pacs import SEG, SR, remembering_pacs
from tests.end_to_end.studies import head_with_bleed, write_study

pytestmark = pytest.mark.slow
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def received(folder: Path, sop_class: str) -> list[pydicom.Dataset]:
    """What a PACS holds of one class, in the order in which it was made."""
    found = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    return sorted(
        (ds for ds in found if ds.SOPClassUID == sop_class), key=lambda ds: ds.ContentTime
    )


def test_a_second_result_replaces_the_first_and_each_tells_its_origin_and_can_be_taken_back(
    tmp_path: Path,
) -> None:
    sources = write_study(head_with_bleed(), tmp_path / "study")
    (tmp_path / "late").mkdir()
    sources[-1].rename(tmp_path / "late" / sources[-1].name)
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
            node.push(tmp_path / "late")
            node.wait_idle()
            second, first = node.jobs()
            [old] = [ds for ds in received(pacs.folder, SR) if str(ds.SOPInstanceUID) in str(first)]
            [new] = [
                ds for ds in received(pacs.folder, SR) if str(ds.SOPInstanceUID) in str(second)
            ]
            told = node.cli("why", str(new.SOPInstanceUID)).stdout
            [origin] = node.json("why", str(new.SOPInstanceUID))
            node.cli("retract", str(second["id"]), "--reason", "Wrong model.")
            node.wait_idle()
            again = node.cli("retract", str(second["id"]), "--reason", "x", check=False)
            retried = node.cli("jobs", "retry", str(second["id"]), check=False)
            jobs = node.jobs()
        finally:
            node.stop()

    assert _predecessors(old) == set()
    assert _predecessors(new) == {str(old.SOPInstanceUID)}
    assert new.SeriesInstanceUID != old.SeriesInstanceUID
    _check_origin(origin, told, new)
    [note] = received(pacs.folder, KEY_OBJECTS)
    segs = {str(ds.SOPInstanceUID) for ds in received(pacs.folder, SEG)}
    rejected = _referenced(note)
    assert str(new.SOPInstanceUID) in rejected
    assert len(rejected) == 3
    assert len(rejected & segs) == 1
    assert note.StudyInstanceUID == new.StudyInstanceUID
    assert jobs[0]["pipeline"] == "retraction"
    assert jobs[0]["state"] == "done"
    assert jobs[1]["reason"] == "retracted"
    assert again.returncode == retried.returncode == 1


def _predecessors(ds: pydicom.Dataset) -> set[str]:
    return {
        str(item.ReferencedSOPInstanceUID)
        for study in ds.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def _referenced(note: pydicom.Dataset) -> set[str]:
    return {
        str(reference.ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        for reference in item.get("ReferencedSOPSequence", ())
    }


def _check_origin(origin: dict[str, Any], told: str, ds: pydicom.Dataset) -> None:
    flat = " ".join(told.split())
    source = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert any(str(series.SeriesInstanceUID) in told for series in source)
    for words in ("head-ct", "haemorrhage-demo", "scorenode", "PACS", "sent", "convert"):
        assert words in flat
    [item] = origin["inputs"]
    assert len(item["input_digest"]) == 64
    assert item["generation"] == 2
    assert item["input_digest"] in flat
    steps = origin["steps"]
    [report] = [s for s in steps if s["step"] == "report"]
    assert len(report["facts"]["model"]["weights_sha256"]) == 64
    assert report["facts"]["model"]["weights_sha256"] in flat
