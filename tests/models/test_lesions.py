"""Lesions are counted and measured as a reader would."""

from __future__ import annotations

import numpy as np
import pytest

from models.base import Findings, Number, Segment, Volume
from models.lesions import abc2_ml, diameters_mm, with_lesions

CODE = ("SCT", "50960005", "Hemorrhage")
SPACING = (0.5, 0.7, 1.0)


def ellipsoid(center: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
    axes = [np.arange(n) * s for n, s in zip((120, 110, 60), SPACING, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    away = sum(((g - c) / h) ** 2 for g, c, h in zip(grid, center, half, strict=True))
    return np.asarray(away < 1)


def volume() -> Volume:
    return Volume(np.zeros((120, 110, 60), np.float32), np.diag([*SPACING, 1.0]))


def findings(mask: np.ndarray) -> Findings:
    segments = (Segment(1, "Haemorrhage", CODE, CODE),)
    ml = float(mask.sum()) * volume().voxel_ml
    return Findings(mask.astype(np.uint8), segments, (Number("volume", ml, "ml"),), ml > 0)


def test_abc_over_two_of_an_ellipsoid_is_that_of_its_axes() -> None:
    half = (14.0, 18.0, 12.0)
    mask = ellipsoid((30.0, 38.0, 30.0), half)

    wanted = 28.0 * 36.0 * 24.0 / 2000
    assert abc2_ml(mask, volume()) == pytest.approx(wanted, rel=0.03)


def test_diameters_are_at_right_angles_also_when_turned() -> None:
    x, y = np.meshgrid(np.arange(101.0) - 50, np.arange(101.0) - 50, indexing="ij")
    turned = ((x + y) / np.sqrt(2) / 40) ** 2 + ((x - y) / np.sqrt(2) / 15) ** 2 < 1

    a, b = diameters_mm(turned, (1.0, 1.0))

    assert a == pytest.approx(80, rel=0.03)
    assert b == pytest.approx(30, rel=0.06)


def test_lesions_are_counted_and_the_largest_is_measured() -> None:
    large = ellipsoid((20.0, 25.0, 20.0), (8.0, 8.0, 8.0))
    small = ellipsoid((45.0, 60.0, 45.0), (4.0, 4.0, 4.0))

    found = with_lesions(findings(large | small), volume(), priority_ml=2.0)

    assert found.number("lesions") == 2
    assert found.number("largest") == pytest.approx(large.sum() * volume().voxel_ml)
    assert found.number("abc2") == pytest.approx(abc2_ml(large, volume()))
    assert found.priority is True
    assert with_lesions(findings(small), volume(), priority_ml=2.0).priority is False


def test_without_a_mark_there_is_no_lesion_and_nothing_urgent() -> None:
    found = with_lesions(findings(np.zeros((120, 110, 60), bool)), volume(), priority_ml=0.0)

    assert found.number("lesions") == 0
    assert found.priority is False
    assert [number.name for number in found.numbers] == ["volume", "lesions"]


def test_one_voxel_is_as_large_as_it_is() -> None:
    mask = np.zeros((120, 110, 60), bool)
    mask[7, 8, 9] = True

    assert 0 < abc2_ml(mask, volume()) < 2 * volume().voxel_ml
