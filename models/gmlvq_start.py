"""Where GMLVQ begins: standard scores, prototypes, the subspace it may use, the first matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from models.gmlvq_cost import Floats, Ints

Init = Literal["kmeans", "mean"] | NDArray[np.float64]
KMEANS_STARTS = 5
SAME_DIRECTION = 1e-10
"""Directions in which samples spread less, beside the widest, are rounding."""


def mean_and_scale(x: Floats, *, standardize: bool) -> tuple[Floats, Floats]:
    """Mean and standard deviation (ddof 1) of each feature over the values that are there.

    A feature that never varies keeps the scale 1. Without `standardize`, 0 and 1.

    Parameters
    ----------
    x : NDArray[np.float64]
        Shape (samples, features); NaN where a value is missing.
    standardize : bool

    Raises
    ------
    ValueError
        A feature is missing in every sample, or its numbers are too large to be summed up.
    """
    empty = np.isnan(x).all(0)
    if empty.any():
        raise ValueError(f"Feature {int(empty.argmax())} is missing in every sample.")
    if not standardize:
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        mean, count = np.nanmean(x, 0), (~np.isnan(x)).sum(0)
        away = x - mean
    largest = np.fmax.reduce(abs(away), axis=0)
    if not np.isfinite(largest).all():
        at = int(np.argmin(np.isfinite(largest)))
        raise ValueError(f"Numbers of feature {at} are too large to be summed up.")
    # A power of two changes no digit, and keeps squares from being infinite or 0.
    unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)
    scale = unit * np.sqrt(np.nansum((away / unit) ** 2, 0) / np.maximum(count - 1, 1))
    flat = scale <= 10 * np.finfo(float).eps * np.abs(mean)
    return mean, np.where(flat, 1.0, scale)


def prototype_counts(wanted: int | Mapping[Any, int], classes: NDArray[Any]) -> list[int]:
    """How many prototypes each class gets.

    Raises
    ------
    ValueError
        A class gets none, or one that is not there gets some.
    """
    if not isinstance(wanted, Mapping):
        counts = [wanted] * len(classes)
    else:
        strangers = set(wanted) - set(classes.tolist())
        if strangers:
            raise ValueError(f"prototypes_per_class names {strangers}, which are no classes of y.")
        counts = [wanted.get(label, 1) for label in classes.tolist()]
    if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in counts):
        raise ValueError(f"prototypes_per_class must be whole numbers from 1, not {wanted!r}.")
    return [int(n) for n in counts]


def first_prototypes(
    z: Floats,
    label: Ints,
    counts: list[int],
    init: str,
    random: np.random.RandomState,
) -> Floats:
    """Place prototypes class by class; shape (prototypes, features).

    Parameters
    ----------
    z : NDArray[np.float64]
        Shape (samples, features), standardised; NaN where a value is missing.
    label : NDArray[np.intp]
        Shape (samples,), index of the class.
    counts : list of int
        Prototypes of each class.
    init : {"kmeans", "mean"}
        Centres of k-means in each class, or its mean, moved a little at random where a class has
        several prototypes.
    random : RandomState

    Raises
    ------
    ValueError
        A class has fewer samples than prototypes.
    """
    places = []
    for index, count in enumerate(counts):
        own = z[label == index]
        if len(own) < count:
            raise ValueError(f"A class of {len(own)} samples cannot have {count} prototypes.")
        mean = _mean(own)
        if count == 1:
            places.append(mean[None])
        elif init == "mean":
            spread = _mean((own - mean) ** 2) ** 0.5
            places.append(mean + 0.02 * spread * random.uniform(-1, 1, (count, z.shape[1])))
        else:
            filled = np.where(np.isnan(own), mean, own)
            found = KMeans(count, n_init=KMEANS_STARTS, random_state=random).fit(filled)
            places.append(found.cluster_centers_)
    return np.vstack(places)


def _mean(own: Floats) -> Floats:
    """Mean of each feature; 0, the mean of all, where a class never has a value."""
    there = ~np.isnan(own)
    mean: Floats = np.where(there, own, 0.0).sum(0) / np.maximum(there.sum(0), 1)
    return mean


def find_subspace(
    z: Floats, prototypes: Floats, unwanted: Floats | None, *, null_space: bool
) -> Floats | None:
    """Basis of the directions that a relevance matrix may use; None when it may use all.

    Shape (features, coordinates), orthonormal columns: the span of the data, without unwanted
    directions.

    Directions that no sample uses (always some where there are more features than samples) do not
    change a distance between samples, and make relevances ambiguous: Strickert et al., IEEE CIDM
    2013. Unwanted directions, such as those that tell scanners apart: van Veen et al., Artificial
    Intelligence in Medicine 149:102786 (2024).

    Parameters
    ----------
    z : NDArray[np.float64]
        Shape (samples, features), standardised, complete.
    prototypes : NDArray[np.float64]
        Shape (prototypes, features).
    unwanted : NDArray[np.float64], optional
        Shape (features, directions).
    null_space : bool
        Whether to keep to the span of the data.

    Raises
    ------
    ValueError
        Nothing is left.
    """
    features = z.shape[1]
    away = None if unwanted is None else _span(unwanted.T)
    if null_space:
        rows = np.vstack([z, prototypes])
        if away is not None:
            rows = rows - (rows @ away) @ away.T
        basis = _span(rows)
    elif away is not None:
        basis = _span(np.eye(features) - away @ away.T)
    else:
        return None
    if basis.shape[1] == 0:
        raise ValueError("No direction is left in which samples differ.")
    return None if basis.shape[1] == features else basis


def _span(rows: Floats) -> Floats:
    """Orthonormal basis of the span of rows, shape (features, rank)."""
    _, values, vectors = np.linalg.svd(rows, full_matrices=False)
    smallest = values[0] * SAME_DIRECTION if len(values) else 0.0
    found: Floats = vectors[values > smallest].T
    return found


def first_omega(
    coordinates: int, features: int, rank: int | None, matrices: int, random: np.random.RandomState
) -> Floats:
    """Identity, or random orthonormal rows where the rank is limited.

    Shape (matrices, rank, coordinates). It is divided by the root of the number of features, also
    where fewer coordinates are used: the toolbox begins so.
    """
    if rank is None or rank >= coordinates:
        one = np.eye(coordinates)
    else:
        q, _ = np.linalg.qr(random.standard_normal((coordinates, rank)))
        one = q.T
    return np.repeat(one[None] / np.sqrt(features), matrices, axis=0)
