"""Cost of generalized matrix learning vector quantization (GMLVQ) and its gradient.

Schneider, Biehl, Hammer, Neural Computation 21:3532 (2009); the penalty is of Schneider et al.,
IEEE Transactions on Neural Networks 21:831 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
SMALLEST = 1e-150
"""Sums of distances are never taken as smaller; its square is still a number."""


AT_ONCE = 20_000
"""With fewer differences than these, one product for all prototypes is faster than one each."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What is learned from.

    Parameters
    ----------
    x : NDArray[np.float64]
        Shape (samples, features), standardised; 0 where a value is missing.
    label : NDArray[np.intp]
        Shape (samples,), index of the class.
    weight : NDArray[np.float64]
        Shape (samples,), sum 1.
    present : NDArray[np.float64], optional
        Shape (samples, features), 1 where there is a value, 0 where it is missing; None when
        every value is there.
    basis : NDArray[np.float64], optional
        Shape (features, coordinates), orthonormal columns. Matrices then have columns for these
        coordinates only, and count as ``omega @ basis.T``; used with missing values, because a
        mask belongs to features.
    """

    x: Floats
    label: Ints
    weight: Floats
    present: Floats | None = None
    basis: Floats | None = None


@dataclass(frozen=True, eq=False)
class Cost:
    """The cost at one place; gradients are empty where they were not asked for.

    Parameters
    ----------
    value : float
    by_prototypes : NDArray[np.float64]
        Shape (prototypes, features).
    by_omega : NDArray[np.float64]
        Shape (matrices, rank, coordinates).
    """

    value: float
    by_prototypes: Floats
    by_omega: Floats


@dataclass(frozen=True)
class CostFunction:
    """The mean of phi(mu) over samples, less half of ``regularization`` times ln det.

    mu = (d_J - d_K) / (d_J + d_K), with the squared distances to the closest prototype of the right
    class and of any other. phi is a logistic function of slope ``beta``, or the identity where beta
    is 0. ln det(Omega Omega^T) is averaged over local matrices.

    Parameters
    ----------
    beta : float
    regularization : float
    """

    beta: float = 0.0
    regularization: float = 0.0

    def value(self, samples: Samples, prototypes: Floats, classes: Ints, omega: Floats) -> float:
        """Give the cost alone; parameters as for `gradient`."""
        found = self._compete(samples, prototypes, classes, omega)
        phi, _ = self._phi(found.mu)
        return float(phi @ samples.weight) + self._penalty(omega)

    def gradient(self, samples: Samples, prototypes: Floats, classes: Ints, omega: Floats) -> Cost:
        """Give the cost with its gradient.

        Parameters
        ----------
        samples : Samples
        prototypes : NDArray[np.float64]
            Shape (prototypes, features).
        classes : NDArray[np.intp]
            Shape (prototypes,), index of the class of each.
        omega : NDArray[np.float64]
            Shape (matrices, rank, coordinates): one matrix for all prototypes, or one each; the
            Frobenius norm of each is 1.
        """
        found = self._compete(samples, prototypes, classes, omega)
        phi, slope = self._phi(found.mu)
        by_distance = found.by_distance(slope * samples.weight, len(prototypes))
        if len(omega) == 1 and samples.present is None and samples.basis is None:
            by_prototypes, by_omega = _global_gradient(samples.x, prototypes, omega[0], by_distance)
        else:
            by_prototypes, by_omega = _gradient(samples, prototypes, omega, by_distance)
        if self.regularization:
            by_omega -= self.regularization / len(omega) * _inverse(omega).transpose(0, 2, 1)
        value = float(phi @ samples.weight) + self._penalty(omega)
        return Cost(value, by_prototypes, by_omega)

    def _compete(
        self, samples: Samples, prototypes: Floats, classes: Ints, omega: Floats
    ) -> _Winners:
        found = distances(samples.x, prototypes, _in_features(samples, omega), samples.present)
        return _winners(found, samples.label, classes)

    def _phi(self, mu: Floats) -> tuple[Floats, Floats]:
        if self.beta == 0:
            return mu, np.ones_like(mu)
        phi = expit(self.beta * mu)
        return phi, self.beta * phi * (1 - phi)

    def _penalty(self, omega: Floats) -> float:
        if not self.regularization:
            return 0.0
        if omega.shape[1] == omega.shape[2]:
            log_det = 2 * np.linalg.slogdet(omega)[1]
        else:
            log_det = np.linalg.slogdet(omega @ omega.transpose(0, 2, 1))[1]
        return -0.5 * self.regularization * float(log_det.sum()) / len(omega)


def _inverse(omega: Floats) -> Floats:
    """Pseudo-inverse of each matrix; the inverse, which is faster, where there is one."""
    try:
        return np.asarray(np.linalg.inv(omega), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.pinv(omega), dtype=np.float64)


def distances(
    x: Floats, prototypes: Floats, omega: Floats, present: Floats | None = None
) -> Floats:
    """Squared distances, shape (samples, prototypes).

    Where values are missing their terms are left out, and what is left is divided by the share of
    the trace of the relevance matrix that belongs to features that are there.

    Parameters
    ----------
    x : NDArray[np.float64]
        Shape (samples, features); 0 where a value is missing.
    prototypes : NDArray[np.float64]
        Shape (prototypes, features).
    omega : NDArray[np.float64]
        Shape (1 or prototypes, rank, features).
    present : NDArray[np.float64], optional
        Shape (samples, features), 1 or 0; None when every value is there.
    """
    if present is None and len(omega) == 1:
        seen, places = x @ omega[0].T, prototypes @ omega[0].T
        if seen.size * len(places) <= AT_ONCE:
            each = seen[:, None] - places
            return np.asarray(np.einsum("ijk,ijk->ij", each, each))
        return np.stack([_squares(seen - place) for place in places], axis=1)
    found = np.empty((len(x), len(prototypes)))
    for j, prototype in enumerate(prototypes):
        away = x - prototype if present is None else (x - prototype) * present
        found[:, j] = _squares(away @ omega[_of(j, omega)].T)
    return found if present is None else found / _shares(present, omega)


def _squares(away: Floats) -> Floats:
    found: Floats = np.einsum("ij,ij->i", away, away)
    return found


def _in_features(samples: Samples, omega: Floats) -> Floats:
    if samples.basis is None:
        return omega
    full: Floats = omega @ samples.basis.T
    return full


def _of(j: int, omega: Floats) -> int:
    """Which matrix belongs to a prototype."""
    return j if len(omega) > 1 else 0


def _shares(present: Floats, omega: Floats) -> Floats:
    """Share of the trace that is there, shape (samples, matrices)."""
    found: Floats = np.maximum(present @ np.einsum("gmn,gmn->ng", omega, omega), SMALLEST)
    return found


@dataclass(frozen=True, eq=False)
class _Winners:
    rows: Ints
    right: Ints
    wrong: Ints
    d_right: Floats
    d_wrong: Floats
    total: Floats
    mu: Floats

    def by_distance(self, slope: Floats, prototypes: int) -> Floats:
        """Derive the cost by each distance, shape (samples, prototypes)."""
        found = np.zeros((len(slope), prototypes))
        scale = 2 * slope / self.total**2
        found[self.rows, self.right] = scale * self.d_wrong
        found[self.rows, self.wrong] = -scale * self.d_right
        return found


def _winners(distance: Floats, label: Ints, classes: Ints) -> _Winners:
    rows = np.arange(len(distance))
    same = label[:, None] == classes
    right = np.where(same, distance, np.inf).argmin(1)
    wrong = np.where(same, np.inf, distance).argmin(1)
    d_right, d_wrong = distance[rows, right], distance[rows, wrong]
    total = np.maximum(d_right + d_wrong, SMALLEST)
    return _Winners(rows, right, wrong, d_right, d_wrong, total, (d_right - d_wrong) / total)


def margins(distance: Floats, label: Ints, classes: Ints) -> Floats:
    """Relative margin mu of each sample, -1 (surely right) to 1 (surely wrong)."""
    return _winners(distance, label, classes).mu


def _global_gradient(
    x: Floats, prototypes: Floats, omega: Floats, by_distance: Floats
) -> tuple[Floats, Floats]:
    """One matrix, nothing missing: a few products of matrices, without a loop."""
    pulled, total = by_distance.T @ x, by_distance.sum(0)
    mixed = pulled.T @ prototypes
    scatter = x.T @ (by_distance.sum(1)[:, None] * x) - mixed - mixed.T
    scatter += prototypes.T @ (total[:, None] * prototypes)
    by_prototypes = -2 * ((pulled - total[:, None] * prototypes) @ omega.T) @ omega
    return by_prototypes, (2 * omega @ scatter)[None]


def _gradient(
    samples: Samples, prototypes: Floats, omega: Floats, by_distance: Floats
) -> tuple[Floats, Floats]:
    """Local matrices and missing values, prototype by prototype."""
    full = _in_features(samples, omega)
    by_prototypes, by_omega = np.zeros_like(prototypes), np.zeros_like(full)
    for j, prototype in enumerate(prototypes):
        rows = np.flatnonzero(by_distance[:, j])
        own = full[_of(j, full)]
        away, factor = samples.x[rows] - prototype, by_distance[rows, j]
        if samples.present is not None:
            present = samples.present[rows]
            away = away * present
            share = _shares(present, own[None])[:, 0]
            # d = q / share; both depend on the matrix.
            factor = factor / share
            q = ((away @ own.T) ** 2).sum(1)
            by_omega[_of(j, full)] -= 2 * own * ((factor * q / share) @ present)
        scatter = away.T @ (factor[:, None] * away)
        by_omega[_of(j, full)] += 2 * own @ scatter
        by_prototypes[j] = -2 * (_masked_sum(factor, away @ own.T @ own, samples, rows))
    return by_prototypes, by_omega if samples.basis is None else by_omega @ samples.basis


def _masked_sum(factor: Floats, pulls: Floats, samples: Samples, rows: Ints) -> Floats:
    if samples.present is not None:
        pulls = pulls * samples.present[rows]
    total: Floats = factor @ pulls
    return total
