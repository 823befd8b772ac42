"""The main job with real peers: a study in, SEG + SR + secondary capture back in the PACS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from models.base import Volume
from tests.end_to_end.harness import NodeUnderTest
from tests.end_to_end.pacs import SC, SEG, SR, orthanc, remembering_pacs
from tests.end_to_end.studies import head_with_bleed, head_without_bleed, write_study
from tests.noise import dciodvfy, segimage2itkimage, tid1500reader
from tests.ports import free_port
from tests.services import RABBITMQ, postgresql_database, require_port
from tests.shared_data import shared

pytestmark = pytest.mark.slow


@pytest.fixture(
    params=[
        "sqlite-sql",
        "sqlite-arena",
        pytest.param("postgresql-sql", marks=pytest.mark.services),
        pytest.param("postgresql-rabbitmq", marks=pytest.mark.services),
    ]
)
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Database, broker and store of a node."""
    if request.param.startswith("sqlite"):
        yield {"store_kind": "arena" if request.param == "sqlite-arena" else "files"}
        return
    broker = "sql"
    if request.param == "postgresql-rabbitmq":
        require_port(5672, "RabbitMQ")
        broker = RABBITMQ
    with postgresql_database() as url:
        yield {"database": url, "broker": broker}


def _mask_on(seg: pydicom.Dataset, volume: Volume) -> NDArray[np.bool_]:
    """Voxels of a SEG on the grid of a volume, by their positions in patient space."""
    found = hd.seg.Segmentation.from_dataset(seg).get_volume(
        combine_segments=True, skip_overlap_checks=True
    )
    labelled = np.argwhere(np.asarray(found.array) > 0)
    lps = found.map_indices_to_reference(labelled)
    ras = lps * [-1.0, -1.0, 1.0]
    indices = np.c_[ras, np.ones(len(ras))] @ np.linalg.inv(volume.affine).T
    rounded = np.rint(indices[:, :3]).astype(int)
    assert np.abs(indices[:, :3] - rounded).max() < 0.01, "the SEG is not on the source grid"
    mask = np.zeros(volume.array.shape, bool)
    mask[tuple(rounded.T)] = True
    return mask


def _volumes_of(sr: pydicom.Dataset) -> list[float]:
    """Every volume an SR states, ml."""
    found: list[float] = []

    def walk(item: Any) -> None:
        if (
            item.get("ValueType") == "NUM"
            and item.ConceptNameCodeSequence[0].CodeValue == "118565006"
        ):
            found.append(float(item.MeasuredValueSequence[0].NumericValue))
        for child in item.get("ContentSequence", ()):
            walk(child)

    walk(sr)
    return found


def test_a_bleed_comes_back_as_seg_report_and_picture(
    tmp_path: Path, servers: dict[str, Any]
) -> None:
    phantom = head_with_bleed()
    sources = write_study(phantom, tmp_path / "study")
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port, **servers)
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
            [job] = node.jobs()
        finally:
            node.stop()
        received = pacs.objects()

    assert job["state"] == "done", job
    assert received.keys() == {SEG, SR, SC}
    assert all(len(digests) == 1 for digests in pacs.digests.values())
    _check_truth(phantom.volume, phantom.labels > 0, received)
    _check_conformance(tmp_path, pacs.folder, sources)


def _check_truth(
    volume: Volume, truth: NDArray[np.bool_], received: dict[str, pydicom.FileDataset]
) -> None:
    mask = _mask_on(received[SEG], volume)
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    stated = _volumes_of(received[SR])

    assert dice > 0.8
    assert stated
    assert all(abs(value - mask.sum() * volume.voxel_ml) < 0.1 for value in stated)


