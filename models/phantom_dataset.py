"""Head CT phantoms as a folder to train on, in nnU-Net's layout."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from models.base import Volume
from models.phantom_ct import BONE_SHARED_HU, KINDS, HeadPhantom, make_head_ct

LEAST_PHANTOMS = 30
"""With fewer, no head without blood is in some fold, and a kind is hardly seen."""
SLICES_MM = (5.0, 2.5, 4.0)
THICKER = (1.0, 1.0, 1.0, 2.0)
"""Thickness in slice distances, in turn: of slices as they are, and of interpolated ones."""
THICKEST_MM = 8.0
APART_MM = (0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 5.5, 0.0, 0.0)
"""Slices of some were so far apart, in turn, and are interpolated, as a converter does with unequal
steps: between two of them bone and brain mix in a ring. 0: they are as far apart as they were."""
TILTS = (0.0, 0.0, 12.0, 0.0, -8.0, 20.0, 0.0)
"""Of the gantry, degrees, in turn."""
BLOOD_KINDS = tuple(kind for kind in KINDS if kind != "none")
SEEDS_APART = 100_003


def write_phantoms(
    folder: Path,
    count: int,
    seed: int,
    progress: Callable[[float, str], None],
    *,
    pixel_mm: float = 1.0,
    slices_mm: Sequence[float] = SLICES_MM,
    processes: int = 2,
) -> None:
    """Make phantoms, kinds in turn; those that are there already are kept.

    Parameters
    ----------
    folder : Path
        ``imagesTr labelsTr dataset.json cases.csv`` come into it.
    count, seed : int
    progress : callable
    pixel_mm : float
        Pixel size.
    slices_mm : sequence of float
        Slice distances, in turn.
    processes : int
        How many make phantoms.

    Raises
    ------
    ValueError
        There are too few, or the seed is negative.
    """
    if count < LEAST_PHANTOMS:
        raise ValueError(
            f"{count} phantoms are too few: {LEAST_PHANTOMS} or more are needed, so that each kind "
            "of bleeding is seen several times."
        )
    if seed < 0:
        raise ValueError(f"The seed is {seed}; wanted is 0 or more.")
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tasks = [
        (
            seed * SEEDS_APART + i,
            kind_of(i),
            (pixel_mm, pixel_mm, slices_mm[i % len(slices_mm)]),
            folder,
            i,
        )
        for i in range(count)
    ]
    missing = [task for task in tasks if not _label_path(task[3], task[4]).is_file()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(_make_one, missing, chunksize=2)):
            progress((done + 1) / len(missing), "making phantoms")
    names = {"background": 0, "haemorrhage": 1}
    content = {"channel_names": {"0": "CT"}, "labels": names, "file_ending": ".nii"}
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n")
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("case", "patient", "kind"))
        table.writerows((f"head_{i:05d}", f"head_{i:05d}", kind_of(i)) for i in range(count))


def kind_of(i: int) -> str:
    """Give a fifth without blood, and each kind of bleeding as often."""
    if i % 5 == 4:
        return "none"
    return BLOOD_KINDS[(i - i // 5) % len(BLOOD_KINDS)]


def interpolated(phantom: HeadPhantom, step_mm: float) -> HeadPhantom:
    """Bring the slices of a phantom nearer to each other, linearly.

    Parameters
    ----------
    phantom : HeadPhantom
        Of at least two slices.
    step_mm : float
        Wanted distance, smaller than that of its slices.

    Returns
    -------
    HeadPhantom
        Blood is where it is in the nearer of two slices, but where bone of the other is mixed in.
    """
    volume, count = phantom.volume, phantom.volume.array.shape[2]
    apart = float(volume.spacing[2])
    at = np.arange(int((count - 1) * apart / step_mm) + 1) * step_mm / apart
    below = np.minimum(at.astype(int), count - 2)
    part = (at - below).astype(np.float32)
    array = (1 - part) * volume.array[:, :, below] + part * volume.array[:, :, below + 1]
    told = (array < BONE_SHARED_HU) | (part == 0)
    labels = phantom.labels[:, :, np.rint(at).astype(int)] * told
    affine = volume.affine.copy()
    affine[:3, 2] *= step_mm / apart
    return HeadPhantom(Volume(array, affine, facts=volume.facts), labels, phantom.kind)


def _label_path(folder: Path, i: int) -> Path:
    return folder / "labelsTr" / f"head_{i:05d}.nii"


def _make_one(task: tuple[int, str, tuple[float, float, float], Path, int]) -> None:
    """Write one phantom; its label map last, so that it stands for both."""
    seed, kind, (column, row, step), folder, i = task
    apart = max(APART_MM[i % len(APART_MM)], step)
    thickness = max(min(THICKER[i % len(THICKER)] * apart, THICKEST_MM), apart)
    phantom = make_head_ct(
        seed, kind, spacing=(column, row, apart), tilt=TILTS[i % len(TILTS)], thickness=thickness
    )
    if apart > step:
        phantom = interpolated(phantom, step)
    volume = phantom.volume
    array = np.round(volume.array).astype(np.int16)
    nib.save(nib.Nifti1Image(array, volume.affine), folder / "imagesTr" / f"head_{i:05d}_0000.nii")
    label = nib.Nifti1Image((phantom.labels > 0).astype(np.uint8), volume.affine)
    part = folder / "labelsTr" / f".part_{i:05d}.nii"
    nib.save(label, part)
    part.replace(_label_path(folder, i))
