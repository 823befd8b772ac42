"""The page says in a line what was found, where, and how far to trust it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.base import Findings, Number, Volume
from sr_templates.tiles import view_of
from sr_templates.wording import extent, score, verdict, volume_text
from tests.phantoms import ct_series, ct_volume
from tests.sr_templates.objects import MAKER, PHANTOM, bleeds, findings_of

NUMBERS = {index: 17 - index for index in range(17)}


@pytest.fixture
def volume() -> Volume:
    return ct_volume(ct_series(PHANTOM), PHANTOM)


def nothing() -> NDArray[np.uint8]:
    return np.zeros_like(bleeds(PHANTOM))


def said(labels: NDArray[np.uint8], volume: Volume, numbers: dict[int, int] | None) -> str:
    view = view_of(volume, (40.0, 80.0))
    return extent(view, findings_of(labels, volume), numbers)


@pytest.mark.parametrize(
    ("present", "sentence"),
    [
        (True, "Intracranial haemorrhage suspected"),
        (False, "No intracranial haemorrhage found"),
        (None, "Intracranial haemorrhage: undetermined"),
    ],
)
def test_the_verdict_is_a_sentence_in_british_spelling(present: bool | None, sentence: str) -> None:
    assert verdict(Findings(None, (), (), present), MAKER) == sentence


def test_the_headline_gives_volume_side_and_images(volume: Volume) -> None:
    labels = nothing()
    labels[36:40, 28:34, 4:8] = 1

    text = said(labels, volume, NUMBERS)

    assert text.split("  ·  ") == ["9.8 ml", "left", "images 10-13"]
    assert "probability" not in text


@pytest.mark.parametrize(
    ("slices", "numbers", "images"),
    [
        ([8], NUMBERS, "image 9"),
        ([8], None, "slice 9"),
        ([2, 3, 8], NUMBERS, "images 9, 14-15"),
        ([2, 3, 8], None, "slices 3-4, 9"),
        ([0, 2, 4, 6], NUMBERS, "4 images from 11 to 17"),
        ([1, 2], {1: 40, 3: 41}, "slices 2-3"),
    ],
)
def test_images_are_listed_as_runs(
    slices: list[int], numbers: dict[int, int] | None, images: str, volume: Volume
) -> None:
    labels = nothing()
    labels[36:40, 28:34, slices] = 1

    assert said(labels, volume, numbers).split("  ·  ")[-1] == images


def test_without_a_finding_the_headline_says_how_much_was_scored(volume: Volume) -> None:
    assert said(nothing(), volume, NUMBERS) == "17 slices scored"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.39399596, "model score 0.39 (threshold 0.50), not calibrated"),
        (0.99955, "model score >0.99 (threshold 0.50), not calibrated"),
        (1.0, "model score >0.99 (threshold 0.50), not calibrated"),
        (0.0, "model score <0.01 (threshold 0.50), not calibrated"),
        (0.4996, "model score 0.4996 (threshold 0.50), not calibrated"),
        (0.5, "model score 0.50 (threshold 0.50), not calibrated"),
    ],
)
def test_the_score_never_looks_certain_nor_like_its_threshold(value: float, text: str) -> None:
    findings = Findings(None, (), (Number("probability", value, "1"),), None)

    assert score(findings, MAKER) == text


def test_a_score_without_threshold_or_number_says_no_more_than_it_knows() -> None:
    plain = replace(MAKER, model=replace(MAKER.model, parameters={}))
    findings = Findings(None, (), (Number("probability", 0.7, "1"),), None)

    assert score(findings, plain) == "model score 0.70, not calibrated"
    assert score(Findings(None, (), (), None), MAKER) == ""


@pytest.mark.parametrize(
    ("ml", "text"),
    [(11.21, "11.2 ml"), (0.043, "0.04 ml"), (0.004, "<0.01 ml"), (0.0, "0.00 ml")],
)
def test_a_volume_is_never_rounded_to_nothing(ml: float, text: str) -> None:
    findings = Findings(None, (), (Number("volume", ml, "ml"),), True)

    assert volume_text(findings, None) == text
    assert volume_text(findings, 1) == ""
