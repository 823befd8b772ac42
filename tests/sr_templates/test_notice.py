"""A reader is told that a study was not scored, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from sr_templates.base import ObjectIdentity, UnfitSource
from sr_templates.check import examine_own, problems
from sr_templates.normalise import normalised
from sr_templates.notice import MARKS, Notice, Status, fit_sources, status_report
from sr_templates.part10 import to_bytes
from sr_templates.text import render
from tests.noise import dciodvfy, dsrdump
from tests.phantoms import ct_series
from tests.sr_templates.objects import MAKER, ROOT, identity, save
from tests.tools import run

TILTED = Notice(
    "not_scored",
    "gantry_tilt",
    "The gantry was tilted by 21.5 degrees; at most 20 are allowed.",
    "Reconstruct the series without tilt and send it again.",
)
NOTICES: dict[Status, Notice] = {
    "not_scored": TILTED,
    "failed": Notice("failed", "step_failed", "The step infer failed three times."),
    "running": Notice("running", minutes=45),
    "scored": Notice("scored"),
}


def notice_of(status: Status, previous: Dataset | None = None) -> Dataset:
    return status_report(NOTICES[status], normalised(ct_series()), identity("sr"), MAKER, previous)


@pytest.mark.parametrize("status", NOTICES)
def test_a_notice_is_valid_and_readable(status: Status, tmp_path: Path) -> None:
    made = notice_of(status)
    path = save(made, tmp_path / "notice.dcm")

    assert examine_own(made, ct_series()) == []
    assert dciodvfy(path) == []
    said = run("dsrdump", "+U8", path)
    assert dsrdump(path) == []
    assert "Status of automatic analysis" in said.stdout
    assert made.SeriesDescription.startswith(MARKS[status])
    assert len(made.SeriesDescription) <= 64
    assert str(dcmread(path).PatientName) == "Müller^Jörg^^Dr."


def test_a_notice_says_what_why_and_what_to_do() -> None:
    text = render(notice_of("not_scored"))

    for sentence in (
        "Status: Not scored",
        "Looked for: Intracranial hemorrhage",
        "Conclusion: Intracranial haemorrhage: NOT SCORED. These images were not analysed",
        "Reason: The gantry was tilted by 21.5 degrees; at most 20 are allowed.",
        "Reason code: gantry_tilt",
        "No result is not a negative result",
        "What can be done: Reconstruct the series without tilt and send it again.",
        "NOT FOR CLINICAL USE",
    ):
        assert sentence in text


def test_a_running_job_says_for_how_long() -> None:
    made = notice_of("running")

    assert "NOT YET SCORED. The analysis is still running after 45 min." in render(made)
    assert "Time since the analysis began: 45.0 min" in render(made)
    assert made.CompletionFlag == "PARTIAL"


def test_no_notice_can_be_taken_for_a_finding() -> None:
    names = {
        item.ConceptNameCodeSequence[0].CodeValue
        for item in notice_of("not_scored").ContentSequence
    }

    assert not names & {"121071", "121052", "126010"}  # Finding, Presence, Measurements


def test_a_later_notice_names_the_one_it_replaces() -> None:
    first = notice_of("running")
    later = replace(identity("sr"), sop_instance_uid=f"{ROOT}92.2")

    made = status_report(NOTICES["scored"], normalised(ct_series()), later, MAKER, first)

    series = made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert problems(made, ct_series()) == []


def test_every_run_gives_the_same_bytes() -> None:
    assert to_bytes(notice_of("failed")) == to_bytes(notice_of("failed"))


def test_a_mixture_that_is_no_source_of_results_still_gets_its_notice() -> None:
    sources = ct_series()
    for ds in sources[:4]:
        ds.FrameOfReferenceUID = "1.2.3"
    with pytest.raises(UnfitSource):
        normalised(sources)

    some = fit_sources(sources)

    made = status_report(TILTED, some, identity("sr"), MAKER)
    assert len(some) == len(sources) - 4
    assert problems(made, some) == []


def test_images_of_which_none_has_its_uids_get_none() -> None:
    sources = ct_series()
    for ds in sources:
        del ds.StudyInstanceUID

    with pytest.raises(UnfitSource, match="has no StudyInstanceUID"):
        fit_sources(sources)


def test_a_reason_is_never_left_out() -> None:
    with pytest.raises(ValueError, match="needs a sentence that says why"):
        status_report(Notice("failed"), normalised(ct_series()), identity("sr"), MAKER)


def test_a_long_description_keeps_the_status() -> None:
    long = replace(identity("sr"), series_description="x" * 64)
    assert isinstance(long, ObjectIdentity)

    made = status_report(TILTED, normalised(ct_series()), long, MAKER)

    assert made.SeriesDescription.startswith("NOT SCORED: xxx")
    assert made.SeriesDescription.endswith("NOT FOR CLINICAL USE")
    assert len(made.SeriesDescription) <= 64


def test_an_own_document_of_an_unknown_title_is_held() -> None:
    made = notice_of("failed")
    made.ConceptNameCodeSequence[0].CodeValue = "OTHER"

    assert any("title" in item.rule for item in examine_own(made, ct_series()))
