"""The goals of the segmentation of grey matter, and the page that shows what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.goals import Goal
from benchmarks.grey_matter import STARTS_RIGHT

ENDS_RIGHT = 0.97
"""Brain Dice of a segmented phantom of 3 mm."""

Results = Mapping[str, Mapping[str, float]]


def group(found: Results, name: str) -> list[Mapping[str, float]]:
    """All results of a group, by name."""
    return [result for key, result in found.items() if key.startswith(f"{name}_")]


def goals(found: Results) -> list[Goal]:
    """Compare what was measured with what is wanted; only what was measured."""
    return [
        *_standard(group(found, "standard")),
        *_beside_ants(found),
        *_change(found),
        *_retest(found),
        *_posed(found),
    ]


def _standard(rows: Sequence[Mapping[str, float]]) -> list[Goal]:
    if not rows:
        return []
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    error = np.abs(table["gm_error_percent"])
    made = [
        Goal("GM Dice, mean", float(table["gm_dice"].mean()), 0.95),
        Goal("GM Dice, worst", float(table["gm_dice"].min()), 0.93),
        Goal("GM volume error, mean, %", float(error.mean()), 4, True),
        Goal("GM volume error, worst, %", float(error.max()), 6, True),
        Goal("GM fraction error, mean", float(table["gm_fraction_error"].mean()), 0.07, True),
        Goal("Peak memory, GB", float(table["peak_gb"].max()), 3, True),
        Goal("CPU seconds, median", float(np.median(table["cpu_seconds"])), 60, True),
        Goal("Seconds, median", float(np.median(table["seconds"])), 30, True),
    ]
    return made


def _beside_ants(found: Results) -> list[Goal]:
    """Compare each phantom with what Atropos made of it, given the true mask."""
    pairs = [
        (found[key.replace("atropos", "standard")], theirs)
        for key, theirs in found.items()
        if key.startswith("atropos_") and key.replace("atropos", "standard") in found
    ]
    if not pairs:
        return []
    made = []
    for name, key in (("whole head", "gm_dice"), ("within the mask", "gm_dice_in_mask")):
        part = np.mean([ours[key] > theirs[key] for ours, theirs in pairs])
        title = f"GM Dice above Atropos's with the true mask, {name}, part of {len(pairs)}"
        made.append(Goal(title, float(part), 1.0))
    key = "gm_fraction_error"
    part = np.mean([ours[key] < theirs[key] for ours, theirs in pairs])
    title = f"GM fraction error below Atropos's, part of {len(pairs)}"
    return [*made, Goal(title, float(part), 1.0)]


def _change(found: Results) -> list[Goal]:
    """How far the measured change of the hippocampi is from the true one, points of per cent."""
    errors = []
    for key, after in found.items():
        before = found.get(f"{key[:-3]}_00")
        if key.startswith("loss_") and key.endswith("_10") and before is not None:
            true = after["true_ml"] / before["true_ml"] - 1
            measured = after["hippocampi_ml"] / before["hippocampi_ml"] - 1
            errors.append(100 * abs(measured - true))
    if not errors:
        return []
    return [Goal("Hippocampal loss of 10 %, worst error, points", max(errors), 2, True)]


def _retest(found: Results) -> list[Goal]:
    heads: dict[str, list[float]] = {}
    for key, result in found.items():
        if key.startswith("retest_"):
            heads.setdefault(key.rsplit("_", 1)[0], []).append(result["gm_ml"])
    cvs = [100 * np.std(v, ddof=1) / np.mean(v) for v in heads.values() if len(v) > 1]
    return [Goal("Test-retest CV of GM, worst head, %", float(max(cvs)), 1, True)] if cvs else []


def _posed(found: Results) -> list[Goal]:
    rows = group(found, "posed")
    if not rows:
        return []
    starts = [row["start_dice"] >= STARTS_RIGHT for row in rows]
    ends = [start or _ends_right(row) for start, row in zip(starts, rows, strict=True)]
    made = [
        Goal(f"Posed phantoms that start right, part of {len(rows)}", float(np.mean(starts)), 1.0),
        Goal("Posed phantoms that start or end right, part of all", float(np.mean(ends)), 1.0),
    ]
    return made


def _ends_right(row: Mapping[str, float]) -> bool:
    """Say whether the whole fit mended a bad start; as good as any phantom of 3 mm."""
    return row["brain_dice"] >= ENDS_RIGHT and abs(row["gm_error_percent"]) <= 4


def page(found: Results) -> str:
    """Make the page."""
    lines = ["# Grey matter of phantoms", "", "| goal | measured | wanted | |", "|---|---|---|---|"]
    for goal in goals(found):
        sign = "<=" if goal.is_most else ">="
        verdict = "reached" if goal.is_reached else "**not reached**"
        lines.append(f"| {goal.name} | {goal.value:.3f} | {sign} {goal.wanted:g} | {verdict} |")
    for name in ("standard", "atropos", "hard", "loss", "retest"):
        rows = {key: row for key, row in found.items() if key.startswith(f"{name}_")}
        if rows:
            lines += ["", f"## {name}", "", *_table(rows)]
    rows = {key: row for key, row in found.items() if "brain_dice" in row and "start_dice" in row}
    if rows:
        lines += ["", f"## posed, of the start's Dice below {STARTS_RIGHT}", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: Results) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = ["| case | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[key]:.3f}" if key in row else "" for key in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
