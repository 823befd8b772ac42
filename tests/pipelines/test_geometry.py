from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipelines.base import NotScored
from pipelines.steps.geometry import (
    LPS_TO_RAS,
    FloatArray,
    Grid,
    Plane,
    grid_of,
    nearest_plane,
    refuse_gaps,
    tilt_degrees,
    voxel_indices,
)

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
SIZE = 256


def stack(
    count: int = 12,
    *,
    step: float = 5.0,
    orientation: FloatArray = AXIAL,
    spacing: tuple[float, float] = (0.5, 0.4),
    start: Sequence[float] = (-100.0, -80.0, -30.0),
    tilt: float = 0.0,
) -> list[Plane]:
    """Planes in order along their normal; `tilt` moves each against the column direction."""
    normal = np.cross(orientation[:3], orientation[3:])
    stride = step * (normal - np.tan(np.radians(tilt)) * orientation[3:])
    return [
        Plane(np.array(start) + k * stride, orientation, np.array(spacing)) for k in range(count)
    ]


def refusal(planes: Sequence[Plane]) -> NotScored:
    with pytest.raises(NotScored) as caught:
        refuse_gaps(grid_of(planes))
    return caught.value


@st.composite
def shuffled_stacks(draw: st.DrawFn) -> tuple[list[Plane], list[int]]:
    finite = st.floats(-1.0, 1.0)
    angles = [draw(finite) * 180 for _ in range(3)]
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    planes = stack(
        draw(st.integers(4, 40)),
        step=draw(st.floats(0.3, 12.0)),
        orientation=np.concatenate([axes[:, 0], axes[:, 1]]),
        spacing=(draw(st.floats(0.2, 4.0)), draw(st.floats(0.2, 4.0))),
        start=[draw(finite) * 500 for _ in range(3)],
        tilt=draw(st.sampled_from([0.0, 0.0, 3.0, -14.0, 18.5, 30.0])),
    )
    gone = draw(st.sets(st.integers(1, len(planes) - 2), max_size=min(3, len(planes) - 3)))
    planes = [plane for k, plane in enumerate(planes) if k not in gone]
    order = draw(st.permutations(range(len(planes))))
    return [planes[k] for k in order], list(order)


@given(shuffled_stacks())
def test_any_stack_in_any_order_becomes_its_grid_whatever_its_tilt_and_gaps(
    shuffled: tuple[list[Plane], list[int]],
) -> None:
    planes, order = shuffled

    grid = grid_of(planes)

    assert [order[index] for index in grid.order] == list(range(len(planes)))
    assert np.linalg.det(grid.affine[:3, :3]) > 0
    for k, index in enumerate(grid.order):
        _assert_corners_round_trip(grid, planes[index], k)


def _assert_corners_round_trip(grid: Grid, plane: Plane, k: int) -> None:
    rows, columns = np.array([0, 0, SIZE, SIZE]), np.array([0, SIZE, 0, SIZE])
    points = plane.points(rows, columns)
    indices = np.stack([columns, rows, np.full(4, k)], axis=1)
    found = voxel_indices(grid.affine, points, grid.origins)
    assert np.abs((found - indices) * (*plane.spacing[::-1], grid.slice_step_mm)).max() < 1e-3
    if grid.origins is None:
        there = (LPS_TO_RAS @ grid.affine)[:3] @ np.vstack([indices.T, np.ones(4)])
        assert np.abs(there.T - points).max() < 1e-3


@given(st.floats(0.1, 40.0), st.floats(0.5, 10.0), st.integers(4, 60))
def test_tilt_is_measured_from_positions(tilt: float, step: float, count: int) -> None:
    planes = stack(count, step=step, tilt=tilt)

    found = tilt_degrees(np.stack([p.position for p in planes]), np.array([0.0, 0, 1]))

    assert found == pytest.approx(tilt, abs=1e-6)


@given(st.integers(1, 10), st.data())
def test_every_missing_slice_is_named(step: int, data: st.DataObject) -> None:
    planes = stack(20, step=float(step))
    gone = data.draw(st.sets(st.integers(1, 18), min_size=1, max_size=5))

    error = refusal([plane for k, plane in enumerate(planes) if k not in gone])

    assert error.reason == "missing_slices"
    for k in gone:
        assert f"z = {-30 + k * step:.1f} mm" in error.sentence


