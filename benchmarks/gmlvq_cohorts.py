"""GMLVQ on two Gaussian classes whose best AUC is known: what is lost, and what intervals hold.

``python -m benchmarks.gmlvq_cohorts [--cohorts 300] [--samples 400] [--intervals 60]``

Nothing is held out: the AUC of a learned direction w on Gaussians of one covariance C, whose means
are s apart, is Phi(w s / sqrt(2 w C w)), and the best is that of w = C^-1 s. What is lost is thus
the error of learning from so few people, without the error of measuring it on some others. Beside
it is a linear discriminant, which for these classes is the best that can be learned.

An interval of the scalar projection should hold, for 95 % of cases, what a model says that learned
from very many people; an interval of a probability, the true probability of the class.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from models.gmlvq import GMLVQClassifier

Floats = NDArray[np.float64]
NEAR = 0.01
MANY, CASES, REPLICATES = 200_000, 200, 100
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "identity, penalty 0.01": {"activation": "identity", "regularization": 1e-2},
    "sigmoid 2, penalty 0.01": {"regularization": 1e-2},
    "defaults (sigmoid 2, 0.001)": {},
}
STEADY = SETTINGS["identity, penalty 0.01"]


@dataclass(frozen=True, eq=False)
class Design:
    """Two Gaussian classes: x = standard normal @ mixing, plus a shift in the second class."""

    mixing: Floats
    shift: Floats

    def draw(self, seed: int, samples: int) -> tuple[Floats, NDArray[np.intp]]:
        """Draw people, half of them of each class."""
        y = np.arange(samples) % 2
        z = np.random.default_rng(seed).standard_normal((samples, len(self.shift)))
        return z @ self.mixing + y[:, None] * self.shift, y

    def best(self) -> Floats:
        """Direction that tells the classes apart best."""
        return np.asarray(np.linalg.solve(self.mixing.T @ self.mixing, self.shift))

    def auc(self, direction: Floats) -> float:
        """Exact AUC of a projection."""
        spread = np.linalg.norm(self.mixing @ direction)
        return float(norm.cdf(direction @ self.shift / (np.sqrt(2) * spread)))

    def probability(self, x: Floats) -> Floats:
        """Give the true probability of the second class."""
        return np.asarray(expit(x @ self.best() - 0.5 * self.shift @ self.best()))


DESIGNS = {
    "correlated": Design(
        np.array([[1.0, 0.6, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 1.0]]), np.array([1.2, 0.4, -0.6])
    ),
    "alike": Design(np.eye(3), np.array([1.2, 0.4, -0.6])),
    "idle features": Design(np.eye(6), np.array([1.5, 0.8, -0.6, 0.0, 0.0, 0.0])),
}


def lost(design: Design, seed: int, samples: int, settings: Mapping[str, Any] | None) -> float:
    """AUC below the best; None: of a linear discriminant."""
    x, y = design.draw(seed, samples)
    if settings is None:
        direction = LinearDiscriminantAnalysis(solver="lsqr").fit(x, y).coef_[0]
    else:
        model = GMLVQClassifier(**settings).fit(x, y)
        ends = np.vstack([np.zeros(x.shape[1]), np.eye(x.shape[1])])
        at = model.scalar_projection(ends)
        direction = at[1:] - at[0]
    return design.auc(design.best()) - design.auc(direction)


def held(design: Design, seeds: range, samples: int) -> tuple[float, float]:
    """Part of cases whose interval holds the projection of many people, and the probability."""
    limit = GMLVQClassifier(**STEADY).fit(*design.draw(10**6, MANY))
    cases, _ = design.draw(10**6 + 1, CASES)
    wanted = limit.scalar_projection(cases), design.probability(cases)
    found = np.zeros(2)
    for seed in seeds:
        x, y = design.draw(seed, samples)
        model = GMLVQClassifier(calibration_folds=5, random_state=0, **STEADY).fit(x, y)
        model.bootstrap(x, y, replicates=REPLICATES)
        intervals = model.projection_interval(cases), model.probability_interval(cases)[:, 1]
        for k, (interval, true) in enumerate(zip(intervals, wanted, strict=True)):
            found[k] += np.mean((interval[:, 0] <= true) & (true <= interval[:, 1]))
    return float(found[0] / len(seeds)), float(found[1] / len(seeds))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=300)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--intervals", type=int, default=60, help="cohorts for intervals")
    given = parser.parse_args()
    learners: dict[str, Mapping[str, Any] | None] = {"linear discriminant": None, **SETTINGS}
    for name, design in DESIGNS.items():
        print(f"{name}: best AUC {design.auc(design.best()):.4f}, {given.samples} people")
        for learner, settings in learners.items():
            below = np.array(
                [lost(design, seed, given.samples, settings) for seed in range(given.cohorts)]
            )
            print(
                f"  {learner}: within {NEAR} in {100 * np.mean(below < NEAR):.1f} % of "
                f"{given.cohorts} cohorts; median lost {np.median(below):.4f}, 95 % "
                f"{np.quantile(below, 0.95):.4f}",
                flush=True,
            )
        if given.intervals:
            projection, probability = held(design, range(given.intervals), given.samples)
            print(
                f"  95 % intervals hold the projection in {100 * projection:.1f} %, the "
                f"probability in {100 * probability:.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
