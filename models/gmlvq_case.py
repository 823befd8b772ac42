"""What GMLVQ says of one case: its place between two prototypes, why, how surely, or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.base import Reason
from models.gmlvq_cost import Floats, Ints, distances

MOST_DRAWS = 1000
MARGIN = 0.1
"""How far beyond the range of training a feature may lie, as a part of that range."""


def reasons_of(
    names: Sequence[object], unsure: bool, far: bool, beyond: Ints, missing: NDArray[np.bool_]
) -> tuple[Reason, ...]:
    """Put into words what was found of one sample; features are told by name."""
    found = []
    if missing.any():
        told = _names(names, np.flatnonzero(missing))
        found.append(Reason("missing_feature", f"There is no value of {told}."))
    if len(beyond):
        told = _names(names, beyond)
        found.append(
            Reason("feature_out_of_range", f"Beyond what the model was trained on: {told}.")
        )
    if far:
        found.append(
            Reason(
                "outside_training_range",
                "The case is farther from every prototype than 99 of 100 training cases.",
            )
        )
    if unsure:
        found.append(Reason("indeterminate", "No class is probable enough to be named."))
    return tuple(found)


def _names(names: Sequence[object], which: Ints) -> str:
    return ", ".join(str(names[i]) for i in which)


@dataclass(frozen=True, eq=False)
class TrainingRange:
    """What samples were learned from.

    Parameters
    ----------
    lowest, highest : NDArray[np.float64]
        Shape (features,), in the units of X.
    distance_limit : float
        99th percentile of the distance to the closest prototype.
    """

    lowest: Floats
    highest: Floats
    distance_limit: float

    @classmethod
    def of(cls, x: Floats, nearest: Floats, percentile: float = 99.0) -> Self:
        """Sum up training samples and their distances to the closest prototype."""
        limit = float(np.percentile(nearest, percentile))
        return cls(np.nanmin(x, 0), np.nanmax(x, 0), limit)

    def outside(self, x: Floats) -> Sequence[Ints]:
        """Features of each sample beyond the range of training and a margin."""
        margin = MARGIN * (self.highest - self.lowest)
        beyond = (x < self.lowest - margin) | (x > self.highest + margin)
        return [np.flatnonzero(row) for row in beyond]


@dataclass(frozen=True, eq=False)
class Metric:
    """A learned classifier as arrays.

    Parameters
    ----------
    mean, scale : NDArray[np.float64]
        Shape (features,).
    prototypes : NDArray[np.float64]
        Shape (prototypes, features), standardised.
    classes : NDArray[np.intp]
        Shape (prototypes,), index of the class of each.
    omega : NDArray[np.float64]
        Shape (1 or prototypes, rank, features).
    """

    mean: Floats
    scale: Floats
    prototypes: Floats
    classes: Ints
    omega: Floats

    def standardised(self, x: Floats) -> tuple[Floats, Floats | None]:
        """Give standard scores, 0 where missing, and a mask where anything is missing."""
        z = (x - self.mean) / self.scale
        missing = np.isnan(z)
        if not missing.any():
            return z, None
        return np.where(missing, 0.0, z), (~missing).astype(np.float64)

    def distances(self, x: Floats) -> Floats:
        """Squared distance to each prototype, shape (samples, prototypes)."""
        z, present = self.standardised(x)
        return distances(z, self.prototypes, self.omega, present)

    def class_distances(self, x: Floats) -> Floats:
        """Squared distance to the closest prototype of each class, shape (samples, classes)."""
        found = self.distances(x)
        count = int(self.classes.max()) + 1
        return np.column_stack([found[:, self.classes == k].min(1) for k in range(count)])

    def contributions(self, x: Floats, stable: int, declining: int) -> Floats:
        """Shares of the features in the scalar projection, shape (samples, features).

        The projection of x on the line from the closest prototype of class `stable` to that of
        `declining`, in the metric: 0 on the one, 1 on the other, 0.5 where both are equally far.
        A missing feature contributes 0.

        Raises
        ------
        ValueError
            There is no such line, because the metric sees both prototypes at one place.
        """
        z, present = self.standardised(x)
        distance = self.distances(x)
        ends = [self._closest(distance, k) for k in (stable, declining)]
        axis = self.prototypes[ends[1]] - self.prototypes[ends[0]]
        away = z - self.prototypes[ends[0]]
        if present is not None:
            axis, away = axis * present, away * present
        pull = axis @ self.omega[0].T @ self.omega[0]
        length = (axis * pull).sum(1, keepdims=True)
        if not (length > 0).all():
            raise ValueError("Both prototypes lie at one place: there is nothing between them.")
        found: Floats = away * pull / length
        return found

    def _closest(self, distance: Floats, label: int) -> Ints:
        own = np.flatnonzero(self.classes == label)
        found: Ints = own[distance[:, own].argmin(1)]
        return found


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """The classifier, learned again from samples drawn with replacement.

    Parameters
    ----------
    mean, scale : NDArray[np.float64]
        Shape (replicates, features).
    prototypes : NDArray[np.float64]
        Shape (replicates, prototypes, features).
    omega : NDArray[np.float64]
        Shape (replicates, 1 or prototypes, rank, features).
    calibration : NDArray[np.float64], optional
        Shape (replicates, 1 + classes): numbers of the `Calibration` of each; None where there are
        no probabilities, or the model was learned before they were kept.
    """

    mean: Floats
    scale: Floats
    prototypes: Floats
    omega: Floats
    calibration: Floats | None = None

    def metrics(self, classes: Ints) -> list[Metric]:
        """Each replicate; `classes` are those of the prototypes."""
        return [
            Metric(mean, scale, prototypes, classes, omega)
            for mean, scale, prototypes, omega in zip(
                self.mean, self.scale, self.prototypes, self.omega, strict=True
            )
        ]


def interval(replicates: Floats, level: float) -> Floats:
    """Percentile interval over the first axis; the last axis is (low, high)."""
    tail = 50 * (1 - level)
    low, high = np.percentile(replicates, [tail, 100 - tail], axis=0)
    return np.stack([low, high], axis=-1)


def draw(label: Ints, groups: Ints, random: np.random.RandomState) -> Ints:
    """Draw as many groups of each class as there are, with replacement; give their samples.

    Parameters
    ----------
    label : NDArray[np.intp]
        Shape (samples,), index of the class.
    groups : NDArray[np.intp]
        Shape (samples,), such as the patient of each.
    random : RandomState
    """
    rows = []
    for k in np.unique(label):
        of_class = np.flatnonzero(label == k)
        in_order = of_class[np.argsort(groups[of_class], kind="stable")]
        _, start, count = np.unique(groups[in_order], return_index=True, return_counts=True)
        drawn = random.randint(len(start), size=len(start))
        sizes = count[drawn]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows.append(in_order[np.repeat(start[drawn], sizes) + within])
    found: Ints = np.concatenate(rows)
    return found


def lacks_a_feature(x: Floats) -> bool:
    """Whether a feature is missing in every sample."""
    return bool(np.isnan(x).all(0).any())


def draw_whole(x: Floats, label: Ints, groups: Ints, random: np.random.RandomState) -> Ints:
    """Draw, as `draw` does, until every feature has a value; it gives up after many times."""
    rows = draw(label, groups, random)
    for _ in range(MOST_DRAWS):
        if not lacks_a_feature(x[rows]):
            break
        rows = draw(label, groups, random)
    return rows


def eigen(matrix: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues of relevance matrices, falling, and eigenvectors as columns."""
    values, vectors = np.linalg.eigh(matrix)
    return np.maximum(values[..., ::-1], 0.0), vectors[..., ::-1]
