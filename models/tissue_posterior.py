"""From a fit to the probability of each tissue at every voxel around the brain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from models.tissue_fit import Fit, bases
from models.tissue_grid import Scanned
from models.tissue_priors import Priors
from models.tissue_shape import product

LIKELY = 0.02
"""Voxels where brain and CSF are less likely than this by their place alone are left out."""
BRAIN_LIKELY, NEAR_LIKELY = 0.01, 0.2
"""Spinal cord and dura have brain less likely by their place, the nose has CSF less likely."""
ROOM = 8
"""Voxels around the likely ones in the box."""
SLABS = 8
_TINY = 1e-20


@dataclass(frozen=True, eq=False)
class Posterior:
    """Four classes in a box around the brain.

    Parameters
    ----------
    box : tuple of slice
        Where the box lies in the volume.
    parts : torch.Tensor
        GM, WM, CSF and the rest, summing to 1: shape (4, n_x, n_y, n_z) of the box.
    signal : torch.Tensor
        Corrected for bias, in the mixture's units.
    correction : torch.Tensor
        What the signal was multiplied by, for the whole volume.
    brain, near, expected : torch.Tensor
        Where the priors leave room for grey or white matter, and for CSF, and where most of
        them is grey or white matter; bool, of the box.
    """

    box: tuple[slice, slice, slice]
    parts: torch.Tensor
    signal: torch.Tensor
    correction: torch.Tensor
    brain: torch.Tensor
    near: torch.Tensor
    expected: torch.Tensor


def posterior(fit: Fit, scan: Scanned, priors: Priors) -> Posterior:
    """Evaluate a fit at the volume's own resolution.

    Parameters
    ----------
    fit : Fit
    scan : Scanned
    priors : Priors
    """
    axes = tuple(
        torch.arange(n, device=scan.signal.device) * float(step)
        for n, step in zip(scan.signal.shape, scan.spacing, strict=True)
    )
    displacement = fit.displacement()
    box = _box(fit, scan, priors, displacement, axes)
    _, all_bias = bases(fit, scan, axes)
    correction = torch.exp(product(fit.bias, all_bias))
    own = tuple(axis[cut] for axis, cut in zip(axes, box, strict=True))
    signal = scan.signal[box] / fit.scale * correction[box]
    zero = scan.signal[box] == 0
    parts = torch.empty(4, *signal.shape, device=signal.device)
    brain, near, expected = torch.zeros(3, *signal.shape, dtype=torch.bool, device=signal.device)
    for slab in torch.arange(len(own[0])).chunk(SLABS):
        cut = slice(int(slab[0]), int(slab[-1]) + 1)
        maps = _maps(fit, scan, priors, displacement, (own[0][cut], *own[1:]))
        joint = maps * fit.mixture.likelihoods(signal[cut].flatten())
        joint[3] += joint[4] + joint[5] + _TINY
        joint = joint[:4] / joint[:4].sum(0)
        parts[:, cut] = joint.reshape(4, *signal[cut].shape)
        brain[cut] = (maps[:2].sum(0) > BRAIN_LIKELY).reshape(signal[cut].shape)
        expected[cut] = (maps[:2].sum(0) > 0.5).reshape(signal[cut].shape)
        near[cut] = (maps[:3].sum(0) > NEAR_LIKELY).reshape(signal[cut].shape)
    parts[:, zero] = 0
    parts[3, zero] = 1
    return Posterior(box, parts, signal, correction, brain, near, expected)


def _maps(
    fit: Fit,
    scan: Scanned,
    priors: Priors,
    displacement: torch.Tensor,
    axes: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    """Priors on a grid along the volume's axes, shape (6, n)."""
    return priors.at(template_places(fit, scan, displacement, axes))


def template_places(
    fit: Fit, scan: Scanned, displacement: torch.Tensor, axes: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Where the voxels of a grid lie in the template, mm, shape (n, 3)."""
    warp, _ = bases(fit, scan, axes)
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    moved = places + product(displacement, warp)
    return fit.affine(moved.reshape(3, -1).T)


def _box(
    fit: Fit,
    scan: Scanned,
    priors: Priors,
    displacement: torch.Tensor,
    axes: tuple[torch.Tensor, ...],
) -> tuple[slice, slice, slice]:
    """Cut out where brain is likely, looked at on every fourth voxel."""
    coarse = tuple(axis[::4] for axis in axes)
    maps = _maps(fit, scan, priors, displacement, coarse)
    likely = (maps[:3].sum(0) > LIKELY).reshape([len(axis) for axis in coarse])
    cuts = []
    for number, axis in enumerate(axes):
        others = [k for k in range(3) if k != number]
        found = torch.nonzero(likely.any(dim=others[1]).any(dim=others[0]))
        first, last = (int(found.min()), int(found.max())) if len(found) else (0, len(coarse[0]))
        cuts.append(slice(max(4 * first - ROOM, 0), min(4 * last + ROOM + 1, len(axis))))
    return cuts[0], cuts[1], cuts[2]


def smooth_labels(parts: torch.Tensor, strength: float = 0.35, rounds: int = 3) -> torch.Tensor:
    """Let neighbours agree: mean field of a Potts model with six neighbours.

    Parameters
    ----------
    parts : torch.Tensor
        Shape (classes, n_x, n_y, n_z).
    strength : float
        What one neighbour of the same class adds to the logarithm.
    rounds : int
    """
    start = torch.log(parts + 1e-6)
    current = parts
    for _ in range(rounds):
        current = torch.softmax(start + strength * neighbours(current), 0)
    return current


def neighbours(parts: torch.Tensor) -> torch.Tensor:
    """Sum over the six neighbours of each voxel."""
    total = torch.zeros_like(parts)
    for axis in (1, 2, 3):
        n = parts.shape[axis]
        total.narrow(axis, 1, n - 1).add_(parts.narrow(axis, 0, n - 1))
        total.narrow(axis, 0, n - 1).add_(parts.narrow(axis, 1, n - 1))
    return total


def box_mean(values: torch.Tensor, size: int) -> torch.Tensor:
    """Mean over a cube of an odd number of voxels, fewer at the edges.

    Parameters
    ----------
    values : torch.Tensor
        Shape (channels, n_x, n_y, n_z).
    size : int
    """
    for axis in range(3):
        kernel, pad = [1, 1, 1], [0, 0, 0]
        kernel[axis], pad[axis] = size, size // 2
        values = functional.avg_pool3d(
            values[None], tuple(kernel), 1, tuple(pad), count_include_pad=False
        )[0]
    return values
