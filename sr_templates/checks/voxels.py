"""The pixels of a Segmentation, frame by frame, so that a large one is never unpacked at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels

from sr_templates.checks.base import LABEL_MAP
from sr_templates.frames import frames_of, parallel_frames, thicknesses_mm


def is_label_map(seg: Dataset) -> bool:
    """Whether pixels hold segment numbers (Label Map Segmentation)."""
    return bool(seg.get("SOPClassUID") == LABEL_MAP)


def is_encapsulated(ds: Dataset) -> bool:
    """Whether the pixels are compressed."""
    meta = getattr(ds, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta else None
    return bool(syntax and syntax.is_encapsulated)


def pixel_trouble(seg: Dataset) -> str:
    """Say how the pixels do not fit the frames; empty when they do."""
    if "PixelData" not in seg:
        return "is missing"
    frames = int(seg.NumberOfFrames)
    if is_encapsulated(seg):
        try:
            found = sum(1 for _ in generate_frames(seg.PixelData, number_of_frames=frames))
        except (ValueError, IndexError, RuntimeError):
            return "cannot be taken apart into frames"
        return "" if found == frames else f"holds {found} frames, wanted {frames}"
    bits = frames * int(seg.Rows) * int(seg.Columns) * int(seg.BitsAllocated)
    wanted = -(-bits // 8)
    wanted += wanted % 2
    found = len(seg.PixelData)
    return "" if found == wanted else f"holds {found} bytes, wanted {wanted}"


def frame_arrays(seg: Dataset) -> Iterator[NDArray[np.generic]]:
    """Yield the pixels of one frame after the other, shape (rows, columns) or flat."""
    if is_encapsulated(seg) or int(seg.BitsAllocated) != 1:
        yield from iter_pixels(seg)
        return
    data = np.frombuffer(seg.PixelData, np.uint8)
    size = int(seg.Rows) * int(seg.Columns)
    for start in range(0, int(seg.NumberOfFrames) * size, size):
        first, shift = divmod(start, 8)
        part = data[first : -(-(start + size) // 8)]
        yield np.unpackbits(part, bitorder="little")[shift : shift + size]


def segment_numbers(seg: Dataset) -> list[int]:
    """Segment number of each frame, which a Label Map does not have."""
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    found = []
    for group in seg.PerFrameFunctionalGroupsSequence:
        holder = group if "SegmentIdentificationSequence" in group else shared
        found.append(int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber))
    return found


def counts_by_frame(seg: Dataset) -> list[dict[int, int]]:
    """Voxels of each segment in each frame."""
    if is_label_map(seg):
        return [_counts_of_labels(pixels) for pixels in frame_arrays(seg)]
    numbers = segment_numbers(seg)
    return [
        {number: int(np.count_nonzero(pixels))}
        for number, pixels in zip(numbers, frame_arrays(seg), strict=True)
    ]


def _counts_of_labels(pixels: NDArray[np.generic]) -> dict[int, int]:
    numbers, counts = np.unique(pixels, return_counts=True)
    return {int(n): int(c) for n, c in zip(numbers, counts, strict=True) if n}


def total(counts: Sequence[dict[int, int]]) -> dict[int, int]:
    """Voxels of each segment in all frames."""
    found: dict[int, int] = {}
    for frame in counts:
        for number, voxels in frame.items():
            found[number] = found.get(number, 0) + voxels
    return found


def voxels_by_segment(seg: Dataset) -> dict[int, int]:
    """Count the voxels of each segment of a Segmentation that was read from bytes."""
    return total(counts_by_frame(seg))


def ml_by_segment(seg: Dataset, sources: Sequence[Dataset]) -> dict[int, float]:
    """Volume of each segment in millilitres: a voxel is as thick as its source slice stands for."""
    slices = parallel_frames(sources)
    normal = slices[0].normal
    distances = np.array([frame.position @ normal for frame in slices])
    thicknesses = thicknesses_mm(slices)
    pixel_mm2 = float(np.prod(slices[0].spacing))
    found: dict[int, float] = {}
    for counts, frame in zip(counts_by_frame(seg), frames_of(seg), strict=True):
        place = int(np.abs(distances - frame.position @ normal).argmin())
        for number, voxels in counts.items():
            ml = voxels * pixel_mm2 * float(thicknesses[place]) / 1000.0
            found[number] = found.get(number, 0.0) + ml
    return found
