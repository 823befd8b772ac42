"""A site's own maps of grey matter, white matter and CSF, in place of the ICBM152 maps.

Three NIfTI files of probabilities in the space of the ICBM152 template. Volumes depend on them, so
a prognosis package holds the maps that its cohort was measured with.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import load_anatomy
from models.package import digest_of
from models.tissue_priors import MARGIN, Priors, priors_around, template_grid

TISSUES = ("gm", "wm", "csf")
PREFIX = "prior_"
"""What the names of the files begin with in a package."""
ENDINGS = (".nii.gz", ".nii")
MOST_BYTES = 256 << 20
MOST_VOXELS = 1 << 26
VOXEL_MM = (0.4, 4.0)
OVER = 0.02
"""How far probabilities may pass 0 and 1, and their sum 1, by rounding."""
LEAST_OVERLAP = 0.8
CLOSING = 3
F32 = NDArray[np.float32]


class BadPriors(ValueError):
    """Raised when a site's tissue maps cannot be used; says which, why, and what is wanted."""


def prior_files(folder: Path) -> dict[str, Path]:
    """Find ``gm``, ``wm`` and ``csf`` with the ending ``.nii.gz`` or ``.nii`` in a folder.

    Raises
    ------
    BadPriors
        One of them is missing, or there twice.
    """
    found = {}
    for name in TISSUES:
        there = [path for end in ENDINGS if (path := folder / f"{name}{end}").is_file()]
        if len(there) != 1:
            many = "both" if there else "neither"
            raise BadPriors(
                f"The tissue maps {folder} have {many} {name}.nii.gz and {name}.nii, wanted one of "
                "them for each of gm, wm and csf."
            )
        found[name] = there[0]
    return found


def load_priors(files: Mapping[str, Path]) -> Priors:
    """Read, check and complete the maps; maps that were read before are not made again.

    Parameters
    ----------
    files : mapping
        ``gm``, ``wm`` and ``csf`` to NIfTI files.

    Raises
    ------
    BadPriors
        A file cannot be read, is no map of probabilities, the three differ in shape or place, or
        they do not lie on the brain of the template.
    """
    paths = tuple(files[name] for name in TISSUES)
    return _load(paths, digest_of(_sha256(path) for path in paths))