def test_one_missing_slice_is_named_with_its_place() -> None:
    planes = stack(12, step=5.0, start=(0, 0, -47.5))
    del planes[3]

    error = refusal(planes)

    assert error.sentence == (
        "1 image missing from the stack: no image at z = -32.5 mm (steps 5.00 to 10.00 mm)."
    )


def test_unequal_steps_keep_the_place_of_every_slice() -> None:
    moved = [0.0, 1.08, 5.09, 12.09, 13.5, 20.0]
    planes = [
        Plane(np.array([3.0, 0.5 * z, z]), AXIAL, np.array([0.5, 0.4])) for z in reversed(moved)
    ]

    grid = grid_of(planes)

    assert grid.order == (5, 4, 3, 2, 1, 0)
    assert grid.origins is not None
    assert np.allclose(grid.origins[:, 2], moved)
    assert grid.step_range_mm == pytest.approx((1.08, 7.0))
    assert grid.missing == ()
    for k, index in enumerate(grid.order):
        _assert_corners_round_trip(grid, planes[index], k)


def test_a_gantry_tilt_shears_the_affine() -> None:
    planes = stack(tilt=18.5)

    grid = grid_of(planes)

    assert grid.is_sheared
    assert grid.tilt_degrees == pytest.approx(18.5)
    stride = planes[1].position - planes[0].position
    assert np.allclose(grid.affine[:3, 2], stride * (-1, -1, 1))


def test_rounded_headers_are_no_tilt_and_no_unequal_step() -> None:
    turned = Rotation.from_euler("xyz", [3, -7, 11], degrees=True).as_matrix()
    orientation = np.round(np.concatenate([turned[:, 0], turned[:, 1]]), 5)
    planes = [
        Plane(np.round(p.position, 2), orientation, p.spacing)
        for p in stack(200, step=0.75, orientation=orientation)
    ]

    grid = grid_of(planes)

    assert grid.slice_step_mm == pytest.approx(0.75, abs=1e-3)


def test_duplicate_positions_are_refused() -> None:
    planes = stack()

    error = refusal([*planes, planes[4]])

    assert error.reason == "duplicate_positions"
    assert "z = -10.0 mm" in error.sentence


def test_images_side_by_side_are_refused() -> None:
    planes = stack()
    beside = Plane(planes[4].position + np.array([200.0, 0, 0]), AXIAL, planes[4].spacing)

    assert refusal([*planes, beside]).reason == "coplanar_images"


def test_a_slice_shifted_in_its_plane_is_refused() -> None:
    planes = stack()
    planes[6] = Plane(planes[6].position + np.array([0, 0.3, 0]), AXIAL, planes[6].spacing)

    error = refusal(planes)

    assert error.reason == "displaced_slices"
    assert "z = 0.0 mm lies 0.30 mm off" in error.sentence


def test_mixed_orientations_are_refused_with_their_angle() -> None:
    sagittal = stack(orientation=np.array([0.0, 1, 0, 0, 0, -1]))

    error = refusal([*stack(), *sagittal])

    assert error.reason == "mixed_orientation"
    assert "degrees apart" in error.sentence


def test_mixed_spacing_is_refused_with_both() -> None:
    planes = stack()
    planes[0] = Plane(planes[0].position, AXIAL, np.array([0.5, 0.45]))

    assert "0.5 x 0.4 mm to 0.5 x 0.45 mm" in refusal(planes).sentence


@pytest.mark.parametrize(
    "orientation",
    [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0.1, 1, 0], [2, 0, 0, 0, 1, 0]],
    ids=["no column", "not perpendicular", "not unit"],
)
def test_odd_direction_cosines_are_refused(orientation: list[float]) -> None:
    planes = stack()
    odd = Plane(planes[0].position, np.array(orientation, float), planes[0].spacing)

    assert refusal([odd, *planes[1:]]).reason == "bad_orientation"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_slices_is_no_volume(count: int) -> None:
    assert refusal(stack(count)).reason == "too_few_slices"


@pytest.mark.parametrize(
    ("normal", "plane"),
    [([0, 0.3, 0.95], "axial"), ([-0.99, 0.1, 0], "sagittal"), ([0, 1, 0.2], "coronal")],
)
def test_a_stack_is_named_after_its_nearest_anatomical_plane(
    normal: list[float], plane: str
) -> None:
    assert nearest_plane(np.array(normal) / np.linalg.norm(normal))[0] == plane
