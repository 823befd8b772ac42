"""A straight grid, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from models.base import Volume
from pipelines.base import NotScored
from pipelines.steps.straighten import is_straight, labels_on_source, straightened

SHAPE = (23, 29, 9)


def field(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear function of place, which linear interpolation must not change."""
    return np.asarray(points @ (0.7, -0.4, 1.3) + 50.0)


def tilted(
    degrees: float,
    *,
    steps: tuple[float, ...] = (4.0,) * 8,
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Volume:
    axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    stride = axes[:, 2] - np.tan(np.radians(degrees)) * axes[:, 1]
    origins = np.array((-10.0, 5.0, 30.0)) + np.outer(np.cumsum((0.0, *steps)), stride)
    affine = np.eye(4)
    affine[:3, :2] = axes[:, :2] * (0.9, 1.1)
    affine[:3, 2] = (origins[-1] - origins[0]) / (SHAPE[2] - 1)
    affine[:3, 3] = origins[0]
    in_plane = np.indices(SHAPE[:2]).reshape(2, -1)
    points = (affine[:3, :2] @ in_plane).T[:, None] + origins
    array = field(points).reshape(SHAPE).astype(np.float32)
    even = np.ptp(steps) == 0
    return Volume(array, affine, slice_origins=None if even else origins)


angles = st.tuples(*[st.floats(-40, 40)] * 3)
uneven = st.tuples(*[st.floats(1.0, 7.0)] * 8)


@settings(max_examples=40)
@given(st.floats(-30, 30), uneven, angles)
def test_a_straight_grid_shows_the_same_places(
    degrees: float, steps: tuple[float, ...], turn: tuple[float, float, float]
) -> None:
    source = tilted(degrees, steps=steps, turn=turn)

    straight = straightened(source)

    assert is_straight(straight)
    lengths = np.linalg.norm(straight.affine[:3, :3], axis=0)
    axes = straight.affine[:3, :3] / lengths
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    places = np.indices(straight.array.shape).reshape(3, -1)
    points = (straight.affine[:3, :3] @ places).T + straight.affine[:3, 3]
    off = np.abs(field(points) - straight.array.reshape(-1))
    inside = straight.array.reshape(-1) > source.array.min() + 1e-3
    assert np.quantile(off[inside], 0.5) < 1e-2


@settings(max_examples=40)
@given(st.floats(-30, 30), uneven, angles)
def test_labels_come_back_to_the_slices_they_are_on(
    degrees: float, steps: tuple[float, ...], turn: tuple[float, float, float]
) -> None:
    source = tilted(degrees, steps=steps, turn=turn)
    straight = straightened(source)
    middle = source.origins[4] + source.affine[:3, :2] @ (11, 14)
    places = np.indices(straight.array.shape).reshape(3, -1)
    points = (straight.affine[:3, :3] @ places).T + straight.affine[:3, 3]
    ball = np.linalg.norm(points - middle, axis=1) < 7.0
    labels = ball.reshape(straight.array.shape).astype(np.uint8)

    back = labels_on_source(labels, source)

    here = (
        source.origins[:, None] + (source.affine[:3, :2] @ np.indices(SHAPE[:2]).reshape(2, -1)).T
    )
    found = here.transpose(1, 0, 2).reshape(-1, 3)[back.reshape(-1) > 0]
    spacing = np.linalg.norm(straight.affine[:3, :3], axis=0)
    assert len(found)
    reach = 7.0 + np.linalg.norm(spacing) / 2 + 1e-3
    assert np.linalg.norm(found - middle, axis=1).max() <= max(reach, 7.0 + max(steps) / 2 + 1.5)
    assert back[11, 14, 4] == 1


def test_a_straight_volume_is_left_as_it_is() -> None:
    source = tilted(0.0)
    labels = np.zeros(SHAPE, np.uint8)

    assert straightened(source) is source
    assert labels_on_source(labels, source) is labels


def test_equal_steps_of_a_tilted_volume_need_no_interpolation_between_slices() -> None:
    source = tilted(12.0)

    straight = straightened(source)

    assert straight.array.shape[2] == SHAPE[2]
    assert np.linalg.norm(straight.affine[:3, 2]) == pytest.approx(4.0)
    assert straight.array.shape[1] > SHAPE[1]
    assert straight.facts["straightened"] is True


def test_volumes_of_labels_follow_the_thickness_of_their_slices() -> None:
    source = tilted(0.0, steps=(2.0, 2.0, 2.0, 6.0, 6.0, 6.0, 6.0, 6.0))

    each = source.voxel_ml_by_slice * 1000 / (0.9 * 1.1)

    assert each == pytest.approx([2, 2, 2, 4, 6, 6, 6, 6, 6])


def test_an_absurd_tilt_is_refused() -> None:
    with pytest.raises(NotScored) as caught:
        straightened(tilted(89.99))

    assert caught.value.reason == "unfit_geometry"


def test_labels_of_another_grid_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="labels have shape"):
        labels_on_source(np.zeros(SHAPE, np.uint8), tilted(10.0))
