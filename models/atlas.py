"""Our own coarse atlas: regions of grey matter in template space, made of planes and ellipsoids.

It is meant for volumes of the same region in many people, not for borders: a lobe ends at a plane
near its sulcus, a nucleus is an ellipsoid, the insula belongs to the lobe beside it, and
the brain stem to none. Each region counts only the grey matter a segmentation found in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.anatomy import load_anatomy

Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Middle and radii on the right, MNI mm."""
HIPPOCAMPUS: tuple[Ellipsoid, ...] = (
    ((25, -12, -20), (8, 9, 8)),
    ((27.5, -22, -15), (7.5, 11, 7.5)),
    ((26.5, -33, -7), (7.5, 9, 7.5)),
)
"""Head, body and tail."""
STRUCTURES: dict[str, tuple[Ellipsoid, ...]] = {
    "hippocampus": HIPPOCAMPUS,
    "amygdala": (((22, -3, -20), (8, 6, 7)),),
    "parahippocampal": (((23, -12, -31), (9, 9, 7)), ((24, -29, -23), (8, 11, 7))),
    "deep_grey": (
        ((12, 12, 8), (8, 11, 10)),
        ((15, -3, 19), (7, 13, 7)),
        ((25, 3, 0), (10, 18, 12)),
        ((11, -18, 8), (11, 15, 11)),
    ),
}
LOBES = ("frontal", "temporal", "parietal", "occipital", "cerebellum")
SIDES = ("left", "right")
NAMES = tuple(f"{region}_{side}" for region in (*STRUCTURES, *LOBES) for side in SIDES)
"""Label k + 1 is ``NAMES[k]``."""
MARGIN = 5


@dataclass(frozen=True, eq=False)
class Atlas:
    """Labels over template space.

    Parameters
    ----------
    labels : NDArray[np.uint8]
        Shape (n_x, n_y, n_z); 0 is no region, k + 1 is ``names[k]``.
    names : tuple of str
    affine : NDArray[np.float64]
        4 x 4, voxel indices to RAS+ mm of template space.
    """

    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    affine: NDArray[np.float64]

    def at(self, places: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Label of points of template space, mm, shape (n, 3); 0 outside."""
        back = np.linalg.inv(self.affine)
        index = np.rint(places @ back[:3, :3].T + back[:3, 3]).astype(np.int64)
        shape = np.array(self.labels.shape)
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        index[~inside] = 0
        found: NDArray[np.uint8] = self.labels[tuple(index.T)] * inside
        return found


@cache
def coarse_atlas() -> Atlas:
    """Make the atlas at 2 mm, once in a process."""
    anatomy = load_anatomy()
    affine = anatomy.affine.copy()
    affine[:3, 3] -= MARGIN * np.diag(affine)[:3]
    shape = np.array(anatomy.gm.shape) + 2 * MARGIN
    x, y, z = (
        affine[i, 3] + affine[i, i] * np.arange(n).reshape([-1 if i == k else 1 for k in range(3)])
        for i, n in enumerate(shape)
    )
    across = np.abs(x)
    depths = np.stack([_depth(parts, across, y, z) for parts in STRUCTURES.values()])
    region = np.where(
        depths.max(axis=0) > 0, depths.argmax(axis=0), len(STRUCTURES) + _lobe(across, y, z)
    )
    stem = (across < 16) & (y > -42) & (y < -4) & (z < -2) & (depths.max(axis=0) <= 0)
    labels = np.where(stem, 0, 1 + 2 * region + (x > 0))
    return Atlas(labels.astype(np.uint8), NAMES, affine)


def _depth(
    parts: tuple[Ellipsoid, ...],
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    z: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Depth below the surface of the nearest of some ellipsoids, positive inside."""
    depths = []
    for middle, radii in parts:
        away = sum(((a - m) / r) ** 2 for a, m, r in zip((x, y, z), middle, radii, strict=True))
        depths.append((1 - np.sqrt(away)) * min(radii))
    deepest: NDArray[np.float64] = np.max(depths, axis=0)
    return deepest


def _lobe(
    x: NDArray[np.floating], y: NDArray[np.floating], z: NDArray[np.floating]
) -> NDArray[np.intp]:
    """Index in `LOBES`; planes near tentorium, Sylvian fissure, central and occipital sulcus."""
    tentorium = -2 - 0.45 * x - 0.25 * np.maximum(-55 - y, 0)
    sylvian = np.minimum(-6 - 0.6 * y, 16)
    central = np.where(z < 20, -16, -5 - 0.38 * (z - 10))
    behind = -62 - 0.5 * np.maximum(z - 10, 0)
    cerebellum = (y < -32) & (z < tentorium)
    temporal = (y < 22) & (z < sylvian) & (x > 16)
    lobe = np.select([cerebellum, y < behind, temporal, y > central], [4, 3, 1, 0], default=2)
    found: NDArray[np.intp] = lobe.astype(np.intp)
    return found
