"""The checker answers whatever it is given: it never raises, and what is lost is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from io import BytesIO

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset

from sr_templates.capture import capture
from sr_templates.check import examine
from sr_templates.checks.base import Subject
from sr_templates.part10 import to_bytes
from tests.phantoms import Shape
from tests.sr_templates.objects import MAKER, Case, bleeds, case, identity

pytestmark = pytest.mark.slow

SMALL = Shape(columns=31, rows=35, slices=9, spacing=(6.0, 6.5, 17.0))
KINDS = ("seg", "sr", "capture")


@pytest.fixture(scope="module")
def made() -> Case:
    return case(SMALL, bleeds(SMALL))


@pytest.fixture(scope="module")
def good(made: Case) -> dict[str, Dataset]:
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    results = {"seg": made.segmentation, "sr": made.sr, "capture": page}
    return {kind: dcmread(BytesIO(to_bytes(ds))) for kind, ds in results.items()}


def judge(ds: Dataset, made: Case, good: dict[str, Dataset], kind: str) -> list[str]:
    seg = good["seg"] if kind == "sr" else None
    found = examine(Subject(ds, tuple(made.clean), seg))
    return [item.rule for item in found if item.severity == "error"]


MUST = {
    "seg": {"SegmentSequence", "SegmentationType", "PixelData", "Rows", "NumberOfFrames",
            "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence",
            "DimensionIndexSequence", "ContentLabel", "DeviceSerialNumber", "SOPClassUID"},
    "sr": {"ContentSequence", "ContentTemplateSequence", "ConceptNameCodeSequence", "ValueType",
           "CurrentRequestedProcedureEvidenceSequence", "CompletionFlag", "SeriesNumber"},
    "capture": {"PixelData", "Rows", "Columns", "BitsStored", "SamplesPerPixel", "ConversionType",
                "PhotometricInterpretation", "BurnedInAnnotation"},
}  # fmt: skip
"""Attributes of which the loss must be told."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_any_attribute_is_survived_and_of_a_needed_one_told(
    made: Case, good: dict[str, Dataset], kind: str
) -> None:
    for element in list(good[kind]):
        ds = deepcopy(good[kind])
        del ds[element.tag]

        errors = judge(ds, made, good, kind)

        if element.keyword in MUST[kind]:
            assert errors, element.keyword


def spoiled_values(ds: Dataset) -> Iterator[Callable[[Dataset], None]]:
    """Yield changes that empty one attribute after the other."""
    for element in ds:
        tag = element.tag

        def empty(copy: Dataset, tag: int = tag) -> None:
            copy[tag].value = [] if copy[tag].VR == "SQ" else None

        yield empty


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_value_anywhere_is_survived(
    made: Case, good: dict[str, Dataset], kind: str
) -> None:
    for spoil in spoiled_values(good[kind]):
        ds = deepcopy(good[kind])
        spoil(ds)

        judge(ds, made, good, kind)


def holders(ds: Dataset) -> Iterator[Dataset]:
    """Yield every content item that holds others."""
    if ds.get("ContentSequence"):
        yield ds
        for item in ds.ContentSequence:
            yield from holders(item)


def test_the_loss_of_any_content_item_is_survived(made: Case, good: dict[str, Dataset]) -> None:
    told = 0
    places = [
        (n, i) for n, h in enumerate(holders(good["sr"])) for i in range(len(h.ContentSequence))
    ]
    for holder, index in places:
        ds = deepcopy(good["sr"])
        del list(holders(ds))[holder].ContentSequence[index]

        told += bool(judge(ds, made, good, "sr"))

    assert told >= len(places) // 3


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_were_changed_at_random_are_survived(
    made: Case, good: dict[str, Dataset], kind: str
) -> None:
    random = np.random.default_rng(7)
    data = np.frombuffer(to_bytes(good[kind]), np.uint8)
    head = min(len(data), 20_000)  # what follows is pixels
    for _ in range(60):
        changed = data.copy()
        changed[random.integers(140, head, 12)] = random.integers(0, 256, 12)
        with config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ds = dcmread(BytesIO(changed.tobytes()))
            except Exception:  # noqa: BLE001 S112 - what cannot be read is not judged
                continue

        judge(ds, made, good, kind)
