"""A reader is told that a study was not scored: in Orthanc, which sends it all back to us."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.end_to_end.harness import NodeUnderTest, until
from tests.end_to_end.pacs import Orthanc, orthanc
from tests.end_to_end.studies import head_with_bleed, write_study
from tests.ports import free_port

pytestmark = pytest.mark.slow

FEW = 3
"""Slices that are too few for a volume."""


def _series(pacs: Orthanc) -> list[str]:
    """Series Description of every series that it holds."""
    found = [pacs.get(f"/series/{identifier}") for identifier in pacs.get("/series")]
    return [series["MainDicomTags"].get("SeriesDescription", "") for series in found]


def test_what_was_not_scored_is_in_the_pacs_with_its_reason_and_comes_back_unscored(
    tmp_path: Path,
) -> None:
    port = free_port()
    few = tmp_path / "few"
    for path in write_study(head_with_bleed(), few)[FEW:]:
        path.unlink()
    unwanted = pydicom.dcmread(next(few.glob("*.dcm")))
    unwanted.SeriesInstanceUID, unwanted.Modality = generate_uid(), "MR"
    unwanted.SOPInstanceUID = generate_uid()
    unwanted.file_meta.MediaStorageSOPInstanceUID = unwanted.SOPInstanceUID
    unwanted.save_as(few / "unwanted.dcm")

    with orthanc(tmp_path / "orthanc", port) as pacs:
        node = NodeUnderTest(
            tmp_path / "node",
            pacs.port,
            port=port,
            peers="  ORTHANC: { sends_as: [PACS], from_networks: [127.0.0.0/8] }\n",
            rule="    if_not_run: { tell_reader: [sr, capture], after: 1h }\n",
        )
        try:
            node.start()
            node.push(few)
            until(lambda: len(_series(pacs)) == 2, "a report and a page to be in the PACS")
            node.wait_idle(series=2)

            name = "NOT SCORED: AI ICH test - NOT FOR CLINICAL USE"
            assert _series(pacs) == [name] * 2, "an SR and a picture, and nothing of the MR image"
            jobs = {job["pipeline"]: job for job in node.jobs()}
            assert jobs["haemorrhage"]["reason"] == "too_few_slices"
            assert {d["state"] for d in jobs["notice"]["deliveries"]} == {"sent"}
            assert len(node.jobs()) == 2
            explained = node.json("explain", jobs["notice"]["series_instance_uid"])[0]
            assert "The reader is told of it" in explained["conclusion"]

            everything = {"Resources": pacs.get("/series"), "Synchronous": True}
            sent = pacs.post("/modalities/node/store", everything)
            assert sent["FailedInstancesCount"] == 0
            node.wait_idle(series=4)
            assert len(node.jobs()) == 2, "what comes back is acknowledged and never scored"
        finally:
            node.stop()
