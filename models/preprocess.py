"""What a manifest says is done to a volume before a network sees it, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from models.base import UnfitInput, Volume
from models.canonical import orientation_of
from models.manifest import PreprocessStep, Resample

MOST_GROWTH = 64
"""A grid of more than this many times the source's voxels is a mistake of the manifest."""
LEAST_VOXELS = 1 << 22

F32 = NDArray[np.float32]
Back = Callable[[F32], F32]
"""Takes one map, shape of the grid after a step, to the grid before it."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network sees.

    Parameters
    ----------
    array : F32
        Shape (channels, x, y, z).
    affine : NDArray[np.float64]
        Voxel indices to RAS+ millimetres.
    ways_back : tuple of callable
        Undo the geometry, the last step first.
    """

    array: F32
    affine: NDArray[np.float64]
    ways_back: tuple[Back, ...] = field(default=())

    def on_source(self, one: F32) -> F32:
        """Bring a map on this grid, shape (x, y, z), to the source's; 0 where nothing was seen."""
        for back in reversed(self.ways_back):
            one = back(one)
        return one


def prepared(volumes: Mapping[str, Volume], steps: Sequence[PreprocessStep]) -> Seen:
    """Do the steps of a manifest.

    Parameters
    ----------
    volumes : mapping
        Name of a channel to its volume, all on one grid.
    steps : sequence of PreprocessStep

    Raises
    ------
    UnfitInput
        There is nothing but zeros to crop to, or the grid would be far too large.
    """
    names = list(volumes)
    first = volumes[names[0]]
    seen = Seen(np.stack([volumes[name].array for name in names], dtype=np.float32), first.affine)
    for step in steps:
        match step.name:
            case "orient":
                seen = _oriented(seen, str(step.orient))
            case "transpose":
                seen = _transposed(seen, step.transpose or (0, 1, 2))
            case "crop":
                seen = _cropped(seen)
            case "resample":
                seen = _resampled(seen, _given(step.resample))
            case _:
                seen = _intensities(seen, names, step)
    return seen


def _given(wanted: Resample | None) -> Resample:
    assert wanted is not None  # noqa: S101 - the step's name says so
    return wanted


def _intensities(seen: Seen, names: Sequence[str], step: PreprocessStep) -> Seen:
    array = seen.array.copy()
    for index, name in enumerate(names):
        if step.channel in ("", name):
            array[index] = _changed(array[index], step)
    return Seen(array, seen.affine, seen.ways_back)


def _changed(values: F32, step: PreprocessStep) -> F32:
    """Apply a step to the intensities of one channel."""
    if step.clip is not None:
        return np.clip(values, *step.clip)
    if step.rescale is not None:
        (low, high), (bottom, top) = step.rescale.from_, step.rescale.to
        spread = (values - np.float32(low)) * np.float32((top - bottom) / (high - low)) + bottom
        return np.clip(spread, min(bottom, top), max(bottom, top)) if step.rescale.clip else spread
    if step.normalise is not None:
        return (values - np.float32(step.normalise.mean)) / np.float32(step.normalise.std)
    if step.zscore is not None:
        return _zscore(values, nonzero=step.zscore == "nonzero")
    assert step.minmax is not None  # noqa: S101 - the only step left
    low, high = float(values.min()), float(values.max())
    bottom, top = step.minmax
    return (values - np.float32(low)) * np.float32((top - bottom) / max(high - low, 1e-8)) + bottom


def _zscore(values: F32, *, nonzero: bool) -> F32:
    chosen = values != 0 if nonzero else np.ones(values.shape, bool)
    if not chosen.any():
        return values
    mean = values[chosen].mean(dtype=np.float64)
    std = max(float(values[chosen].std(dtype=np.float64)), 1e-8)
    scaled = ((values - mean) / std).astype(np.float32)
    return np.where(chosen, scaled, np.float32(0)) if nonzero else scaled


