from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from pydicom import config, dcmread
from pydicom.dataset import Dataset

from models.base import Findings, ModelIdentity, Number, Segment
from node.config.report_template import load_template
from pipelines.base import JobSpec, NotScored, SeriesLabel, StepContext
from pipelines.steps.artefacts import (
    Scored,
    load_findings,
    load_volume,
    save_findings,
    save_volume,
)
from pipelines.steps.read import read_series
from pipelines.steps.report import report
from pipelines.steps.results import LOSSY, NO_SEGMENTATION
from pipelines.steps.volume import volume_from_series
from sr_templates.checks.documents import evidence_of
from sr_templates.text import render
from tests.phantoms import Shape, ct_series, oblique
from tests.shared_data import shared

BLOOD = Segment(
    3,
    "Haemorrhage",
    ("SCT", "49755003", "Morphologically Abnormal Structure"),
    ("SCT", "50960005", "Hemorrhage"),
    ("SCT", "12738006", "Brain"),
    (230, 30, 30),
)
MODEL = ModelIdentity(
    "by-hand",
    "1.0.0",
    "Painted by a test",
    "demonstration",
    "a" * 64,
    "b" * 64,
    ("SCT", "1386000", "Intracranial hemorrhage"),
    {"threshold": "0.5"},
)
LABELS = {
    "sr": SeriesLabel(9001, "Haemorrhage report"),
    "seg": SeriesLabel(9002, "Haemorrhage segmentation"),
    "capture": SeriesLabel(9003, "Haemorrhage summary"),
}


def job(
    paths: Sequence[Path], folder: Path, *, present: bool = True, mask: slice = slice(4, 9)
) -> StepContext:
    """Return the context of a report step over a series whose findings a test has painted."""
    volume = volume_from_series(read_series(paths))
    labels = np.zeros(volume.array.shape, np.uint8)
    if present:
        labels[mask, 7:11, 2:4] = BLOOD.number
    ml = float((labels > 0).sum() * volume.voxel_ml)
    numbers = (
        Number("volume", ml, "ml"),
        Number("probability", 0.97 if present else 0.02, "1"),
        Number("volume", ml, "ml", BLOOD.number),
    )
    findings = Findings(labels, (BLOOD,), numbers if present else numbers[:2], present)
    for name in ("convert", "infer", "report"):
        (folder / name).mkdir(parents=True)
    save_volume(volume, folder / "convert")
    save_findings(Scored(findings, MODEL), volume, folder / "infer")
    spec = JobSpec(
        job_id=1,
        pipeline="haemorrhage",
        inputs=tuple(str(path) for path in paths),
        model="unused",
        idem_key="one key",
        uid_root="1.2.826.0.1.3680043.8.498.",
        station="test",
        frozen_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        labels=LABELS,
    )
    return StepContext(spec, folder / "report", folder, lambda fraction, note: None)


def write(series: Sequence[Dataset], folder: Path) -> list[Path]:
    folder.mkdir()
    for k, ds in enumerate(series):
        ds.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("orientation", [None, oblique()], ids=["axial", "oblique"])
def test_the_segmentation_read_back_is_the_mask_on_the_source_grid(
    orientation: tuple[float, ...] | None, tmp_path: Path
) -> None:
    shape = Shape(orientation=orientation) if orientation else Shape()
    context = job(write(ct_series(shape), tmp_path / "in"), tmp_path / "job")

    report(context)

    seg = hd.seg.segread(context.folder / "seg.dcm")
    found = seg.get_volume(combine_segments=True, skip_overlap_checks=True)
    points = np.argwhere(found.array > 0) @ found.affine[:3, :3].T + found.affine[:3, 3]
    volume = load_volume(tmp_path / "job" / "convert")
    labels = load_findings(tmp_path / "job" / "infer").findings.labels
    assert labels is not None
    voxels = np.argwhere(labels == BLOOD.number)
    wanted = voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    wanted *= (-1, -1, 1)
    assert len(points) == len(wanted) == 5 * 4 * 2
    order, same = np.lexsort(points.round(2).T), np.lexsort(wanted.round(2).T)
    assert np.abs(points[order] - wanted[same]).max() < 1e-2


