"""Where the head lies: the affine map a fit starts from, the likeliest of many."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as every

import numpy as np
import torch

from models.tissue_grid import Outline, Points, Scanned
from models.tissue_mixture import Mixture, first_mixture
from models.tissue_priors import Priors
from models.tissue_shape import affine_matrix

BRAIN_CENTER = (0.0, -18.0, 5.0)
"""Middle of the brain in the template, mm."""
BELOW_TOP_MM = 72.0
"""It lies so far below the vertex of an average head."""
PITCHES = (-24.0, -12.0, 0.0, 12.0, 24.0)
ROLLS = YAWS = (-16.0, 0.0, 16.0)
SCALES = (0.82, 1.0, 1.2)
FINALISTS = 5
"""Of all poses; the likeliest of each pitch is refined beside them."""
UNITS = (0.1,) * 6 + (0.05,) * 3 + (10.0,) * 3
"""Of the parameters of an affine map: radians, log-scale, shear, mm."""


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine map from the volume's millimetres to the template's.

    Parameters
    ----------
    start : torch.Tensor
        3 x 3, what the exponential is multiplied with.
    middle, target : torch.Tensor
        Point of the volume, and where in the template it goes, shape (3,).
    parameters : torch.Tensor
        Shape (12,), in `UNITS`.
    """

    start: torch.Tensor
    middle: torch.Tensor
    target: torch.Tensor
    parameters: torch.Tensor

    def matrix(self) -> tuple[torch.Tensor, torch.Tensor]:
        """3 x 3 and shift: y = matrix @ x + shift."""
        real = self.parameters * torch.tensor(UNITS, device=self.parameters.device)
        matrix = affine_matrix(real[:9]) @ self.start
        return matrix, self.target + real[9:] - matrix @ self.middle

    def __call__(self, places: torch.Tensor) -> torch.Tensor:
        """Take points of the volume to the template, mm, shape (n, 3)."""
        matrix, shift = self.matrix()
        return places @ matrix.T + shift


Judged = tuple[Affine, Mixture, float]
"""A map, the mixture fitted with it, and minus the log-likelihood per point."""


def find_start(scan: Scanned, head: Outline, few: Points, priors: Priors) -> Judged:
    """Try poses and sizes, refine the likeliest ones and those of each pitch; return the best.

    Parameters
    ----------
    scan : Scanned
    head : Outline
    few : Points
        Some thousand, 8 mm apart.
    priors : Priors

    Returns
    -------
    Judged
        The map, the mixture it was fitted with, and minus the log-likelihood per point.
    """
    inside = _inside(scan, head)
    fewer = every_third(few)
    tried = [
        (pitch, _judge(_candidate(scan, inside, (pitch, roll, yaw), size), fewer, priors))
        for pitch, roll, yaw in every(PITCHES, ROLLS, YAWS)
        for size in SCALES
    ]
    refined = [refine(affine, mixture, few, priors) for affine, mixture, _ in _finalists(tried)]
    return min(refined, key=lambda found: found[2])


def _finalists(tried: list[tuple[float, Judged]]) -> list[Judged]:
    """Take the likeliest few, and of each pitch the likeliest: unrefined, a wrong one may lead."""
    tried = sorted(tried, key=lambda one: one[1][2])
    pitches = [pitch for pitch, _ in tried]
    chosen = {*range(FINALISTS), *(pitches.index(pitch) for pitch in PITCHES)}
    return [tried[rank][1] for rank in sorted(chosen)]


def _inside(scan: Scanned, head: Outline) -> torch.Tensor:
    """RAS+ millimetres of the head's blocks, about the first voxel."""
    index = np.argwhere(head.mask)[::8] * np.array(head.blocks) + (np.array(head.blocks) - 1) / 2
    world = (index * scan.spacing) @ scan.directions.T
    return torch.tensor(world, dtype=torch.float32, device=scan.signal.device)


def _candidate(
    scan: Scanned, inside: torch.Tensor, turn: tuple[float, float, float], size: float
) -> Affine:
    """Put the vertex of a turned head where it is in the template."""
    device = inside.device
    angles = torch.deg2rad(torch.tensor(turn, device=device))
    rotation = affine_matrix(torch.cat([angles, torch.zeros(6, device=device)]))
    turned = inside @ rotation.T
    top = torch.quantile(turned[:, 2], 0.995)
    upper = turned[turned[:, 2] > top - 130 / size]
    middle = torch.stack([*(upper[:, :2].amin(0) + upper[:, :2].amax(0)) / 2, top])
    middle[:2] = 0.5 * middle[:2] + 0.5 * upper[:, :2].median(0).values
    middle[2] = top - BELOW_TOP_MM / size
    directions = torch.tensor(scan.directions, dtype=torch.float32, device=device)
    return Affine(
        size * rotation @ directions,
        directions.T @ (rotation.T @ middle),
        torch.tensor(BRAIN_CENTER, device=device),
        torch.zeros(12, device=device),
    )


def _judge(affine: Affine, few: Points, priors: Priors) -> Judged:
    """Fit signals to a pose, and tell how likely it is then."""
    maps = priors.at(affine(few.places))
    mixture = first_mixture(few.signal, maps)
    for _ in range(3):
        mixture = mixture.step(few.signal, maps)
    cost = mixture.negative_log(few.signal, maps).mean()
    return affine, mixture, float(cost.detach())


def every_third(few: Points) -> Points:
    """Thin out."""
    return Points(few.signal[::3], few.places[::3], few.chosen[::3], few.axes)


def refine(
    affine: Affine, mixture: Mixture, chosen: Points, priors: Priors, rounds: int = 30
) -> Judged:
    """Descend along the affine map, with a step of EM every other round."""
    parameters = affine.parameters.clone().requires_grad_()
    moving = Affine(affine.start, affine.middle, affine.target, parameters)
    descent = torch.optim.Adam([parameters], lr=0.1)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(descent, rounds, eta_min=0.01)
    cost = torch.zeros(())
    for number in range(rounds):
        maps = priors.at(moving(chosen.places))
        if number % 2 == 0:
            with torch.no_grad():
                mixture = mixture.step(chosen.signal, maps)
        cost = mixture.negative_log(chosen.signal, maps).mean()
        descent.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        descent.step()
        plan.step()
    fixed = Affine(affine.start, affine.middle, affine.target, parameters.detach())
    return fixed, mixture, float(cost.detach())
