"""From image planes to one grid: order, steps, tilt and gaps, from positions and orientation only.

Coordinates here are those of the DICOM Standard: LPS, in millimetres. Tags that merely describe
the geometry (Slice Thickness, Spacing Between Slices, Gantry/Detector Tilt) are never used.

References
----------
DICOM PS3.3 C.7.6.2, Image Plane Module; C.7.6.2.1.1 for the mapping equation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.base import NotScored

FloatArray = NDArray[np.float64]

MIN_PLANES = 2
MIN_SLICES = 4
"""Fewer slices are a localizer or a fragment, never scored (dicom2nifti draws the same line)."""
SAME_POSITION_MM = 0.01
STEP_TOLERANCE_MM = 0.02
STEP_TOLERANCE = 0.01
TILT_TOLERANCE_DEGREES = 0.05
ORIENTATION_TOLERANCE_DEGREES = 0.05
COSINE_TOLERANCE = 1e-3
SPACING_TOLERANCE = 1e-3
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Plane:
    """Where one image lies.

    Parameters
    ----------
    position : FloatArray
        Image Position (Patient): centre of the first pixel, LPS millimetres, shape (3,).
    orientation : FloatArray
        Image Orientation (Patient), shape (6,): direction along a row, then along a column.
    spacing : FloatArray
        Pixel Spacing, millimetres, shape (2,): between rows, then between columns.
    """

    position: FloatArray
    orientation: FloatArray
    spacing: FloatArray

    def points(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> FloatArray:
        """Patient coordinates of pixel centres, shape (n, 3), LPS millimetres."""
        points: FloatArray = points_of([self], rows, columns)[0]
        return points


@dataclass(frozen=True, eq=False)
class Grid:
    """A stack of parallel planes as a grid, sheared where the gantry was tilted.

    Parameters
    ----------
    order : tuple of int
        Index of the plane at each place of the third axis; ascending along the normal, which is
        row direction x column direction, so that the grid is right-handed.
    affine : FloatArray
        4 x 4, takes (column, row, slice) to RAS+ millimetres.
    origins : FloatArray or None
        Where steps are unequal, the position of each plane in order, RAS+ millimetres, shape
        (planes, 3); `affine` then connects the first plane with the last. None: `affine` is exact.
    slice_step_mm : float
        Distance between neighbouring planes along the normal; the median of unequal ones.
    step_range_mm : tuple of float
        Smallest and largest step.
    extent_mm : float
        Distance along the normal from the first plane to the last.
    tilt_degrees : float
        Angle between the line of slice positions and the normal.
    is_sheared : bool
        The tilt is more than rounding of headers.
    missing : tuple of str
        Places of planes that would complete an even stack: ``z = -32.5 mm``.
    """

    order: tuple[int, ...]
    affine: FloatArray
    origins: FloatArray | None
    slice_step_mm: float
    step_range_mm: tuple[float, float]
    extent_mm: float
    tilt_degrees: float
    is_sheared: bool
    missing: tuple[str, ...] = ()


def points_of(
    planes: Sequence[Plane], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> FloatArray:
    """Patient coordinates of the same pixels of each plane, shape (planes, n, 3), LPS millimetres.

    References
    ----------
    DICOM PS3.3 equation C.7.6.2.1-1.
    """
    positions = np.stack([plane.position for plane in planes])
    orientations = np.stack([plane.orientation for plane in planes])
    spacings = np.stack([plane.spacing for plane in planes])
    along_row = (spacings[:, 1:] * columns)[:, :, None] * orientations[:, None, :3]
    along_column = (spacings[:, :1] * rows)[:, :, None] * orientations[:, None, 3:]
    points: FloatArray = positions[:, None] + along_row + along_column
    return points


def grid_of(planes: Sequence[Plane]) -> Grid:
    """Arrange parallel planes as a grid.

    Parameters
    ----------
    planes : sequence of Plane
        In any order.

    Raises
    ------
    NotScored
        The planes are too few, differ in orientation or spacing, lie on top of each other, or
        their positions do not lie on one line.
    """
    if len(planes) < MIN_PLANES:
        raise NotScored(
            "too_few_slices",
            f"There is {_images(len(planes))}; a volume needs at least {MIN_PLANES}.",
        )
    row, column = _directions(planes)
    spacing = _spacing(planes)
    normal = np.cross(row, column)
    positions = np.stack([plane.position for plane in planes])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    _refuse_same_positions(positions, normal)
    tilt = tilt_degrees(positions, normal)
    stride = _stride(positions, normal, tilt)
    _refuse_displaced(positions, normal, stride, spacing)
    steps = np.diff(positions @ normal)
    even = _is_even(positions @ normal)
    mean = float(steps.mean())
    affine = _affine(
        positions if even else positions[[0, -1]],
        (row * spacing[1], column * spacing[0], stride * mean),
        len(positions),
    )
    return Grid(
        order=tuple(int(index) for index in order),
        affine=affine,
        origins=None if even else positions * LPS_TO_RAS.diagonal()[:3],
        slice_step_mm=mean if even else float(np.median(steps)),
        step_range_mm=(float(steps.min()), float(steps.max())),
        extent_mm=float(steps.sum()),
        tilt_degrees=tilt,
        is_sheared=not np.array_equal(stride, normal),
        missing=() if even else tuple(_missing_places(positions, normal)),
    )


def refuse_gaps(grid: Grid) -> None:
    """Refuse a stack of fewer than `MIN_SLICES` slices, or one from which slices are missing."""
    if len(grid.order) < MIN_SLICES:
        raise NotScored(
            "too_few_slices",
            f"The series has {_images(len(grid.order))}; a volume needs at least {MIN_SLICES} "
            "(localizers and fragments are not scored).",
        )
    if grid.missing:
        low, high = grid.step_range_mm
        raise NotScored(
            "missing_slices",
            f"{_images(len(grid.missing))} missing from the stack: {gap_sentence(grid)} (steps "
            f"{low:.2f} to {high:.2f} mm).",
        )


def gap_sentence(grid: Grid) -> str:
    """Say where images are missing: ``no image at z = -32.5 mm``; empty where none is."""
    if not grid.missing:
        return ""
    return f"no image at {', '.join(grid.missing[:5])}" + (", ..." if grid.missing[5:] else "")


def tilt_degrees(positions: FloatArray, normal: FloatArray) -> float:
    """Angle between the line through slice positions and the slices' normal, in degrees.

    Parameters
    ----------
    positions : FloatArray
        Shape (slices, 3), at least two different distances along the normal.
    normal : FloatArray
        Unit vector.
    """
    return float(np.degrees(np.arctan(np.linalg.norm(_drift(positions, normal)))))


def nearest_plane(normal: FloatArray) -> tuple[str, float]:
    """Anatomical plane nearest to slices with this normal, and how far off it, in degrees."""
    axis = int(np.argmax(np.abs(normal)))
    off = float(np.degrees(np.arccos(min(1.0, abs(float(normal[axis]))))))
    return ("sagittal", "coronal", "axial")[axis], off


def voxel_indices(
    affine: FloatArray, points: FloatArray, origins: FloatArray | None = None
) -> FloatArray:
    """Fractional (column, row, slice) of LPS points in a volume, shape (n, 3).

    Parameters
    ----------
    affine : FloatArray
        4 x 4, to RAS+ millimetres.
    points : FloatArray
        Shape (n, 3), LPS millimetres.
    origins : FloatArray or None
        First voxel of each slice, RAS+ millimetres, where slices are unequally spaced.
    """
    ras = points * LPS_TO_RAS.diagonal()[:3]
    if origins is None:
        inverse = np.linalg.inv(affine)
        indices: FloatArray = ras @ inverse[:3, :3].T + inverse[:3, 3]
        return indices
    before, after = 2 * origins[0] - origins[1], 2 * origins[-1] - origins[-2]
    rungs = np.vstack([before, origins, after])
    numbers = np.arange(-1.0, len(origins) + 1)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    slices = np.interp(ras @ normal, rungs @ normal, numbers)
    starts = np.stack([np.interp(slices, numbers, rungs[:, axis]) for axis in range(3)], axis=1)
    axes = affine[:3, :2] / (affine[:3, :2] ** 2).sum(axis=0)
    return np.column_stack([(ras - starts) @ axes, slices])


def _directions(planes: Sequence[Plane]) -> tuple[FloatArray, FloatArray]:
    """Return the orthonormal row and column directions all planes share."""
    orientations = np.stack([plane.orientation for plane in planes])
    _refuse_odd_cosines(orientations)
    first = orientations[0]
    row, column, spread = first[:3], first[3:], 0.0
    for start, direction in ((0, row), (3, column)):
        chords = np.linalg.norm(orientations[:, start : start + 3] - direction, axis=1)
        spread = max(spread, float(chords.max()))
    angle = float(np.degrees(2 * np.arcsin(min(1.0, spread / 2))))
    if angle > ORIENTATION_TOLERANCE_DEGREES:
        raise NotScored(
            "mixed_orientation",
            f"The images lie in different orientations, up to {angle:.1f} degrees apart; "
            "one volume needs parallel slices.",
        )
    row = row / np.linalg.norm(row)
    column = column - row * float(row @ column)
    return row, column / np.linalg.norm(column)


def _refuse_odd_cosines(orientations: FloatArray) -> None:
    row, column = orientations[:, :3], orientations[:, 3:]
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(orientations.reshape(-1, 2, 3), axis=2)
        products = (row * column).sum(axis=1)
        off = max(float(np.abs(lengths - 1).max()), float(np.abs(products).max()))
    if not off <= COSINE_TOLERANCE:
        raise NotScored(
            "bad_orientation",
            "Image Orientation (Patient) does not hold two perpendicular unit vectors "
            f"(off by {off:.3g}).",
        )


def _spacing(planes: Sequence[Plane]) -> FloatArray:
    spacings = np.stack([plane.spacing for plane in planes])
    low, high = spacings.min(axis=0), spacings.max(axis=0)
    if (high - low > SPACING_TOLERANCE * low).any():
        raise NotScored(
            "mixed_spacing",
            f"The images have different Pixel Spacing, {low[0]:.4g} x {low[1]:.4g} mm to "
            f"{high[0]:.4g} x {high[1]:.4g} mm.",
        )
    mean: FloatArray = spacings.mean(axis=0)
    return mean


def _refuse_same_positions(positions: FloatArray, normal: FloatArray) -> None:
    """Positions are sorted along the normal."""
    steps = np.diff(positions @ normal)
    close = np.flatnonzero(steps < SAME_POSITION_MM)
    if not len(close):
        return
    first = int(close[0])
    apart = float(np.linalg.norm(positions[first + 1] - positions[first]))
    if apart >= SAME_POSITION_MM:
        raise NotScored(
            "coplanar_images",
            f"Images lie side by side in one plane at {_place(positions[first], normal)}, "
            f"{apart:.2f} mm apart; one volume needs one image per slice.",
        )
    raise NotScored(
        "duplicate_positions",
        f"{len(close)} of {len(positions)} images lie where another one lies, the first at "
        f"{_place(positions[first], normal)}; one volume needs one image per position.",
    )


def _stride(positions: FloatArray, normal: FloatArray, tilt: float) -> FloatArray:
    """Way from plane to plane for each millimetre along the normal; the normal where untilted."""
    distances = positions @ normal
    drift = float(np.tan(np.radians(tilt)) * np.ptp(distances))
    if tilt <= TILT_TOLERANCE_DEGREES or drift <= STEP_TOLERANCE_MM:
        return normal
    return normal + _drift(positions, normal)


def _drift(positions: FloatArray, normal: FloatArray) -> FloatArray:
    """In-plane way of the positions for each millimetre along the normal, by least squares."""
    distances = positions @ normal
    in_plane = positions - np.outer(distances, normal)
    centred = distances - distances.mean()
    drift: FloatArray = centred @ (in_plane - in_plane.mean(axis=0)) / (centred @ centred)
    return drift


def _is_even(distances: FloatArray) -> bool:
    """Tell whether planes lie on an even ladder, but for rounding."""
    ladder = np.linspace(distances[0], distances[-1], len(distances))
    return float(np.abs(distances - ladder).max()) <= _step_tolerance(
        float(np.diff(distances).mean())
    )


def _missing_places(positions: FloatArray, normal: FloatArray) -> list[str]:
    """Places of the slices that would complete an even ladder; empty when there is no ladder."""
    steps = np.diff(positions @ normal)
    base = float(steps[steps < 1.5 * steps.min()].mean())
    rungs = np.rint(steps / base)
    if float(np.abs(steps - rungs * base).max()) > _step_tolerance(base):
        return []
    places = []
    for index in np.flatnonzero(rungs > 1):
        count = int(rungs[index])
        for rung in range(1, min(count, 1000)):
            between = positions[index + 1] - positions[index]
            places.append(_place(positions[index] + between * rung / count, normal))
    return places if len(places) <= len(positions) else []


def _refuse_displaced(
    positions: FloatArray, normal: FloatArray, stride: FloatArray, spacing: FloatArray
) -> None:
    """Refuse a slice whose position lies off the stack's axis."""
    distances = positions @ normal
    along = positions - np.outer(distances, stride)
    off = np.linalg.norm(along - np.median(along, axis=0), axis=1)
    extent = float(np.ptp(distances))
    allowed = max(STEP_TOLERANCE_MM, extent * float(np.tan(np.radians(TILT_TOLERANCE_DEGREES))))
    worst = int(np.argmax(off))
    if off[worst] > min(allowed, 0.25 * float(spacing.min())):
        raise NotScored(
            "displaced_slices",
            f"The slice at {_place(positions[worst], normal)} lies {off[worst]:.2f} mm off the "
            "axis of the stack.",
        )


def _affine(
    positions: FloatArray, steps: tuple[FloatArray, FloatArray, FloatArray], count: int
) -> FloatArray:
    """Affine to RAS+ through the mean position, so that rounding of single headers averages out."""
    affine = np.eye(4)
    affine[:3, :3] = np.stack(steps, axis=1)
    affine[:3, 3] = positions.mean(axis=0) - affine[:3, 2] * (count - 1) / 2
    ras: FloatArray = LPS_TO_RAS @ affine
    return ras


def _step_tolerance(step: float) -> float:
    return max(STEP_TOLERANCE_MM, STEP_TOLERANCE * step)


def _place(position: FloatArray, normal: FloatArray) -> str:
    """Coordinate of a slice along the axis its normal is nearest to, as in its header."""
    axis = int(np.argmax(np.abs(normal)))
    return f"{'xyz'[axis]} = {position[axis]:.1f} mm"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
