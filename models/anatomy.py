"""Mean anatomy of the head: the ICBM152 maps at 2 mm, in one small file.

``python -m models.anatomy`` makes the file again from the maps that nilearn bundles; nothing
else needs nilearn.

References
----------
Fonov, Evans, McKinstry, Almli, Collins: Unbiased nonlinear average age-appropriate brain
templates from birth to adulthood. NeuroImage 47 (2009) S102. ICBM 2009a nonlinear symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("data") / "icbm152_2mm.npz"
TISSUES = ("t1", "gm", "wm")
EMPTY_T1 = 0.02
"""Below this fraction of the brightest, the skull-stripped T1 template shows no brain."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Maps of the mean head on one grid.

    Parameters
    ----------
    gm, wm : NDArray[np.uint8]
        Probability of grey and white matter times 255, shape (n_x, n_y, n_z).
    t1 : NDArray[np.uint8]
        T1-weighted template without skull, brightest voxel 255.
    brain : NDArray[np.bool_]
        Where the brain is, with its ventricles and sulci filled.
    affine : NDArray[np.float64]
        4 x 4, takes voxel indices to RAS+ millimetres of MNI space.
    """

    gm: NDArray[np.uint8]
    wm: NDArray[np.uint8]
    t1: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    affine: NDArray[np.float64]


@cache
def load_anatomy() -> Anatomy:
    """Read the maps; the arrays are shared and read-only.

    Raises
    ------
    FileNotFoundError
        The file is missing; ``python -m models.anatomy`` makes it.
    """
    if not FILE.is_file():
        raise FileNotFoundError(
            f"{FILE.name} is missing beside models/anatomy.py: `python -m models.anatomy` makes it"
        )
    with np.load(FILE, allow_pickle=False) as data:
        arrays = {name: data[name] for name in (*TISSUES, "brain", "affine")}
    arrays["brain"] = arrays["brain"].astype(bool)
    for array in arrays.values():
        array.setflags(write=False)
    return Anatomy(**arrays)


def make_anatomy() -> Anatomy:
    """Average nilearn's 1 mm maps over 2 mm voxels and cut them to the brain.

    The average of eight neighbours anti-aliases; the affine points to the middle of the eight.
    """
    import nibabel
    import nilearn
    from scipy import ndimage

    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    halved = {}
    for name in TISSUES:
        file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        image = nibabel.nifti1.load(folder / file)
        halved[name] = _halved(np.asarray(image.dataobj, dtype=np.float32))
    affine = np.asarray(image.affine, dtype=np.float64) @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] += 0.5 * np.sign(np.diag(affine)[:3])
    shown = halved["t1"] > EMPTY_T1 * halved["t1"].max()
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(shown, iterations=1))
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    affine[:3, 3] = (affine @ [*(cut.start for cut in box), 1.0])[:3]
    maps = {k: np.rint(v / v.max() * 255).astype(np.uint8)[box] for k, v in halved.items()}
    return Anatomy(**maps, brain=brain[box], affine=affine)


def _halved(array: NDArray[np.float32]) -> NDArray[np.float32]:
    even = array[tuple(slice(0, n - n % 2) for n in array.shape)]
    x, y, z = (n // 2 for n in even.shape)
    mean: NDArray[np.float32] = even.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))
    return mean


def main() -> None:
    """Write the file."""
    anatomy = make_anatomy()
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        FILE,
        **{name: getattr(anatomy, name) for name in TISSUES},
        brain=anatomy.brain.astype(np.uint8),
        affine=anatomy.affine,
    )


if __name__ == "__main__":
    main()
