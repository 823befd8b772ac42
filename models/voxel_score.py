"""One number from many voxels: partial least squares with recursive elimination.

References
----------
Giorgio, Landau, Jagust, Tino, Kourtzi: Modelling prognostic trajectories of cognitive decline due
to Alzheimer's disease. NeuroImage: Clinical 26 (2020) 102199, for the idea; settings are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import GroupKFold

F64 = NDArray[np.float64]
DROPPED = 0.1
"""Part of the voxels that each round leaves out: those of the smallest weights."""
FEWEST = 20
FOLDS = 5


@dataclass(frozen=True, eq=False)
class VoxelScore:
    """A linear score.

    Parameters
    ----------
    voxels : NDArray[np.int64]
        Which features count, ascending.
    weights : NDArray[np.float64]
        One for each of them.
    intercept : float
    curve : tuple of (int, float)
        Voxels and cross-validated R squared of each round.
    """

    voxels: NDArray[np.int64]
    weights: F64
    intercept: float
    curve: tuple[tuple[int, float], ...]

    def __call__(self, features: NDArray[np.floating]) -> F64:
        """Score rows of features, shape (n, all voxels), in units of the target."""
        score: F64 = features[:, self.voxels] @ self.weights + self.intercept
        return score


def fit_voxel_score(
    features: NDArray[np.floating],
    target: NDArray[np.floating],
    groups: NDArray[np.generic],
    components: int = 1,
) -> VoxelScore:
    """Choose voxels and weights.

    Parameters
    ----------
    features : NDArray
        Shape (heads, voxels).
    target : NDArray
        A cognitive composite, shape (heads,).
    groups : NDArray
        Whose head it is: heads of one person are never on both sides of a fold. Shape (heads,).
    components : int

    Raises
    ------
    ValueError
        There are fewer than five people, or shapes differ.

    Notes
    -----
    R squared of the curve is optimistic, because the same folds choose the round: judge a score
    on people that it never saw.
    """
    if features.ndim != 2 or not len(features) == len(target) == len(groups):
        raise ValueError(f"{features.shape} features, {len(target)} targets, {len(groups)} groups")
    if len(np.unique(groups)) < FOLDS:
        raise ValueError(f"{len(np.unique(groups))} people are too few for {FOLDS} folds")
    values, wanted = features.astype(np.float64), target.astype(np.float64)
    chosen = np.arange(values.shape[1])
    rounds: list[tuple[float, NDArray[np.int64]]] = []
    while True:
        rounds.append((_r_squared(values[:, chosen], wanted, groups, components), chosen))
        if len(chosen) <= max(FEWEST, components):
            break
        weights, _ = _weights(values[:, chosen], wanted, components)
        spread = np.abs(weights) * values[:, chosen].std(axis=0)
        keep = max(int(len(chosen) * (1 - DROPPED)), FEWEST)
        chosen = np.sort(chosen[np.argsort(-spread, kind="stable")[:keep]])
    best = max(rounds, key=lambda item: item[0])[1]
    weights, intercept = _weights(values[:, best], wanted, components)
    return VoxelScore(best, weights, intercept, tuple((len(v), r) for r, v in rounds))


def _weights(features: F64, target: F64, components: int) -> tuple[F64, float]:
    model = PLSRegression(components, scale=True).fit(features, target)
    weights: F64 = np.asarray(model.coef_, np.float64).ravel()
    offset = float(np.ravel(model.intercept_)[0]) - float(features.mean(axis=0) @ weights)
    return weights, offset


def _r_squared(features: F64, target: F64, groups: NDArray[np.generic], components: int) -> float:
    left = 0.0
    for train, test in GroupKFold(FOLDS).split(features, target, groups):
        weights, intercept = _weights(features[train], target[train], components)
        left += float(((features[test] @ weights + intercept - target[test]) ** 2).sum())
    return 1 - left / float(((target - target.mean()) ** 2).sum())
