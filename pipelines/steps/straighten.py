"""A tilted or unequally stepped volume on a straight, even grid, and labels brought back.

In-plane axes stay those of the source's slices; only the third axis becomes their normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.base import Volume, Voxels
from pipelines.base import NotScored
from pipelines.steps.geometry import FloatArray

STRAIGHT_DEGREES = 0.05
AIR_HU = -1000.0
COVERED = 0.5 - 1e-4
WHOLE = 1e-3
"""Fractions of pixels and slices below this are rounding."""
MAX_GROWTH = 4
"""How many times the voxels of the source a straight volume may hold."""


@dataclass(frozen=True, eq=False)
class StraightGrid:
    """Where the slices of a source lie on a straight, even grid that covers all of them.

    Parameters
    ----------
    shifts : FloatArray
        Shape (slices, 2): columns and rows by which each slice is moved.
    depths : FloatArray
        Place of each slice along the straight third axis, in straight slices.
    affine : FloatArray
        4 x 4, to RAS+ millimetres.
    shape : tuple of int
        Columns, rows, slices.
    """

    shifts: FloatArray
    depths: FloatArray
    affine: FloatArray
    shape: tuple[int, int, int]


def is_straight(volume: Volume) -> bool:
    """Tell whether a volume's affine is exact and its third axis is normal to its slices."""
    if volume.slice_origins is not None:
        return False
    normal = np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    stride = volume.affine[:3, 2]
    sine = np.linalg.norm(np.cross(normal, stride)) / np.linalg.norm(normal)
    return bool(sine <= np.sin(np.radians(STRAIGHT_DEGREES)) * np.linalg.norm(stride))


def straightened(source: Volume) -> Volume:
    """Resample a volume to a straight, even grid that covers all of it.

    Slices are moved in their planes and, where steps are unequal, interpolated between
    neighbours, linearly; what no slice covers becomes background (air for CT, else the lowest
    value). Equal steps stay as they are; of unequal ones the smallest is taken, but no smaller
    than gives twice as many slices.

    Parameters
    ----------
    source : Volume

    Returns
    -------
    Volume
        With ``facts["straightened"]``; `source` itself where it is straight.

    Raises
    ------
    NotScored
        The straight grid would be far larger than the source.
    """
    if is_straight(source):
        return source
    grid = straight_grid(source)
    array = np.empty(grid.shape, np.float32, order="F")
    for j, plane in enumerate(straight_planes(source, grid)):
        array[:, :, j] = plane.T
    steps = np.linalg.norm(grid.affine[:3, :3], axis=0)
    facts = {
        **source.facts,
        "columns": grid.shape[0],
        "rows": grid.shape[1],
        "slices": grid.shape[2],
        "slice_step_mm": round(float(steps[2]), 5),
        "straightened": True,
    }
    return Volume(array, grid.affine, source.frame_of_reference_uid, facts=facts)


def straight_planes(source: Volume, grid: StraightGrid) -> Iterator[NDArray[np.float32]]:
    """Yield what a source shows on its straight grid, slice by slice.

    Parameters
    ----------
    source : Volume
    grid : StraightGrid
        As `straight_grid` gives it.

    Yields
    ------
    NDArray[np.float32]
        Shape (rows, columns), valid until the next one.
    """
    is_ct = source.facts.get("modality") == "CT"
    background = AIR_HU if is_ct else float(source.array.min())
    plane = np.empty(grid.shape[1::-1], np.float32)
    moved: dict[int, _Moved] = {}
    for j in range(grid.shape[2]):
        before, after, share = _neighbours(grid.depths, float(j))
        moved = {
            k: moved.get(k) or _moved(source.array[:, :, k].T, grid, k) for k in (before, after)
        }
        _mix(moved[before], moved[after], share, background, plane)
        yield plane


def labels_on_source(labels: NDArray[np.uint8], source: Volume) -> NDArray[np.uint8]:
    """Bring labels of `straightened(source)` back to the slices of the source, nearest voxel.

    Parameters
    ----------
    labels : NDArray[np.uint8]
        Shape of the straight volume.
    source : Volume

    Returns
    -------
    NDArray[np.uint8]
        Shape of the source; every voxel has the label of the straight voxel nearest to it.
    """
    if is_straight(source):
        return labels
    grid = straight_grid(source)
    if labels.shape != grid.shape:
        raise ValueError(f"labels have shape {labels.shape}, the straight volume {grid.shape}")
    columns, rows, slices = source.array.shape
    back = np.empty((columns, rows, slices), np.uint8, order="F")
    nearest = np.clip(np.rint(grid.depths), 0, grid.shape[2] - 1).astype(int)
    moved = np.rint(grid.shifts).astype(int)
    for k in range(slices):
        x, y = np.minimum(moved[k], (grid.shape[0] - columns, grid.shape[1] - rows))
        back[:, :, k] = labels[x : x + columns, y : y + rows, nearest[k]]
    return back


