"""Grey matter by region: fractions in native space, added up over an atlas.

The warp pulls the atlas back. Nothing is resampled, so that no volume is lost or made by the warp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.atlas import Atlas, coarse_atlas
from models.grey_matter import Tissues
from models.tissue_posterior import template_places

TOTALS = ("gm", "wm", "csf", "icv")
SLAB = 24


@dataclass(frozen=True)
class Regional:
    """Volumes of one head.

    Parameters
    ----------
    values_ml : mapping
        Grey matter of each region, millilitres.
    totals_ml : mapping
        ``gm``, ``wm``, ``csf``, and ``icv``: all three together, the intracranial volume.
    """

    values_ml: Mapping[str, float]
    totals_ml: Mapping[str, float]

    def part(self, regions: Iterable[str]) -> float:
        """Grey matter of some regions together, by intracranial volume."""
        return sum(self.values_ml[name] for name in regions) / self.totals_ml["icv"]

    def parts(self) -> dict[str, float]:
        """Volume of each region by intracranial volume."""
        return {name: value / self.totals_ml["icv"] for name, value in self.values_ml.items()}


def regional_volumes(tissues: Tissues, atlas: Atlas | None = None) -> Regional:
    """Add up grey matter in each region.

    Parameters
    ----------
    tissues : Tissues
    atlas : Atlas or None
        None: `coarse_atlas`.
    """
    atlas = atlas or coarse_atlas()
    places, grey = grey_places(tissues)
    sums = np.bincount(atlas.at(places), weights=grey, minlength=len(atlas.names) + 1)
    voxel = tissues.volume.voxel_ml
    values = {name: float(sums[k + 1]) * voxel for k, name in enumerate(atlas.names)}
    totals = {
        name: tissues.millilitres(part)
        for name, part in zip(TOTALS, (tissues.gm, tissues.wm, tissues.csf), strict=False)
    }
    return Regional(values, {**totals, "icv": sum(totals.values())})


def grey_places(tissues: Tissues) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each voxel with grey matter lies in the template, and how much it has.

    Returns
    -------
    tuple of NDArray[np.float32]
        RAS+ mm of template space, shape (n, 3), and fractions, shape (n,).
    """
    scan, fit = tissues.scan, tissues.fit
    grey = scan.orientation.to_ras(tissues.gm)
    axes = [
        torch.arange(n, device=scan.signal.device) * float(step)
        for n, step in zip(grey.shape, scan.spacing, strict=True)
    ]
    displacement = fit.displacement()
    places, parts = [], []
    for start in range(0, grey.shape[0], SLAB):
        slab = grey[start : start + SLAB]
        some = slab > 1e-3
        if some.any():
            own = (axes[0][start : start + SLAB], axes[1], axes[2])
            found = template_places(fit, scan, displacement, own).cpu().numpy()
            places.append(found[some.ravel()])
            parts.append(slab[some])
    if not places:
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    return np.concatenate(places), np.concatenate(parts)