def _sha256(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadPriors(f"The tissue map {path} is larger than {MOST_BYTES >> 20} MiB.")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadPriors(f"The tissue map {path} cannot be read: {error.strerror}.") from error


@lru_cache(maxsize=2)
def _load(paths: tuple[Path, ...], digest: str) -> Priors:
    maps, affines = zip(*(_read(path) for path in paths), strict=True)
    _refuse_different(paths, maps, affines)
    _refuse_no_parts(paths, maps)
    gm, wm, csf = (_on_template_grid(one, affines[0]) for one in maps)
    _refuse_elsewhere(paths, gm, wm)
    solid = ndimage.binary_closing(gm + wm > 0.5, iterations=CLOSING)
    brain = ndimage.binary_fill_holes(solid)
    fluid = np.where(brain, np.clip(1 - gm - wm, 0, 1), csf).astype(np.float32)
    return priors_around(gm, wm, fluid, brain, template_grid()[1], digest)


def _read(path: Path) -> tuple[F32, NDArray[np.float64]]:
    """One map with its axes along RAS+."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nibabel.funcs.as_closest_canonical(nibabel.nifti1.load(path))
        shape = tuple(int(n) for n in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 or np.prod(shape) > MOST_VOXELS:
            raise BadPriors(
                f"The tissue map {path} has the shape {shape}, wanted three axes and at most "
                f"{MOST_VOXELS >> 20} million voxels."
            )
        array = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, ImageFileError) as error:
        if isinstance(error, BadPriors):
            raise
        raise BadPriors(f"The tissue map {path} is not a NIfTI file that can be read.") from error
    affine = np.asarray(image.affine, dtype=np.float64)
    _refuse_oblique(path, affine)
    return array, affine


def _refuse_oblique(path: Path, affine: NDArray[np.float64]) -> None:
    steps = np.diag(affine)[:3]
    if not np.isfinite(affine).all() or not np.allclose(
        affine[:3, :3], np.diag(steps), atol=1e-3 * float(np.abs(steps).max())
    ):
        raise BadPriors(
            f"The axes of the tissue map {path} do not run along those of the template "
            "(right, anterior, superior)."
        )
    if steps.min() < VOXEL_MM[0] or steps.max() > VOXEL_MM[1]:
        raise BadPriors(
            f"Voxels of the tissue map {path} measure {steps.min():.2f} to {steps.max():.2f} mm, "
            f"wanted {VOXEL_MM[0]} to {VOXEL_MM[1]} mm."
        )


def _refuse_different(
    paths: Sequence[Path], maps: Sequence[F32], affines: Sequence[NDArray[np.float64]]
) -> None:
    for path, one, affine in zip(paths, maps, affines, strict=True):
        if one.shape != maps[0].shape:
            raise BadPriors(
                f"The tissue map {path} has the shape {one.shape}, {paths[0].name} has "
                f"{maps[0].shape}; wanted one grid for all three."
            )
        if not np.allclose(affine, affines[0], atol=1e-2):
            raise BadPriors(
                f"The tissue map {path} has another affine than {paths[0].name}; wanted one grid "
                "for all three."
            )


def _refuse_no_parts(paths: Sequence[Path], maps: Sequence[F32]) -> None:
    for path, one in zip(paths, maps, strict=True):
        if not np.isfinite(one).all():
            raise BadPriors(f"The tissue map {path} holds values that are no numbers.")
        low, high = float(one.min()), float(one.max())
        if low < -OVER or high > 1 + OVER:
            raise BadPriors(
                f"The tissue map {path} holds values from {low:g} to {high:g}, wanted "
                "probabilities from 0 to 1."
            )
    most = float(np.sum(maps, axis=0).max())
    if most > 1 + OVER:
        raise BadPriors(
            f"The tissue maps {', '.join(path.name for path in paths)} add up to {most:.2f} in a "
            "voxel, wanted at most 1."
        )


def _on_template_grid(values: F32, affine: NDArray[np.float64]) -> F32:
    """Resample to the grid of our own maps, averaging where voxels are finer; 0 outside."""
    shape, wanted = template_grid()
    back = np.linalg.inv(affine) @ wanted
    finer = np.clip(np.diag(back)[:3], 1, None)
    smooth = ndimage.gaussian_filter(values, 0.3 * np.sqrt(finer**2 - 1), mode="constant")
    found = ndimage.affine_transform(smooth, np.diag(back)[:3], back[:3, 3], shape, order=1)
    parts: F32 = np.clip(found, 0, 1).astype(np.float32)
    return parts


def _refuse_elsewhere(paths: Sequence[Path], gm: F32, wm: F32) -> None:
    """Compare with the template that regions and voxel maps lie in."""
    anatomy = load_anatomy()
    grey, white = (
        np.pad(one, MARGIN).astype(np.float32) / np.float32(255) for one in (anatomy.gm, anatomy.wm)
    )
    ours, theirs = grey + white > 0.5, gm + wm > 0.5
    overlap = 2 * int((ours & theirs).sum()) / max(int(ours.sum()) + int(theirs.sum()), 1)
    if overlap < LEAST_OVERLAP:
        raise BadPriors(
            f"The tissue maps {', '.join(path.name for path in paths)} do not lie in the space of "
            f"the ICBM152 template: their brain overlaps its brain by {overlap:.2f} (Dice), wanted "
            f"at least {LEAST_OVERLAP}."
        )
    for path, one, own, other in ((paths[0], gm, grey, white), (paths[1], wm, white, grey)):
        if float((one * own).sum()) / _size(own) < float((one * other).sum()) / _size(other):
            raise BadPriors(f"The tissue map {path} looks like that of another tissue.")


def _size(values: F32) -> float:
    return float(np.sqrt((values**2).sum()))