def _check_conformance(tmp_path: Path, folder: Path, sources: list[Path]) -> None:
    by_class = {
        str(pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID): path
        for path in folder.glob("*.dcm")
    }
    assert by_class.keys() == {SEG, SR, SC}
    for path in by_class.values():
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert dciodvfy(path) == []
        if ds.SOPClassUID == SEG:
            out = tmp_path / "itk"
            out.mkdir()
            assert segimage2itkimage(path, out) == []
        if ds.SOPClassUID == SR:
            assert tid1500reader(path, tmp_path / "sr.json") == []
    first = pydicom.dcmread(sources[0], stop_before_pixels=True)
    for path in folder.glob("*.dcm"):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert ds.StudyInstanceUID == first.StudyInstanceUID
        assert ds.PatientID == first.PatientID


def test_the_report_says_absent_when_nothing_is_found(tmp_path: Path) -> None:
    write_study(head_without_bleed(), tmp_path / "study", seed=8)
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
        finally:
            node.stop()
        received = pacs.objects()

    assert received.keys() == {SR, SC}
    assert "Absent" in str(received[SR])


def test_orthanc_lists_the_results_under_the_source_study_and_proves_it_has_them(
    tmp_path: Path,
) -> None:
    sources = write_study(head_with_bleed(), tmp_path / "study")
    study_uid = str(pydicom.dcmread(sources[0], stop_before_pixels=True).StudyInstanceUID)
    port = free_port()
    with orthanc(tmp_path / "orthanc", port) as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port, port=port, confirm=True)
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
            checked = node.json("peers", "check", "PACS")
            deliveries = node.json("deliveries", "ls")
        finally:
            node.stop()
        [study] = pacs.get("/studies?expand")
        series = [pacs.get(f"/series/{one}") for one in study["Series"]]

    assert study["MainDicomTags"]["StudyInstanceUID"] == study_uid
    modalities = sorted(one["MainDicomTags"]["Modality"] for one in series)
    assert modalities == ["OT", "SEG", "SR"]
    assert {one["MainDicomTags"]["SeriesNumber"] for one in series} == {"9101", "9102", "9103"}
    assert [row["proof"] for row in deliveries] == ["commitment, find"] * 3
    assert {row["state"] for row in deliveries} == {"proved"}
    assert checked[0]["is_good"]


def test_real_series_are_scored_right_or_not_at_all_and_the_node_says_why(tmp_path: Path) -> None:
    folders = [
        shared("odd_and_broken", "dicom2nifti_gantrytilting"),
        shared("ct_head_phantom_philips_study", "dicom"),
        shared("t1_philips_whole_head_gm_ref", "dicom"),
    ]
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        node.start()
        try:
            for folder in folders:
                node.push(folder)
            node.wait_idle(series=4)
            jobs = node.jobs()
            series = node.json("series", "ls")
            t1 = next(one for one in series if one["modality"] == "MR")
            why = node.cli("explain", t1["series_instance_uid"]).stdout
            fragment = node.json("explain", _uid_of(folders[0]))
        finally:
            node.stop()

    assert pacs.objects() == {}
    assert {job["state"] for job in jobs} == {"not_scored"}
    assert all(job["sentence"] for job in jobs)
    assert "wants Modality CT, found MR" in " ".join(why.split())
    assert "slices" in fragment[0]["conclusion"]


def _uid_of(folder: Path) -> str:
    first = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    return str(pydicom.dcmread(first, stop_before_pixels=True).SeriesInstanceUID)


def test_own_results_that_come_back_are_kept_and_never_scored(tmp_path: Path) -> None:
    write_study(head_with_bleed(), tmp_path / "study")
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port, when="{ PatientID: { present: yes } }")
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
            node.push(tmp_path / "pacs")
            node.wait_idle(series=4)
            jobs = node.jobs()
        finally:
            node.stop()

    assert len(jobs) == 1


def test_a_study_pushed_twice_is_scored_once(tmp_path: Path) -> None:
    write_study(head_with_bleed(), tmp_path / "study")
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        node.start()
        try:
            node.push(tmp_path / "study")
            node.wait_idle()
            node.push(tmp_path / "study")
            node.wait_idle()
            [series] = node.json("series", "ls")
            jobs = node.jobs()
        finally:
            node.stop()

    assert len(jobs) == 1
    assert series["generation"] == 1
    assert all(len(digests) == 1 for digests in pacs.digests.values())
