"""Where each tissue is likely to be: the maps that start and hold a segmentation.

Grey and white matter come from the ICBM152 maps (`models.anatomy`). What lies outside the brain
has no map there: CSF, bone, soft tissue and air are laid in shells around the brain, which is
enough to find it and needs no template of a skull.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from models.anatomy import load_anatomy

ICBM152 = "icbm152"
CLASSES = ("gm", "wm", "csf", "bone", "soft", "air")
STEP_MM = 2.0
MARGIN = 14
SMOOTH_MM = 1.3
"""Standard deviation of the blur that makes up for the folds of one person."""
LEAST = 1e-4
NECK_MM = (-25.0, -45.0)
"""From here down, MNI z, every class outside the brain is likely."""


@dataclass(frozen=True, eq=False)
class Priors:
    """Probability of six classes over template space.

    Parameters
    ----------
    maps : torch.Tensor
        Shape (6, n_x, n_y, n_z), float32, in the order of `CLASSES`; they sum to 1.
    affine : NDArray[np.float64]
        4 x 4, diagonal and positive: takes voxel indices to RAS+ mm of template space.
    source : str
        Whose maps they are: ``icbm152``, or the digest of a site's own files.
    """

    maps: torch.Tensor
    affine: NDArray[np.float64]
    source: str = ICBM152

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """Look up at points.

        Parameters
        ----------
        places : torch.Tensor
            Template millimetres, shape (n, 3).

        Returns
        -------
        torch.Tensor
            Shape (6, n).
        """
        shape = torch.tensor(self.maps.shape[1:], dtype=torch.float32)
        scale = 2 / (torch.tensor(np.diag(self.affine)[:3], dtype=torch.float32) * (shape - 1))
        start = torch.tensor(self.affine[:3, 3], dtype=torch.float32)
        grid = ((places - start.to(places)) * scale.to(places) - 1).flip(-1)
        batch = torch.get_num_threads() if places.device.type == "cpu" else 1
        batch = batch if len(grid) % batch == 0 else 1
        found = functional.grid_sample(
            self.maps[None].expand(batch, -1, -1, -1, -1),
            grid.reshape(batch, 1, 1, -1, 3),
            align_corners=True,
            padding_mode="border",
        )
        return found.transpose(0, 1).reshape(len(self.maps), -1)

    def to(self, device: torch.device) -> Priors:
        """Move to a device."""
        return Priors(self.maps.to(device), self.affine, self.source)


def template_grid() -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine of the maps: the template's brain at 2 mm, with room around it."""
    anatomy = load_anatomy()
    affine = anatomy.affine.copy()
    affine[:3, 3] -= MARGIN * STEP_MM
    x, y, z = (n + 2 * MARGIN for n in anatomy.gm.shape)
    return (x, y, z), affine


@cache
def default_priors() -> Priors:
    """Make the priors of the ICBM152 maps, once in a process."""
    anatomy = load_anatomy()
    brain = np.pad(anatomy.brain, MARGIN)
    gm, wm = (np.pad(one, MARGIN).astype(np.float32) / 255 for one in (anatomy.gm, anatomy.wm))
    fluid = np.clip(brain - gm - wm, 0, 1)
    return priors_around(gm, wm, fluid, brain, template_grid()[1])


def priors_around(
    gm: NDArray[np.floating],
    wm: NDArray[np.floating],
    csf: NDArray[np.floating],
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
    source: str = ICBM152,
) -> Priors:
    """Lay CSF, bone, soft tissue and air in shells around a brain.

    Parameters
    ----------
    gm, wm, csf : NDArray
        Probabilities on the grid of `template_grid`; CSF as far as it is known.
    brain : NDArray[np.bool_]
        With ventricles and sulci filled.
    affine : NDArray[np.float64]
    source : str
        As `Priors.source`.
    """
    away = (ndimage.distance_transform_edt(~brain) * STEP_MM).astype(np.float32)
    away = np.where(brain, 0, away - 0.5 * STEP_MM)
    outside = ~brain * (1 - np.where(brain, 0, csf))
    fluid = csf + outside * _shell(away, -1, 2.5, 2)
    bone = outside * _shell(away, 2.5, 9, 4)
    air = outside * np.clip((away - 17) / 8 + 0.5, 0, 1)
    soft = outside * (_shell(away, 7, 18, 6) + 0.15 * np.clip((away - 14) / 6, 0, 1) * (1 - air))
    z = affine[2, 3] + STEP_MM * np.arange(brain.shape[2])
    low = 0.7 * np.clip((NECK_MM[0] - z) / (NECK_MM[0] - NECK_MM[1]), 0, 1) * (away > 4)
    mixed = np.array([0.3, 0.45, 0.25])[:, None, None, None]
    rest = np.stack([bone, soft, air]) * (1 - low) + mixed * low
    made = priors_from(np.concatenate([np.stack([gm, wm, fluid]), rest]), affine)
    return Priors(made.maps, made.affine, source)


def priors_from(maps: NDArray[np.floating], affine: NDArray[np.float64]) -> Priors:
    """Blur, floor and normalise six maps.

    Parameters
    ----------
    maps : NDArray
        Shape (6, n_x, n_y, n_z), in the order of `CLASSES`.
    affine : NDArray[np.float64]
        4 x 4, voxel indices to RAS+ mm.

    Raises
    ------
    ValueError
        There are not six maps, or their axes do not run along RAS+.
    """
    if maps.ndim != 4 or len(maps) != len(CLASSES):
        raise ValueError(f"priors of shape {maps.shape}: wanted six maps {', '.join(CLASSES)}")
    steps = np.diag(affine)[:3]
    if (steps <= 0).any() or not np.allclose(affine[:3, :3], np.diag(steps)):
        raise ValueError("the axes of the priors do not run along RAS+")
    sigma = SMOOTH_MM / steps
    blurred = np.stack([ndimage.gaussian_filter(one.astype(np.float32), sigma) for one in maps])
    blurred = np.clip(blurred, LEAST, None)
    blurred /= blurred.sum(axis=0)
    return Priors(torch.from_numpy(np.ascontiguousarray(blurred, np.float32)), affine)


def _shell(
    away: NDArray[np.float32], start: float, end: float, width: float
) -> NDArray[np.float32]:
    """Fall off over `width` mm on both sides of a shell."""
    rise = np.clip((away - start) / width + 0.5, 0, 1)
    shell: NDArray[np.float32] = rise * np.clip((end - away) / width + 0.5, 0, 1)
    return shell
