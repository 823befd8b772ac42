"""What of a head CT may be blood by where it lies: inside the skull, and not only beside bone.

A voxel that bone shares with brain has the density of blood, whatever it holds: scanners blur over
2 to 3 mm in the plane, and a slice averages over its thickness. So blood is believed in where it
reaches out of this rim, and then also in the rim next to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Volume
from models.canonical import orientation_of
from models.head_ct import BONE_HU

HARDEST_BLOOD_HU = 120.0
"""A clot without serum has 100 HU, and bone brightens what is near by up to 20 (beam hardening);
what is denser, in the mean over `SMOOTH_MM`, is something else."""
RIM_MM = 1.5
"""So far beyond it, in the plane, bone has the density of blood: an edge of 1100 HU beside brain,
blurred by 0.85 mm (`models.phantom_optics`) and `SMOOTH_MM`, falls from 120 to 48 HU in 1.1 mm."""
ALONG_MM = 8.0
"""So far along the rim, in the plane and from slice to slice, a mark is believed that goes on from
blood beyond it: crescents taper."""
SLICE_MM = 5.0
"""As thick as slices of head CT usually are, whatever the distance they were interpolated to; a
volume may say more (``facts["largest_step_mm"]``)."""
SMOOTH_MM = 1.0
"""Noise of a pixel must not pass for calcium."""
MOST_OPEN = 2
"""Of eight directions, those without bone that a point inside the skull may have: a flap is out."""
FORAMEN_CM2 = 11.0
"""Of a large foramen magnum: what bone surrounds more closely lies below the skull, or in bone."""
GRID_MM = 1.0
"""Pixels need not be finer than this for any of it."""

Mask = NDArray[np.bool_]
_PLANE: Mask = np.ones((3, 3, 1), bool)


def strays(volume: Volume, marks: Mask, least_ml: float) -> Mask:
    """Find marks that cannot be told from bone, or lie outside of the skull.

    Parameters
    ----------
    volume : Volume
        HU, slices close to axial, any orientation.
    marks : NDArray[np.bool_]
        On its grid: what a model takes for blood.
    least_ml : float
        A bleed has at least so much outside of the rim of bone.

    Returns
    -------
    NDArray[np.bool_]
        Marks to drop; a subset of `marks`.
    """
    if not marks.any():
        return np.zeros_like(marks)
    orientation = orientation_of(volume.affine)
    spacing = volume.spacing[list(orientation.axes)]
    step = np.maximum(np.rint(GRID_MM / spacing[:2]).astype(int), 1)
    coarse = slice(None, None, step[0]), slice(None, None, step[1])
    upright = orientation.to_ras(marks)
    sigma = (*(SMOOTH_MM / spacing[:2]), 0)
    smooth = ndimage.gaussian_filter(orientation.to_ras(volume.array), sigma, output=np.float32)
    thick = max(SLICE_MM, float(volume.facts.get("largest_step_mm", 0.0)))
    slices = max(round(thick / spacing[2]), 1)
    kept = _believed(smooth[coarse], upright[coarse], spacing * (*step, 1), least_ml, slices)
    near = ndimage.binary_dilation(kept, _PLANE)  # the edge, which the coarse pixels cut
    index = [np.arange(n) // s for n, s in zip(upright.shape[:2], step, strict=True)]
    found: Mask = upright & ~near[index[0][:, None], index[1]]
    return orientation.from_ras(found)


def _believed(
    hu: NDArray[np.float32], marks: Mask, spacing: NDArray[np.float64], ml: float, slices: int
) -> Mask:
    """Keep marks with a core outside of the rim, and what of them lies in the rim next to it."""
    hard = hu > HARDEST_BLOOD_HU
    room = _roomy(_surrounded(hu > BONE_HU) & ~hard, spacing[:2].prod() / 100)
    core = marks & room & ~_rim(hard, spacing, slices)
    parts, _ = ndimage.label(core, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel()) * spacing.prod() / 1000
    sizes[0] = 0
    steps = max(int(np.ceil(ALONG_MM / spacing[2])), slices)
    grown = ndimage.binary_dilation(
        (sizes >= max(ml, 1e-9))[parts], np.ones((3, 3, 3)), steps, mask=marks
    )
    pixels = int(np.ceil(ALONG_MM / spacing[:2].mean()))
    believed: Mask = ndimage.binary_dilation(grown, _PLANE, pixels, mask=marks)
    return believed


def _roomy(inside: Mask, pixel_cm2: float) -> Mask:
    """Keep what is connected in its slice and larger than `FORAMEN_CM2`."""
    kept = np.zeros_like(inside)
    for k in range(inside.shape[2]):
        parts, _ = ndimage.label(inside[:, :, k])
        areas = np.bincount(parts.ravel()) * pixel_cm2
        areas[0] = 0
        kept[:, :, k] = (areas > FORAMEN_CM2)[parts]
    return kept


def _rim(hard: Mask, spacing: NDArray[np.float64], slices: int) -> Mask:
    """Find what is hard, near it in the plane, or beside it in slices above and below."""
    rim = np.empty_like(hard)
    for k in range(hard.shape[2]):
        away = ndimage.distance_transform_edt(~hard[:, :, k], sampling=spacing[:2])
        rim[:, :, k] = (away <= RIM_MM) & hard[:, :, k].any()
    for step in range(1, slices + 1):
        rim[:, :, step:] |= hard[:, :, :-step]
        rim[:, :, :-step] |= hard[:, :, step:]
    return rim


def _surrounded(bone: Mask) -> Mask:
    """Pixels that see bone in all but `MOST_OPEN` of eight directions of their slice."""
    seen = np.zeros(bone.shape, np.uint8)
    for axis in (0, 1):
        seen += np.logical_or.accumulate(bone, axis)
        seen += np.flip(np.logical_or.accumulate(np.flip(bone, axis), axis), axis)
    for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        turned = bone[::x, ::y].copy()
        for i in range(1, len(turned)):
            turned[i, 1:] |= turned[i - 1, :-1]
        seen += turned[::x, ::y]
    found: Mask = seen >= 8 - MOST_OPEN
    return found
