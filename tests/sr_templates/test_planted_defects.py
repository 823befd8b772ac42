"""Each planted defect is found, and good objects, ours and others', are let through."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset

from benchmarks.planted import FURTHER, MATRIX, Defect, planted
from sr_templates.capture import capture
from sr_templates.check import examine, examine_own, problems
from sr_templates.checks.base import CHECKED, Subject
from sr_templates.checks.rules import RULES
from sr_templates.normalise import normalised
from tests.shared_data import shared
from tests.sr_templates.further import OBJECTS, SQUARE
from tests.sr_templates.objects import MAKER, Case, case, identity


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.fixture(scope="module")
def good(made: Case) -> Mapping[str, Dataset]:
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    further = {name: build(made) for name, (build, _) in OBJECTS.items()}
    label_map = case(kind="LABELMAP").segmentation
    own = {"seg": made.segmentation, "sr": made.sr, "capture": page, "labelmap": label_map}
    return own | further


@cache
def square() -> Case:
    return case(SQUARE)


def sources_of(kind: str, made: Case) -> list[Dataset]:
    """What a good object was made of."""
    if kind == "rejection":
        return []
    return square().clean if kind == "outlines" else made.clean


def seg_of(kind: str, made: Case) -> Dataset | None:
    """What a good object refers to."""
    return made.seg if kind in ("sr", "sr3d") else None


def reread(ds: Dataset) -> Dataset:
    """Write and read as a careless program does."""
    buffer = BytesIO()
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        ds.save_as(buffer)
        return dcmread(BytesIO(buffer.getvalue()))


def test_there_are_43_known_defects_of_which_nobody_saw_twelve() -> None:
    assert len(MATRIX) == 43
    assert sum(defect.unseen for defect in MATRIX) == 12


@pytest.mark.parametrize(
    "defect", [*MATRIX, *FURTHER], ids=lambda defect: f"{defect.kind}: {defect.name}"
)
def test_a_planted_defect_is_found_for_its_own_reason(
    made: Case, good: Mapping[str, Dataset], defect: Defect
) -> None:
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spoiled = reread(planted(defect, good))
    seg = seg_of(defect.kind, made)
    referred = None if seg is None else reread(seg)

    found = examine(Subject(spoiled, tuple(sources_of(defect.kind, made)), referred))

    errors = {item.rule for item in found if item.severity == "error"}
    assert defect.rule in errors, found
    said = " ".join(f"{item} {item.cure}" for item in found)
    assert not any(word in said for word in ("SOMEBODY", "PHANTOM-1", "Müller", "ACC0001"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "defect", [*MATRIX, *FURTHER], ids=lambda defect: f"{defect.kind}: {defect.name}"
)
def test_a_planted_defect_does_not_pass_the_gate(
    made: Case, good: Mapping[str, Dataset], defect: Defect
) -> None:
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spoiled = planted(defect, good)

    assert problems(spoiled, sources_of(defect.kind, made), seg_of(defect.kind, made))


def test_our_own_good_objects_have_not_even_a_warning(
    made: Case, good: Mapping[str, Dataset]
) -> None:
    for kind, ds in good.items():
        assert examine_own(ds, sources_of(kind, made), seg_of(kind, made)) == [], kind


BY_OTHERS = {
    "dcmqi_24x38x3/seg/label.seg": "dcmqi_24x38x3/image",
    "dcmqi_ct_3slice_seg/liver.dcm": "dcmqi_ct_3slice",
    "dcmqi_labelmap/sparse-labelmap-ppv5.dcm": "",
    "dcmqi_sr_tid1500/seg.dcm": "",
    "dcmqi_sr_tid1500/sr.dcm": "",
    "highdicom/seg_image_ct_binary.dcm": "",
    "highdicom/seg_image_ct_binary_overlap.dcm": "",
    "highdicom/seg_image_ct_true_fractional.dcm": "",
    "highdicom/sr_document.dcm": "highdicom/ct_image.dcm",
    "highdicom/sr_document_with_multiple_groups.dcm": "highdicom/ct_image.dcm",
}
"""Good objects that other programs wrote, and the images they were made from."""
IN_THE_SERIES_OF_ITS_IMAGE = "highdicom/sr_document.dcm"
"""Not so good after all: an SR document under the Series Instance UID of a CT series."""


@pytest.mark.parametrize("name", BY_OTHERS)
def test_a_good_object_of_others_raises_no_alarm(name: str) -> None:
    ds = dcmread(shared("seg_and_sr_by_others", name))
    assert ds.SOPClassUID in CHECKED
    sources: tuple[Dataset, ...] = ()
    if BY_OTHERS[name]:
        images = shared("seg_and_sr_by_others", BY_OTHERS[name])
        sources = tuple(normalised(map(dcmread, _files(images))))

    found = examine(Subject(ds, sources, own=False))

    errors = [item.rule for item in found if item.severity == "error"]
    assert errors == (["uid_of_source"] if name == IN_THE_SERIES_OF_ITS_IMAGE else [])


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.dcm")) if path.is_dir() else [path]


def test_every_reason_has_a_cure_that_is_a_sentence() -> None:
    for reason, rule in RULES.items():
        assert rule.cure[0].isupper(), reason
        assert rule.cure.endswith("."), reason
        assert rule.others != "error" or rule.own == "error", reason


def test_the_manual_lists_every_reason() -> None:
    manual = Path(__file__).parents[2].joinpath("docs", "results.md").read_text()

    for reason, rule in RULES.items():
        row = f"| `{reason}` | {rule.own} | {rule.others or '-'} | {rule.cure} |"
        assert row in manual, reason
