"""What of grey and white matter is the brain: without dura, sinus, scalp and face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

REACH_MM = 9.0
"""Grey matter lies closer than this to thick white matter or to the template's brain."""

CLOSING_MM, AROUND_MM = 10.0, 3.0
"""Sulci and ventricles are narrower than twice this; CSF around the brain is as thick as this."""


def brain_mask(
    tissue: NDArray[np.float32],
    white: NDArray[np.float32],
    deep: NDArray[np.bool_],
    spacing: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Keep what hangs together with white matter by more than a thread.

    Parameters
    ----------
    tissue : NDArray[np.float32]
        Probability of grey or white matter, shape (n_x, n_y, n_z).
    white : NDArray[np.float32]
        Probability of white matter.
    deep : NDArray[np.bool_]
        Where the template's brain lies for sure.
    spacing : NDArray[np.float64]
        Millimetres, shape (3,).

    Returns
    -------
    NDArray[np.bool_]
        The brain; empty where there is none.
    """
    core = large_parts(ndimage.binary_erosion(white > 0.5, ball(1.5, spacing)))
    if not core.any():
        return core
    likely = tissue > 0.5
    inner = ndimage.binary_opening(likely, ball(1.8, spacing)) | core
    core |= inner & deep
    inner &= ndimage.distance_transform_edt(~core, sampling=spacing) < REACH_MM
    grown = largest(ndimage.binary_propagation(core, mask=inner))
    brain: NDArray[np.bool_] = ndimage.binary_dilation(grown, ball(2.2, spacing)) & likely
    return brain


def inside_of_skull(brain: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Fill the brain's ventricles and sulci, and add the space around it.

    Parameters
    ----------
    brain : NDArray[np.bool_]
        Shape (n_x, n_y, n_z).
    spacing : NDArray[np.float64]
        Millimetres, shape (3,).
    """
    step = np.maximum(np.rint(2.0 / spacing).astype(int), 1)
    coarse = brain[tuple(slice(None, None, n) for n in step)]
    if not coarse.any():
        return np.zeros_like(brain)
    pad = [(int(CLOSING_MM / mm) + 2,) * 2 for mm in spacing * step]
    outside = np.pad(~coarse, pad, constant_values=True)
    near = ndimage.distance_transform_edt(outside, sampling=spacing * step) <= CLOSING_MM
    inner = ndimage.distance_transform_edt(near, sampling=spacing * step)
    inner = inner[tuple(slice(before, -after) for before, after in pad)]
    inside = inner > CLOSING_MM - AROUND_MM
    index = [
        np.minimum(np.arange(n) // s, size - 1)
        for n, s, size in zip(brain.shape, step, inside.shape, strict=True)
    ]
    filled: NDArray[np.bool_] = inside[np.ix_(*index)]
    return filled


def ball(radius_mm: float, spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Voxels within a distance of a voxel, and at least its neighbours in the finest direction."""
    reach = np.maximum(np.floor(radius_mm / spacing).astype(int), 0)
    index = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1)
    inside: NDArray[np.bool_] = (((index * spacing) ** 2).sum(-1)) <= radius_mm**2 + 1e-6
    return inside


def large_parts(mask: NDArray[np.bool_], least: float = 0.02) -> NDArray[np.bool_]:
    """Parts that hold at least this much of the whole: cerebellum as well as cerebrum."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes > least * sizes.sum())[labels]
    return kept


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Largest part that hangs together; empty when there is none."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    found: NDArray[np.bool_] = labels == sizes.argmax()
    return found
