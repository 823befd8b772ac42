"""The outlines of what a Segmentation marks, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sr_templates.checks.voxels import frame_arrays, is_label_map, segment_numbers
from sr_templates.frames import Frame, frames_of

Polygon = NDArray[np.float64]
"""Shape (points, 2): column and row, 0 at the centre of the first pixel; the first point is not
repeated."""


@dataclass(frozen=True, eq=False)
class MarkedSlice:
    """What one segment marks in one slice.

    Parameters
    ----------
    segment : int
        Segment Number.
    frame : Frame
        Where the slice lies.
    group : Dataset
        The frame's item of Per-Frame Functional Groups.
    mask : NDArray[np.bool_]
        Shape (rows, columns).
    """

    segment: int
    frame: Frame
    group: Dataset
    mask: NDArray[np.bool_]


def marked_slices(seg: Dataset) -> Iterator[MarkedSlice]:
    """Yield every segment on every slice, frame by frame.

    Parameters
    ----------
    seg : Dataset
        Segmentation, binary or a label map.
    """
    shape = int(seg.Rows), int(seg.Columns)
    numbers = [] if is_label_map(seg) else segment_numbers(seg)
    frames = zip(frames_of(seg), seg.PerFrameFunctionalGroupsSequence, strict=True)
    for place, ((frame, group), flat) in enumerate(zip(frames, frame_arrays(seg), strict=True)):
        pixels = np.asarray(flat).reshape(shape)
        if numbers:
            yield MarkedSlice(numbers[place], frame, group, pixels != 0)
            continue
        for number in np.unique(pixels[pixels != 0]).tolist():
            yield MarkedSlice(int(number), frame, group, pixels == number)


def polygons(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Trace what is marked in a slice, half way between marked pixels and others.

    The centres of marked pixels, and no others, lie inside. A hole is joined to its outline by
    a channel without width, which every reader of closed polygons understands.

    Parameters
    ----------
    mask : NDArray[np.bool_]
        Shape (rows, columns).

    Returns
    -------
    list of NDArray[np.float64]
        The largest first.
    """
    padded = np.pad(mask.astype(np.float64), 1)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    found = []
    for points, offsets in zip(*generator.filled(0.5, 1.5), strict=True):
        rings = [
            _corners(points[start : end - 1] - 1.0) for start, end in pairwise(offsets.tolist())
        ]
        outline = rings[0]
        for hole in rings[1:]:
            outline = _joined(outline, hole)
        found.append(outline)
    return sorted(found, key=area, reverse=True)


def area(polygon: Polygon) -> float:
    """Area of a polygon, in pixels."""
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2.0)


def in_patient(polygon: Polygon, frame: Frame) -> NDArray[np.float64]:
    """Return the points of a polygon in LPS millimetres, shape (points, 3)."""
    across = polygon[:, :1] * (frame.orientation[:3] * frame.spacing[1])
    down = polygon[:, 1:] * (frame.orientation[3:] * frame.spacing[0])
    return np.asarray(frame.position + across + down, np.float64)


def _corners(ring: Polygon) -> Polygon:
    """Leave out points that lie straight between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    return ring[turns]


def _joined(outline: Polygon, hole: Polygon) -> Polygon:
    """Make one ring of an outline and its hole, by a channel along the upper edge of a pixel row.

    The channel runs from the top of the hole to the left, so that it meets no pixel's centre.
    """
    top = int(np.lexsort((hole[:, 0], hole[:, 1]))[0])
    x, y = hole[top]
    ahead = np.roll(outline, -1, axis=0)
    low, high = np.minimum(outline[:, 1], ahead[:, 1]), np.maximum(outline[:, 1], ahead[:, 1])
    [edges] = np.nonzero((low <= y) & (y < high))
    here, there = outline[edges], ahead[edges]
    share = (y - here[:, 1]) / (there[:, 1] - here[:, 1])
    crossings = here[:, 0] + share * (there[:, 0] - here[:, 0])
    nearest = int(np.where(crossings <= x, crossings, -np.inf).argmax())
    place, turned = int(edges[nearest]) + 1, np.roll(hole, -top, axis=0)
    channel = np.array([[crossings[nearest], y]])
    return np.concatenate([outline[:place], channel, turned, turned[:1], channel, outline[place:]])
