"""Pictures of a training run: the loss, and the worst, the median and the best case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from models.evaluation import Result

SMOOTH = 25


def draw_curve(losses: Sequence[float], path: Path) -> None:
    """Plot the loss of every step and its running mean."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(losses, color="0.8", linewidth=0.5)
    if len(losses) >= SMOOTH:
        mean = np.convolve(losses, np.ones(SMOOTH) / SMOOTH, "valid")
        axes.plot(np.arange(len(mean)) + SMOOTH // 2, mean, color="tab:blue")
    axes.set(xlabel="step", ylabel="Dice + cross entropy", title="Training loss")
    figure.savefig(path, dpi=100)


def draw_cases(results: Sequence[Result], path: Path) -> None:
    """Show three held-out cases with blood: truth in green, found in red."""
    ranked = sorted((r for r in results if r.truth.any()), key=lambda r: r.dice)
    if not ranked:
        return
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (word, result) in enumerate(chosen.items(), start=1):
        axes = figure.add_subplot(1, 3, place)
        axes.imshow(_overlay(result), origin="lower")
        axes.set_axis_off()
        axes.set_title(
            f"{word}: {result.kind}, Dice {result.dice:.2f}\n"
            f"{result.found_ml:.1f} ml found, {result.truth_ml:.1f} ml true"
        )
    figure.savefig(path, dpi=100)


def _overlay(result: Result) -> NDArray[Any]:
    """Slice with most true blood, (rows, columns, RGB)."""
    z = int(result.truth.sum(axis=(0, 1)).argmax())
    grey = np.clip(result.array[:, :, z].T / 80.0, 0.0, 1.0)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for mask, channel in ((result.truth, 1), (result.found, 0)):
        picture[mask[:, :, z].T, channel] = 0.4 + 0.6 * picture[mask[:, :, z].T, channel]
    return picture
