"""Figures of a model by structure: none takes the place of another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.base import BrokenPackage, Segment, Side
from models.catalogue import BUILT_IN
from models.package_evaluation import evaluate_package, names_of

CODE = ("SCT", "5366008", "Hippocampus")


def segments(*sides: Side | None) -> list[Segment]:
    one = Segment(number=1, label="Hippocampus", category=CODE, type=CODE, color=(1, 2, 3))
    return [replace(one, number=n, side=side) for n, side in enumerate(sides, start=1)]


def test_structures_of_one_label_are_told_apart() -> None:
    assert names_of(segments("left", "right")) == ["Hippocampus, left", "Hippocampus, right"]
    assert names_of(segments("left", "left")) == ["Hippocampus, left (1)", "Hippocampus, left (2)"]
    assert names_of(segments("left")) == ["Hippocampus"]


def test_a_prognosis_is_not_measured_on_volumes(tmp_path: Path) -> None:
    with pytest.raises(BrokenPackage, match="is a prognosis; say scorenode evaluate"):
        evaluate_package(BUILT_IN / "dementia-demo", tmp_path, lambda done, note: None)
