"""Maps of grey matter in template space: modulated, so that they keep its amount, and smooth."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import load_anatomy
from models.grey_matter import Tissues
from models.regions import grey_places

STEP_MM = 4.0
SMOOTH_MM = 8.0
"""Full width at half maximum."""
FWHM = 2.3548
ROOM_MM = 12.0
LEAST_PRIOR = 0.1


@cache
def map_grid() -> tuple[tuple[int, int, int], NDArray[np.float64], NDArray[np.bool_]]:
    """Shape and affine of the maps, and the mask of voxels that are features.

    Returns
    -------
    tuple
        Shape; 4 x 4 affine, voxel indices to RAS+ mm of template space; bool mask of the shape,
        where the mean head has at least a tenth of grey matter.
    """
    anatomy = load_anatomy()
    start = anatomy.affine[:3, 3] - ROOM_MM
    extent = 2 * ROOM_MM + np.array(anatomy.gm.shape) * np.diag(anatomy.affine)[:3]
    x, y, z = (int(n) for n in np.ceil(extent / STEP_MM))
    affine = np.diag([STEP_MM] * 3 + [1.0])
    affine[:3, 3] = start
    back = np.linalg.inv(anatomy.affine) @ affine
    prior = ndimage.affine_transform(
        anatomy.gm / np.float32(255), back[:3, :3], back[:3, 3], (x, y, z), order=1
    )
    return (x, y, z), affine, prior > LEAST_PRIOR


def grey_map(tissues: Tissues) -> NDArray[np.float32]:
    """Push grey matter to the template.

    Parameters
    ----------
    tissues : Tissues

    Returns
    -------
    NDArray[np.float32]
        Millilitres of grey matter in each voxel of 4 mm, smoothed by 8 mm: shape of `map_grid`.
        Its sum is the grey matter of the head, but for what falls outside the grid.
    """
    shape, affine, _ = map_grid()
    places, grey = grey_places(tissues)
    index = (places - affine[:3, 3]) / STEP_MM
    pushed = np.zeros(int(np.prod(shape)))
    low = np.floor(index).astype(np.int64)
    share = index - low
    for corner in np.ndindex(2, 2, 2):
        at = low + corner
        weight = np.prod(np.where(corner, share, 1 - share), axis=1) * grey
        inside = ((at >= 0) & (at < shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(at[inside].T), shape)
        pushed += np.bincount(flat, weights=weight[inside], minlength=pushed.size)
    pushed *= tissues.volume.voxel_ml
    smooth = ndimage.gaussian_filter(
        pushed.reshape(shape).astype(np.float32), SMOOTH_MM / FWHM / STEP_MM, mode="constant"
    )
    found: NDArray[np.float32] = smooth
    return found


def map_features(tissues: Tissues) -> NDArray[np.float32]:
    """Take the voxels of a map that are features, shape (n,)."""
    _, _, mask = map_grid()
    found: NDArray[np.float32] = grey_map(tissues)[mask]
    return found
