"""Pictures of a training run: the loss, and the worst, the median and the best case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from models.checkpoint import Progressed
from models.evaluation import Judged

SMOOTH = 25
COLORS = colormaps["tab10"].colors  # type: ignore[attr-defined]
BLUE, ORANGE, GREY = "tab:blue", "tab:orange", "0.8"


def draw_curve(progressed: Progressed, path: Path) -> None:
    """Plot the loss of every step and its running mean, and the Dice of watched cases."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    losses = progressed.losses
    axes.plot(np.arange(1, len(losses) + 1), losses, color=GREY, linewidth=0.5)
    if len(losses) >= SMOOTH:
        mean = np.convolve(losses, np.ones(SMOOTH) / SMOOTH, "valid")
        axes.plot(np.arange(len(mean)) + 1 + SMOOTH // 2, mean, color=BLUE)
    axes.set(xlabel="step", title=f"Training loss, mean of {SMOOTH} steps")
    axes.set_ylabel("Dice + cross entropy", color=BLUE)
    axes.set_ylim(0, float(np.quantile(losses, 0.99)) * 1.05)
    if progressed.watched:
        beside = axes.twinx()
        beside.plot(*zip(*progressed.watched, strict=True), "o-", color=ORANGE)
        beside.set_ylabel("mean Dice of watched cases", color=ORANGE)
        beside.set_ylim(0, 1)
    figure.savefig(path, dpi=100)


def draw_cases(judged: Sequence[Judged], names: Sequence[str], path: Path) -> None:
    """Show three held-out cases with something in them: grey, truth as lines, found as colour."""
    ranked = sorted(
        (one for one in judged if any(s.truth_ml > 0 for s in one.scored.structures)),
        key=lambda one: one.scored.dice,
    )
    if not ranked:
        return
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (word, one) in enumerate(chosen.items(), start=1):
        axes = figure.add_subplot(1, 3, place)
        _draw_case(axes, one, len(names))
        found = sum(s.found_ml for s in one.scored.structures)
        true = sum(s.truth_ml for s in one.scored.structures)
        kind = f", {one.scored.kind}" if one.scored.kind else ""
        axes.set_title(
            f"{word}{kind}: Dice {one.scored.dice:.2f}\n{found:.1f} ml found, {true:.1f} ml true",
            fontsize=11,
        )
    _legend(figure, names)
    figure.savefig(path, dpi=100)


def _draw_case(axes: Axes, one: Judged, structures: int) -> None:
    picture = np.repeat(one.grey[..., None], 3, axis=-1)
    for number in range(1, structures + 1):
        picture = _tinted(picture, one.found == number, COLORS[(number - 1) % 10])
    axes.imshow(picture, origin="lower", aspect=one.aspect, interpolation="nearest")
    for number in range(1, structures + 1):
        mask = one.truth == number
        if mask.any():
            axes.contour(mask, [0.5], colors=[COLORS[(number - 1) % 10]], linewidths=1.2)
    axes.set_axis_off()


def _tinted(picture: NDArray[Any], mask: NDArray[np.bool_], color: Sequence[float]) -> NDArray[Any]:
    tinted = picture.copy()
    tinted[mask] = 0.55 * picture[mask] + 0.45 * np.asarray(color)
    return tinted


def _legend(figure: Figure, names: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=COLORS[i % 10], linewidth=6, label=name)
        for i, name in enumerate(names)
    ]
    handles.append(Line2D([], [], color="0.3", linewidth=1.2, label="line: truth"))
    handles.append(Line2D([], [], color="0.7", linewidth=6, label="filled: found"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