def straight_grid(source: Volume) -> StraightGrid:
    """Lay a straight, even grid around a source.

    Raises
    ------
    NotScored
        It would be far larger than the source.
    """
    columns, rows, _ = source.array.shape
    origins = source.origins
    in_plane = source.affine[:3, :2]
    normal = np.cross(in_plane[:, 0], in_plane[:, 1])
    normal = normal / np.linalg.norm(normal)
    distances = origins @ normal
    steps = np.diff(distances)
    extent = float(np.ptp(distances))
    count = max(1, round(extent / max(float(steps.min()), extent / (2 * len(steps)))))
    step = extent / count
    shifts = origins @ (in_plane / (in_plane**2).sum(axis=0))
    low = shifts.min(axis=0)
    grown = np.ceil(np.ptp(shifts, axis=0) - 1e-3).astype(int)
    affine = np.eye(4)
    affine[:3, :2] = in_plane
    affine[:3, 2] = normal * step
    start = shifts[0] - low
    affine[:3, 3] = origins[0] - in_plane @ start
    shape = (columns + int(grown[0]), rows + int(grown[1]), count + 1)
    if np.prod(shape, dtype=float) > MAX_GROWTH * max(source.array.size, 1 << 20):
        raise NotScored(
            "unfit_geometry",
            f"The slices are so tilted or unequally spaced that a straight grid of them would "
            f"hold {' x '.join(str(side) for side in shape)} voxels.",
        )
    return StraightGrid(shifts - low, (distances - distances[0]) / step, affine, shape)


@dataclass(frozen=True, eq=False)
class _Moved:
    """A slice moved in its plane: values times weights, and weights, shape (rows, columns)."""

    total: NDArray[np.float32]
    weight: NDArray[np.float32]


def _neighbours(depths: FloatArray, depth: float) -> tuple[int, int, float]:
    """Return the slices before and after a depth, and the share of the one after."""
    after = int(np.clip(np.searchsorted(depths, depth - 1e-6), 1, len(depths) - 1))
    before = after - 1
    share = float((depth - depths[before]) / (depths[after] - depths[before]))
    share = min(max(share, 0.0), 1.0)
    if share < WHOLE:
        return before, before, 0.0
    if share > 1 - WHOLE:
        return after, after, 0.0
    return before, after, share


def _moved(image: Voxels, grid: StraightGrid, k: int) -> _Moved:
    """Move an image of shape (rows, columns) by fractions of pixels, bilinearly."""
    total = np.zeros(grid.shape[1::-1], np.float32)
    shift = grid.shifts[k, ::-1]
    whole = np.floor(shift + WHOLE).astype(int)
    rest = np.where(shift - whole < WHOLE, 0.0, shift - whole)
    ends = [np.zeros(side, np.float32) for side in total.shape]
    for axis in (0, 1):
        for step, part in ((0, 1 - rest[axis]), (1, rest[axis])):
            if part:
                start = whole[axis] + step
                ends[axis][start : start + image.shape[axis]] += np.float32(part)
    for down, lower in ((0, 1 - rest[0]), (1, rest[0])):
        for right, farther in ((0, 1 - rest[1]), (1, rest[1])):
            if lower * farther:
                row, column = whole[0] + down, whole[1] + right
                place = total[row : row + image.shape[0], column : column + image.shape[1]]
                place += np.float32(lower * farther) * image
    return _Moved(total, np.outer(*ends))


def _mix(
    before: _Moved, after: _Moved, share: float, background: float, out: NDArray[np.float32]
) -> None:
    """Interpolate between two moved slices; what less than half a weight covers is background."""
    weight = before.weight
    if before is after:
        out[:] = before.total
    else:
        np.multiply(before.total, np.float32(1 - share), out=out)
        out += np.float32(share) * after.total
        weight = np.float32(1 - share) * before.weight + np.float32(share) * after.weight
    covered = weight >= COVERED
    np.divide(out, weight, out=out, where=covered & (weight != 1))
    out[~covered] = background
