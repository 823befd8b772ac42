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

MIN_SLICES = 4
"""Fewer slices are a localizer or a fragment, never a volume (dicom2nifti draws the same line)."""
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
        """Patient coordinates of pixel centres, shape (n, 3), LPS millimetres.

        References
        ----------
        DICOM PS3.3 equation C.7.6.2.1-1.
        """
        along_row = np.outer(columns * self.spacing[1], self.orientation[:3])
        along_column = np.outer(rows * self.spacing[0], self.orientation[3:])
        points: FloatArray = self.position + along_row + along_column
        return points


@dataclass(frozen=True, eq=False)
class Grid:
    """A stack of planes as one regular, untilted grid.

    Parameters
    ----------
    order : tuple of int
        Index of the plane at each place of the third axis; ascending along the normal, which is
        row direction x column direction, so that the grid is right-handed.
    affine : FloatArray
        4 x 4, takes (column, row, slice) to RAS+ millimetres.
    slice_step_mm : float
        Distance between neighbouring slice centres.
    tilt_degrees : float
        Angle between the line of slice positions and the normal; below the tolerance.
    """

    order: tuple[int, ...]
    affine: FloatArray
    slice_step_mm: float
    tilt_degrees: float


def grid_of(planes: Sequence[Plane]) -> Grid:
    """Arrange planes of one series as a grid.

    Parameters
    ----------
    planes : sequence of Plane
        In any order.

    Raises
    ------
    NotScored
        The planes are too few, differ in orientation or spacing, lie on top of each other, have
        gaps or unequal steps, or are sheared (gantry tilt).
    """
    if len(planes) < MIN_SLICES:
        raise NotScored(
            "too_few_slices",
            f"The series has {_images(len(planes))}; a volume needs at least {MIN_SLICES} "
            "(localizers and fragments are not scored).",
        )
    row, column = _directions(planes)
    spacing = _spacing(planes)
    normal = np.cross(row, column)
    positions = np.stack([plane.position for plane in planes])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    _refuse_same_positions(positions, normal)
    tilt = tilt_degrees(positions, normal)
    _refuse_tilt(positions, normal, tilt)
    step = _even_step(positions, normal)
    _refuse_displaced(positions, normal, spacing)
    affine = _affine(positions, (row, column, normal), (spacing[1], spacing[0], step))
    return Grid(tuple(int(index) for index in order), affine, step, tilt)


def tilt_degrees(positions: FloatArray, normal: FloatArray) -> float:
    """Angle between the line through slice positions and the slices' normal, in degrees.

    Parameters
    ----------
    positions : FloatArray
        Shape (slices, 3), at least two different distances along the normal.
    normal : FloatArray
        Unit vector.
    """
    distances = positions @ normal
    in_plane = positions - np.outer(distances, normal)
    centred = distances - distances.mean()
    drift = centred @ (in_plane - in_plane.mean(axis=0)) / (centred @ centred)
    return float(np.degrees(np.arctan(np.linalg.norm(drift))))


def nearest_plane(normal: FloatArray) -> tuple[str, float]:
    """Anatomical plane nearest to slices with this normal, and how far off it, in degrees."""
    axis = int(np.argmax(np.abs(normal)))
    off = float(np.degrees(np.arccos(min(1.0, abs(float(normal[axis]))))))
    return ("sagittal", "coronal", "axial")[axis], off


def voxel_indices(affine: FloatArray, points: FloatArray) -> FloatArray:
    """Fractional (column, row, slice) of LPS points in a volume with a RAS+ affine, (n, 3)."""
    inverse = np.linalg.inv(affine)
    ras = points * LPS_TO_RAS.diagonal()[:3]
    indices: FloatArray = ras @ inverse[:3, :3].T + inverse[:3, 3]
    return indices


def _directions(planes: Sequence[Plane]) -> tuple[FloatArray, FloatArray]:
    """Return the orthonormal row and column directions all planes share."""
    orientations = np.stack([plane.orientation for plane in planes])
    for cosines in orientations:
        _refuse_odd_cosines(cosines)
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


def _refuse_odd_cosines(cosines: FloatArray) -> None:
    row, column = cosines[:3], cosines[3:]
    defects = (
        abs(float(np.linalg.norm(row)) - 1),
        abs(float(np.linalg.norm(column)) - 1),
        abs(float(row @ column)),
    )
    if not np.isfinite(cosines).all() or max(defects) > COSINE_TOLERANCE:
        raise NotScored(
            "bad_orientation",
            "Image Orientation (Patient) does not hold two perpendicular unit vectors "
            f"(off by {max(defects):.3g}).",
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


def _refuse_tilt(positions: FloatArray, normal: FloatArray, tilt: float) -> None:
    steps = np.diff(positions @ normal)
    drift = float(np.tan(np.radians(tilt)) * steps.sum())
    if tilt <= TILT_TOLERANCE_DEGREES or drift <= STEP_TOLERANCE_MM:
        return
    unequal = float(steps.max() - steps.min()) > _step_tolerance(float(steps.mean()))
    raise NotScored(
        "gantry_tilt",
        f"The slices are sheared {tilt:.1f} degrees against their normal (gantry tilt)"
        + (f", with steps {steps.min():.2f} to {steps.max():.2f} mm" if unequal else "")
        + "; only untilted stacks are scored.",
    )


def _even_step(positions: FloatArray, normal: FloatArray) -> float:
    """Mean step between neighbouring slices, refused when a slice is off the even ladder."""
    distances = positions @ normal
    steps = np.diff(distances)
    mean = float(steps.mean())
    ladder = np.linspace(distances[0], distances[-1], len(distances))
    if float(np.abs(distances - ladder).max()) <= _step_tolerance(mean):
        return mean
    missing = _missing_places(positions, normal)
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise NotScored(
            "missing_slices",
            f"{_images(len(missing))} missing from the stack: no image at {shown} (steps "
            f"{steps.min():.2f} to {steps.max():.2f} mm).",
        )
    raise NotScored(
        "unequal_steps",
        f"The slices are unequally spaced: steps {steps.min():.2f} to {steps.max():.2f} mm.",
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


def _refuse_displaced(positions: FloatArray, normal: FloatArray, spacing: FloatArray) -> None:
    """Refuse a slice whose position lies off the stack's axis."""
    off = _off_axis(positions, normal)
    extent = float(np.ptp(positions @ normal))
    allowed = max(STEP_TOLERANCE_MM, extent * float(np.tan(np.radians(TILT_TOLERANCE_DEGREES))))
    worst = int(np.argmax(off))
    if off[worst] > min(allowed, 0.25 * float(spacing.min())):
        raise NotScored(
            "displaced_slices",
            f"The slice at {_place(positions[worst], normal)} lies {off[worst]:.2f} mm off the "
            "axis of the stack.",
        )


def _off_axis(positions: FloatArray, normal: FloatArray) -> FloatArray:
    """In-plane distance of each position from their median, millimetres."""
    in_plane = positions - np.outer(positions @ normal, normal)
    off: FloatArray = np.linalg.norm(in_plane - np.median(in_plane, axis=0), axis=1)
    return off


def _affine(
    positions: FloatArray,
    directions: tuple[FloatArray, FloatArray, FloatArray],
    steps: tuple[float, float, float],
) -> FloatArray:
    """Affine to RAS+ through the mean position, so that rounding of single headers averages out."""
    affine = np.eye(4)
    for axis, (direction, step) in enumerate(zip(directions, steps, strict=True)):
        affine[:3, axis] = direction * step
    middle = affine[:3, 2] * (len(positions) - 1) / 2
    affine[:3, 3] = positions.mean(axis=0) - middle
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
