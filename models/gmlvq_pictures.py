"""Pictures of a validation: ROC, calibration, relevances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from models.binary_metrics import Scores, calibration_bins

BLUE, GREY = "#1f5fa8", "0.6"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def draw_roc(scores: Scores, threshold: float, auc: Sequence[float], path: Path) -> None:
    """Draw sensitivity over 1 - specificity, with the threshold; `auc` is value, low, high."""
    figure, axes = _axes(5, 5)
    wrong, right, _ = roc_curve(scores.declining, scores.projection)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.plot(wrong, right, color=BLUE, linewidth=2)
    found = scores.projection > threshold
    at = found[scores.declining == 0].mean(), found[scores.declining == 1].mean()
    axes.plot(*at, "o", color=BLUE, markersize=8)
    axes.annotate(f"projection > {threshold:g}", at, (8, -14), textcoords="offset points")
    axes.set(
        xlabel="1 - specificity",
        ylabel="sensitivity",
        title=f"AUC {auc[0]:.3f} ({auc[1]:.3f} to {auc[2]:.3f})",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    figure.savefig(path, dpi=120)


def draw_calibration(scores: Scores, error: float, path: Path) -> None:
    """Draw the frequency over the probability of ten bins; areas of marks tell how many cases."""
    figure, axes = _axes(5, 5)
    told, true, count = calibration_bins(scores)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    spread = 1.96 * np.sqrt(np.maximum(true * (1 - true), 0.25 / count) / count)
    axes.errorbar(told, true, spread, fmt="none", ecolor=GREY, linewidth=1)
    axes.scatter(told, true, 400 * count / count.max() + 10, color=BLUE, zorder=3)
    axes.set(
        xlabel="probability of declining",
        ylabel="part that declined",
        title=f"Calibration error {error:.3f}",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    figure.savefig(path, dpi=120)


def draw_relevances(
    names: Sequence[str],
    relevances: NDArray[np.float64],
    spread: NDArray[np.float64],
    path: Path,
) -> None:
    """Draw the diagonal of the relevance matrix as bars, the largest on top.

    Parameters
    ----------
    names : sequence of str
    relevances : NDArray[np.float64]
        Shape (features,), sum 1.
    spread : NDArray[np.float64]
        Shape (features, 2), interval of each.
    path : Path
    """
    order = np.argsort(relevances)[-30:]
    figure, axes = _axes(7, 1.2 + 0.32 * len(order))
    value, (low, high) = relevances[order], spread[order].T
    ends = np.maximum([value - low, high - value], 0.0)
    axes.barh(range(len(order)), value, xerr=ends, color=BLUE, ecolor=GREY, height=0.7)
    axes.set_yticks(range(len(order)), [names[i] for i in order])
    axes.set(xlabel="relevance (all add up to 1)", title="Relevance, 95 % bootstrap interval")
    axes.set_xlim(left=0)
    figure.savefig(path, dpi=120)
