"""Two ways down the cost of GMLVQ: L-BFGS, and the steps of Biehl's toolbox with waypoints."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from models.gmlvq_cost import CostFunction, Floats, Ints, Samples

MATRIX_STEP, PROTOTYPE_STEP = 2.0, 1.0
LONGER, SHORTER = 1.1, 1.5
WAYPOINTS = 5
MEMORY = 10
"""Pairs of steps and gradients that L-BFGS keeps."""


@dataclass(frozen=True, eq=False)
class Place:
    """Prototypes and matrices.

    Parameters
    ----------
    prototypes : NDArray[np.float64]
        Shape (prototypes, features).
    omega : NDArray[np.float64]
        Shape (matrices, rank, coordinates).
    """

    prototypes: Floats
    omega: Floats


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a solver ended.

    Parameters
    ----------
    place : Place
        The Frobenius norm of each matrix is 1.
    curve : NDArray[np.float64]
        Cost at the start and after each step.
    converged : bool
        Always true for waypoint averaging, which ends by its number of steps.
    """

    place: Place
    curve: Floats
    converged: bool


def normalised(omega: Floats) -> Floats:
    """Give each matrix the Frobenius norm 1, so that its relevances sum to 1."""
    scaled: Floats = omega / np.linalg.norm(omega, axis=(1, 2), keepdims=True)
    return scaled


def solve_lbfgs(
    samples: Samples,
    classes: Ints,
    start: Place,
    function: CostFunction,
    max_iter: int,
    tol: float,
) -> Solution:
    """Minimise with L-BFGS over B, where Omega = B / ||B||: the trace constraint holds exactly.

    Parameters
    ----------
    samples : Samples
    classes : NDArray[np.intp]
        Class index of each prototype.
    start : Place
    function : CostFunction
    max_iter : int
        At most so many iterations.
    tol : float
        Ends when no component of the gradient is larger, or when an iteration gains less than a
        tenth of it, as a part of the cost.
    """
    split, shape = start.prototypes.size, start.omega.shape
    curve: list[float] = []

    def unpack(v: Floats) -> tuple[Floats, Floats]:
        return v[:split].reshape(start.prototypes.shape), v[split:].reshape(shape)

    def cost(v: Floats) -> tuple[float, Floats]:
        prototypes, b = unpack(v)
        norm = np.linalg.norm(b, axis=(1, 2), keepdims=True)
        omega = b / norm
        found = function.gradient(samples, prototypes, classes, omega)
        if not curve:
            curve.append(found.value)
        along = (found.by_omega * omega).sum((1, 2), keepdims=True)
        by_b = (found.by_omega - along * omega) / norm
        return found.value, np.concatenate([found.by_prototypes.ravel(), by_b.ravel()])

    first = np.concatenate([start.prototypes.ravel(), start.omega.ravel()])

    def note(intermediate_result: OptimizeResult) -> None:
        curve.append(float(intermediate_result.fun))

    options = {"maxiter": max_iter, "gtol": tol, "ftol": tol / 10, "maxcor": MEMORY}
    result = minimize(cost, first, jac=True, method="L-BFGS-B", callback=note, options=options)
    prototypes, b = unpack(result.x)
    return Solution(Place(prototypes, normalised(b)), np.array(curve), bool(result.success))


@dataclass
class _Waypoints:
    """The state of waypoint averaging."""

    place: Place
    matrix_step: float = MATRIX_STEP
    prototype_step: float = PROTOTYPE_STEP
    past: deque[Place] = field(default_factory=lambda: deque(maxlen=WAYPOINTS))


def solve_waypoint(
    samples: Samples, classes: Ints, start: Place, function: CostFunction, steps: int
) -> Solution:
    """Descend by normalised batch gradients with waypoint averaging.

    Papari, Bunte, Biehl, MIWOCI 2011, as in Biehl's "no-nonsense" toolbox 2.x: with the identity
    and without missing values, the curve and the result are the toolbox's to rounding. Its ``mu``
    is ``regularization * samples / 4``, and as there the curve holds the penalty for the first
    steps only.

    Parameters
    ----------
    samples : Samples
    classes : NDArray[np.intp]
        Class index of each prototype.
    start : Place
        The norm of its matrices matters for the first step.
    function : CostFunction
    steps : int
    """
    # The toolbox descends the penalty four times as fast as the cost it reports.
    reported = replace(function, regularization=function.regularization / 4)
    plain = replace(function, regularization=0.0)

    def cost(of: CostFunction, prototypes: Floats, omega: Floats) -> float:
        return of.value(samples, prototypes, classes, normalised(omega))

    state = _Waypoints(start)
    curve = [cost(reported, start.prototypes, start.omega)]
    for step in range(steps):
        before, after = state.place, _descend(samples, classes, state, function)
        if step < WAYPOINTS:
            state.place = after
            curve.append(cost(reported, after.prototypes, after.omega))
        else:
            mean = _mean(state.past)
            gain_p = (
                cost(plain, mean.prototypes, before.omega),
                cost(plain, after.prototypes, before.omega),
            )
            gain_m = (
                cost(reported, before.prototypes, mean.omega),
                cost(reported, before.prototypes, after.omega),
            )
            _jump(state, mean, after, gain_p, gain_m)
            curve.append(cost(plain, state.place.prototypes, state.place.omega))
        state.past.append(state.place)
    place = Place(state.place.prototypes, normalised(state.place.omega))
    return Solution(place, np.array(curve), converged=True)


def _descend(samples: Samples, classes: Ints, state: _Waypoints, function: CostFunction) -> Place:
    """Make one step of a fixed length along each gradient."""
    place = state.place
    found = function.gradient(samples, place.prototypes, classes, place.omega)
    prototypes = place.prototypes - state.prototype_step * _unit(found.by_prototypes)
    omega = normalised(place.omega - state.matrix_step * _unit(found.by_omega))
    return Place(prototypes, omega)


def _unit(gradient: Floats) -> Floats:
    length = float(np.linalg.norm(gradient))
    return gradient / length if length > 0 else gradient


def _mean(past: deque[Place]) -> Place:
    prototypes = np.mean([place.prototypes for place in past], axis=0)
    return Place(prototypes, normalised(np.mean([place.omega for place in past], axis=0)))


def _jump(
    state: _Waypoints,
    mean: Place,
    after: Place,
    prototype_costs: tuple[float, float],
    matrix_costs: tuple[float, float],
) -> None:
    """Go to the mean of the waypoints where that is no worse than the step; costs: mean, step."""
    state.prototype_step *= LONGER
    state.matrix_step *= LONGER
    prototypes, omega = after.prototypes, after.omega
    if prototype_costs[0] <= prototype_costs[1]:
        state.prototype_step /= SHORTER
        prototypes = mean.prototypes
    if matrix_costs[0] <= matrix_costs[1]:
        state.matrix_step /= SHORTER
        omega = mean.omega
    state.place = Place(prototypes, omega)
