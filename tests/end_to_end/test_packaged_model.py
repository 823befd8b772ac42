"""A model that somebody packaged: scored on storescu, results in Orthanc; recalled, stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from models.status import status_of
from tests.end_to_end.harness import NodeUnderTest, until
from tests.end_to_end.pacs import orthanc, remembering_pacs
from tests.models.small import write_shades
from tests.pipelines.test_segmentation import two_blocks, write_series

pytestmark = pytest.mark.slow


def node_with_shades(folder: Path, port: int) -> NodeUnderTest:
    write_shades(folder / "models" / "shades")
    return NodeUnderTest(
        folder / "node",
        port,
        run="{ pipeline: segmentation, model: shades, timeout: 5m }",
        models=f"{{ folders: ['{folder / 'models'}'] }}",
    )


def _state(node: NodeUnderTest) -> str:
    """State of the second job."""
    jobs = node.json("jobs", "ls")
    return str(jobs[0]["state"]) if len(jobs) == 2 else ""


def test_orthanc_has_the_structures_of_a_packaged_model(tmp_path: Path) -> None:
    write_series(tmp_path / "study", two_blocks()[0])
    source = dcmread(next((tmp_path / "study").iterdir()))
    with orthanc(tmp_path / "orthanc") as pacs:
        node = node_with_shades(tmp_path, pacs.port)
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
            [job] = node.jobs()
        finally:
            node.stop()
        [study] = pacs.get("/studies?expand")
        series = [pacs.get(f"/series/{one}") for one in study["Series"]]
        [seg] = [one for one in series if one["MainDicomTags"]["Modality"] == "SEG"]
        tags = pacs.get(f"/instances/{seg['Instances'][0]}/simplified-tags")

    assert job["state"] == "done", job
    assert study["MainDicomTags"]["StudyInstanceUID"] == source.StudyInstanceUID
    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["OT", "SEG", "SR"]
    labels = [item["SegmentLabel"] for item in tags["SegmentSequence"]]
    assert labels == ["Left hippocampus", "Right hippocampus"]


def test_a_recalled_model_stops_at_once_and_what_was_sent_is_listed(tmp_path: Path) -> None:
    write_series(tmp_path / "first", two_blocks()[0], seed="first")
    write_series(tmp_path / "second", two_blocks()[0], seed="second")
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = node_with_shades(tmp_path, pacs.port)
        node.start()
        try:
            node.push(tmp_path / "first")
            node.wait_idle()
            told = node.cli("models", "recall", "shades", "--reason", "Wrong side.").stdout
            node.push(tmp_path / "second")
            until(lambda: _state(node) == "held", "the second job to be held")
            held = node.json("jobs", "ls")[0]
            sent = node.json("models", "sent", "shades")
            node.cli("models", "restore", "shades")
            node.wait_idle(series=2)
            after = node.json("jobs", "ls")[0]
        finally:
            node.stop()
        arrived = len(list(pacs.folder.glob("*.dcm")))

    uids = {row["sop_instance_uid"] for row in sent}
    assert len(uids) == 3
    assert all(uid in told for uid in uids)
    assert held["state"] == "held"
    assert "shades is recalled: Wrong side. Nothing is scored with it." in held["sentence"]
    assert status_of(tmp_path / "models" / "shades") == ("active", "")
    assert after["state"] == "done"
    assert arrived == 6
