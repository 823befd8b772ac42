"""Split cases by patient, with every kind and size of finding in every fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

TERCILES = (1 / 3, 2 / 3)


def folds_of(
    patients: Sequence[str],
    kinds: Sequence[str],
    volumes: NDArray[np.float64],
    folds: int,
    seed: int,
) -> NDArray[np.intp]:
    """Give each case the number of the fold that it is held out in.

    Parameters
    ----------
    patients, kinds : sequence of str
        Of each case; a patient's cases stay together.
    volumes : NDArray[np.float64]
        Of what is labelled, any unit; 0: nothing. Strata are: nothing, and thirds of the rest.
    folds, seed : int

    Raises
    ------
    ValueError
        There are fewer patients than folds.
    """
    groups = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = int(groups.max()) + 1 if len(groups) else 0
    if count < folds:
        raise ValueError(f"{count} patients are too few for {folds} folds.")
    strata = _strata(kinds, volumes, folds)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = np.empty(len(groups), np.intp)
    for number, (_, held_out) in enumerate(splitter.split(strata, strata, groups)):
        found[held_out] = number
    return found


def _strata(kinds: Sequence[str], volumes: NDArray[np.float64], folds: int) -> NDArray[np.intp]:
    """Give kind and size, or what of it leaves a case of each stratum for every fold."""
    some = volumes[volumes > 0]
    limits = np.quantile(some, TERCILES) if len(some) else np.zeros(2)
    sizes = np.where(volumes > 0, 1 + np.searchsorted(limits, volumes), 0)
    number = np.unique(np.asarray(kinds), return_inverse=True)[1]
    for strata in (number * (len(TERCILES) + 2) + sizes, number, sizes):
        found: NDArray[np.intp] = np.unique(strata, return_inverse=True)[1]
        if np.bincount(found).min() >= folds:
            return found
    return np.zeros(len(volumes), np.intp)
