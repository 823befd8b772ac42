"""From the images of one series to true volumes: every voxel where its header says it is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Volume, Voxels
from pipelines.base import NotScored
from pipelines.steps.frames import MAX_VOXELS, Frame
from pipelines.steps.geometry import refuse_gaps, voxel_indices
from pipelines.steps.instances import Instance
from pipelines.steps.pixels import (
    Scale,
    Stored,
    fill_modality_values,
    modality_values,
    whole_values_fit,
)
from pipelines.steps.read import third_party_warnings_off
from pipelines.steps.split import Plan, Stack, Unused, plan_series, unused_frames
from pipelines.steps.volume_facts import facts_of

SAMPLES_PER_SLICE = 128
MAX_THREADS = 4
MISPLACED_VOXELS = 0.25
"""How far, in voxels, a header may put a pixel from the voxel that holds it."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """What became of a series.

    ``frames`` images came in: each is in one of `volumes` or in `unused`.

    Parameters
    ----------
    volumes : tuple of Volume
        In the order of acquisition.
    unused : tuple of Unused
        Images in no volume, with the reason.
    frames : int
    refusal : NotScored or None
        Why there is no volume, where there is none.
    """

    volumes: tuple[Volume, ...]
    unused: tuple[Unused, ...]
    frames: int
    refusal: NotScored | None


def volumes_of_series(datasets: Sequence[Dataset | Instance]) -> Conversion:
    """Make every volume a series holds.

    A series is split by what makes volumes (`split.plan_series`). Each volume checks itself:
    pixels are looked up at the places their headers give, and must be there.

    Parameters
    ----------
    datasets : sequence of Dataset or Instance
        Of one series, in any order: single-frame CT or MR, enhanced multi-frame CT or MR,
        Siemens mosaics. Anything else is in `unused`.

    Returns
    -------
    Conversion
        Volumes have ``array`` of shape (columns, rows, slices), in modality units (HU for CT):
        int16 where uncompressed values are whole and fit, else float32; ``affine`` takes voxel
        indices to RAS+ millimetres, sheared where the gantry was tilted; ``slice_origins`` where
        steps are unequal.

    Raises
    ------
    Transient
        The store does not answer.

    References
    ----------
    DICOM PS3.3 C.7.6.2, Image Plane Module; C.7.6.16, Multi-frame Functional Groups.
    """
    instances = _instances(datasets)
    plan = plan_of(instances)
    volumes, unused = [], list(plan.unused)
    for stack in plan.stacks:
        try:
            volumes.append(volume_of_stack(stack, instances))
        except NotScored as error:
            unused += unused_frames(stack, error)
    refusal = None
    if not volumes:
        refusal = refusal_of(unused)
    return Conversion(tuple(volumes), tuple(unused), plan.frames, refusal)


def volume_from_series(datasets: Sequence[Dataset | Instance]) -> Volume:
    """Make the one volume of a series that is to be scored.

    Parameters
    ----------
    datasets : sequence of Dataset or Instance
        Of one series, in any order.

    Returns
    -------
    Volume
        As `volumes_of_series` makes them.

    Raises
    ------
    NotScored
        The series holds anything but the slices of one complete volume; the sentence says what.
    """
    instances = _instances(datasets)
    plan = plan_of(instances)
    _refuse_mixture(plan)
    stack = plan.stacks[0]
    refuse_gaps(stack.grid)
    return volume_of_stack(stack, instances)


def plan_of(instances: Sequence[Instance]) -> Plan:
    """Sort instances into stacks, as `split.plan_series` does."""
    with third_party_warnings_off():
        return plan_series(instances)


def refusal_of(unused: Sequence[Unused]) -> NotScored:
    """Say why a series has no volume: the reason of its first image."""
    if not unused:
        return NotScored("no_images", "The series holds no instances.")
    return NotScored(unused[0].reason, unused[0].sentence)


def volume_of_stack(stack: Stack, instances: Sequence[Instance]) -> Volume:
    """Read the pixels of a stack into a volume that has checked itself.

    Raises
    ------
    NotScored
        Pixels cannot be read, or the self-check fails.
    """
    frames = stack.frames
    voxels = frames[0].rows * frames[0].columns * len(frames)
    if voxels > MAX_VOXELS:
        raise NotScored(
            "series_too_large", f"The volume would hold {voxels} voxels; at most {MAX_VOXELS}."
        )
    with third_party_warnings_off():
        array, padded = _array_of(stack, instances)
        header = instances[frames[0].instance].header
        facts = facts_of(header, stack, padded / array.size)
        return Volume(
            array=array,
            affine=stack.grid.affine,
            frame_of_reference_uid=frames[0].sort["FrameOfReferenceUID"],
            source_instance_uids=tuple(frame.sop_instance_uid for frame in frames),
            facts=facts,
            source_frame_numbers=tuple(frame.index + 1 for frame in frames),
            slice_origins=stack.grid.origins,
        )


def _instances(datasets: Sequence[Dataset | Instance]) -> list[Instance]:
    return [ds if isinstance(ds, Instance) else Instance(ds) for ds in datasets]


def _refuse_mixture(plan: Plan) -> None:
    """Refuse a series with anything in it that is not a slice of one volume."""
    heads = [item for item in plan.unused if item.frame is None]
    if plan.mixture is not None and not any(_is_own(item) for item in heads):
        raise plan.mixture
    if plan.unused or not plan.stacks:
        raise refusal_of(plan.unused)


def _is_own(item: Unused) -> bool:
    """Tell whether an instance is unused for what it is, not for its place among others."""
    return item.reason not in ("too_few_slices", "coplanar_images", "duplicate_positions")


def _array_of(stack: Stack, instances: Sequence[Instance]) -> tuple[Voxels, int]:
    """Return the checked array and the number of padded voxels."""
    frames = stack.frames
    shape = (frames[0].columns, frames[0].rows, len(frames))
    array: Voxels = np.empty(shape, dtype=_kind_of(frames, instances), order="F")
    rows, columns = _scatter(frames[0])
    samples = np.empty((len(frames), len(rows)), np.float32)
    wanted: dict[int, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        wanted[frame.instance].append(k)

    def take(places: Sequence[int]) -> int:
        padded = 0
        own = [(instances[place], wanted[place]) for place in places]
        for k, stored, scale in _decoded(frames, own, array):
            picked = stored[rows, columns]
            count, background = fill_modality_values(scale, frames[k], stored, array[:, :, k].T)
            samples[k] = modality_values(scale, frames[k], picked, background)
            padded += count
        return padded

    parts = _shares(list(wanted), instances)
    if len(parts) == 1:
        padded = take(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            padded = sum(pool.map(take, parts))
    _refuse_misplaced(stack, array, samples, (rows, columns))
    return array, padded


def _kind_of(frames: Sequence[Frame], instances: Sequence[Instance]) -> type[np.generic]:
    """Return int16 where headers say that all values are whole and fit, else float32."""
    for frame in frames:
        instance = instances[frame.instance]
        if instance.span is None or instance.layout.kind.itemsize > 2:
            return np.float32
        if not whole_values_fit(instance.scale, frame, *instance.layout.extent):
            return np.float32
    return np.int16


def _shares(places: list[int], instances: Sequence[Instance]) -> list[list[int]]:
    """Divide instances among threads; decoders that are not ours get one thread."""
    ours = all(instances[place].span is not None for place in places)
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)), len(places) // 16)
    if not ours or threads < 2:
        return [places]
    return [places[first::threads] for first in range(threads)]


def _decoded(
    frames: Sequence[Frame], wanted: Sequence[tuple[Instance, list[int]]], array: Voxels
) -> Iterator[tuple[int, Stored, Scale]]:
    """Yield the stored values of every image, with its place on the third axis.

    Where they need no more than an offset they are in their place in `array` already.
    """
    for instance, slices in wanted:
        slices_of: dict[int, list[int]] = defaultdict(list)
        for k in slices:
            slices_of[frames[k].index].append(k)
        indices = sorted(slices_of)
        targets = _targets(instance, [slices_of[index] for index in indices], array)
        for index, stored in zip(indices, instance.stored(indices, targets), strict=True):
            for k in slices_of[index]:
                yield k, _image(frames[k], stored), instance.scale


def _targets(instance: Instance, slices: Sequence[list[int]], array: Voxels) -> list[Stored] | None:
    """Views of `array` to read whole frames into; None where they have to be put there later."""
    if array.dtype != np.int16 or any(len(own) > 1 for own in slices):
        return None
    layout, size = instance.layout, array.shape[1::-1]
    if layout.kind.itemsize != 2 or (layout.rows, layout.columns) != size:
        return None
    return [array[:, :, own[0]].T.view(layout.kind) for own in slices]


def _image(frame: Frame, stored: Stored) -> Stored:
    """Cut a tile out of a mosaic; refuse pixels of another size than the header's."""
    size = (frame.rows, frame.columns)
    if frame.tile is not None:
        tile = frame.tile
        stored = stored[tile.row : tile.row + size[0], tile.column : tile.column + size[1]]
    if stored.shape != size:
        raise NotScored(
            "wrong_pixel_length",
            f"Instance {frame.sop_instance_uid} decodes to another number of rows and columns "
            f"than the {frame.rows} and {frame.columns} of its header.",
        )
    return stored


