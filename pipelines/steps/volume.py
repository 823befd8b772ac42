"""From the images of one series to a true volume: every voxel where its header says it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Volume
from pipelines.base import NotScored
from pipelines.steps.frames import MULTI_FRAME, Frame, frame_count, frames_of
from pipelines.steps.geometry import (
    SAME_POSITION_MM,
    FloatArray,
    Grid,
    grid_of,
    nearest_plane,
    voxel_indices,
)
from pipelines.steps.pixels import modality_values, padding_mask, stored_frames
from pipelines.steps.read import damage_refused, third_party_warnings_off

SAMPLES_PER_SLICE = 512
MISPLACED_VOXELS = 0.25
"""How far, in voxels, a header may put a pixel from the voxel that holds it."""


def volume_from_series(datasets: Sequence[Dataset]) -> Volume:
    """Stack the images of one series into a volume.

    Every conversion checks itself: pixels are looked up in the volume at the places their
    headers give, and must be there.

    Parameters
    ----------
    datasets : sequence of Dataset
        The instances of one series with their pixels, in any order: single-frame CT or MR, or
        one enhanced multi-frame CT or MR instance.

    Returns
    -------
    Volume
        ``array`` of shape (columns, rows, slices), float32, in modality units (HU for CT);
        ``affine`` takes voxel indices to RAS+ millimetres. ``facts``: ``modality plane
        obliquity_degrees columns rows slices column_spacing_mm row_spacing_mm slice_step_mm
        tilt_degrees coverage_mm padding_fraction multi_frame``.

    Raises
    ------
    NotScored
        The series is not one regular, untilted, complete stack; the sentence says why.

    References
    ----------
    DICOM PS3.3 C.7.6.2, Image Plane Module; C.7.6.16, Multi-frame Functional Groups.
    """
    if not datasets:
        raise NotScored("no_images", "The series holds no instances.")
    with third_party_warnings_off():
        with damage_refused("A header of the series"):
            frames = frames_of(datasets)
        _refuse_several_volumes(frames)
        grid = grid_of([frame.plane for frame in frames])
        array, padded = _stack(datasets, frames, grid)
        ordered = [frames[index] for index in grid.order]
        return Volume(
            array=array,
            affine=grid.affine,
            frame_of_reference_uid=str(datasets[0].get("FrameOfReferenceUID") or ""),
            source_instance_uids=tuple(frame.sop_instance_uid for frame in ordered),
            facts=_facts(datasets[0], ordered, grid, padded / array.size),
        )


def _refuse_several_volumes(frames: Sequence[Frame]) -> None:
    """Name what sets images at the same position apart: echoes, time points, diffusion weights."""
    places: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    for frame in frames:
        rungs = np.rint(frame.plane.position / SAME_POSITION_MM).astype(int)
        places[tuple(rungs.tolist())].append(frame)
    fullest = max(places.values(), key=len)
    if len(fullest) == 1:
        return
    for keyword in fullest[0].kind:
        values = sorted({frame.kind.get(keyword, "") for frame in fullest})
        if len(values) > 1:
            raise NotScored(
                "several_volumes",
                f"The series holds several volumes: {len(frames)} images at {len(places)} "
                f"positions, {keyword} {', '.join(values[:6])}"
                + (", ..." if len(values) > 6 else "."),
            )


@dataclass(frozen=True, eq=False)
class _Samples:
    """Pixels of one frame, as read from it, and where its header puts them."""

    sop_instance_uid: str
    points: FloatArray
    values: NDArray[np.float32]


def _stack(
    datasets: Sequence[Dataset], frames: Sequence[Frame], grid: Grid
) -> tuple[NDArray[np.float32], int]:
    """Return the checked array and the number of padded voxels."""
    shape = (frames[0].columns, frames[0].rows, len(frames))
    array = np.empty(shape, dtype=np.float32, order="F")
    place = {index: k for k, index in enumerate(grid.order)}
    samples, padded = [], 0
    for index, (ds, frame, stored) in enumerate(_decoded(datasets, frames)):
        if stored.shape != (frame.rows, frame.columns):
            raise NotScored(
                "wrong_pixel_length",
                f"Instance {frame.sop_instance_uid} decodes to another number of rows and columns "
                f"than the {frame.rows} and {frame.columns} of its header.",
            )
        values = modality_values(ds, frame, stored)
        array[:, :, place[index]] = values.T
        padded += int(padding_mask(ds, stored).sum())
        samples.append(_sampled(frame, values, index))
    for sample in samples:
        _refuse_misplaced(sample, array, grid.affine)
    return array, padded


def _decoded(
    datasets: Sequence[Dataset], frames: Sequence[Frame]
) -> Iterator[tuple[Dataset, Frame, NDArray[np.integer]]]:
    """Yield every frame with its pixels, in the order of `frames`."""
    start = 0
    for ds in datasets:
        own = frames[start : start + frame_count(ds)]
        start += len(own)
        for frame, stored in zip(own, stored_frames(ds), strict=True):
            yield ds, frame, stored


def _sampled(frame: Frame, values: NDArray[np.float32], seed: int) -> _Samples:
    """Take the corners and pixels scattered over a frame, always the same ones."""
    scatter = np.random.default_rng(seed)
    rows = scatter.integers(frame.rows, size=SAMPLES_PER_SLICE)
    columns = scatter.integers(frame.columns, size=SAMPLES_PER_SLICE)
    rows[:4] = (0, 0, frame.rows - 1, frame.rows - 1)
    columns[:4] = (0, frame.columns - 1, 0, frame.columns - 1)
    return _Samples(
        frame.sop_instance_uid, frame.plane.points(rows, columns), values[rows, columns]
    )


def _refuse_misplaced(samples: _Samples, array: NDArray[np.float32], affine: FloatArray) -> None:
    """Look source pixels up in the volume, at the patient coordinates their header gives."""
    found = voxel_indices(affine, samples.points)
    nearest = np.rint(found).astype(np.intp)
    off = float(np.abs(found - nearest).max())
    inside = ((nearest >= 0) & (nearest < array.shape)).all()
    if off > MISPLACED_VOXELS or not inside:
        raise NotScored(
            "misplaced_slice",
            f"Self-check failed: instance {samples.sop_instance_uid} lies {off:.2f} voxels off "
            "the volume's grid.",
        )
    if not np.array_equal(array[tuple(nearest.T)], samples.values):
        raise NotScored(
            "misplaced_slice",
            f"Self-check failed: the volume does not hold the pixels of instance "
            f"{samples.sop_instance_uid} where its header puts them.",
        )


def _facts(
    ds: Dataset, frames: Sequence[Frame], grid: Grid, padding: float
) -> Mapping[str, str | float | int | bool]:
    affine = grid.affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    plane, off = nearest_plane(affine[:3, 2] / steps[2])
    return {
        "modality": str(ds.get("Modality") or ""),
        "plane": plane,
        "obliquity_degrees": round(off, 2),
        "columns": frames[0].columns,
        "rows": frames[0].rows,
        "slices": len(frames),
        "column_spacing_mm": round(float(steps[0]), 5),
        "row_spacing_mm": round(float(steps[1]), 5),
        "slice_step_mm": round(grid.slice_step_mm, 5),
        "tilt_degrees": round(grid.tilt_degrees, 3),
        "coverage_mm": round(grid.slice_step_mm * len(frames), 3),
        "padding_fraction": round(padding, 5),
        "multi_frame": ds.SOPClassUID in MULTI_FRAME,
    }
