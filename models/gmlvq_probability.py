"""Probabilities from distances, learned on samples that the distances were not learned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from models.gmlvq_cost import Floats, Ints

RIDGE = 1e-6
"""Keeps offsets in place where classes never meet."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """p(class) is proportional to exp(offset - slope * distance to its closest prototype).

    With two classes this is Platt's logistic function of the difference of distances, which for
    one prototype a class is a logistic function of the scalar projection.

    Parameters
    ----------
    slope : float
        Never negative: what is closer is never less probable.
    offsets : NDArray[np.float64]
        Shape (classes,); the first is 0.
    """

    slope: float
    offsets: Floats

    @classmethod
    def of(cls, numbers: Sequence[float] | Floats) -> Self:
        """Make one of what `numbers` gave."""
        return cls(float(numbers[0]), np.asarray(numbers[1:], dtype=np.float64))

    @property
    def numbers(self) -> list[float]:
        """Slope and offsets, 1 + classes."""
        return [self.slope, *self.offsets.tolist()]

    def probabilities(self, distance: Floats) -> Floats:
        """Shape (samples, classes), rows sum to 1; `distance` has the same shape."""
        found: Floats = softmax(self.offsets - self.slope * distance, axis=1)
        return found


def numbered(groups: ArrayLike | None, samples: int) -> Ints | None:
    """Give each group, such as the patient of a sample, a number.

    Parameters
    ----------
    groups : array of shape (samples,) or None
        None stays None.
    samples : int

    Raises
    ------
    ValueError
        There is not one for each sample.
    """
    if groups is None:
        return None
    told: NDArray[Any] = np.asarray(groups, dtype=object)
    if told.shape != (samples,) or any(one is None or one != one for one in told):
        raise ValueError(f"groups must be one for each of {samples} samples, none missing.")
    number: Ints = np.unique(np.asarray(groups), return_inverse=True)[1]
    return number


def calibrate(distance: Floats, label: Ints) -> Calibration:
    """Fit by maximum likelihood, with Platt's targets that keep probabilities off 0 and 1.

    Parameters
    ----------
    distance : NDArray[np.float64]
        Shape (samples, classes), squared distance to the closest prototype of each class, of
        samples that were not learned from.
    label : NDArray[np.intp]
        Shape (samples,), index of the class.

    References
    ----------
    Platt, Advances in Large Margin Classifiers (1999), p. 61.
    """
    classes = distance.shape[1]
    count = np.bincount(label, minlength=classes)
    sure = (count + 1) / (count + 2)
    target = np.repeat(((1 - sure) / (classes - 1))[label][:, None], classes, axis=1)
    target[np.arange(len(label)), label] = sure[label]
    unit = float(np.median(distance)) or 1.0

    def cost(v: Floats) -> tuple[float, Floats]:
        logits = np.append(0.0, v[1:]) - v[0] * distance / unit
        rest = (softmax(logits, axis=1) - target) / len(label)
        value = -(target * log_softmax(logits, axis=1)).sum() / len(label)
        by_slope = -(rest * distance).sum() / unit
        gradient = np.append(by_slope, rest.sum(0)[1:]) + RIDGE * v
        return float(value + 0.5 * RIDGE * v @ v), gradient

    first = np.append(1.0, np.zeros(classes - 1))
    bounds = [(0.0, None)] + [(None, None)] * (classes - 1)
    found = minimize(cost, first, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Calibration(float(found[0]) / unit, np.append(0.0, found[1:]))


def folds(
    label: Ints, groups: Ints | None, count: int, random: np.random.RandomState
) -> list[tuple[Ints, Ints]]:
    """Split samples into training and held out, stratified; a group is never on both sides.

    There are fewer folds than wanted where a class has fewer samples (or groups), and none at all
    where a class has only one.

    Parameters
    ----------
    label : NDArray[np.intp]
        Shape (samples,), index of the class.
    groups : NDArray[np.intp], optional
        Shape (samples,), as `numbered` gives them.
    count : int
        How many folds are wanted.
    random : RandomState
    """
    of_class = [
        int(np.count_nonzero(label == k)) if groups is None else len(np.unique(groups[label == k]))
        for k in np.unique(label)
    ]
    count = min(count, *of_class)
    if count < 2:
        return []
    if groups is None:
        splitter = StratifiedKFold(count, shuffle=True, random_state=random)
    else:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=random)
    return [
        (train, test)
        for train, test in splitter.split(np.zeros(len(label)), label, groups)
        if len(np.unique(label[train])) == len(of_class)
    ]