def _scatter(frame: Frame) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the corners and of pixels scattered over an image, always the same."""
    scatter = np.random.default_rng(frame.rows * 65537 + frame.columns)
    rows = scatter.integers(frame.rows, size=SAMPLES_PER_SLICE)
    columns = scatter.integers(frame.columns, size=SAMPLES_PER_SLICE)
    rows[:4] = (0, 0, frame.rows - 1, frame.rows - 1)
    columns[:4] = (0, frame.columns - 1, 0, frame.columns - 1)
    return rows, columns


def _refuse_misplaced(
    stack: Stack,
    array: Voxels,
    samples: NDArray[np.float32],
    pixels: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> None:
    """Look source pixels up in the volume, at the patient coordinates their headers give."""
    points = np.concatenate([frame.plane.points(*pixels) for frame in stack.frames])
    found = voxel_indices(stack.grid.affine, points, stack.grid.origins)
    nearest = np.rint(found).astype(np.intp)
    off = np.abs(found - nearest).max(axis=1).reshape(samples.shape).max(axis=1)
    inside = ((nearest >= 0) & (nearest < array.shape)).all(axis=1)
    worst = int(off.argmax())
    if not off[worst] <= MISPLACED_VOXELS or not inside.all():
        raise NotScored(
            "misplaced_slice",
            f"Self-check failed: instance {stack.frames[worst].sop_instance_uid} lies "
            f"{off[worst]:.2f} voxels off the volume's grid.",
        )
    held = array[tuple(nearest.T)].reshape(samples.shape)
    wrong = np.flatnonzero((held != samples).any(axis=1))
    if len(wrong):
        uid = stack.frames[int(wrong[0])].sop_instance_uid
        raise NotScored(
            "misplaced_slice",
            f"Self-check failed: the volume does not hold the pixels of instance {uid} where its "
            "header puts them.",
        )
