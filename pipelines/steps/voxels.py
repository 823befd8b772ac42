"""The pixels of a stack, read into an array that has checked itself."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models.base import Voxels
from pipelines.base import NotScored
from pipelines.steps.frames import Frame
from pipelines.steps.geometry import FloatArray, points_of, voxel_indices
from pipelines.steps.instances import Instance
from pipelines.steps.pixels import (
    Scale,
    Stored,
    TooWide,
    are_whole,
    fill_modality_values,
    modality_values,
)
from pipelines.steps.split import Stack
from storage.place import OpenFile

SAMPLES_PER_SLICE = 128
MAX_THREADS = 4
MISPLACED_VOXELS = 0.25
"""How far, in voxels, a header may put a pixel from the voxel that holds it."""


def checked_voxels(stack: Stack, instances: Sequence[Instance]) -> tuple[Voxels, int]:
    """Read the pixels of a stack, and look some up where their headers put them.

    Returns
    -------
    NDArray
        Shape (columns, rows, slices), modality units: int16 where all values are whole and fit,
        else float32.
    int
        How many voxels are padding.

    Raises
    ------
    NotScored
        Pixels cannot be read, or are not where their headers say.
    Transient
        A file cannot be read now.
    """
    filling = _whole(stack.frames, instances) or filled(stack.frames, instances, np.float32)
    refuse_misplaced(stack, filling)
    return filling.array, int(filling.padded.sum())


def _whole(frames: Sequence[Frame], instances: Sequence[Instance]) -> Filling | None:
    """Read pixels into int16; None where it does not hold them."""
    if not all(are_whole(instances[frame.instance].scale, frame) for frame in frames):
        return None
    try:
        return filled(frames, instances, np.int16)
    except TooWide:
        return None


def filled(
    frames: Sequence[Frame], instances: Sequence[Instance], kind: type[np.generic]
) -> Filling:
    """Read pixels into an array of int16, where values are whole, or float32.

    Raises
    ------
    TooWide
        int16 does not hold them.
    """
    filling = Filling(frames, instances, kind)
    parts = filling.shares()
    if len(parts) == 1:
        filling.take(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(filling.take, parts))
    return filling


class Filling:
    """An array on its way to be filled, from several threads, and what is to be looked up in it.

    Parameters
    ----------
    frames : sequence of Frame
        In the order of the third axis.
    instances : sequence of Instance
        Those of the series, by their place in it.
    kind : type
        np.int16, where values are whole, or np.float32.
    """

    def __init__(
        self, frames: Sequence[Frame], instances: Sequence[Instance], kind: type[np.generic]
    ) -> None:
        self.frames = frames
        self.instances = instances
        shape = (frames[0].columns, frames[0].rows, len(frames))
        self.array: Voxels = np.empty(shape, kind, order="F")
        self.rows, self.columns = _scatter(frames[0])
        self.padded = np.zeros(len(frames), np.int64)
        self._picked = np.empty((len(frames), SAMPLES_PER_SLICE))
        self._background = np.zeros(len(frames))
        self._slices_of: dict[int, list[int]] = defaultdict(list)
        for k, frame in enumerate(frames):
            self._slices_of[frame.instance].append(k)

    def shares(self) -> list[list[int]]:
        """Divide instances among threads; decoders that are not ours get one thread."""
        places = list(self._slices_of)
        ours = all(self.instances[place].span is not None for place in places)
        threads = min(MAX_THREADS, len(os.sched_getaffinity(0)), len(places) // 16)
        if not ours or threads < 2:
            return [places]
        return [places[first::threads] for first in range(threads)]

    def take(self, places: Sequence[int]) -> None:
        """Read instances."""
        with OpenFile() as file:
            for place in places:
                instance = self.instances[place]
                slices_of: dict[int, list[int]] = defaultdict(list)
                for k in self._slices_of[place]:
                    slices_of[self.frames[k].index].append(k)
                indices = sorted(slices_of)
                slices = [slices_of[index] for index in indices]
                found = instance.stored(indices, self._targets(instance, slices), file)
                for own, stored in zip(slices, found, strict=True):
                    for k in own:
                        self._put(k, _image(self.frames[k], stored), instance)

    def values(self) -> NDArray[np.float32]:
        """Modality values of the pixels at `rows` and `columns`, shape (slices, samples)."""
        values = np.empty(self._picked.shape, np.float32)
        alike: dict[Scale, list[int]] = defaultdict(list)
        for k, frame in enumerate(self.frames):
            alike[self.instances[frame.instance].scale].append(k)
        for scale, own in alike.items():
            frames = [self.frames[k] for k in own]
            values[own] = modality_values(scale, frames, self._picked[own], self._background[own])
        return values

    def _targets(self, instance: Instance, slices: Sequence[list[int]]) -> list[Stored] | None:
        """Return the places of whole frames, to read into; None where pixels are put there later.

        Into an array of int16 stored values go as they are; no more than an offset is missing.
        """
        if self.array.dtype != np.int16 or any(len(own) > 1 for own in slices):
            return None
        if instance.span is None:
            return None
        layout, size = instance.layout, self.array.shape[1::-1]
        if layout.kind.itemsize != 2 or (layout.rows, layout.columns) != size:
            return None
        return [self.array[:, :, own[0]].T.view(layout.kind) for own in slices]

    def _put(self, k: int, stored: Stored, instance: Instance) -> None:
        self._picked[k] = stored[self.rows, self.columns]
        extent = None if instance.span is None else instance.layout.extent
        self.padded[k], self._background[k] = fill_modality_values(
            instance.scale, self.frames[k], stored, self.array[:, :, k].T, extent
        )


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


def refuse_misplaced(stack: Stack, filling: Filling) -> None:
    """Look source pixels up in the volume, at the patient coordinates their headers give.

    Raises
    ------
    NotScored
        One of them is not there.
    """
    array, values = filling.array, filling.values()
    planes = [frame.plane for frame in stack.frames]
    points: FloatArray = points_of(planes, filling.rows, filling.columns).reshape(-1, 3)
    found = voxel_indices(stack.grid.affine, points, stack.grid.origins)
    nearest = np.rint(found).astype(np.intp)
    off = np.abs(found - nearest).reshape(len(values), -1).max(axis=1)
    inside = ((nearest >= 0) & (nearest < array.shape)).all()
    worst = int(off.argmax())
    if not off[worst] <= MISPLACED_VOXELS or not inside:
        raise NotScored(
            "misplaced_slice",
            f"Self-check failed: instance {stack.frames[worst].sop_instance_uid} lies "
            f"{off[worst]:.2f} voxels off the volume's grid.",
        )
    columns, rows, _ = array.shape
    held = array.reshape(-1, order="F")[nearest @ (1, columns, columns * rows)]
    held = held.reshape(values.shape)
    wrong = np.flatnonzero((held != values).any(axis=1))
    if len(wrong):
        uid = stack.frames[int(wrong[0])].sop_instance_uid
        raise NotScored(
            "misplaced_slice",
            f"Self-check failed: the volume does not hold the pixels of instance {uid} where its "
            "header puts them.",
        )
