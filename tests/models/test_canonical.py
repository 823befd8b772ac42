"""Orientation: to RAS+ and back, for every way a grid can lie."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from models.base import Volume
from models.canonical import orientation_of
from tests.models.tiny import orientations, turned

SHAPE = (5, 7, 3)
SPACING = (0.7, 1.1, 5.0)


def numbered() -> Volume:
    """Every voxel differs, every axis has another length."""
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return Volume(array, np.diag([*SPACING, 1.0]))


@pytest.mark.parametrize(("axes", "flips"), orientations())
def test_every_orientation_is_seen_as_ras_and_goes_back(
    axes: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    volume = numbered()
    source, _ = turned(volume, axes, flips)

    orientation = orientation_of(source.affine)

    assert np.array_equal(orientation.to_ras(source.array), volume.array)
    assert np.array_equal(orientation.from_ras(volume.array), source.array)
    assert tuple(source.spacing[list(orientation.axes)]) == SPACING


@pytest.mark.parametrize("degrees", [3.0, 18.5, 33.0])
@pytest.mark.parametrize("about", ["x", "y", "z"])
def test_an_oblique_grid_has_the_axes_of_the_nearest_upright_one(
    about: str, degrees: float
) -> None:
    turn = Rotation.from_euler(about, degrees, degrees=True).as_matrix()
    for axes, flips in orientations():
        source, _ = turned(numbered(), axes, flips)
        upright = orientation_of(source.affine)
        source.affine[:3, :3] = turn @ source.affine[:3, :3]

        assert orientation_of(source.affine) == upright


def test_nibabel_agrees_on_random_rotations() -> None:
    random = np.random.default_rng(5)
    for turn in Rotation.random(50, random_state=5).as_matrix():
        affine = np.eye(4)
        affine[:3, :3] = turn * random.uniform(0.4, 6.0, 3)
        if np.abs(turn).max(axis=0).min() < 0.75:
            continue  # near a tie the two may choose differently, both rightly

        found = orientation_of(affine)

        theirs = io_orientation(affine)
        for world, (axis, flip) in enumerate(zip(found.axes, found.flips, strict=True)):
            assert theirs[axis, 0] == world
            assert theirs[axis, 1] == (-1 if flip else 1)
    assert axcodes2ornt(("R", "A", "S")).tolist() == [[0, 1], [1, 1], [2, 1]]


def test_axes_are_all_different_also_in_a_tie() -> None:
    halfway = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = halfway

    assert sorted(orientation_of(affine).axes) == [0, 1, 2]


@pytest.mark.parametrize(("row", "column"), list(product(range(3), range(3))))
def test_a_number_that_is_none_in_the_affine_is_refused(row: int, column: int) -> None:
    affine = np.eye(4)
    affine[row, column] = np.nan

    with pytest.raises(ValueError, match="not invertible"):
        orientation_of(affine)


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros(4), np.eye(5)])
def test_an_affine_of_another_shape_is_refused(affine: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="not 4 x 4"):
        orientation_of(affine)


def test_a_flat_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="do not span space"):
        orientation_of(np.diag([1.0, 1.0, 0.0, 1.0]))

    flat = np.eye(4)
    flat[:3, 2] = flat[:3, 1]
    with pytest.raises(ValueError, match="do not span space"):
        orientation_of(flat)
