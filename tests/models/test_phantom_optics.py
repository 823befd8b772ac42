"""What a scanner does to brain beside bone, against what it does to a plane of bone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.phantom_optics import Optics, blur, draw_optics

SPACING = (0.5, 0.8, 5.0)
BRAIN, BONE = 33.0, 1100.0


def beside_bone(optics: Optics) -> NDArray[np.float32]:
    """HU by distance from a plate of bone 7 mm thick, steps of 0.5 mm, away from its edges."""
    array = np.full((120, 80, 2), BRAIN, np.float32)
    array[60:74] = BONE
    blur(array, SPACING, optics)
    line: NDArray[np.float32] = array[59::-1, 40, 1]
    return line


@pytest.mark.parametrize("seed", range(4))
def test_soft_tissue_far_from_bone_stays_as_it_is(seed: int) -> None:
    array = np.full((40, 50, 2), BRAIN, np.float32)

    blur(array, SPACING, draw_optics(np.random.default_rng(seed)))

    assert np.abs(array - BRAIN).max() < 0.01


def test_bone_brightens_the_brain_beside_it_less_and_less() -> None:
    rise = beside_bone(Optics(0.4, 0.0, 0.05)) - BRAIN

    # A plate of 7 mm through a Gaussian of 5 mm: shares of the normal distribution.
    assert rise[10] == pytest.approx(0.05 * 1000 * (0.9942 - 0.8531), rel=0.05)
    assert (np.diff(rise[6:30]) <= 0).all()
    assert rise[40] < 0.5


def test_without_glow_only_the_last_millimetres_before_bone_change() -> None:
    rise = beside_bone(Optics(0.8, 0.0, 0.0)) - BRAIN

    assert rise[0] > 100
    assert 20 < rise[2] < 100
    assert np.abs(rise[8:]).max() < 0.1


def test_the_tail_reaches_further_than_the_blur() -> None:
    without, with_tail = (beside_bone(Optics(0.5, tail, 0.0))[5] - BRAIN for tail in (0.0, 0.04))

    assert with_tail > without + 2
