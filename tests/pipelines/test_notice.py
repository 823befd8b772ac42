"""The step that writes a notice: from images as they are, also damaged ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from models.catalogue import BUILT_IN
from models.package import load_package
from pipelines.base import JobSpec, SeriesLabel, Verdict
from pipelines.steps.run import run_step
from sr_templates.text import render
from tests.noise import dciodvfy
from tests.peers import part10
from tests.phantoms import ct_series

SAID = {
    "status": "not_scored",
    "reason": "missing_slices",
    "sentence": "2 images missing from the stack: no image at z = -32.5 mm.",
    "minutes": 3,
    "earlier": "",
    "model_name": "haemorrhage-demo",
}


def _model() -> dict[str, Any]:
    identity = load_package(BUILT_IN / "haemorrhage-demo").identity
    return {**vars(identity), "parameters": dict(identity.parameters)}


def _spec(folder: Path, **said: Any) -> JobSpec:
    paths = [
        part10(ds, folder / f"{number}.dcm").path for number, ds in enumerate(ct_series(), start=1)
    ]
    return JobSpec(
        job_id=1,
        pipeline="notice",
        inputs=tuple(map(str, paths)),
        model="",
        idem_key="a" * 64,
        uid_root="1.2.826.0.1.3680043.8.498.",
        station="test",
        frozen_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        labels={"sr": SeriesLabel(9101, "AI ICH"), "capture": SeriesLabel(9103, "AI ICH")},
        notice=SAID | {"model": _model()} | said,
    )


def _run(spec: JobSpec, folder: Path) -> Verdict:
    return run_step(spec, "report", folder, lambda fraction, note: None)


def test_a_reader_gets_a_report_and_a_page(tmp_path: Path) -> None:
    verdict = _run(_spec(tmp_path), tmp_path)

    assert (verdict.outcome, verdict.sentence) == ("ok", "")
    assert verdict.facts["intended_use"] == "demonstration"
    report, page = (dcmread(tmp_path / "report" / f"{slot}.dcm") for slot in ("sr", "capture"))
    assert "Reason: 2 images missing from the stack" in render(report)
    assert page.SOPClassUID == SecondaryCaptureImageStorage
    assert page.Columns == 1024
    for ds in (report, page):
        assert ds.SeriesDescription.startswith("NOT SCORED: AI ICH")
        assert ds.StudyInstanceUID == ct_series()[0].StudyInstanceUID
        assert dciodvfy(tmp_path / "report" / ("sr.dcm" if ds is report else
                                                       "capture.dcm")) == []  # fmt: skip


def test_the_same_notice_has_the_same_bytes(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    made = []
    for place in ("a", "b"):
        _run(spec, tmp_path / place)
        made.append((tmp_path / place / "report" / "sr.dcm").read_bytes())

    assert made[0] == made[1]


def test_damaged_images_do_not_stand_in_its_way(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    Path(spec.inputs[0]).write_bytes(b"no DICOM")

    assert _run(spec, tmp_path).outcome == "ok"


def test_without_any_readable_image_there_is_no_notice(tmp_path: Path) -> None:
    spec = _spec(tmp_path)
    for path in spec.inputs:
        Path(path).write_bytes(b"no DICOM")

    verdict = _run(spec, tmp_path)

    assert (verdict.outcome, verdict.reason) == ("not_scored", "unfit_source")


def test_a_missing_model_is_told_by_its_name(tmp_path: Path) -> None:
    spec = _spec(tmp_path, model=None, status="failed", sentence="The model cannot be used.")

    verdict = _run(spec, tmp_path)

    assert (verdict.outcome, verdict.sentence) == ("ok", "")
    text = render(dcmread(tmp_path / "report" / "sr.dcm"))
    assert "haemorrhage-demo: NOT SCORED. The analysis of these images failed." in text


def test_a_later_notice_names_the_earlier_one(tmp_path: Path) -> None:
    first = _spec(tmp_path, status="running", sentence="", minutes=30)
    _run(first, tmp_path / "first")
    earlier = tmp_path / "first" / "report" / "sr.dcm"
    said = {"status": "scored", "earlier": str(earlier)}
    later = replace(first, idem_key="b" * 64, notice=SAID | {"model": _model()} | said)

    verdict = _run(later, tmp_path / "later")

    assert (verdict.outcome, verdict.sentence) == ("ok", "")
    made = dcmread(tmp_path / "later" / "report" / "sr.dcm")
    named = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    uid = named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert uid == dcmread(earlier).SOPInstanceUID


@pytest.mark.parametrize("status", ["not_scored", "failed", "running", "scored"])
def test_every_status_has_a_page(tmp_path: Path, status: str) -> None:
    from sr_templates.notice import Notice
    from sr_templates.notice_page import notice_page
    from tests.sr_templates.objects import MAKER

    page = notice_page(Notice(status, "a_reason", "A sentence. " * 40, "Ask.", 31), MAKER)  # type: ignore[arg-type]

    assert page.shape[1:] == (1024, 3)
    assert 400 < page.shape[0] < 1400
