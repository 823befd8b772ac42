"""From standard scores to prototypes and matrices: start, subspace, solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import gmlvq_start
from models.gmlvq_cost import CostFunction, Floats, Ints, Samples
from models.gmlvq_settings import Settings, class_weights
from models.gmlvq_solvers import Place, Solution, solve_lbfgs, solve_waypoint

LARGEST = 1e70
"""Distances of larger features, squared as the gradient needs them, would be no numbers."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What training found.

    Parameters
    ----------
    mean, scale : NDArray[np.float64]
        Shape (features,); what standardises a feature.
    prototypes : NDArray[np.float64]
        Shape (prototypes, features), standardised.
    prototype_classes : NDArray[np.intp]
        Shape (prototypes,), index of the class of each.
    omega : NDArray[np.float64]
        Shape (1 or prototypes, rank, features).
    curve : NDArray[np.float64]
        Cost at the start and after each step.
    converged : bool
    """

    mean: Floats
    scale: Floats
    prototypes: Floats
    prototype_classes: Ints
    omega: Floats
    curve: Floats
    converged: bool


def learn(
    settings: Settings,
    x: Floats,
    classes: NDArray[Any],
    label: Ints,
    random: np.random.RandomState,
) -> Learned:
    """Learn prototypes and matrices.

    Parameters
    ----------
    settings : Settings
        Checked.
    x : NDArray[np.float64]
        Shape (samples, features); NaN where a value is missing.
    classes : NDArray
        Shape (classes,), their labels.
    label : NDArray[np.intp]
        Shape (samples,), index of the class.
    random : RandomState

    Raises
    ------
    ValueError
        Settings and data do not go together.
    """
    mean, scale = gmlvq_start.mean_and_scale(x, standardize=settings.standardize)
    z = (x - mean) / scale
    counts = gmlvq_start.prototype_counts(settings.prototypes_per_class, classes)
    of = np.repeat(np.arange(len(counts)), counts)
    if isinstance(settings.init, str):
        first = gmlvq_start.first_prototypes(z, label, counts, settings.init, random)
    else:
        first = (_given_prototypes(settings, len(of), z.shape[1]) - mean) / scale
    largest = max(np.nanmax(abs(z)), abs(first).max())
    if largest > LARGEST:
        raise ValueError(f"Features as large as {largest:.0e} standard deviations are too large.")
    basis = _subspace(settings, z, first)
    weight = class_weights(settings.class_weight, classes, label)
    samples, start = _problem(settings, z, label, weight, first, basis, random)
    solution = _solve(settings, samples, of, start)
    omega, moved = solution.place.omega, solution.place.prototypes
    if basis is not None:
        omega = omega @ basis.T
        if samples.basis is None:
            # What lies outside the subspace never moves.
            moved = first + (moved - start.prototypes) @ basis.T
    return Learned(mean, scale, moved, of, omega, solution.curve, solution.converged)


def _given_prototypes(settings: Settings, count: int, features: int) -> Floats:
    given = np.asarray(settings.init, dtype=np.float64)
    if given.shape != (count, features) or not np.isfinite(given).all():
        raise ValueError(f"init must hold {count} prototypes of {features} finite features.")
    return given


def _subspace(settings: Settings, z: Floats, first: Floats) -> Floats | None:
    holes = bool(np.isnan(z).any())
    if holes and settings.null_space is True:
        raise ValueError("The span of the data (null_space) is unknown with missing values.")
    unwanted = settings.subspace_correction
    if unwanted is not None:
        unwanted = np.asarray(unwanted, dtype=np.float64)
        if unwanted.ndim != 2 or len(unwanted) != z.shape[1] or not np.isfinite(unwanted).all():
            raise ValueError(
                f"subspace_correction must have {z.shape[1]} rows of finite numbers, one a feature."
            )
    null_space = bool(settings.null_space) and not holes
    return gmlvq_start.find_subspace(z, first, unwanted, null_space=null_space)


def _problem(
    settings: Settings,
    z: Floats,
    label: Ints,
    weight: Floats,
    first: Floats,
    basis: Floats | None,
    random: np.random.RandomState,
) -> tuple[Samples, Place]:
    """Put samples into the coordinates of the subspace, or keep a mask with the features."""
    features = z.shape[1]
    coordinates = features if basis is None else basis.shape[1]
    matrices = len(first) if settings.local else 1
    omega = gmlvq_start.first_omega(coordinates, features, settings.rank, matrices, random)
    missing = np.isnan(z)
    if missing.any():
        filled, there = np.where(missing, 0.0, z), (~missing).astype(np.float64)
        return Samples(filled, label, weight, there, basis), Place(first, omega)
    if basis is not None:
        z, first = z @ basis, first @ basis
    return Samples(z, label, weight), Place(first, omega)


def _solve(settings: Settings, samples: Samples, of: Ints, start: Place) -> Solution:
    beta = settings.beta if settings.activation == "sigmoid" else 0.0
    function = CostFunction(beta, settings.regularization)
    if settings.solver == "waypoint":
        return solve_waypoint(samples, of, start, function, settings.max_iter)
    return solve_lbfgs(samples, of, start, function, settings.max_iter, settings.tol)