def test_a_finding_gives_every_object_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job")
    (tmp_path / "again").mkdir()

    facts = report(context)
    report(replace(context, folder=tmp_path / "again"))

    names = {"seg.dcm", "sr.dcm", "capture.dcm", "capture.png", "findings.json"}
    assert {path.name for path in context.folder.iterdir()} == names
    for name in names:
        assert (context.folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for slot, uid in facts["results"].items():
        ds = dcmread(context.folder / f"{slot}.dcm")
        assert ds.SOPInstanceUID == uid
        assert ds.SeriesNumber == LABELS[slot].number
        assert ds.StudyInstanceUID == ct_series()[0].StudyInstanceUID
        assert "NOT FOR CLINICAL USE" in ds.SeriesDescription


def test_uids_change_with_the_key_of_the_job(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job")
    other = replace(context, spec=replace(context.spec, idem_key="another key"))

    first, second = report(context)["results"], report(other)["results"]

    assert not set(first.values()) & set(second.values())


def test_nothing_found_gives_no_segmentation_but_a_report_and_a_page(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job", present=False)

    facts = report(context)

    assert set(facts["results"]) == {"sr", "capture"}
    assert not (context.folder / "seg.dcm").exists()
    assert json.loads((context.folder / "findings.json").read_text())["present"] is False


def test_only_what_the_job_has_labels_for_is_made(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job")
    spec = replace(context.spec, labels={"sr": LABELS["sr"]})

    report(replace(context, spec=spec))

    names = {path.name for path in context.folder.iterdir()}
    assert names == {"sr.dcm", "findings.json"}


def test_the_summary_tells_numbers_model_and_uids(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job")

    facts = report(context)

    summary = json.loads((context.folder / "findings.json").read_text())
    assert summary["results"] == facts["results"]
    assert summary["model"]["sha256"] == MODEL.sha256
    assert summary["numbers"][0]["value"] == pytest.approx(40 * 3.25 * 3.5 * 9 / 1000, rel=1e-4)
    with Image.open(context.folder / "capture.png") as picture:
        assert picture.size[0] >= 512


def test_without_a_frame_of_reference_the_report_says_why_there_is_no_segmentation(
    tmp_path: Path,
) -> None:
    series = ct_series()
    for ds in series:
        del ds.FrameOfReferenceUID
    context = job(write(series, tmp_path / "in"), tmp_path / "job")

    facts = report(context)

    assert set(facts["results"]) == {"sr", "capture"}
    assert NO_SEGMENTATION in render(dcmread(context.folder / "sr.dcm"))


def test_a_localizer_is_no_source_of_a_result(tmp_path: Path) -> None:
    series = ct_series()
    localizer = deepcopy(series[3])
    localizer.SOPInstanceUID = "1.2.3.4"
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    paths = write(series, tmp_path / "in")
    context = job(paths, tmp_path / "job")
    more = tuple(map(str, [*paths, *write([localizer], tmp_path / "more")]))
    context = replace(context, spec=replace(context.spec, inputs=more))

    facts = report(context)

    assert set(facts["results"]) == {"seg", "sr", "capture"}
    assert "1.2.3.4" not in evidence_of(dcmread(context.folder / "sr.dcm"))


def test_the_summary_tells_what_was_repaired_without_its_values(tmp_path: Path) -> None:
    series = ct_series()
    with config.disable_value_validation():
        for ds in series:
            del ds.PatientSex
            ds.PatientSex = "x"
            del ds.StudyID
    context = job(write(series, tmp_path / "in"), tmp_path / "job")

    report(context)

    summary = json.loads((context.folder / "findings.json").read_text())
    assert summary["repaired"] == [
        "PatientSex: unreadable, left empty",
        "StudyID: missing, added empty",
    ]


def described(context: StepContext, name: str = "haemorrhage") -> StepContext:
    """Give a job a template of the manual, as its JSON keeps it."""
    template = load_template(Path(__file__).parents[2] / f"docs/templates/{name}.yaml")
    spec = replace(context.spec, report_template=template.to_json())
    return replace(context, spec=JobSpec.from_json(spec.to_json()))


def test_the_report_says_that_images_were_compressed_with_loss(tmp_path: Path) -> None:
    sources = ct_series()
    for ds in sources:
        ds.LossyImageCompression = "01"
    context = job(write(sources, tmp_path / "in"), tmp_path / "job")

    report(context)

    assert f"Comment: {LOSSY}" in render(dcmread(context.folder / "sr.dcm"))


def test_the_report_says_whether_all_images_had_come(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job")
    told = "IMAGES WERE MISSING when this was scored: 20 of 34 images have come."

    report(replace(context, spec=replace(context.spec, completion=told)))

    assert f"Comment: {told}" in render(dcmread(context.folder / "sr.dcm"))


def test_a_job_with_a_template_writes_the_report_it_describes(tmp_path: Path) -> None:
    context = described(job(write(ct_series(), tmp_path / "in"), tmp_path / "job"))

    facts = report(context)

    text = render(dcmread(context.folder / "sr.dcm"))
    assert set(facts["results"]) == {"seg", "sr", "capture"}
    assert "Comment: Compare with the images; small bleeds can be missed." in text
    assert "Probability: 0.97" in text
    assert "Referenced Segment" in text


def test_a_job_outlines_what_its_template_wants_outlined(tmp_path: Path) -> None:
    shape = Shape(spacing=(3.25, 3.25, 9.0))
    sources = write(ct_series(shape), tmp_path / "in")
    context = described(job(sources, tmp_path / "job"), "outlined")

    report(context)

    text = render(dcmread(context.folder / "sr.dcm"))
    assert "Image Region: POLYLINE" in text
    assert "Image Library" in text
    assert "Referenced Segment" not in text


def test_findings_that_do_not_fit_the_template_are_not_scored(tmp_path: Path) -> None:
    context = job(write(ct_series(), tmp_path / "in"), tmp_path / "job")
    path = tmp_path / "narrow.yaml"
    manual = Path(__file__).parents[2] / "docs/templates/haemorrhage.yaml"
    path.write_text(manual.read_text().replace("[0, 1]", "[0, 0.5]"))
    spec = replace(context.spec, report_template=load_template(path).to_json())

    with pytest.raises(NotScored, match=r"study.probability = 0.97 is outside 0 to 0.5") as told:
        report(replace(context, spec=spec))

    assert told.value.reason == "template_mismatch"


def test_an_enhanced_instance_gets_a_segmentation_too(tmp_path: Path) -> None:
    paths = sorted(shared("t1_siemens_xa30_enhanced", "dicom").iterdir())
    context = job(paths, tmp_path / "job", mask=slice(60, 64))

    report(context)

    seg = hd.seg.segread(context.folder / "seg.dcm")
    assert int((seg.pixel_array > 0).sum()) == 4 * 4 * 2
    assert seg.FrameOfReferenceUID == dcmread(paths[0]).FrameOfReferenceUID


def test_findings_and_volume_are_read_back_as_they_were(tmp_path: Path) -> None:
    job(write(ct_series(Shape(orientation=oblique())), tmp_path / "in"), tmp_path / "job")

    volume = load_volume(tmp_path / "job" / "convert")
    scored = load_findings(tmp_path / "job" / "infer")

    assert scored.identity == MODEL
    assert scored.findings.segments == (BLOOD,)
    assert scored.findings.number("probability") == 0.97
    assert scored.findings.labels is not None
    assert scored.findings.labels.shape == volume.array.shape
    assert volume.facts["slices"] == 17
