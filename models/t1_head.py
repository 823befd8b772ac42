"""Is it a T1-weighted head with a whole brain? Something else must never be scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from models.base import UnfitInput, Volume
from models.grey_matter import Tissues
from models.head_ct import refuse_unless_finite

FIELD_MM = 110.0
"""A brain does not fit into less, along any axis."""
VOXEL_MM = (0.3, 6.5)
BRAIN_ML = (700.0, 1900.0)
ICV_ML = (900.0, 2300.0)
GM_OF_ICV = (0.30, 0.62)
GM_OF_WM_SIGNAL = (0.50, 0.93)
CSF_OF_GM_SIGNAL = (0.0, 0.75)
CONTRAST_BY_SPREAD = 2.1
CONTRAST_BY_NOISE = 4.0
"""Below, more than 5 % of the grey matter of phantoms is lost (`benchmarks/grey_matter.md`)."""
SCALE = (0.72, 1.5)
BRIGHT, BRIGHT_PART, RIM_MM = 1.5, 0.003, 4.0
MATCH = 0.80
WHITE, FEWEST = 0.9, 100
"""Voxels of white matter in which noise is measured: at least so sure, at least so many."""


@dataclass(frozen=True)
class T1Facts:
    """What the gates look at.

    Parameters
    ----------
    brain_ml, icv_ml : float
        Grey and white matter; with CSF.
    gm_of_icv : float
    gm_of_wm_signal, csf_of_gm_signal : float
        Mean signals of the tissues, divided.
    contrast_by_spread, contrast_by_noise : float
        Difference of grey and white matter, by the spread of each and by the noise of a voxel.
    scale : tuple of float
        Smallest and largest stretch of the affine map to the template.
    bright_part : float
        Part of the inside of the skull that is much brighter than white matter, as vessels,
        sinuses and dura are after contrast medium.
    match : float
        Dice of the brain found and the brain of the template, bent onto the head.
    """

    brain_ml: float
    icv_ml: float
    gm_of_icv: float
    gm_of_wm_signal: float
    csf_of_gm_signal: float
    contrast_by_spread: float
    contrast_by_noise: float
    scale: tuple[float, float]
    bright_part: float
    match: float


def refuse_unless_whole_head(volume: Volume) -> None:
    """Refuse before any work what cannot be a whole head.

    Raises
    ------
    UnfitInput
        A voxel holds no number, the field of view is too small for a brain, or voxels are too
        large to tell grey from white matter.
    """
    refuse_unless_finite(volume)
    field = volume.spacing * np.array(volume.array.shape)
    if float(field.min()) < FIELD_MM:
        raise UnfitInput(
            "small_field",
            f"This is no whole head: the field of view is {field.min():.0f} mm along its shortest "
            f"axis, wanted at least {FIELD_MM:.0f} mm.",
        )
    least, most = float(volume.spacing.min()), float(volume.spacing.max())
    if least < VOXEL_MM[0] or most > VOXEL_MM[1]:
        raise UnfitInput(
            "voxel_size",
            f"Voxels measure {least:.2f} to {most:.2f} mm, wanted {VOXEL_MM[0]} to "
            f"{VOXEL_MM[1]} mm.",
        )


def t1_facts(tissues: Tissues) -> T1Facts:
    """Measure what tells a T1-weighted head from anything else."""
    mixture = tissues.fit.mixture
    grey, white = (float(mean) for mean in mixture.means[:2])
    fluid = float(mixture.means[2:4].min())
    spread = float(mixture.variances[:2].mean().sqrt())
    gm, wm, csf = (tissues.millilitres(part) for part in (tissues.gm, tissues.wm, tissues.csf))
    matrix, _ = tissues.fit.affine.matrix()
    stretch = torch.linalg.svdvals(matrix.cpu())
    icv = max(gm + wm + csf, 1e-6)
    return T1Facts(
        brain_ml=gm + wm,
        icv_ml=icv,
        gm_of_icv=gm / icv,
        gm_of_wm_signal=grey / white,
        csf_of_gm_signal=fluid / grey,
        contrast_by_spread=(white - grey) / spread,
        contrast_by_noise=(white - grey) / _noise(tissues),
        scale=(float(stretch.min()), float(stretch.max())),
        bright_part=_bright_part(tissues, white),
        match=_match(tissues),
    )


def refuse_unless_t1_head(tissues: Tissues) -> T1Facts:
    """Let a T1-weighted head with a whole brain pass.

    Raises
    ------
    UnfitInput
        Brain volume, signals, or the fit to the template are not those of one.
    """
    facts = t1_facts(tissues)
    _within("fit", "its size by the template's", min(facts.scale), SCALE)
    _within("fit", "its size by the template's", max(facts.scale), SCALE)
    _within("brain_volume", "grey and white matter measure", facts.brain_ml, BRAIN_ML, "ml")
    _within("brain_volume", "the intracranial volume is", facts.icv_ml, ICV_ML, "ml")
    _within(
        "tissue_contrast",
        "signal of grey by white matter is",
        facts.gm_of_wm_signal,
        GM_OF_WM_SIGNAL,
    )
    _within(
        "tissue_contrast",
        "signal of CSF by grey matter is",
        facts.csf_of_gm_signal,
        CSF_OF_GM_SIGNAL,
    )
    _within(
        "tissue_contrast",
        "contrast of grey and white matter by their spread is",
        facts.contrast_by_spread,
        (CONTRAST_BY_SPREAD, 100.0),
    )
    _within("fit", "overlap with the template's brain is", facts.match, (MATCH, 1.0))
    _within("brain_volume", "grey matter by intracranial volume is", facts.gm_of_icv, GM_OF_ICV)
    _within(
        "contrast_medium",
        "the part of the brain that is brighter than any tissue, in thousandths, is",
        1000 * facts.bright_part,
        (0.0, 1000 * BRIGHT_PART),
    )
    if not facts.contrast_by_noise >= CONTRAST_BY_NOISE:
        raise UnfitInput(
            "noise",
            "The scan is too noisy to measure grey matter: grey and white matter differ by "
            f"{facts.contrast_by_noise:.1f} times the noise of a voxel, wanted at least "
            f"{CONTRAST_BY_NOISE:.1f}.",
        )
    return facts


def _within(
    reason: str, what: str, found: float, limits: tuple[float, float], unit: str = ""
) -> None:
    if limits[0] <= found <= limits[1]:
        return
    after, digits = (f" {unit}", 0) if unit else ("", 3)
    low, value, high = (f"{number:.{digits}f}" for number in (limits[0], found, limits[1]))
    raise UnfitInput(
        reason,
        "This is no T1-weighted head without contrast medium: "
        f"{what} {value}{after}, wanted {low} to {high}{after}.",
    )


def _bright_part(tissues: Tissues, white: float) -> float:
    """Part of the skull's inside that outshines white matter by far; its rim left out."""
    step = np.maximum(np.rint(2.0 / tissues.volume.spacing).astype(int), 1)
    cut = tuple(slice(None, None, int(n)) for n in step)
    room = tissues.room[cut]
    away = ndimage.distance_transform_edt(room, sampling=tissues.volume.spacing * step)
    inner = away > RIM_MM
    if not inner.any():
        return float("nan")
    signal = (tissues.volume.array[cut] * tissues.correction[cut])[inner] / tissues.fit.scale
    return float((signal > BRIGHT * white).mean())


