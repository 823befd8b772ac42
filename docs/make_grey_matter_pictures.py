"""Make the pictures of ``dementia.md``: tissues over heads in three planes, and the atlas.

Run in the project's root: ``python docs/make_grey_matter_pictures.py [NAME...]``; real heads are
drawn where ``../shared/data`` has them, and compared with the map that others made of the same
scan. ``plot=FOLDER`` draws what ``python -m benchmarks.grey_matter --out FOLDER`` measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.anatomy import load_anatomy
from models.atlas import MARGIN, coarse_atlas
from models.base import Volume
from models.grey_matter import Tissues, segment_tissues
from models.phantom_t1 import make_t1_head
from models.regions import regional_volumes
from models.t1_head import t1_facts
from pipelines.steps.read import read_series
from pipelines.steps.volume import volume_from_series

FOLDER = Path(__file__).parent / "images"
DATA = Path(__file__).resolve().parents[1] / "../shared/data"
HEIGHT = 230
COLORS = np.array([[1.0, 0.25, 0.2], [0.35, 0.8, 0.35], [0.25, 0.45, 1.0]])


def main() -> None:
    """Write ``images/grey-*.png`` and print the numbers."""
    wanted = sys.argv[1:] or ["atlas", "phantom", "philips", "siemens"]
    for word in wanted:
        if word.startswith("plot="):
            _plot(Path(word.removeprefix("plot=")))
    if "atlas" in wanted:
        _save(_atlas(), "grey-atlas.png")
    if "phantom" in wanted:
        _head(make_t1_head(0).volume, "phantom")
    philips = DATA / "t1_philips_whole_head_gm_ref"
    if "philips" in wanted and philips.is_dir():
        volume = volume_from_series(read_series(sorted((philips / "dicom").glob("*.dcm"))))
        print(json.dumps(_agreement(_head(volume, "philips"), philips / "ref"), indent=1))
    siemens = DATA / "t1_siemens_xa30_enhanced" / "dicom"
    if "siemens" in wanted and siemens.is_dir():
        files = sorted(path for path in siemens.iterdir() if path.is_file())
        _head(volume_from_series(read_series(files)), "siemens")


def _head(volume: Volume, name: str) -> Tissues:
    tissues = segment_tissues(volume)
    regional = regional_volumes(tissues)
    print(name, {key: round(value) for key, value in regional.totals_ml.items()}, t1_facts(tissues))
    _save(overlay(tissues), f"grey-{name}.png")
    return tissues


def overlay(tissues: Tissues) -> NDArray[np.float64]:
    """Draw the head, and the head with its tissues, through the middle of the brain."""
    turn = tissues.scan.orientation.to_ras
    array = turn(tissues.volume.array)
    parts = [turn(part) for part in (tissues.gm, tissues.wm, tissues.csf)]
    brain = np.argwhere(turn(tissues.brain))
    low, high = brain.min(axis=0), brain.max(axis=0)
    white = np.quantile(array[turn(tissues.brain)], 0.98)
    rows = []
    for axis, share in ((0, 0.42), (1, 0.5), (2, 0.5)):
        at = int(low[axis] + share * (high[axis] - low[axis]))
        plain = np.clip(np.take(array, at, axis) / white, 0, 1)[..., None] * np.ones(3)
        tissue = sum(
            np.take(part, at, axis)[..., None] * color
            for part, color in zip(parts, COLORS, strict=True)
        )
        steps = np.delete(tissues.scan.spacing, axis)
        rows += [
            _upright(plain, steps),
            _upright(np.clip(0.45 * plain + 0.55 * tissue, 0, 1), steps),
        ]
    return np.concatenate(rows, axis=1)


def _upright(picture: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn up what is superior or anterior, and scale to one height."""
    turned = picture.transpose(1, 0, 2)[::-1]
    size = (round(HEIGHT * turned.shape[1] * steps[0] / (turned.shape[0] * steps[1])), HEIGHT)
    image = Image.fromarray((turned * 255).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image, np.float64) / 255


def _atlas() -> NDArray[np.float64]:
    from matplotlib import colormaps

    atlas, anatomy = coarse_atlas(), load_anatomy()
    t1 = np.pad(anatomy.t1, MARGIN)[..., None] / 255 * np.ones(3)
    colors = colormaps["tab10"](np.maximum(atlas.labels.astype(int) - 1, 0) // 2)[..., :3]
    shown = (np.pad(anatomy.gm, MARGIN) > 90) & (atlas.labels > 0)
    picture = np.where(shown[..., None], 0.45 * t1 + 0.55 * colors, t1)
    rows = []
    for axis, place in ((0, 26.0), (0, 50.0), (1, -22.0), (1, -4.0), (2, -18.0), (2, 8.0)):
        at = round((place - atlas.affine[axis, 3]) / 2)
        rows.append(_upright(np.take(picture, at, axis), np.ones(2)))
    return np.concatenate(rows, axis=1)


def _agreement(tissues: Tissues, reference: Path) -> dict[str, float]:
    """Compare with FSL FAST's map of the same scan: a crop, so that voxels lie on voxels."""
    image = nibabel.nifti1.load(reference / "pve_1.nii.gz")
    affine = np.asarray(image.affine, np.float64)
    maps = [
        np.asarray(nibabel.nifti1.load(reference / f"{name}.nii.gz").dataobj, np.float32)
        for name in ("pve_1", "pve_2", "bet")
    ]
    labels, _ = ndimage.label(maps[2] > 0)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    index = np.indices(largest.shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    back = np.linalg.inv(tissues.volume.affine)
    place = back[:3, :3] @ world + back[:3, 3:]
    ours = [
        ndimage.map_coordinates(part, place, order=1).reshape(largest.shape) * largest
        for part in (tissues.gm, tissues.wm)
    ]
    theirs = [one * largest for one in maps[:2]]
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    off = float(np.abs(place - np.rint(place)).max())
    found = {"voxels_off_grid": off, "bet_ml": float(largest.sum() * voxel)}
    for name, one, other in zip(("gm", "wm"), ours, theirs, strict=True):
        both = int(((one > 0.5) & (other > 0.5)).sum())
        found[f"{name}_dice"] = 2 * both / (int((one > 0.5).sum()) + int((other > 0.5).sum()))
        found[f"{name}_ours_ml"] = float(one.sum() * voxel)
        found[f"{name}_fast_ml"] = float(other.sum() * voxel)
        found[f"{name}_correlation"] = float(np.corrcoef(one[largest], other[largest])[0, 1])
    return found


def _plot(folder: Path) -> None:
    """Draw Dice and fraction error of each phantom, ours beside Atropos's."""
    from matplotlib.figure import Figure

    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    figure = Figure(figsize=(8, 2.6), dpi=100, layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2),
        ("gm_dice", "gm_fraction_error"),
        ("Dice of grey matter", "mean error of its fraction"),
        strict=True,
    ):
        for group, label, mark in (
            ("standard_", "scorenode, no mask given", "o"),
            ("atropos_", "N4 + Atropos, true mask given", "x"),
        ):
            rows = {int(k[-2:]): v[key] for k, v in found.items() if k.startswith(group)}
            axes.plot(list(rows), list(rows.values()), mark, label=label)
        axes.set(title=title, xlabel="phantom")
        axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(FOLDER / "grey-phantoms.png")


def _save(picture: NDArray[np.float64], name: str) -> None:
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    image.quantize(128, Image.Quantize.MAXCOVERAGE, kmeans=3).save(FOLDER / name, optimize=True)
    print(name, (FOLDER / name).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
