"""The steps of the pipeline dementia that need no segmentation: age, scores, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.base import Volume
from models.catalogue import find_package
from pipelines.base import JobSpec, Misconfigured, Verdict
from pipelines.offline import default_labels
from pipelines.phantom_series import write_mr_series
from pipelines.steps.identity import object_identity
from pipelines.steps.infer import warm_predictor
from pipelines.steps.prognosis import age_years, has_contrast_medium, scores_of, warm_prognosis
from pipelines.steps.run import run_step
from tests.shared_data import shared
from tests.sr_templates.objects import MODEL

ROW = {
    "table": "scores",
    "values": {"mmse": 27.0, "remark": "tired"},
    "units": {"mmse": "{score}"},
    "date": "2024-12-01",
    "age_days": 31,
}


def job(paths: Sequence[Path], rows: dict[str, Any]) -> JobSpec:
    return JobSpec(
        job_id=1,
        pipeline="dementia",
        inputs=tuple(str(path) for path in paths),
        model=str(find_package("dementia-demo", ())),
        idem_key="one key",
        uid_root="1.2.826.0.1.3680043.8.498.",
        station="test",
        frozen_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        labels={str(slot): label for slot, label in default_labels("dementia").items()},
        rows=rows,
    )


def run(spec: JobSpec, folder: Path) -> Verdict:
    """Convert, and infer where that ended well."""
    for step in ("convert", "infer"):
        verdict = run_step(spec, step, folder, lambda fraction, note: None)
        if verdict.outcome != "ok":
            break
    return verdict


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series as large as a head, with nothing like one in it."""
    array = np.random.default_rng(1).uniform(0, 900, (40, 40, 30)).astype(np.float32)
    affine = np.diag([5.0, 5.0, 6.0, 1.0])
    return write_mr_series(Volume(array, affine), tmp_path_factory.mktemp("block"), seed=1)


@pytest.mark.parametrize(
    ("attributes", "age"),
    [
        ({"PatientBirthDate": "19500101", "StudyDate": "20250101"}, 75.0),
        ({"PatientAge": "072Y"}, 72.0),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientBirthDate": "19500101", "PatientAge": "080Y"}, 80.0),
        ({"PatientBirthDate": "20260101", "StudyDate": "20250101"}, None),
        ({"PatientBirthDate": "1950", "StudyDate": "20250101", "PatientAge": "old"}, None),
        ({}, None),
    ],
)
def test_age_is_told_from_dates_or_as_the_scanner_wrote_it(
    attributes: dict[str, str], age: float | None
) -> None:
    ds = Dataset()
    for keyword, value in attributes.items():
        ds.add_new(keyword, "LO", value)

    found = age_years(ds)

    assert found == (None if age is None else pytest.approx(age, abs=0.01))


def test_numbers_of_rows_are_scores_and_remarks_are_not() -> None:
    found = scores_of(
        {"a": ROW, "b": None, "c": {"rule": "other", "job_id": 3, "results": {}}}, {"mmse"}
    )

    assert found.keys() == {"mmse"}
    assert (found["mmse"].value, found["mmse"].unit) == (27.0, "{score}")
    assert (found["mmse"].date, found["mmse"].days_before) == ("2024-12-01", 31)


def test_two_tables_with_one_field_hold_the_job_for_the_admin() -> None:
    with pytest.raises(Misconfigured, match="scores and other both have a field mmse"):
        scores_of({"a": ROW, "b": ROW | {"table": "other"}}, {"mmse"})


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({}, "required_missing"),
        ({"a": ROW | {"values": {"mmse": 31.0}}}, "score_out_of_range"),
        ({"a": ROW | {"values": {"mmse": ""}}}, "required_missing"),
        ({"a": ROW | {"values": {"mmse": "27, tired"}}}, "score_not_a_number"),
        ({"a": ROW | {"values": {"mmse": 27.0, "adas_cog_13": "14,5"}}}, "score_not_a_number"),
    ],
)
def test_without_a_usable_score_nothing_is_scored(
    block: list[Path], rows: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    verdict = run(job(block, rows), tmp_path)

    assert (verdict.outcome, verdict.reason) == ("not_scored", reason)
    assert "mmse" in verdict.sentence or "adas_cog_13" in verdict.sentence
    assert "14,5" not in verdict.sentence


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PatientBirthDate": ""}, "no_age"),
        ({"ContrastBolusAgent": "Gadobutrol"}, "contrast_medium"),
    ],
)
def test_images_with_a_header_that_forbids_it_are_not_scored(
    block: list[Path], tmp_path: Path, attributes: dict[str, str], reason: str
) -> None:
    copies = []
    for path in block:
        ds = dcmread(path)
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        copies.append(tmp_path / path.name)
        ds.save_as(copies[-1])

    verdict = run(job(copies, {"a": ROW}), tmp_path / "job")

    assert (verdict.outcome, verdict.reason) == ("not_scored", reason)
    assert verdict.sentence.endswith(".")


@pytest.mark.parametrize(
    ("agent", "is_told"), [("Gadobutrol", True), (" none ", False), ("NO", False), (None, False)]
)
def test_contrast_medium_is_told_by_its_agent(agent: str | None, is_told: bool) -> None:
    ds = Dataset()
    assert not has_contrast_medium(ds)
    ds.ContrastBolusAgent = agent
    assert has_contrast_medium(ds) == is_told
    ds.ContrastBolusAgentSequence = [Dataset()]
    assert has_contrast_medium(ds)


def test_a_model_of_another_kind_holds_the_job() -> None:
    with pytest.raises(Misconfigured, match="cannot be used"):
        warm_prognosis(str(find_package("haemorrhage-demo", ())))
    with pytest.raises(Misconfigured, match="cannot be used"):
        warm_predictor(str(find_package("dementia-demo", ())))


@pytest.mark.parametrize(
    "parts",
    [
        ("mr_multiecho_phantom_siemens", "dicom"),
        ("mr_study_with_hippocampus_crop", "dicom", "11_HCropVolume"),
        ("ct_head_phantom_philips_study", "dicom", "S2010"),
    ],
    ids=["bottle", "hippocampus crop", "skull phantom"],
)
def test_real_series_that_are_no_t1_head_are_refused_with_a_sentence(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    files = [path for path in sorted(shared(*parts).rglob("*")) if path.is_file()]

    verdict = run(job(files, {"a": ROW}), tmp_path)

    assert verdict.outcome == "not_scored"
    assert verdict.sentence.endswith(".")


def test_a_corrected_row_makes_other_objects_and_no_row_changes_nothing() -> None:
    plain, first, second = (
        object_identity(job([], rows), "sr", MODEL).sop_instance_uid
        for rows in ({}, {"a": ROW}, {"a": ROW | {"values": {"mmse": 26.0}}})
    )

    assert len({plain, first, second}) == 3
    assert object_identity(job([], {"a": ROW}), "sr", MODEL).sop_instance_uid == first
