"""What the page says of findings, in a reader's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from models.base import Findings
from sr_templates import codes
from sr_templates.base import Maker
from sr_templates.laterality import side_of
from sr_templates.tiles import View

SEPARATOR = "  ·  "
MOST_RUNS = 3
"""More runs of neighbouring images than this are counted, not listed."""


def verdict(findings: Findings, maker: Maker) -> str:
    """Sentence a reader needs first."""
    what = codes.display(maker.model.finding)
    if is_anatomy(findings) and findings.present is not None:
        return f"{what}: {'measured' if findings.present else 'not found'}"
    match findings.present:
        case True:
            return f"{what} suspected"
        case False:
            return f"No {what[:1].lower()}{what[1:]} found"
        case None:
            return f"{what}: undetermined"


def is_anatomy(findings: Findings) -> bool:
    """Whether all that a model marks is normal anatomy, so that finding it alarms nobody."""
    kinds = {segment.category[:2] for segment in findings.segments}
    return kinds == {codes.ANATOMICAL_STRUCTURE[:2]}


def extent(view: View, findings: Findings, instance_numbers: Mapping[int, int] | None) -> str:
    """How much was marked, on which side, on which images; unmarked, how much was scored.

    Parameters
    ----------
    view : View
    findings : Findings
    instance_numbers : mapping or None
        Instance Number by slice; None: slices are counted from 1.
    """
    labels = findings.labels
    if labels is None or not labels.any():
        return f"{_count(view.volume.array.shape[2], 'slice')} scored"
    slices = np.flatnonzero(labels.any(axis=(0, 1))).tolist()
    parts = (
        volume_text(findings, None),
        side_of(view, findings),
        images(slices, instance_numbers),
    )
    return SEPARATOR.join(part for part in parts if part)


def score(findings: Findings, maker: Maker) -> str:
    """Model's own number for its decision, which nobody has calibrated; empty without one."""
    value = _value(findings, "probability", None)
    if value is None:
        return ""
    try:
        threshold = float(maker.model.parameters.get("threshold", ""))
    except ValueError:
        return f"model score {_rounded(value, None)}, not calibrated"
    text = _rounded(value, threshold)
    return f"model score {text} (threshold {threshold:.2f}), not calibrated"


def volume_text(findings: Findings, segment: int | None) -> str:
    """Volume of a segment, or of all with None; empty when the model gave none."""
    value = _value(findings, "volume", segment)
    if value is None:
        return ""
    if 0.0 < value < 0.01:
        return "<0.01 ml"
    return f"{value:.1f} ml" if value >= 1.0 else f"{value:.2f} ml"


def _value(findings: Findings, name: str, segment: int | None) -> float | None:
    try:
        return findings.number(name, segment)
    except KeyError:
        return None


def _rounded(value: float, threshold: float | None) -> str:
    """Two digits, more where the value would otherwise look equal to the threshold."""
    if value > 0.99:
        return ">0.99"
    if value < 0.01:
        return "<0.01"
    texts = [f"{value:.{digits}f}" for digits in (2, 3, 4)]
    return next((text for text in texts if float(text) != threshold), texts[0])


def images(slices: Sequence[int], instance_numbers: Mapping[int, int] | None) -> str:
    """Images as runs of neighbouring numbers, such as ``images 3, 18-22``."""
    if instance_numbers and all(index in instance_numbers for index in slices):
        noun, numbers = "image", sorted({instance_numbers[index] for index in slices})
    else:
        noun, numbers = "slice", [index + 1 for index in slices]
    runs = _runs(numbers)
    if len(runs) > MOST_RUNS:
        return f"{_count(len(slices), noun)} from {numbers[0]} to {numbers[-1]}"
    listed = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return f"{noun}{'' if len(numbers) == 1 else 's'} {listed}"


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
