"""An administrator's template and a model's output make a report that others read."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.config.report_template import load_template
from pipelines.steps.artefacts import Scored, findings_summary
from sr_templates.check import examine_own
from sr_templates.described import ReportTemplate, TemplateMismatch
from sr_templates.described_report import described_report
from sr_templates.outputs import SEGMENTATION_OUTPUTS, outputs_of, undeclared, view
from sr_templates.part10 import to_bytes
from sr_templates.preview import preview
from sr_templates.text import render
from sr_templates.text_report import sentences
from tests.noise import dciodvfy, dsrdump, tid1500reader
from tests.sr_templates.further import SQUARE
from tests.sr_templates.objects import MAKER, MODEL, PHANTOM, Case, bleeds, case, identity, save
from tests.sr_templates.test_contours import filled

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates"
PROGNOSIS = {
    "volumes": {"grey_matter_ml": 612.34},
    "inputs": {"mmse": 27, "mmse_date": "2026-02-14"},
    "projection": -0.4567,
    "class": "progressive",
}


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.fixture(scope="module")
def haemorrhage() -> ReportTemplate:
    return load_template(TEMPLATES / "haemorrhage.yaml", SEGMENTATION_OUTPUTS)


@pytest.fixture(scope="module")
def square() -> Case:
    return case(SQUARE)


@pytest.fixture(scope="module")
def outlined() -> ReportTemplate:
    return load_template(TEMPLATES / "outlined.yaml", SEGMENTATION_OUTPUTS)


@pytest.fixture(scope="module")
def dementia() -> ReportTemplate:
    return load_template(TEMPLATES / "dementia.yaml", outputs_of(PROGNOSIS))


def output_of(made: Case) -> dict[str, Any]:
    data = json.loads(json.dumps(findings_summary(Scored(made.findings, MODEL))))
    return view(data)


def report_of(template: ReportTemplate, data: dict[str, Any], made: Case) -> Dataset:
    return described_report(template, data, made.clean, made.seg, identity("sr"), MAKER)


def test_a_segmentation_model_needs_no_python_for_its_report(
    made: Case, haemorrhage: ReportTemplate, tmp_path: Path
) -> None:
    sr = report_of(haemorrhage, output_of(made), made)
    path = save(sr, tmp_path / "sr.dcm")

    assert examine_own(sr, made.sources, made.seg) == []
    assert dciodvfy(path) == []
    assert tid1500reader(path, tmp_path / "sr.json") == []
    read = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    volumes = [float(group["measurementItems"][0]["value"]) for group in read[-2:]]
    assert volumes == [round(made.findings.number("volume", n), 1) for n in (1, 3)]
    assert render(dcmread(path)).count("Measurement Group") == 3


def test_a_planar_group_outlines_each_segment_where_it_is_largest(
    square: Case, outlined: ReportTemplate, tmp_path: Path
) -> None:
    sr = report_of(outlined, output_of(square), square)
    path = save(sr, tmp_path / "sr.dcm")
    report: Any = hd.sr.ComprehensiveSR.from_dataset(dcmread(path))
    groups = report.content.get_planar_roi_measurement_groups()

    assert examine_own(sr, square.sources, square.seg) == []
    assert (dciodvfy(path), dsrdump(path)) == ([], [])
    labels = bleeds(SQUARE)
    places = {str(ds.SOPInstanceUID): int(ds.InstanceNumber) for ds in square.sources}
    assert len(groups) == 2
    for number, item, group in zip(
        (1, 3), square.segmentation.SegmentSequence, groups, strict=True
    ):
        [image] = group.roi.ContentSequence
        place = SQUARE.slices - places[image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
        areas = (labels == number).sum(axis=(0, 1))
        assert areas[place] == areas.max()
        mask = filled([group.roi.value - 0.5], (SQUARE.rows, SQUARE.columns))
        assert np.array_equal(mask.T, labels[:, :, place] == number)
        values = {one.name.meaning: one.value for one in group.get_measurements()}
        assert values["Area"] == pytest.approx(areas.max() * 3.25**2, abs=0.05)
        assert values["Volume"] == round(square.findings.number("volume", number), 1)
        assert group.tracking_uid == item.TrackingUID


def library_of(sr: Dataset) -> list[str]:
    """UIDs of the images that a report describes."""
    [library] = [item for item in items_of(sr) if _named(item) == "111028"]
    images = [item for item in items_of(library) if item.ValueType == "IMAGE"]
    return [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in images]


def test_a_library_describes_the_images_that_are_outlined_and_no_others(
    square: Case, outlined: ReportTemplate
) -> None:
    sr = report_of(outlined, output_of(square), square)

    shown = [item for item in items_of(sr) if item.ValueType == "SCOORD"]
    uids = {
        str(i.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for i in shown
    }
    assert set(library_of(sr)) == uids
    assert len(library_of(sr)) == len(uids) < len(square.sources)
    [first, *_] = (ds for ds in square.clean if ds.SOPInstanceUID in uids)
    assert f"Image Position (Patient) Z: {float(first.ImagePositionPatient[2])} mm" in render(sr)
    assert f"Pixel Data Rows: {float(SQUARE.rows)} {{pixels}}" in render(sr)


def test_a_library_describes_every_image_that_a_segment_lies_on(
    made: Case, haemorrhage: ReportTemplate
) -> None:
    wanted = replace(haemorrhage, image_library=True)

    sr = report_of(wanted, output_of(made), made)

    marked = bleeds(PHANTOM).any(axis=(0, 1))
    assert len(library_of(sr)) == marked.sum()
    assert examine_own(sr, made.sources, made.seg) == []


def test_there_is_no_library_where_none_is_wanted_or_nothing_is_referred_to(
    made: Case, haemorrhage: ReportTemplate, dementia: ReportTemplate
) -> None:
    wanted = replace(dementia, image_library=True)

    without = report_of(haemorrhage, output_of(made), made)
    empty = report_of(wanted, PROGNOSIS, without_segmentation(made))

    assert "Image Library" not in render(without)
    assert "Image Library" not in render(empty)
    assert examine_own(empty, made.sources, None, dementia.reviewed) == []


def test_a_report_of_outlines_is_judged_without_the_segmentation_it_was_made_from(
    square: Case, outlined: ReportTemplate
) -> None:
    sr = report_of(outlined, output_of(square), square)

    assert examine_own(sr, square.sources) == []


def test_where_outlines_would_be_misplaced_a_group_refers_to_its_segment_and_says_so(
    made: Case, outlined: ReportTemplate
) -> None:
    sr = report_of(outlined, output_of(made), made)

    assert "SCOORD" not in {str(item.get("ValueType")) for item in items_of(sr)}
    assert render(sr).count("Comment: Not outlined: the pixels are not square") == 2
    assert examine_own(sr, made.sources, made.seg) == []


def test_where_nothing_is_marked_an_image_group_says_so(outlined: ReportTemplate) -> None:
    nothing = case(SQUARE, labels=np.zeros_like(bleeds(SQUARE)))
    assert nothing.seg is None

    sr = report_of(outlined, output_of(nothing), nothing)

    assert "Presence of property: Absent" in render(sr)
    assert render(sr).count("Measurement Group") == 1
    assert examine_own(sr, nothing.sources) == []
    with pytest.raises(TemplateMismatch, match=r"one of kind image .* is always written"):
        report_of(replace(outlined, groups=outlined.groups[1:]), output_of(nothing), nothing)


def test_an_outline_of_another_structure_is_found_by_the_checker(
    square: Case, outlined: ReportTemplate
) -> None:
    sr = report_of(outlined, output_of(square), square)
    uids = [item for item in items_of(sr) if item.get("ValueType") == "UIDREF"]
    _, first, second = (item for item in uids if _named(item) == "112040")
    first.UID, second.UID = second.UID, first.UID

    assert {one.rule for one in examine_own(sr, square.sources, square.seg)} == {"volume_differs"}
    first.UID = "1.2.3"
    assert "segment_unreported" in {one.rule for one in examine_own(sr, square.sources, square.seg)}


def _named(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def items_of(ds: Dataset) -> list[Dataset]:
    """All content items of a document."""
    found = []
    for item in ds.get("ContentSequence") or ():
        found += [item, *items_of(item)]
    return found


def test_the_report_cites_its_template(made: Case, haemorrhage: ReportTemplate) -> None:
    text = render(report_of(haemorrhage, output_of(made), made))

    assert f"template=Haemorrhage report 1 {haemorrhage.digest}" in text
    assert "Comment: NOT FOR CLINICAL USE" in text
    assert "Comment: Compare with the images; small bleeds can be missed." in text


def test_every_run_gives_the_same_bytes(made: Case, haemorrhage: ReportTemplate) -> None:
    first, second = (report_of(haemorrhage, output_of(made), made) for _ in range(2))

    assert to_bytes(first) == to_bytes(second)


def test_a_template_survives_the_json_of_a_job(
    haemorrhage: ReportTemplate, dementia: ReportTemplate
) -> None:
    for template in (haemorrhage, dementia):
        assert ReportTemplate.from_json(json.loads(json.dumps(template.to_json()))) == template


def test_a_template_of_a_job_that_was_opened_earlier_is_still_read(
    haemorrhage: ReportTemplate,
) -> None:
    kept = haemorrhage.to_json()
    del kept["image_library"]
    for group in kept["groups"]:
        del group["texts"]

    assert ReportTemplate.from_json(json.loads(json.dumps(kept))) == haemorrhage


def without_segmentation(made: Case) -> Case:
    return Case(made.sources, made.clean, made.volume, made.findings, None, made.sr)


def test_codes_of_the_site_and_reviewed_ones_pass_the_checker(
    made: Case, dementia: ReportTemplate, tmp_path: Path
) -> None:
    sr = report_of(dementia, PROGNOSIS, without_segmentation(made))

    assert examine_own(sr, made.sources, None, dementia.reviewed) == []
    assert dciodvfy(save(sr, tmp_path / "sr.dcm")) == []
    scheme = sr.CodingSchemeIdentificationSequence[0]
    assert scheme.CodingSchemeDesignator == "99EXAMPLE"
    assert "GMLVQ class: Progressive" in render(sr)
    assert sr.CompletionFlag == "COMPLETE"


def test_a_code_that_only_the_site_looked_up_passes_with_its_template_only(
    made: Case, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        """