def _noise(tissues: Tissues) -> float:
    """Noise of a voxel of white matter, from second differences: the median of the three axes."""
    white = tissues.wm > WHITE
    corner = np.argwhere(white.any(axis=(1, 2)))[[0, -1], 0] if white.any() else np.array([0, 0])
    part = slice(corner[0], corner[1] + 1)
    signal = tissues.volume.array[part] * tissues.correction[part] / tissues.fit.scale
    white = white[part]
    found = []
    for axis in range(3):
        before, here, after = (_along(axis, *ends) for ends in ((0, -2), (1, -1), (2, None)))
        inside = white[before] & white[here] & white[after]
        bend = (signal[before] - 2 * signal[here] + signal[after])[inside]
        if bend.size < FEWEST:
            return float("nan")
        found.append(1.4826 * float(np.median(np.abs(bend - np.median(bend)))) / np.sqrt(6))
    return max(float(np.median(found)), 1e-6)


def _along(axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if i == axis else slice(None) for i in range(3))


def _match(tissues: Tissues) -> float:
    found = tissues.gm + tissues.wm > 0.5
    both = np.count_nonzero(found & tissues.expected)
    each = int(np.count_nonzero(found)) + int(np.count_nonzero(tissues.expected))
    return 2 * int(both) / max(each, 1)
