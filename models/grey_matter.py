"""Grey matter, white matter and CSF of a T1-weighted head, without a brain mask given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Progress, Volume
from models.brain_mask import brain_mask, inside_of_skull
from models.partial_volume import fractions
from models.tissue_fit import Effort, Fit, fit_head
from models.tissue_grid import Scanned, scanned
from models.tissue_posterior import Posterior, posterior, smooth_labels
from models.tissue_priors import Priors, default_priors

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tissues:
    """What was found in a head, on the grid of its volume.

    Parameters
    ----------
    gm, wm, csf : NDArray[np.float32]
        Fraction of each voxel, 0 to 1.
    brain : NDArray[np.bool_]
        Where grey and white matter are.
    expected, room : NDArray[np.bool_]
        Where the template's brain lies, bent onto the head; and where its priors leave room for
        brain or CSF.
    correction : NDArray[np.float32]
        What the signal is to be multiplied by to undo the coil's sensitivity.
    fit : Fit
        Affine map and warp to the template (ICBM152 2009a), signals, likelihood.
    scan : Scanned
        The volume as the fit saw it.
    volume : Volume
    """

    gm: F32
    wm: F32
    csf: F32
    brain: NDArray[np.bool_]
    expected: NDArray[np.bool_]
    room: NDArray[np.bool_]
    correction: F32
    fit: Fit
    scan: Scanned
    volume: Volume

    def millilitres(self, tissue: F32) -> float:
        """Volume of one of the tissues."""
        return float(tissue.sum(dtype=np.float64)) * self.volume.voxel_ml


def segment_tissues(
    volume: Volume,
    *,
    priors: Priors | None = None,
    device: str = "cpu",
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> Tissues:
    """Segment a head.

    Parameters
    ----------
    volume : Volume
        T1-weighted, any orientation and resolution, arbitrary units.
    priors : Priors or None
        None: `default_priors`.
    device : str
        ``cpu`` or ``cuda``.
    effort : Effort or None
    progress : callable or None

    Returns
    -------
    Tissues
        Not yet judged: `models.t1_head` says whether it was a head at all.

    Raises
    ------
    UnfitInput
        There is no signal.
    """
    told = progress or (lambda done: None)
    place = torch.device(device)
    scan = scanned(volume, place)
    maps = (priors or default_priors()).to(place)
    fit = fit_head(scan, maps, effort, lambda done: told(0.6 * done))
    with torch.no_grad():
        found = posterior(fit, scan, maps)
        told(0.75)
        tissues = _tissues(volume, scan, fit, found)
    told(1.0)
    return tissues


def _tissues(volume: Volume, scan: Scanned, fit: Fit, found: Posterior) -> Tissues:
    parts = smooth_labels(found.parts)
    tissue = (parts[0] + parts[1]) * found.brain
    brain = brain_mask(
        tissue.cpu().numpy(), parts[1].cpu().numpy(), found.expected.cpu().numpy(), scan.spacing
    )
    keep = torch.from_numpy(brain).to(parts.device)
    parts[:2] *= keep
    rim = torch.from_numpy(ndimage.binary_dilation(brain))
    rim = rim.to(parts.device)
    inside = (parts[:3].sum(0) > 0.5) & found.near | rim
    spacing = float(np.prod(scan.spacing) ** (1 / 3))
    mixed = fractions(found.signal, parts, inside, spacing)
    skull = torch.from_numpy(inside_of_skull(brain, scan.spacing)).to(parts.device)
    mixed[2] = (mixed[2] + (mixed[0] + mixed[1]) * ~rim) * skull
    mixed[:2] *= rim

    def whole(values: torch.Tensor) -> NDArray[np.float32]:
        array = np.zeros(scan.signal.shape, np.float32)
        array[found.box] = values.cpu().numpy()
        return np.ascontiguousarray(scan.orientation.from_ras(array))

    return Tissues(
        gm=whole(mixed[0]),
        wm=whole(mixed[1]),
        csf=whole(mixed[2]),
        brain=whole(keep) > 0,
        expected=whole(found.expected) > 0,
        room=whole(found.near) > 0,
        correction=np.ascontiguousarray(
            scan.orientation.from_ras(found.correction.cpu().numpy()), dtype=np.float32
        ),
        fit=fit,
        scan=scan,
        volume=volume,
    )
