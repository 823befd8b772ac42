"""How well a score tells two classes apart, with intervals over patients."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.gmlvq_case import draw, interval

BINS = 10


@dataclass(frozen=True)
class Metrics:
    """Figures of a set of cases; the class that declines is the positive one.

    Parameters
    ----------
    auc, accuracy, balanced_accuracy, sensitivity, specificity : float
        The class is declining where the projection is above the threshold.
    brier : float
        Mean squared error of the probability.
    calibration_error : float
        Mean difference between probability and frequency over ten bins of equal width.
    """

    auc: float
    accuracy: float
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    brier: float
    calibration_error: float


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model said of cases of known outcome.

    Parameters
    ----------
    declining : NDArray[np.intp]
        Shape (cases,), 1 for the class that declined.
    projection, probability : NDArray[np.float64]
        Shape (cases,); the probability is that of declining.
    group : NDArray[np.intp]
        Shape (cases,), a number for each patient.
    """

    declining: NDArray[np.intp]
    projection: NDArray[np.float64]
    probability: NDArray[np.float64]
    group: NDArray[np.intp]

    def of(self, rows: NDArray[np.intp]) -> Scores:
        """Take some cases."""
        return Scores(
            self.declining[rows], self.projection[rows], self.probability[rows], self.group[rows]
        )


def calibration_bins(scores: Scores) -> tuple[NDArray[np.float64], ...]:
    """Mean probability, frequency of declining, and number of cases, of each bin that has any."""
    which = np.minimum((scores.probability * BINS).astype(int), BINS - 1)
    count = np.bincount(which, minlength=BINS)
    there = count > 0
    told = np.bincount(which, scores.probability, BINS)[there] / count[there]
    true = np.bincount(which, scores.declining, BINS)[there] / count[there]
    return told, true, count[there].astype(np.float64)


def area_under_curve(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney); faster than scikit-learn's."""
    positive = int(truth.sum())
    above = float(rankdata(score)[truth].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(truth) - positive))


def measure(scores: Scores, threshold: float) -> Metrics:
    """Measure; both classes must be there."""
    truth, found = scores.declining == 1, scores.projection > threshold
    sensitivity, specificity = float(found[truth].mean()), float((~found[~truth]).mean())
    told, true, count = calibration_bins(scores)
    return Metrics(
        auc=area_under_curve(truth, scores.projection),
        accuracy=float((found == truth).mean()),
        balanced_accuracy=(sensitivity + specificity) / 2,
        sensitivity=sensitivity,
        specificity=specificity,
        brier=float(((scores.probability - truth) ** 2).mean()),
        calibration_error=float((abs(told - true) * count).sum() / count.sum()),
    )


def with_intervals(
    scores: Scores, threshold: float, replicates: int, seed: int, level: float = 0.95
) -> dict[str, list[float]]:
    """Give each figure as value, low, high; patients are drawn with replacement in each class.

    The calibration error is told without an interval: drawing with replacement always enlarges it.
    """
    random = np.random.RandomState(seed)
    drawn = [
        list(
            asdict(
                measure(scores.of(draw(scores.declining, scores.group, random)), threshold)
            ).values()
        )
        for _ in range(replicates)
    ]
    limits = interval(np.array(drawn), level)
    found = asdict(measure(scores, threshold))
    told = {
        name: [round(value, 4), round(float(low), 4), round(float(high), 4)]
        for (name, value), (low, high) in zip(found.items(), limits, strict=True)
    }
    told["calibration_error"] = told["calibration_error"][:1]
    return told