template: Own
version: "1"
local_codes:
  - {code: [SCT, "999999999", "Looked up"], source: a browser, reviewed: 2026-11-28}
groups:
  - {id: a, kind: image, finding: [SCT, "999999999", "Looked up"]}
"""
    )
    template = load_template(path)

    sr = report_of(template, {}, without_segmentation(made))

    assert {item.rule for item in examine_own(sr, made.sources)} == {"code_unknown"}
    assert examine_own(sr, made.sources, None, template.reviewed) == []


def test_a_score_bears_the_date_of_its_test(made: Case, dementia: ReportTemplate) -> None:
    sr = report_of(dementia, PROGNOSIS, without_segmentation(made))

    found = [item for item in sr.iterall() if item.keyword == "ObservationDateTime"]
    assert [item.value for item in found] == ["20260214"]


@pytest.mark.parametrize("missing", [{"mmse": None}, {}], ids=["null", "absent"])
def test_a_missing_score_makes_a_partial_report_that_says_so(
    made: Case, dementia: ReportTemplate, missing: dict[str, Any]
) -> None:
    sr = report_of(dementia, PROGNOSIS | {"inputs": missing}, without_segmentation(made))

    assert sr.CompletionFlag == "PARTIAL"
    assert "Comment: Total score [MMSE]: not available." in render(sr)
    assert examine_own(sr, made.sources, None, dementia.reviewed) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"projection": "high"}, "group prognosis: projection is str, wanted a number"),
        ({"projection": True}, "group prognosis: projection is bool, wanted a number"),
        ({"class": "better"}, r"class = better is not in its map \(stable, progressive"),
        ({"volumes": {}}, "no volumes.grey_matter_ml .grey_matter_ml is not there"),
        ({"volumes": {"grey_matter_ml": 2500}}, "= 2500 is outside 0 to 2000"),
        ({"inputs": {"mmse": 27, "mmse_date": "in May"}}, "mmse_date is no date"),
        ({"inputs": {"mmse": 27, "mmse_date": "2026-13-01"}}, "mmse_date is no date"),
        ({"projection": float("nan")}, "projection is no number a report can hold"),
        ({"projection": -float("inf")}, "projection is no number a report can hold"),
        ({"projection": 10**400}, "projection is no number a report can hold"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(
    made: Case, dementia: ReportTemplate, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TemplateMismatch, match=sentence):
        report_of(dementia, PROGNOSIS | change, without_segmentation(made))


SAYING = """\
template: Saying
version: "1"
groups:
  - id: a
    kind: image
    finding: [SCT, "12738006", "Brain"]
    texts:
      - { name: [DCM, "121077", "Conclusion"], value: said }
      - { name: [DCM, "121106", "Comment"], value: more, if_missing: comment }
