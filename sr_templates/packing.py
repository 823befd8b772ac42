"""The frames of a Segmentation, put in without a copy of the labels for each segment.

highdicom makes everything else, on a grid of one pixel: with many structures on many slices its own
way to frames takes minutes and several times the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from sr_templates.frames import Frame

SAME_PLACE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Marks:
    """What is marked on the slices of the source.

    Parameters
    ----------
    planes : NDArray[np.uint8]
        Labels, shape (slices, rows, columns).
    overlapping : mapping
        Label of each segment that shares pixels with others to all of its pixels, of the same
        shape.
    """

    planes: NDArray[np.uint8]
    overlapping: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    def on(self, place: int) -> frozenset[int]:
        """Labels on a slice."""
        [found] = np.nonzero(np.bincount(self.planes[place].ravel()))
        alone = set(found.tolist()) - {0} - self.overlapping.keys()
        return frozenset(alone | {n for n, mask in self.overlapping.items() if mask[place].any()})

    def masks(self, place: int, labels: Iterable[int]) -> Iterator[NDArray[np.bool_]]:
        """Pixels of labels on a slice, flat."""
        plane = self.planes[place].ravel()
        for label in labels:
            whole = self.overlapping.get(label)
            yield plane == label if whole is None else whole[place].ravel()


def skeleton_pixels(marks: Marks) -> NDArray[np.uint8]:
    """Pixels to build a Segmentation of: one that is marked on each slice where any is.

    Returns
    -------
    NDArray[np.uint8]
        Shape (slices, 1, 1), 0 or 1.
    """
    marked = [bool(marks.on(place)) for place in range(len(marks.planes))]
    return np.array(marked, np.uint8)[:, None, None]


def fill(seg: Dataset, marks: Marks, labels: Sequence[int], frames: Sequence[Frame]) -> None:
    """Give a Segmentation of `skeleton_pixels` its frames.

    Parameters
    ----------
    seg : Dataset
        BINARY or LABELMAP; changed in place.
    marks : Marks
    labels : sequence of int
        Of segment 1, 2, ...
    frames : sequence of Frame
        Of the source, in the order of the slices of `marks`.

    Raises
    ------
    RuntimeError
        The frames of `seg` do not lie where the slices lie.
    """
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    marked = [_place_of(group, frames) for group in groups]
    wanted = {place for place in range(len(frames)) if marks.on(place)}
    if set(marked) != wanted or len(marked) != len(wanted):
        raise RuntimeError("the frames of the segmentation are not those of the marked slices")
    for group in groups:  # on one pixel highdicom cannot see that they lie on the source's
        group.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "YES"
    seg.Rows, seg.Columns = marks.planes.shape[1:]
    seg.SegmentsOverlap = "YES" if marks.overlapping else "NO"
    if seg.SegmentationType == "BINARY":
        seg.PixelData = _binary(seg, marks, labels, marked, groups)
    else:
        seg.PixelData = _label_map(marks.planes, labels, marked)


def _place_of(group: Dataset, frames: Sequence[Frame]) -> int:
    """Which slice a frame of the skeleton is: highdicom has an order of its own."""
    position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
    away = [np.abs(position - frame.position).max() for frame in frames]
    place = int(np.argmin(away))
    if away[place] > SAME_PLACE_MM:
        raise RuntimeError("a frame of the segmentation lies where no slice lies")
    return place


def _binary(
    seg: Dataset,
    marks: Marks,
    labels: Sequence[int],
    marked: Sequence[int],
    groups: Sequence[Dataset],
) -> bytes:
    """Put in one frame for each segment and slice that has it; their pixels, packed."""
    there = [marks.on(place) for place in marked]
    order = [
        (number, place)
        for number, label in enumerate(labels, start=1)
        for place, found in enumerate(there)
        if label in found
    ]
    shared = seg.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:  # of the skeleton's one segment
        del shared.SegmentIdentificationSequence
    identified = {number: _identification(number) for number in range(1, len(labels) + 1)}
    seg.PerFrameFunctionalGroupsSequence = [
        _item(groups[place], number, identified[number]) for number, place in order
    ]
    seg.NumberOfFrames = len(order)
    return _packed(marks, labels, marked, order)


def _identification(number: int) -> DataElement:
    item = Dataset()
    item.ReferencedSegmentNumber = number
    holder = Dataset()
    holder.SegmentIdentificationSequence = [item]
    return holder["SegmentIdentificationSequence"]


def _item(group: Dataset, number: int, identification: DataElement) -> Dataset:
    """Functional groups of a frame: those of its slice and its segment, which are shared."""
    content, values = Dataset(), group.FrameContentSequence[0]
    for element in values:
        if element.keyword != "DimensionIndexValues":
            content.add(element)
    content.DimensionIndexValues = [number, *list(values.DimensionIndexValues)[1:]]
    item = Dataset()
    for element in group:
        if element.keyword not in ("FrameContentSequence", "SegmentIdentificationSequence"):
            item.add(element)
    item.add(identification)
    item.FrameContentSequence = [content]
    return item


def _packed(
    marks: Marks,
    labels: Sequence[int],
    marked: Sequence[int],
    order: Sequence[tuple[int, int]],
) -> bytes:
    """Pixels of all frames, eight in a byte, the first in the lowest bit (PS3.5 8.1.1).

    Slice by slice, because in memory the pixels of a slice lie far from each other.
    """
    pixels = marks.planes.shape[1] * marks.planes.shape[2]
    size = -(-len(order) * pixels // 8)
    buffer = BytesIO()
    buffer.seek(size + size % 2 - 1)
    buffer.write(b"\0")  # all of it at once: growing would copy
    packed = np.frombuffer(buffer.getbuffer(), np.uint8)
    frames: dict[int, list[tuple[int, int]]] = {}
    for frame, (number, place) in enumerate(order):
        frames.setdefault(place, []).append((frame, labels[number - 1]))
    for place, wanted in frames.items():
        masks = marks.masks(marked[place], (label for _, label in wanted))
        for (frame, _), bits in zip(wanted, masks, strict=True):
            start, shift = divmod(frame * pixels, 8)
            if shift:
                bits = np.concatenate([np.zeros(shift, np.bool_), bits])
            part = np.packbits(bits, bitorder="little")
            packed[start : start + part.size] |= part
    del packed
    return buffer.getvalue()


def _label_map(planes: NDArray[np.uint8], labels: Sequence[int], marked: Sequence[int]) -> bytes:
    """Pixels that hold numbers of segments."""
    renumber = np.zeros(256, np.uint8)
    renumber[list(labels)] = np.arange(1, len(labels) + 1)
    buffer = BytesIO()
    for place in marked:
        buffer.write(renumber[planes[place]].tobytes())
    return _even(buffer)


def _even(buffer: BytesIO) -> bytes:
    if buffer.tell() % 2:
        buffer.write(b"\0")
    return buffer.getvalue()
