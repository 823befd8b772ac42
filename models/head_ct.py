"""Is it a head CT with a brain? Something else must never be scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.base import UnfitInput, Volume
from models.canonical import orientation_of

BONE_HU = 250.0
SOFT_HU = (-5.0, 90.0)
BRAIN_ML = (600.0, 2300.0)
BRAIN_MEDIAN_HU = (15.0, 50.0)
BONE_ML = (120.0, 1800.0)
_GRID_MM = 2.0
_WIDEST_GAP_MM = 14.0


@dataclass(frozen=True)
class HeadFacts:
    """What the gate looks at.

    Parameters
    ----------
    bone_ml : float
        Volume above 250 HU.
    enclosed_ml : float
        Soft tissue inside the skull: its largest connected part.
    enclosed_median_hu : float
        NaN when there is none.
    """

    bone_ml: float
    enclosed_ml: float
    enclosed_median_hu: float


def head_facts(volume: Volume) -> HeadFacts:
    """Measure bone and what it encloses, in planes close to axial.

    Parameters
    ----------
    volume : Volume
        HU, any orientation.
    """
    orientation = orientation_of(volume.affine)
    spacing = volume.spacing[list(orientation.axes[:2])]
    step = np.maximum(np.rint(_GRID_MM / spacing).astype(int), 1)
    array = orientation.to_ras(volume.array)[:: step[0], :: step[1]]
    voxel_ml = volume.voxel_ml * float(step.prod())
    pixel_mm = spacing * step
    bone = array > BONE_HU
    inside = np.stack(
        [_enclosed(bone[:, :, k], float(pixel_mm.mean())) for k in range(bone.shape[2])], axis=2
    )
    soft = inside & (array > SOFT_HU[0]) & (array < SOFT_HU[1])
    part = _largest(ndimage.binary_opening(soft, _DISC))
    median = float(np.median(array[part])) if part.any() else float("nan")
    return HeadFacts(float(bone.sum()) * voxel_ml, float(part.sum()) * voxel_ml, median)


def refuse_unless_head(volume: Volume) -> HeadFacts:
    """Let a head CT with a brain pass.

    Raises
    ------
    UnfitInput
        Bone, enclosed soft tissue or its density is not that of an adult head, or a voxel holds
        no number.
    """
    refuse_unless_finite(volume)
    facts = head_facts(volume)
    _within("no_skull", "bone", facts.bone_ml, BONE_ML, "ml")
    _within("no_brain", "soft tissue inside the skull", facts.enclosed_ml, BRAIN_ML, "ml")
    _within(
        "no_brain",
        "median density inside the skull",
        facts.enclosed_median_hu,
        BRAIN_MEDIAN_HU,
        "HU",
    )
    return facts


def refuse_unless_finite(volume: Volume) -> None:
    """Let a volume pass whose voxels are all numbers.

    Raises
    ------
    UnfitInput
        There is no voxel, or one is infinite or not a number.
    """
    if volume.array.ndim != 3 or volume.array.size == 0:
        shape = " x ".join(map(str, volume.array.shape))
        raise UnfitInput(
            "no_volume", f"This is no volume: its shape is {shape or 'none'}, wanted three axes."
        )
    if not np.isfinite(volume.array).all():
        count = int(np.count_nonzero(~np.isfinite(volume.array)))
        raise UnfitInput(
            "not_finite", f"{count} voxels of this volume are not finite numbers, wanted none."
        )


def _within(reason: str, what: str, found: float, limits: tuple[float, float], unit: str) -> None:
    if not limits[0] <= found <= limits[1]:
        raise UnfitInput(
            reason,
            f"This is no head CT with a brain: {what} is {found:.0f} {unit}, "
            f"wanted {limits[0]:.0f} to {limits[1]:.0f} {unit}.",
        )


_DISC: NDArray[np.bool_] = np.ones((3, 3, 1), bool)


def _enclosed(bone: NDArray[np.bool_], pixel_mm: float) -> NDArray[np.bool_]:
    """Pixels of a slice that a ring of bone encloses; gaps such as foramina are bridged."""
    if not bone.any():
        return np.zeros_like(bone)
    reach = max(int(_WIDEST_GAP_MM / 2 / pixel_mm), 1)
    padded = np.pad(bone, reach + 1)
    closed = ndimage.binary_closing(padded, iterations=reach)
    filled = ndimage.binary_fill_holes(closed)
    inner: NDArray[np.bool_] = filled & ~closed
    cut = slice(reach + 1, -(reach + 1))
    return inner[cut, cut]


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    found: NDArray[np.bool_] = labels == sizes.argmax()
    return found
