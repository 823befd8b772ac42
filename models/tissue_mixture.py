"""What signal each tissue has: a mixture of Gaussians for each class, fitted by EM."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.tissue_priors import CLASSES

CLASS_OF = (0, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5)
"""Class of each Gaussian; CSF, bone, soft tissue and air are no single Gaussian."""
_MEANS = (0.62, 0.85, 0.25, 0.40, 0.08, 0.45, 0.35, 0.75, 1.1, 0.02, 0.08)
_DEVIATIONS = (0.1, 0.08, 0.1, 0.12, 0.08, 0.2, 0.2, 0.2, 0.4, 0.02, 0.06)
_LEAST_VARIANCE = 4e-4
_WEIGHT = 50.0
"""Points for which the least variance counts."""
_TINY = 1e-20


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians of six classes.

    Parameters
    ----------
    means, variances, shares : torch.Tensor
        Of each Gaussian, shape (11,); shares sum to 1 within a class. Signal is in units of the
        scale that `tissue_fit` chose.
    """

    means: torch.Tensor
    variances: torch.Tensor
    shares: torch.Tensor

    def densities(self, signal: torch.Tensor) -> torch.Tensor:
        """Share times density of each Gaussian, shape (11, n)."""
        scale = self.shares / torch.sqrt(2 * torch.pi * self.variances)
        away = (signal[None] - self.means[:, None]) ** 2
        return torch.exp(away * (-0.5 / self.variances)[:, None]) * scale[:, None]

    def likelihoods(self, signal: torch.Tensor) -> torch.Tensor:
        """Density of each class, shape (6, n)."""
        return _sum(self.densities(signal))

    def negative_log(self, signal: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Minus the log-likelihood of each point, shape (n,)."""
        return -torch.log((maps * self.likelihoods(signal)).sum(0) + _TINY)

    def step(self, signal: torch.Tensor, maps: torch.Tensor) -> Mixture:
        """One step of expectation and maximisation."""
        dense = self.densities(signal)
        classes = torch.tensor(CLASS_OF, device=signal.device)
        joint = dense * maps[classes]
        total = joint.sum(0) + _TINY
        part = joint / total
        count = part.sum(1) + 1e-6
        means = (part @ signal) / count
        squares = (part @ signal**2) - count * means**2
        variances = (squares.clamp_min(0) + _LEAST_VARIANCE * _WEIGHT) / (count + _WEIGHT)
        members = _sum(count[:, None])[:, 0]
        shares = (count / members[classes]).clamp_min(1e-4)
        return Mixture(means, variances, shares)


def first_mixture(signal: torch.Tensor, maps: torch.Tensor) -> Mixture:
    """Where EM starts on a T1-weighted head.

    The unit is the median signal where white matter is likely by its place: scalp may be several
    times as bright, where coils lie close to it.
    """
    device = signal.device
    white = signal[maps[1] > 0.5 * maps[1].max()]
    unit = white.median() / _MEANS[1]
    classes = torch.tensor(CLASS_OF, device=device)
    members = torch.bincount(classes).float()
    return Mixture(
        unit * torch.tensor(_MEANS, device=device),
        (unit * torch.tensor(_DEVIATIONS, device=device)) ** 2,
        1 / members[classes],
    )


def _sum(gaussians: torch.Tensor) -> torch.Tensor:
    """Add up the Gaussians of each class."""
    sizes = [CLASS_OF.count(k) for k in range(len(CLASSES))]
    return torch.stack([part.sum(0) for part in torch.split(gaussians, sizes)])
