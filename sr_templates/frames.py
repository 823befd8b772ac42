"""Where the frames of a series lie in the patient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sr_templates.base import UnfitSource

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ON_GRID_MM = 0.5
"""How far a slice may lie from its place on a regular grid and still count as regular."""
SAME_PLACE_MM = 1e-3
"""Slices that are nearer to each other lie at the same place."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: a single-frame instance, or one frame of a multi-frame instance.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid : str
    frame_number : int or None
        Counted from 1; None for a single-frame instance.
    instance_number : int or None
    position : NDArray[np.float64]
        Image Position (Patient), LPS millimetres, shape (3,).
    orientation : NDArray[np.float64]
        Image Orientation (Patient), shape (6,).
    spacing : NDArray[np.float64]
        Pixel Spacing: between rows, between columns, millimetres.
    rows, columns : int
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None
    instance_number: int | None
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    rows: int
    columns: int

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice."""
        vector = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(vector / np.linalg.norm(vector), np.float64)


@dataclass(frozen=True, eq=False)
class Grid:
    """Equal frames, one behind the other along their normal.

    ``affine`` takes (slice, row, column) indices to LPS millimetres, 4 x 4.
    """

    frames: tuple[Frame, ...]
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.frames), self.frames[0].rows, self.frames[0].columns


def frames_of(ds: Dataset) -> Iterator[Frame]:
    """Yield the frames of one instance.

    Raises
    ------
    UnfitSource
        A frame has no place in the patient.
    """
    if "PerFrameFunctionalGroupsSequence" not in ds:
        yield _frame(ds, None, (ds,))
        return
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for number, own in enumerate(ds.PerFrameFunctionalGroupsSequence, start=1):
        yield _frame(ds, number, tuple(_geometry_items((own, shared[0]))))


def _geometry_items(groups: Iterable[Dataset]) -> Iterator[Dataset]:
    for item in groups:
        for group in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
            yield from item.get(group) or ()


def _frame(ds: Dataset, number: int | None, holders: Sequence[Dataset]) -> Frame:
    def values(keyword: str, count: int) -> NDArray[np.float64]:
        for holder in holders:
            found = holder.get(keyword)
            if found is not None and len(found) == count:
                return np.array([float(value) for value in found])
        raise UnfitSource(f"instance {ds.SOPInstanceUID} has no {keyword}")

    if not ds.get("Rows") or not ds.get("Columns"):
        raise UnfitSource(f"instance {ds.SOPInstanceUID} has no Rows and Columns")
    return Frame(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        frame_number=number,
        instance_number=None if ds.get("InstanceNumber") is None else int(ds.InstanceNumber),
        position=values("ImagePositionPatient", 3),
        orientation=values("ImageOrientationPatient", 6),
        spacing=values("PixelSpacing", 2),
        rows=int(ds.Rows),
        columns=int(ds.Columns),
    )


def grid_of(sources: Iterable[Dataset]) -> Grid:
    """Arrange the frames of a series on one regular grid.

    Parameters
    ----------
    sources : iterable of Dataset
        Single-frame or multi-frame instances, in any order.

    Returns
    -------
    Grid

    Raises
    ------
    UnfitSource
        The frames differ in size, spacing or orientation, or do not lie at equal steps
        straight behind each other.
    """
    frames = parallel_frames(sources)
    first = frames[0]
    positions = np.array([frame.position for frame in frames])
    step = _step(positions, first)
    affine = np.eye(4)
    affine[:3, 0] = first.normal * step
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = first.orientation[:3] * first.spacing[1]
    affine[:3, 3] = positions[0]
    _refuse_irregular(positions, affine, frames)
    return Grid(frames, affine)


def parallel_frames(sources: Iterable[Dataset]) -> tuple[Frame, ...]:
    """Order the frames of a series along their normal, wherever in their planes they lie.

    Raises
    ------
    UnfitSource
        The frames differ in size, spacing or orientation, or two lie at the same place.
    """
    frames = [frame for ds in sources for frame in frames_of(ds)]
    for frame in frames:
        _refuse_difference(frames[0], frame)
    normal = frames[0].normal
    ordered = tuple(sorted(frames, key=lambda frame: float(frame.position @ normal)))
    for before, after in pairwise(ordered):
        if float((after.position - before.position) @ normal) < SAME_PLACE_MM:
            raise UnfitSource(
                f"instances {before.sop_instance_uid} and {after.sop_instance_uid} lie at the "
                "same place"
            )
    return ordered


def steps_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Distances between neighbouring frames along their normal, shape (frames - 1,)."""
    distances = np.array([frame.position @ frames[0].normal for frame in frames])
    return np.diff(distances)


def thicknesses_mm(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Return how much of the normal each frame stands for, shape (frames,).

    Half way to each neighbour; outer frames reach as far outwards as inwards.

    Parameters
    ----------
    frames : sequence of Frame
        As `parallel_frames` orders them.
    """
    if len(frames) == 1:
        return np.ones(1)
    gaps = steps_mm(frames)
    padded = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    return np.asarray((padded[1:] + padded[:-1]) / 2, np.float64)


def _refuse_difference(first: Frame, frame: Frame) -> None:
    if (frame.rows, frame.columns) != (first.rows, first.columns):
        raise UnfitSource(
            f"instance {frame.sop_instance_uid} has {frame.rows} x {frame.columns} pixels, "
            f"the others {first.rows} x {first.columns}"
        )
    if not np.allclose(frame.spacing, first.spacing, atol=1e-3):
        raise UnfitSource(f"instance {frame.sop_instance_uid} has another Pixel Spacing")
    if not np.allclose(frame.orientation, first.orientation, atol=1e-3):
        raise UnfitSource(f"instance {frame.sop_instance_uid} has another orientation")


def _step(positions: NDArray[np.float64], first: Frame) -> float:
    if len(positions) == 1:
        return 1.0
    step = float((positions[-1] - positions[0]) @ first.normal) / (len(positions) - 1)
    if step < 1e-3:
        raise UnfitSource("all slices lie at the same position")
    return step


def _refuse_irregular(
    positions: NDArray[np.float64], affine: NDArray[np.float64], frames: Sequence[Frame]
) -> None:
    wanted = affine[:3, 3] + np.arange(len(positions))[:, None] * affine[:3, 0]
    away = np.linalg.norm(positions - wanted, axis=1)
    worst = int(away.argmax())
    if away[worst] > ON_GRID_MM:
        raise UnfitSource(
            f"instance {frames[worst].sop_instance_uid} lies {away[worst]:.2f} mm from its place "
            f"on a regular grid, at most {ON_GRID_MM} mm are allowed"
        )
