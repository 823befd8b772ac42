"""Every kind of object the suite makes, before every validator and reader of other people."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.noise import (
    NOISE,
    complaints,
    dcentvfy,
    dciodvfy,
    dsrdump,
    segimage2itkimage,
    tid1500reader,
)
from tests.sr_templates.objects import save
from tests.sr_templates.samples import Sample, samples

NAMES = (
    "seg", "sr", "capture", "labelmap", "sr3d", "outlines", "text", "pdf", "rtstruct", "rejection",
    "described", "described outlines", "described texts", "prognosis seg", "prognosis sr",
    "prognosis capture", "notice sr", "notice capture",
)  # fmt: skip
MEASURED = (
    "sr",
    "sr3d",
    "outlines",
    "described",
    "described outlines",
    "described texts",
    "prognosis sr",
)
"""Reports of TID 1500."""


@pytest.fixture(scope="module")
def everything() -> dict[str, Sample]:
    return {one.name: one for one in samples()}


def test_there_is_one_of_each(everything: dict[str, Sample]) -> None:
    assert tuple(everything) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nobody_complains(name: str, everything: dict[str, Sample], tmp_path: Path) -> None:
    ds = everything[name].ds
    path = save(ds, tmp_path / "one.dcm")

    assert dciodvfy(path) == []
    if "ContentSequence" in ds:
        assert dsrdump(path) == []
    if name in MEASURED:
        assert tid1500reader(path, tmp_path / "sr.json") == []
    if ds.Modality == "SEG":
        assert segimage2itkimage(path, tmp_path) == []
    images = [save(image, tmp_path / f"{k}.dcm") for k, image in enumerate(everything[name].images)]
    assert dcentvfy([*images, path]) == []


def test_what_is_not_on_the_list_is_not_left_out() -> None:
    said = "Error - </PatientID> - Missing attribute\nWarning - is deprecated = <SRT>\nSRDocument\n"

    assert len(complaints("dciodvfy", said)) == 2
    assert complaints("dcentvfy", "Error - Information Object Not found") != []
    assert all(one.reason.endswith(".") for one in NOISE)
