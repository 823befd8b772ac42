"""Geometry of a series from its headers alone, and whether it is as a rule wants it.

Patient coordinates are LPS+ millimetres, as DICOM writes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, median_low

from node.config.attributes import Value, as_number
from node.config.conditions import ConditionOutcome, ConditionResult, Header
from node.config.image import Angles, Counts, ImageGate, Lengths

_SHARED, _PER_FRAME = (f"{group}FunctionalGroupsSequence." for group in ("Shared", "PerFrame"))
ORIENTATION_KEYS = (
    "ImageOrientationPatient",
    f"{_SHARED}PlaneOrientationSequence.ImageOrientationPatient",
    f"{_PER_FRAME}PlaneOrientationSequence.ImageOrientationPatient",
)
POSITION_KEYS = (
    "ImagePositionPatient",
    f"{_PER_FRAME}PlanePositionSequence.ImagePositionPatient",
)
IMAGE_KEYS = frozenset({*ORIENTATION_KEYS, *POSITION_KEYS, "NumberOfFrames", "SliceThickness"})
"""What a header scan must collect where a rule has an ``image`` gate."""

SAME_POSITION_MM = 0.01
GAP_FACTOR = 1.5
"""A step longer than so many usual steps means that a slice is missing."""
FEWEST_SLICES = 5
RUNG_TOLERANCE_MM, RUNG_TOLERANCE = 0.02, 0.02
MOST_EMPTY, LONGEST_RUN = 0.25, 3
"""Share of wide steps, and wide steps in a row, beyond which slices lie as they were scanned."""
STRAIGHT = 0.8
"""Component of the normal, above which a plane has the name of an axis."""
PARALLEL = math.cos(math.radians(0.5))

_Vector = tuple[float, float, float]


@dataclass(frozen=True)
class ImageFacts:
    """Geometry of a series; None where the headers do not say.

    Parameters
    ----------
    frames : int
        Of all instances together.
    orientations : int
        How many differ by more than half a degree; 0: not known.
    plane : str or None
    slices : int or None
        Distinct positions along the normal.
    spacing_mm : tuple of float or None
        Shortest and longest step from slice to slice.
    gap_free : bool or None
    coverage_mm : float or None
        From the outer face of the first slice to that of the last.
    tilt_deg : float or None
        Between the normal and the direction in which slices follow each other.
    """

    frames: int
    orientations: int = 0
    plane: str | None = None
    slices: int | None = None
    spacing_mm: tuple[float, float] | None = None
    gap_free: bool | None = None
    coverage_mm: float | None = None
    tilt_deg: float | None = None


def image_facts(headers: Sequence[Header]) -> ImageFacts:
    """Work out the geometry of a series from the headers of its instances.

    Parameters
    ----------
    headers : sequence of Header
        With the keys of `IMAGE_KEYS`.

    References
    ----------
    DICOM PS3.3 C.7.6.2.1.1, Image Position and Image Orientation.
    """
    frames = sum(_frames(header) for header in headers)
    normals = _distinct([n for header in headers for n in _normals(header)])
    positions = [p for header in headers for p in _vectors(header, POSITION_KEYS, 3)]
    if not normals:
        return ImageFacts(frames)
    normal = normals[0]
    found = ImageFacts(frames, len(normals), _plane(normal))
    if len(normals) > 1 or len(positions) < len(headers):
        return found
    return _with_positions(found, normal, positions, headers)


def _with_positions(
    found: ImageFacts, normal: _Vector, positions: list[_Vector], headers: Sequence[Header]
) -> ImageFacts:
    stack = _stack(normal, positions)
    steps = [after[0] - before[0] for before, after in pairwise(stack)]
    thickness = [t for header in headers if (t := _number(header, "SliceThickness")) is not None]
    usual = median(steps) if steps else median(thickness) if thickness else None
    return ImageFacts(
        frames=found.frames,
        orientations=found.orientations,
        plane=found.plane,
        slices=len(stack),
        spacing_mm=(min(steps), max(steps)) if steps else None,
        gap_free=max(steps) <= GAP_FACTOR * median_low(steps) if steps else None,
        coverage_mm=stack[-1][0] - stack[0][0] + usual if usual is not None else None,
        tilt_deg=_tilt(normal, stack[0][1], stack[-1][1]) if steps else None,
    )


def missing_slices(headers: Sequence[Header]) -> list[str]:
    """Name the places of slices that are missing between others: ``z = -32.5 mm``.

    Only where the slices there are lie on a ladder with equal rungs, of which few are empty, far
    from each other: a scan in which the distance of slices changes lacks none.

    Parameters
    ----------
    headers : sequence of Header
        With the keys of `IMAGE_KEYS`.
    """
    normals = _distinct([n for header in headers for n in _normals(header)])
    positions = [p for header in headers for p in _vectors(header, POSITION_KEYS, 3)]
    if len(normals) != 1 or len(positions) < max(len(headers), FEWEST_SLICES):
        return []
    stack = _stack(normals[0], positions)
    steps = [after[0] - before[0] for before, after in pairwise(stack)]
    if len(stack) < FEWEST_SLICES:
        return []
    usual = median_low(steps)
    rungs = [round(step / usual) for step in steps]
    tolerance = max(RUNG_TOLERANCE_MM, RUNG_TOLERANCE * usual)
    if any(abs(s - r * usual) > tolerance * r for s, r in zip(steps, rungs, strict=True)):
        return []
    wide = "".join("x" if rung > 1 else "." for rung in rungs)
    if wide.count("x") > MOST_EMPTY * len(steps) or "x" * (LONGEST_RUN + 1) in wide:
        return []
    axis = max(range(3), key=lambda k: abs(normals[0][k]))
    return [
        f"{'xyz'[axis]} = {before[1][axis] + (after[1][axis] - before[1][axis]) * k / rung:.1f} mm"
        for (before, after), rung in zip(pairwise(stack), rungs, strict=True)
        for k in range(1, rung)
    ]


def _stack(normal: _Vector, positions: list[_Vector]) -> list[tuple[float, _Vector]]:
    """Distinct places along the normal, in their order."""
    along = sorted((_dot(normal, position), position) for position in positions)
    stack = along[:1]
    for item in along[1:]:
        if item[0] - stack[-1][0] > SAME_POSITION_MM:
            stack.append(item)
    return stack


def evaluate_image(gate: ImageGate, facts: ImageFacts) -> tuple[ConditionResult, ...]:
    """Hold a gate against the geometry of a series, line by line."""
    return tuple(_lines(gate, facts))


def _lines(gate: ImageGate, facts: ImageFacts) -> Iterator[ConditionResult]:
    def line(key: str, wanted: str, found: object, met: bool | None) -> ConditionResult:
        if met is None:
            outcomes: dict[str, ConditionOutcome] = {
                "fail": "not_met", "ignore": "missing_ignored", "hold": "missing_hold",
            }  # fmt: skip
            return ConditionResult(key, wanted, "missing", outcomes[gate.if_missing])
        return ConditionResult(key, wanted, str(found), "met" if met else "not_met")

    if gate.plane is not None:
        met = None if facts.plane is None else facts.plane == gate.plane
        yield line("image.plane", gate.plane, facts.plane, met)
    if gate.orientation is not None:
        met = facts.orientations == 1 if facts.orientations else None
        yield line("image.orientation", "single", f"{facts.orientations} orientations", met)
    for key, limits, low, high, unit in (
        ("slices", gate.slices, facts.slices, facts.slices, ""),
        ("frames", gate.frames, facts.frames, facts.frames, ""),
        ("spacing", gate.spacing, *(facts.spacing_mm or (None, None)), "mm"),
        ("tilt", gate.tilt, facts.tilt_deg, facts.tilt_deg, "deg"),
    ):
        if limits is not None:
            met = None if low is None or high is None else _within(limits, low, high)
            yield line(f"image.{key}", _limits(limits, unit), _span(low, high, unit), met)
    if gate.gap_free is not None:
        found = "gap-free" if facts.gap_free else "gaps"
        met = None if facts.gap_free is None else facts.gap_free == gate.gap_free
        yield line("image.gap_free", "yes" if gate.gap_free else "no", found, met)
    if gate.min_coverage_mm is not None:
        coverage = facts.coverage_mm
        met = None if coverage is None else coverage >= gate.min_coverage_mm - SAME_POSITION_MM
        wanted = f"min {gate.min_coverage_mm:g}mm"
        yield line("image.min_coverage", wanted, f"{coverage or 0:.4g}mm", met)


def _within(limits: Counts | Lengths | Angles, low: float, high: float) -> bool:
    slack = 0.0 if isinstance(limits, Counts) else SAME_POSITION_MM
    return (limits.min is None or low >= limits.min - slack) and (
        limits.max is None or high <= limits.max + slack
    )


def _limits(limits: Counts | Lengths | Angles, unit: str) -> str:
    parts = [
        f"{word} {value:g}{unit}"
        for word, value in (("min", limits.min), ("max", limits.max))
        if value is not None
    ]
    return " and ".join(parts)


def _span(low: float | None, high: float | None, unit: str) -> str:
    if low is None or high is None:
        return "missing"
    first, last = f"{low:.4g}{unit}", f"{high:.4g}{unit}"
    return first if first == last else f"varies: {first} to {last}"


def _frames(header: Header) -> int:
    count = _number(header, "NumberOfFrames")
    return max(1, int(count)) if count is not None else 1


def _number(header: Header, key: str) -> float | None:
    values = header.get(key)
    return as_number(values[0]) if values else None


def _normals(header: Header) -> Iterator[_Vector]:
    for key in ORIENTATION_KEYS:
        numbers = _numbers(header.get(key) or ())
        for start in range(0, len(numbers) - 5, 6):
            row, column = _vector(numbers, start), _vector(numbers, start + 3)
            normal = _cross(row, column)
            length = math.sqrt(_dot(normal, normal))
            if length > 0.5:
                yield (normal[0] / length, normal[1] / length, normal[2] / length)


def _vectors(header: Header, keys: Sequence[str], size: int) -> Iterator[_Vector]:
    for key in keys:
        numbers = _numbers(header.get(key) or ())
        for start in range(0, len(numbers) - size + 1, size):
            yield _vector(numbers, start)


def _numbers(values: Sequence[Value]) -> list[float]:
    found = [as_number(value) for value in values]
    return [value for value in found if value is not None] if None not in found else []


def _vector(numbers: Sequence[float], start: int) -> _Vector:
    return (numbers[start], numbers[start + 1], numbers[start + 2])


def _distinct(normals: Sequence[_Vector]) -> list[_Vector]:
    """Keep normals that differ by more than half a degree, the most frequent first."""
    kept: list[_Vector] = []
    for normal, _ in Counter(normals).most_common():
        if not any(abs(_dot(normal, other)) > PARALLEL for other in kept):
            kept.append(normal)
    return kept


def _plane(normal: _Vector) -> str:
    sizes = [abs(component) for component in normal]
    largest = max(sizes)
    return (
        ("sagittal", "coronal", "axial")[sizes.index(largest)] if largest > STRAIGHT else "oblique"
    )


def _tilt(normal: _Vector, first: _Vector, last: _Vector) -> float:
    direction = (last[0] - first[0], last[1] - first[1], last[2] - first[2])
    length = math.sqrt(_dot(direction, direction))
    cosine = abs(_dot(normal, direction)) / length
    return math.degrees(math.acos(min(1.0, cosine)))


def _dot(a: _Vector, b: _Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: _Vector, b: _Vector) -> _Vector:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
