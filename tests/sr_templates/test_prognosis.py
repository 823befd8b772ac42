"""A prognosis as report and page: what is said, with which code, and that it may leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from models.atlas import NAMES
from models.base import CasePrognosis, Findings, ModelIdentity, Number, Reason, UsedFeature
from models.dementia import SEGMENTS
from node.config.report_template import load_template
from pipelines.steps.artefacts import Scored, findings_summary, load_findings, save_findings
from sr_templates import prognosis_codes
from sr_templates.base import Maker
from sr_templates.check import problems
from sr_templates.described_report import described_report
from sr_templates.normalise import normalised
from sr_templates.outputs import PROGNOSIS_OUTPUTS, view
from sr_templates.prognosis_page import DECLINING, STABLE, prognosis_capture, prognosis_page
from sr_templates.prognosis_report import prognosis_report
from sr_templates.segmentation import segmentation
from sr_templates.sheet import MARGIN
from sr_templates.text_report import sentences
from tests.noise import dciodvfy, tid1500reader
from tests.phantoms import Shape, ball, ct_series, ct_volume
from tests.sr_templates.objects import MAKER, identity, save

TEMPLATES = Path(__file__).resolve().parents[2] / "docs" / "templates"
SHAPE = Shape(40, 44, 15, (4.0, 4.5, 9.0))
MMSE = UsedFeature(
    "mmse", "MMSE", "{score}", 25.0, 0.31, 27.9, 25.9, (24.0, 30.0),
    ("LN", "72106-8", "Total score [MMSE]"), "cognitive-scores", "2026-01-15", 45,
)  # fmt: skip
ADAS = UsedFeature(
    "adas_cog_13", "ADAS-Cog 13", "{score}", 16.4, 0.05, 14.0, 20.0, (5.0, 24.0), None, "imputed"
)
HIPPOCAMPI = UsedFeature(
    "hippocampus", "Hippocampi", "%", 0.41, 0.36, 0.5, 0.43, (0.42, 0.59),
    regions=("hippocampus_left", "hippocampus_right"),
)  # fmt: skip
CASE = CasePrognosis(
    projection=0.72,
    projection_interval=(0.55, 0.93),
    probability=0.81,
    probability_interval=(0.7, 0.9),
    outcome="declining",
    stable="stable MCI",
    declining="progressive MCI",
    threshold=0.5,
    features=(MMSE, ADAS, HIPPOCAMPI),
    reasons=(Reason("imputed", "Filled from the reference cohort: adas_cog_13."),),
    age_years=71.46,
    volumes_ml={"gm": 600.0, "wm": 500.0, "csf": 300.0, "icv": 1400.0}
    | {name: 10.0 + k for k, name in enumerate(NAMES)},
    population="a cohort that never was",
)
IDENTITY = ModelIdentity(
    "dementia-demo", "1.0.0", "Stable or progressive MCI", "demonstration", "c3" * 32, "d4" * 32,
    ("SCT", "386805003", "Mild cognitive disorder"), {"declining": "0.5"},
)  # fmt: skip
MADE_BY: Maker = replace(MAKER, model=IDENTITY)


def made(case: CasePrognosis = CASE) -> tuple[Findings, list[Dataset], Dataset, Dataset, Dataset]:
    """Findings, clean sources, SEG, SR and page."""
    sources = ct_series(SHAPE)
    volume = ct_volume(sources, SHAPE, np.abs(ct_volume(sources, SHAPE).array))
    labels = np.zeros(volume.array.shape, np.uint8)
    for number, radius in ((3, 66.0), (1, 60.0), (2, 40.0)):
        labels[ball(SHAPE, (0.0, 0.0, 0.0), (radius, radius, radius))] = number
    counts = np.bincount(labels.ravel(), minlength=4)
    volumes = [Number("volume", float(counts[k]) * volume.voxel_ml, "ml", k) for k in (1, 2, 3)]
    findings = Findings(labels, SEGMENTS, tuple(volumes), None, case)
    clean = normalised(sources)
    seg = segmentation(findings, volume, clean, identity("seg"), MADE_BY)
    assert seg is not None
    sr = prognosis_report(findings, clean, seg, identity("sr"), MADE_BY)
    page = prognosis_capture(findings, volume, clean, identity("capture"), MADE_BY)
    return findings, clean, seg, sr, page


@pytest.fixture(scope="module")
def objects() -> tuple[Findings, list[Dataset], Dataset, Dataset, Dataset]:
    return made()


def groups(sr: Dataset) -> dict[str, Dataset]:
    """Measurement Groups by the last word of their tracking identifier."""
    (container,) = [item for item in sr.ContentSequence if _name(item) == "126010"]
    return {
        str(next(i.TextValue for i in group.ContentSequence if _name(i) == "112039")): group
        for group in container.ContentSequence
    }


def numbers(group: Dataset) -> dict[str, Any]:
    return {
        item.ConceptNameCodeSequence[0].CodeMeaning: item
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def value(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


@pytest.mark.parametrize("threshold", [-7.0, 6.0])
def test_a_threshold_anywhere_stays_on_the_page(objects: Any, threshold: float) -> None:
    findings = replace(objects[0], prognosis=replace(CASE, threshold=threshold))
    volume = ct_volume(ct_series(SHAPE), SHAPE)

    pixels = prognosis_page(findings, volume, MADE_BY)

    for color in (STABLE, DECLINING):
        columns = np.flatnonzero((pixels == color).all(-1).any(0))
        assert columns.min() > MARGIN
        assert columns.max() < pixels.shape[1] - MARGIN


def test_report_segmentation_and_page_may_leave(objects: Any) -> None:
    _, clean, seg, sr, page = objects

    assert problems(seg, clean) == []
    assert problems(sr, clean, seg) == []
    assert problems(page, clean) == []


def test_the_score_has_interval_class_probability_and_cautions(objects: Any) -> None:
    group = groups(objects[3])["dementia-demo prognosis"]
    score = numbers(group)["GMLVQ scalar projection"]
    around = {_name(item): value(item) for item in score.ContentSequence}
    codes = {
        (item.ConceptNameCodeSequence[0].CodeMeaning, item.ConceptCodeSequence[0].CodeMeaning)
        for item in group.ContentSequence
        if item.ValueType == "CODE"
    }
    text = " ".join(item.TextValue for item in group.ContentSequence if item.ValueType == "TEXT")

    assert value(score) == 0.72
    assert around == pytest.approx({"371886008": 0.21, "371885007": 0.17})
    assert value(numbers(group)["Probability"]) == 0.81
    assert ("GMLVQ class", "Progressive") in codes
    assert ("Reason for caution", "A value was filled from the reference cohort") in codes
    assert "NOT FOR CLINICAL USE" in text
    assert "95 % interval 0.55 to 0.93" in text
    assert "MMSE +0.31, ADAS-Cog 13 +0.05, Hippocampi +0.36" in text
    assert "Training population: a cohort that never was" in text
    assert f"manifest-sha256={'c3' * 32}" in text


def test_scores_of_tables_have_their_code_date_and_source(objects: Any) -> None:
    group = groups(objects[3])["dementia-demo clinical inputs"]
    mmse = numbers(group)["Total score [MMSE]"]
    text = " ".join(item.TextValue for item in group.ContentSequence if item.ValueType == "TEXT")

    assert value(mmse) == 25
    assert mmse.ObservationDateTime == "20260115"
    assert "ADAS-Cog 13" not in numbers(group)
    assert "MMSE: table cognitive-scores, of 2026-01-15, 45 days before the study." in text
    assert "ADAS-Cog 13: not available, filled as 16.4." in text
    assert value(numbers(group)["Subject Age"]) == 71.5
    assert objects[3].CompletionFlag == "PARTIAL"


def test_volumes_have_their_region_and_side(objects: Any) -> None:
    group = groups(objects[3])["dementia-demo regional volumes"]
    found = {}
    for item in group.ContentSequence:
        if item.ValueType != "NUM":
            continue
        sites = [i for i in item.ContentSequence if _name(i) == "363698007"]
        side = sites[0].ContentSequence[0].ConceptCodeSequence[0].CodeMeaning if sites else ""
        where = sites[0].ConceptCodeSequence[0].CodeMeaning if sites else ""
        found[where, side] = value(item)

    assert found["", ""] == 600
    assert found["Hippocampus", "Left"] == 10
    assert found["Hippocampus", "Right"] == 11
    assert len(found) == 1 + len(NAMES)


def test_the_report_in_sentences_names_the_region_of_each_volume(objects: Any) -> None:
    lines = sentences(objects[3], MADE_BY)
    [regions] = [line for line in lines if line.startswith("Regional volumes")]

    assert "Volume, left hippocampus: 10.0 ml; Volume, right hippocampus: 11.0 ml" in regions
    assert regions.count("Volume: ") == 1, "grey matter of the whole brain"


def test_what_the_model_used_of_the_image_has_its_range(objects: Any) -> None:
    group = groups(objects[3])["dementia-demo image inputs"]
    (item,) = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    limits = [value(i) for i in item.ContentSequence if i.ValueType == "NUM"]

    assert value(item) == 0.41
    assert limits == [0.42, 0.59]


def test_every_reason_and_region_has_a_code() -> None:
    from models.dementia import UNDECIDED

    assert prognosis_codes.CAUTIONS.keys() >= UNDECIDED
    for code in (*prognosis_codes.CAUTIONS.values(), *prognosis_codes.SITES.values()):
        assert len(code[1]) <= 16
        assert len(code[2]) <= 64
    for region in NAMES:
        assert prognosis_codes.site(region) is not None


@pytest.mark.parametrize("outcome", ["stable", "declining", "undetermined"])
def test_a_page_is_drawn_for_every_outcome_and_any_projection(outcome: Any) -> None:
    findings, *_ = made(
        replace(CASE, outcome=outcome, projection=-3.2, projection_interval=(-4.0, -2.5))
    )
    volume = ct_volume(ct_series(SHAPE), SHAPE)

    pixels = prognosis_page(findings, volume, MADE_BY)

    assert pixels.shape[1:] == (1024, 3)
    assert pixels.shape[0] < 1500
    assert pixels.std() > 20


def test_the_foot_is_there_below_many_values_and_reasons(objects: Any) -> None:
    reason = Reason("indeterminate", "No class is probable enough to be named.")
    many = tuple(replace(MMSE, name=f"score{k}", label=f"Score {k}") for k in range(12))
    volume = ct_volume(ct_series(SHAPE), SHAPE)

    pixels = prognosis_page(
        replace(objects[0], prognosis=replace(CASE, features=many, reasons=(reason,) * 5)),
        volume,
        MADE_BY,
    )

    assert (pixels[-34:, MARGIN:].max(axis=2) > 150).any(axis=1).sum() > 8


def test_other_peoples_tools_read_the_report(objects: Any, tmp_path: Path) -> None:
    _, _, seg, sr, page = objects
    for name, ds in (("seg", seg), ("sr", sr), ("page", page)):
        path = save(ds, tmp_path / f"{name}.dcm")
        assert dciodvfy(path) == []
    assert tid1500reader(tmp_path / "sr.dcm", tmp_path / "o") == []


def test_a_sites_template_reads_what_the_pipeline_says(objects: Any) -> None:
    findings, clean, *_ = objects
    template = load_template(TEMPLATES / "dementia.yaml", PROGNOSIS_OUTPUTS)
    data = view(json.loads(json.dumps(findings_summary(Scored(findings, IDENTITY)))))

    sr = described_report(template, data, clean, None, identity("sr"), MADE_BY)

    assert problems(sr, clean, None, template.reviewed) == []
    said = numbers(groups(sr)["Prognosis"])
    assert value(said["GMLVQ scalar projection"]) == 0.72
    mmse = numbers(groups(sr)["Clinical inputs"])["Total score [MMSE]"]
    assert (value(mmse), mmse.ObservationDateTime) == (25, "20260115")
    assert "Progressive" in str(groups(sr)["Prognosis"])
    assert "adas_cog_13" not in data["inputs"]


def test_findings_with_a_prognosis_survive_the_way_through_a_file(
    objects: Any, tmp_path: Path
) -> None:
    findings = replace(objects[0], labels=None)
    volume = ct_volume(ct_series(SHAPE), SHAPE)
    save_findings(Scored(findings, IDENTITY), volume, tmp_path)

    again = load_findings(tmp_path)

    assert again.findings.prognosis == CASE
    assert again.identity == IDENTITY
