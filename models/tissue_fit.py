"""Fit signals, bias field and shape of a head to the priors, all at once.

References
----------
Ashburner, Friston: Unified segmentation. NeuroImage 26 (2005) 839-851. Re-derived; the warp here
is the exponential of a stationary velocity, so that it has an inverse and a Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.tissue_grid import Outline, Points, Scanned, outline, points
from models.tissue_mixture import Mixture
from models.tissue_priors import Priors
from models.tissue_shape import cosines, exponential, hats, product, roughness
from models.tissue_start import Affine, find_start


@dataclass(frozen=True)
class Effort:
    """How hard a fit tries.

    Parameters
    ----------
    coarse_mm, middle_mm, fine_mm : float
        Distance of the points of the three parts of the fit.
    node_mm : float
        Distance of the nodes of the warp.
    bias_mm : float
        Shortest wave length of the bias field.
    rounds : tuple of int
        Of the affine map, of the warp on the middle points, of the warp on the fine ones.
    stiffness, bias_stiffness : float
        Weight of the roughness of warp and bias field.
    """

    coarse_mm: float = 8.0
    middle_mm: float = 4.0
    fine_mm: float = 3.0
    node_mm: float = 12.0
    bias_mm: float = 60.0
    rounds: tuple[int, int, int] = (40, 60, 60)
    stiffness: float = 0.2
    bias_stiffness: float = 4e-4


@dataclass(frozen=True, eq=False)
class Fit:
    """What was found.

    Parameters
    ----------
    affine : Affine
        From the volume's millimetres, after the warp, to the template's.
    velocity : torch.Tensor
        Of the warp, mm, shape (3, k_x, k_y, k_z), at nodes `node_mm` apart.
    bias : torch.Tensor
        Coefficients of the logarithm of the correction, shape (b_x, b_y, b_z).
    mixture : Mixture
    scale : float
        Unit of signal of the mixture.
    cost : float
        Minus the log-likelihood per point.
    effort : Effort
    """

    affine: Affine
    velocity: torch.Tensor
    bias: torch.Tensor
    mixture: Mixture
    scale: float
    cost: float
    effort: Effort

    def displacement(self) -> torch.Tensor:
        """Return what the warp adds at its nodes, mm."""
        step = torch.full((3,), self.effort.node_mm, device=self.velocity.device)
        return exponential(self.velocity, step)


Told = Callable[[float], None]


def fit_head(
    scan: Scanned, priors: Priors, effort: Effort | None = None, told: Told | None = None
) -> Fit:
    """Fit one head.

    Parameters
    ----------
    scan : Scanned
    priors : Priors
        On the same device.
    effort : Effort or None
    told : callable or None
        Told the fraction done.

    Raises
    ------
    UnfitInput
        There is no signal.
    """
    effort, told = effort or Effort(), told or (lambda done: None)
    head = outline(scan)
    few = points(scan, head, effort.coarse_mm)
    affine, mixture, _ = find_start(scan, head, few, priors)
    told(0.2)
    some = points(scan, head, effort.middle_mm)
    fit = _first(scan, head, affine, mixture, effort)
    fit = _descend(fit, scan, some, priors, effort.rounds[0], 0.0)
    told(0.35)
    fit = _descend(fit, scan, some, priors, effort.rounds[1], 0.5)
    told(0.6)
    fit = _descend(fit, scan, points(scan, head, effort.fine_mm), priors, effort.rounds[2], 0.25)
    told(1.0)
    return fit


def _first(scan: Scanned, head: Outline, affine: Affine, mixture: Mixture, effort: Effort) -> Fit:
    nodes = [int(np.ceil(mm / effort.node_mm)) + 1 for mm in scan.field_mm]
    waves = [max(int(np.ceil(2 * mm / effort.bias_mm)), 1) + 1 for mm in scan.field_mm]
    device = scan.signal.device
    velocity, bias = torch.zeros(3, *nodes, device=device), torch.zeros(waves, device=device)
    return Fit(affine, velocity, bias, mixture, head.scale, float("inf"), effort)


def bases(
    fit: Fit, scan: Scanned, axes: tuple[torch.Tensor, ...]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Matrices that take warp and bias field to a grid along the volume's axes."""
    warp = [
        hats(axis, fit.effort.node_mm, count)
        for axis, count in zip(axes, fit.velocity.shape[1:], strict=True)
    ]
    bias = [
        cosines(axis, float(mm), count)
        for axis, mm, count in zip(axes, scan.field_mm, fit.bias.shape, strict=True)
    ]
    return warp, bias


def _descend(
    fit: Fit, scan: Scanned, chosen: Points, priors: Priors, rounds: int, rate: float
) -> Fit:
    """Improve map, warp, bias field and mixture together; at a rate of 0 without the warp."""
    warp_bases, bias_bases = bases(fit, scan, chosen.axes)
    velocity = fit.velocity.clone().requires_grad_()
    bias = fit.bias.clone().requires_grad_()
    parameters = fit.affine.parameters.clone().requires_grad_()
    affine = Affine(fit.affine.start, fit.affine.middle, fit.affine.target, parameters)
    step = torch.full((3,), fit.effort.node_mm, device=velocity.device)
    waves = _squares(fit.bias)
    descent = torch.optim.Adam(
        [
            {"params": [velocity], "lr": rate},
            {"params": [bias], "lr": 0.04 * rate if rate else 0.03},
            {"params": [parameters], "lr": 0.02 * rate if rate else 0.05},
        ]
    )
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(descent, rounds, eta_min=0.02 * rate)
    mixture, cost = fit.mixture, torch.zeros(())
    for number in range(rounds):
        places = chosen.places
        if rate:
            moved = product(exponential(velocity, step), warp_bases)
            places = places + moved.reshape(3, -1)[:, chosen.chosen].T
        maps = priors.at(affine(places))
        correction = product(bias, bias_bases).flatten()[chosen.chosen]
        signal = chosen.signal * torch.exp(correction)
        if number % 2 == 0:
            with torch.no_grad():
                mixture = mixture.step(signal, maps)
        cost = (mixture.negative_log(signal, maps) - correction).mean()
        penalty = fit.effort.stiffness * roughness(velocity, step)
        penalty = penalty + fit.effort.bias_stiffness * (waves**2 * bias**2).sum()
        descent.zero_grad()
        (cost + penalty).backward()  # type: ignore[no-untyped-call]
        descent.step()
        plan.step()
    fixed = Affine(affine.start, affine.middle, affine.target, parameters.detach())
    return Fit(
        fixed,
        velocity.detach(),
        bias.detach(),
        mixture,
        fit.scale,
        float(cost.detach()),
        fit.effort,
    )


def _squares(bias: torch.Tensor) -> torch.Tensor:
    """Squared wave numbers of the bias field."""
    axes = [torch.arange(n, device=bias.device) ** 2 for n in bias.shape]
    return axes[0][:, None, None] + axes[1][:, None] + axes[2]
