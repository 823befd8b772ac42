"""The cost of GMLVQ against MATLAB's toolbox, and its gradient against differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.gmlvq_cost import CostFunction, Samples, distances
from models.gmlvq_solvers import normalised
from tests.models import toolbox_run

Floats = NDArray[np.float64]
SAMPLES, FEATURES, STEP = 40, 5, 1e-6
CLASSES = np.array([0, 0, 1, 2])


def some_samples(*, missing: bool, subspace: bool) -> Samples:
    random = np.random.default_rng(7)
    x = random.standard_normal((SAMPLES, FEATURES))
    label = np.arange(SAMPLES) % 3
    weight = random.uniform(0.5, 2.0, SAMPLES)
    present, basis = None, None
    if missing:
        present = (random.uniform(size=x.shape) < 0.8).astype(np.float64)
        present[:, 0] = 1.0
        x = x * present
    if subspace:
        basis = np.linalg.qr(random.standard_normal((FEATURES, 3)))[0]
    return Samples(x, label, weight / weight.sum(), present, basis)


def central_difference(function: Callable[[Floats], float], at: Floats) -> Floats:
    slopes = np.zeros(at.size)
    for i in range(at.size):
        move = np.zeros(at.size)
        move[i] = STEP
        up, down = (at.ravel() + move).reshape(at.shape), (at.ravel() - move).reshape(at.shape)
        slopes[i] = (function(up) - function(down)) / (2 * STEP)
    return slopes.reshape(at.shape)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("subspace", [False, True], ids=["all", "subspace"])
@pytest.mark.parametrize("rank", [None, 2], ids=["full-rank", "rank-2"])
@pytest.mark.parametrize("local", [False, True], ids=["global", "local"])
@pytest.mark.parametrize("beta", [0.0, 5.0], ids=["identity", "sigmoid"])
@pytest.mark.parametrize("regularization", [0.0, 0.02], ids=["plain", "penalty"])
def test_the_gradient_is_that_of_finite_differences(
    missing: bool, subspace: bool, rank: int | None, local: bool, beta: float, regularization: float
) -> None:
    samples = some_samples(missing=missing, subspace=subspace)
    random = np.random.default_rng(8)
    prototypes = random.standard_normal((len(CLASSES), FEATURES))
    coordinates = FEATURES if samples.basis is None else samples.basis.shape[1]
    shape = (len(CLASSES) if local else 1, rank or coordinates, coordinates)
    omega = normalised(random.standard_normal(shape))
    function = CostFunction(beta, regularization)

    found = function.gradient(samples, prototypes, CLASSES, omega)

    expected_p = central_difference(
        lambda w: function.value(samples, w, CLASSES, omega), prototypes
    )
    expected_o = central_difference(
        lambda o: function.value(samples, prototypes, CLASSES, o), omega
    )
    size = np.linalg.norm
    assert size(found.by_prototypes - expected_p) < 1e-6 * size(expected_p)
    assert size(found.by_omega - expected_o) < 1e-6 * size(expected_o)
    assert found.value == pytest.approx(function.value(samples, prototypes, CLASSES, omega))


def test_one_matrix_and_the_same_matrix_for_each_prototype_are_the_same() -> None:
    samples = some_samples(missing=False, subspace=False)
    random = np.random.default_rng(8)
    prototypes = random.standard_normal((len(CLASSES), FEATURES))
    omega = normalised(random.standard_normal((1, FEATURES, FEATURES)))
    function = CostFunction(2.0)

    one = function.gradient(samples, prototypes, CLASSES, omega)
    each = function.gradient(samples, prototypes, CLASSES, np.repeat(omega, 4, axis=0))

    np.testing.assert_allclose(each.by_prototypes, one.by_prototypes, atol=1e-14)
    np.testing.assert_allclose(each.by_omega.sum(0), one.by_omega[0], atol=1e-13)


def test_rotating_the_space_of_omega_changes_no_cost() -> None:
    samples = some_samples(missing=True, subspace=False)
    random = np.random.default_rng(9)
    prototypes = random.standard_normal((len(CLASSES), FEATURES))
    omega = normalised(random.standard_normal((1, FEATURES, FEATURES)))
    rotation = np.linalg.qr(random.standard_normal((FEATURES, FEATURES)))[0]
    function = CostFunction(2.0, 0.1)

    before = function.value(samples, prototypes, CLASSES, omega)
    after = function.value(samples, prototypes, CLASSES, rotation @ omega)

    assert after == pytest.approx(before, abs=1e-13)


def test_a_sample_that_is_there_twice_counts_twice() -> None:
    samples = some_samples(missing=False, subspace=False)
    weight = np.full(SAMPLES, 1.0)
    weight[:10] = 2.0
    weighted = replace(samples, weight=weight / weight.sum())
    rows = np.concatenate([np.arange(SAMPLES), np.arange(10)])
    repeated = Samples(samples.x[rows], samples.label[rows], np.full(len(rows), 1 / len(rows)))
    prototypes = np.random.default_rng(8).standard_normal((len(CLASSES), FEATURES))
    omega = normalised(np.eye(FEATURES)[None])
    function = CostFunction(2.0)

    one = function.gradient(weighted, prototypes, CLASSES, omega)
    other = function.gradient(repeated, prototypes, CLASSES, omega)

    assert one.value == pytest.approx(other.value, abs=1e-14)
    np.testing.assert_allclose(one.by_omega, other.by_omega, atol=1e-13)


def test_a_sample_on_two_prototypes_has_no_gradient() -> None:
    samples = Samples(np.zeros((2, 2)), np.array([0, 1]), np.array([0.5, 0.5]))

    found = CostFunction().gradient(
        samples, np.zeros((2, 2)), np.array([0, 1]), normalised(np.eye(2)[None])
    )

    assert found.value == 0.0
    assert not found.by_omega.any()


def test_the_cost_with_the_penalty_is_that_of_the_toolbox() -> None:
    x, y = toolbox_run.flowers()
    samples = Samples(x, y, np.full(len(x), 1 / len(x)))
    prototypes = toolbox_run.first_prototypes(x, y)
    omega = np.eye(4)[None] / 2

    # The toolbox reports mu / samples times half of ln det; its published cost is for mu = 1.
    value = CostFunction(0.0, 1 / len(x)).value(samples, prototypes, np.arange(3), omega)

    assert value == pytest.approx(-0.66084222276172, abs=1e-13)


def test_the_penalty_is_finite_where_the_determinant_is_not() -> None:
    features = 186
    samples = Samples(np.eye(features)[:4], np.array([0, 0, 1, 1]), np.full(4, 0.25))
    omega = normalised(np.eye(features)[None])

    value = CostFunction(0.0, 2.0).value(samples, np.eye(features)[:2], np.array([0, 1]), omega)

    assert np.linalg.det(omega[0] @ omega[0].T) == 0.0
    plain = CostFunction().value(samples, np.eye(features)[:2], np.array([0, 1]), omega)
    assert value - plain == pytest.approx(features * np.log(features))


def test_a_missing_feature_leaves_the_distance_of_the_others_by_their_share_of_relevance() -> None:
    omega = np.diag([0.6, 0.8])[None]
    x, present = np.array([[2.0, 0.0]]), np.array([[1.0, 0.0]])

    found = distances(x, np.array([[0.0, 5.0]]), omega, present)

    assert found[0, 0] == pytest.approx(0.36 * 4 / 0.36)
