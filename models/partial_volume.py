"""How much of each voxel is grey matter, white matter and CSF.

Voxels at a boundary are mixtures of the two tissues beside it, and their signal says in which
proportion. Pure tissues have local means, so that deep grey matter may be brighter than cortex.

References
----------
Tohka, Zijdenbos, Evans: Fast and robust parameter estimation for statistical partial volume
models in brain MRI. NeuroImage 23 (2004) 84-97, for the model of mixed voxels.
"""

from __future__ import annotations

import torch

from models.tissue_posterior import box_mean

MIXED = 4
"""States between two pure tissues."""
PAIRS = ((0, 1), (0, 2))
"""Grey matter touches both others; white matter hardly touches CSF."""
REACH_MM = 25.0
"""Size of the cube for local means."""
SURE = 0.95
DEPTHS = ((0.9, 0.4), (0.6, 0.3), (0.3, 0.2))
"""How much of the 3 x 3 x 3 around a voxel must be CSF, and which part of such voxels is darker
than CSF's mean: the less deep, the more of them hold something else, too."""
FEWEST = 50
NO_CSF = 0.4
"""Where there is none to look at; white matter has about 1."""


def states() -> torch.Tensor:
    """Fractions of the three tissues in each state, shape (3 + 2 x `MIXED`, 3)."""
    rows = [[float(k == i) for i in range(3)] for k in range(3)]
    for a, b in PAIRS:
        for i in range(MIXED):
            share = (i + 0.5) / MIXED
            row = [0.0, 0.0, 0.0]
            row[a], row[b] = share, 1 - share
            rows.append(row)
    return torch.tensor(rows)


def local_means(
    signal: torch.Tensor, parts: torch.Tensor, inside: torch.Tensor, size: int
) -> torch.Tensor:
    """Mean signal of what is surely one tissue, nearby; shape (3, n_x, n_y, n_z).

    CSF has one mean: it is the same fluid everywhere, and only in the ventricles is it sure.
    """
    means = []
    for tissue in range(2):
        sure = ((parts[tissue] > SURE) & inside).float()
        sure = sure * (box_mean(sure[None], 3)[0] > 0.7)
        everywhere = (sure * signal).sum() / sure.sum().clamp_min(1)
        both = box_mean(torch.stack([sure * signal, sure]), size)
        means.append((both[0] + 2e-3 * everywhere) / (both[1] + 2e-3))
    fluid = (parts[2] > SURE).float()
    return torch.stack([*means, torch.full_like(signal, _dark(signal, fluid, inside))])


def _dark(signal: torch.Tensor, fluid: torch.Tensor, inside: torch.Tensor) -> float:
    """Signal of CSF: of the deepest of it, or, where voxels are large, of what there is."""
    around = box_mean(fluid[None], 3)[0]
    for share, part in DEPTHS:
        deep = signal[(around > share) & inside & (fluid > 0)]
        if len(deep) > FEWEST:
            return float(torch.quantile(deep[:: max(len(deep) // 100_000, 1)], part))
    return NO_CSF


def fractions(
    signal: torch.Tensor,
    parts: torch.Tensor,
    inside: torch.Tensor,
    spacing_mm: float,
    rounds: int = 3,
) -> torch.Tensor:
    """Estimate fractions.

    Parameters
    ----------
    signal : torch.Tensor
        Corrected for bias, shape (n_x, n_y, n_z).
    parts : torch.Tensor
        Probability of GM, WM, CSF (and more), shape (3 or more, n_x, n_y, n_z).
    inside : torch.Tensor
        Where to look, bool.
    spacing_mm : float
        Mean distance of voxels.
    rounds : int
        How often neighbours are asked.

    Returns
    -------
    torch.Tensor
        Shape (3, n_x, n_y, n_z), summing to 1 inside and 0 outside.
    """
    size = 2 * int(REACH_MM / spacing_mm / 2) + 1
    means = local_means(signal, parts, inside, size)[:, inside]
    own = signal[inside]
    table = states().to(signal)
    sure = parts[1][inside] > 0.97
    spread = (own - means[1])[sure].std().clamp_min(1e-3)
    expected = table @ means
    fit = -0.5 * ((own - expected) / spread) ** 2
    current = parts[:3, inside].clamp_min(1e-3)
    current = current / current.sum(0)
    for _ in range(rounds):
        spread_out = torch.zeros(3, *signal.shape, device=signal.device)
        spread_out[:, inside] = current
        near = box_mean(spread_out, 3)[:, inside]
        pairs = [(near[a] * near[b]).clamp_min(0).sqrt() * (2 / MIXED) for a, b in PAIRS]
        prior = torch.cat([near, *[pair.expand(MIXED, -1) for pair in pairs]])
        likely = torch.softmax(fit + torch.log(prior + 1e-4), 0)
        current = table.T @ likely
    found = torch.zeros(3, *signal.shape, device=signal.device)
    found[:, inside] = current
    return found