def _oriented(seen: Seen, wanted: str) -> Seen:
    """Turn the axes to the given anatomical directions, such as ``LPS``."""
    orientation = orientation_of(seen.affine)
    flips = [letter in "LPI" for letter in wanted]
    view = tuple(slice(None, None, -1 if flip else 1) for flip in flips)

    def forth(one: F32) -> F32:
        turned: F32 = np.ascontiguousarray(orientation.to_ras(one)[view])
        return turned

    def back(one: F32) -> F32:
        turned: F32 = np.ascontiguousarray(orientation.from_ras(one[view]))
        return turned

    array = np.stack([forth(one) for one in seen.array])
    affine = seen.affine.copy()
    affine[:3, :3] = seen.affine[:3, list(orientation.axes)]
    for axis, (flipped, turn) in enumerate(zip(orientation.flips, flips, strict=True)):
        if flipped != turn:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis + 1] - 1)
            affine[:3, axis] *= -1.0
    return Seen(array, affine, (*seen.ways_back, back))


def _transposed(seen: Seen, axes: tuple[int, int, int]) -> Seen:
    """Put the axes in another order, such as slices first."""
    inverse = np.argsort(axes)

    def back(one: F32) -> F32:
        return np.ascontiguousarray(one.transpose(inverse))

    array = np.ascontiguousarray(seen.array.transpose(0, *(axis + 1 for axis in axes)))
    affine = seen.affine.copy()
    affine[:3, :3] = seen.affine[:3, list(axes)]
    return Seen(array, affine, (*seen.ways_back, back))


def _cropped(seen: Seen) -> Seen:
    """Cut to the box of voxels that are not zero in some channel, holes filled."""
    inside = ndimage.binary_fill_holes((seen.array != 0).any(axis=0))
    boxes = ndimage.find_objects(inside.astype(np.uint8))
    if not boxes:
        raise UnfitInput("empty_volume", "Every voxel of the volume is 0.")
    box, shape = boxes[0], seen.array.shape[1:]

    def back(one: F32) -> F32:
        whole = np.zeros(shape, np.float32)
        whole[box] = one
        return whole

    affine = seen.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([side.start for side in box], float)
    return Seen(seen.array[(slice(None), *box)].copy(), affine, (*seen.ways_back, back))


def _resampled(seen: Seen, wanted: Resample) -> Seen:
    shape = seen.array.shape[1:]
    spacing = np.linalg.norm(seen.affine[:3, :3], axis=0)
    target = [s if w == "native" else w for s, w in zip(spacing, wanted.spacing_mm, strict=True)]
    size = [max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target, strict=True)]
    if np.prod(size, dtype=float) > max(MOST_GROWTH * float(np.prod(shape)), LEAST_VOXELS):
        raise UnfitInput(
            "unfit_spacing",
            f"At the voxel size the model wants, the volume would have {' x '.join(map(str, size))}"
            " voxels.",
        )
    if size == list(shape):
        return seen
    array = np.stack([resized(one, size, wanted.order) for one in seen.array])
    affine = seen.affine.copy()
    ratio = np.array(shape, float) / size
    affine[:3, :3] = seen.affine[:3, :3] * ratio
    affine[:3, 3] += seen.affine[:3, :3] @ ((ratio - 1) / 2)

    def back(one: F32) -> F32:
        return resized(one, list(shape), 1)

    return Seen(array, affine, (*seen.ways_back, back))


def resized(one: F32, size: Sequence[int], order: int) -> F32:
    """Resample an array to a size; its outer corners stay where they are.

    Parameters
    ----------
    one : F32
        Shape (x, y, z).
    size : sequence of int
    order : int
        0 nearest, 1 linear, 3 cubic.
    """
    if list(one.shape) == list(size):
        return one
    if order == 3:
        factors = [new / old for new, old in zip(size, one.shape, strict=True)]
        made: F32 = ndimage.zoom(one, factors, order=3, mode="nearest", grid_mode=True)
        return made
    tensor = torch.from_numpy(np.ascontiguousarray(one))[None, None]
    mode = "trilinear" if order == 1 else "nearest-exact"
    found: F32 = F.interpolate(tensor, size=tuple(size), mode=mode)[0, 0].numpy()
    return found