"""


@pytest.fixture
def saying(tmp_path: Path) -> ReportTemplate:
    path = tmp_path / "saying.yaml"
    path.write_text(SAYING)
    return load_template(path, outputs_of({"said": "a", "more": None}))


def test_a_text_of_the_model_stands_in_the_group(
    made: Case, saying: ReportTemplate, tmp_path: Path
) -> None:
    case = without_segmentation(made)
    sr = report_of(saying, {"said": " Blut im Schädel.\nKein Shift. ", "more": "Wenig."}, case)
    path = save(sr, tmp_path / "sr.dcm")

    assert examine_own(sr, made.sources) == []
    assert (dciodvfy(path), dsrdump(path)) == ([], [])
    said = {_named(item): item for item in items_of(dcmread(path)) if item.ValueType == "TEXT"}
    assert said["121077"].TextValue == "Blut im Schädel.\nKein Shift."
    assert said["121077"].RelationshipType == "CONTAINS"
    assert "Comment: Wenig." in render(sr)
    [line, *_] = sentences(sr, MAKER)
    assert line == "Saying a. Conclusion: Blut im Schädel.\nKein Shift."
    assert sr.CompletionFlag == "COMPLETE"
    assert ReportTemplate.from_json(json.loads(json.dumps(saying.to_json()))) == saying


def test_a_text_that_is_empty_or_missing(made: Case, saying: ReportTemplate) -> None:
    case = without_segmentation(made)
    empty = report_of(saying, {"said": "  ", "more": ""}, case)
    missing = report_of(saying, {"said": "a"}, case)

    assert "Conclusion" not in render(empty)
    assert (empty.CompletionFlag, missing.CompletionFlag) == ("COMPLETE", "PARTIAL")
    assert "Comment: Comment: not available." in render(missing)
    assert examine_own(empty, made.sources) == examine_own(missing, made.sources) == []


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (7, "group a: said is int, wanted a text"),
        (None, "group a: said is NoneType, wanted a text"),
        ("a\0b", "group a: said holds a control character"),
        ("Universit?t", "group a: said holds question marks in place of letters"),
    ],
)
def test_a_text_that_no_report_can_hold_is_refused(
    made: Case, saying: ReportTemplate, said: object, sentence: str
) -> None:
    with pytest.raises(TemplateMismatch, match=sentence):
        report_of(saying, {"said": said}, without_segmentation(made))


def test_a_research_template_cannot_make_a_product_of_a_demonstration(made: Case) -> None:
    template = load_template(TEMPLATES / "haemorrhage.yaml")
    product = ReportTemplate(**(vars(template) | {"qualification": "PRODUCT"}))

    assert report_of(product, output_of(made), made).ContentQualification == "RESEARCH"


def test_the_preview_shows_the_tree_without_a_study(
    made: Case, haemorrhage: ReportTemplate
) -> None:
    data = json.loads(json.dumps(findings_summary(Scored(made.findings, MODEL))))

    text = preview(haemorrhage, data)

    assert text.startswith("All UIDs are placeholders.")
    assert text.count("Measurement Group") == 3
    assert "Device Observer Model Name: haemorrhage-demo" in text
    assert "Presence of property: Present" in text


def test_the_preview_of_an_outline_says_that_it_is_none(
    square: Case, outlined: ReportTemplate, haemorrhage: ReportTemplate
) -> None:
    data = json.loads(json.dumps(findings_summary(Scored(square.findings, MODEL))))

    text = preview(outlined, data)

    assert "Outlines and their areas are placeholders." in text
    assert text.count("Image Region: POLYLINE of 5 points") == 2
    assert text.count("Volume: ") == 2
    assert "One image stands for all that are referred to" in text
    assert text.count("Image Library Group\n      Source: CT Image Storage 2.25.5\n") == 1
    assert "placeholders" not in preview(haemorrhage, data).splitlines()[1]


def test_a_preview_does_not_need_a_known_kind_of_model(dementia: ReportTemplate) -> None:
    partial = deepcopy(PROGNOSIS) | {"inputs": {}}

    assert "GMLVQ scalar projection: -0.457" in preview(dementia, PROGNOSIS)
    assert "The report is PARTIAL." in preview(dementia, partial)


def test_paths_are_compared_with_what_the_model_says(dementia: ReportTemplate) -> None:
    found = undeclared(dementia, SEGMENTATION_OUTPUTS)

    places = [place for place, _ in found]
    assert ("groups", 0, "measurements", 0, "value") in places
    assert ("groups", 1, "measurements", 0, "observed") in places
    assert ("groups", 2, "evaluations", 0, "value") in places
    assert undeclared(dementia, outputs_of(PROGNOSIS)) == []
