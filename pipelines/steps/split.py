"""One series is not one volume: its images, sorted into stacks that are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.base import NotScored
from pipelines.steps.frames import KINDS, MULTI_FRAME, Frame
from pipelines.steps.geometry import (
    ORIENTATION_TOLERANCE_DEGREES,
    SAME_POSITION_MM,
    SPACING_TOLERANCE,
    FloatArray,
    Grid,
    grid_of,
)
from pipelines.steps.instances import Instance

REPETITION = "Repetition"
"""What sets volumes apart whose headers differ in nothing but the order of acquisition."""

_REASONS: Mapping[str, tuple[str, str]] = {
    "StudyInstanceUID": ("mixed_series", "studies"),
    "SeriesInstanceUID": ("mixed_series", "series"),
    "SOPClassUID": ("mixed_class", "SOP classes"),
    "FrameOfReferenceUID": ("mixed_frame_of_reference", "frames of reference"),
    "PhotometricInterpretation": ("mixed_photometric", "photometric interpretations"),
    "SeriesNumber": ("several_volumes", "Series Numbers"),
    "ImageType": ("several_volumes", "Image Types"),
    "SOPInstanceUID": ("several_volumes", "multi-frame instances"),
    "StackID": ("several_volumes", "stacks"),
}
"""Reason code and words for images that differ in what images of one volume share."""


@dataclass(frozen=True)
class Unused:
    """An image that is in no volume, and why.

    Parameters
    ----------
    sop_instance_uid : str
    frame : int or None
        Number of the frame in its instance, from 1; None: the instance as a whole.
    reason, sentence : str
        As in `NotScored`.
    """

    sop_instance_uid: str
    frame: int | None
    reason: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that make one volume.

    Parameters
    ----------
    frames : tuple of Frame
        In the order of the third axis.
    grid : Grid
        Its `order` is that of `frames`.
    names : mapping
        What sets this volume apart from others of its series, by DICOM keyword.
    """

    frames: tuple[Frame, ...]
    grid: Grid
    names: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a series holds, from headers alone.

    Parameters
    ----------
    stacks : tuple of Stack
        In the order of acquisition.
    unused : tuple of Unused
    frames : int
        Images in, instances that are none counted as one each: those in `stacks`, plus `unused`.
    mixture : NotScored or None
        Why the series is not one volume, where it is several.
    """

    stacks: tuple[Stack, ...]
    unused: tuple[Unused, ...]
    frames: int
    mixture: NotScored | None


def plan_series(instances: Sequence[Instance]) -> Plan:
    """Sort the images of one series into stacks; nothing is left out without a reason.

    Images are apart when they differ in series, Series Number, SOP class, Frame of Reference,
    Photometric Interpretation, Image Type, matrix, orientation, Pixel Spacing, stack, or
    multi-frame instance; and, where several lie at one position, in echo, inversion, temporal
    position, trigger or diffusion attributes, acquisition, or else order of acquisition.

    Parameters
    ----------
    instances : sequence of Instance
        In any order.
    """
    frames: list[Frame] = []
    unused: list[Unused] = []
    for place, instance in enumerate(instances):
        try:
            frames += instance.frames(place)
        except NotScored as error:
            unused.append(Unused(instance.sop_instance_uid, None, error.reason, error.sentence))
    total = len(frames) + len(unused)
    stacks: list[Stack] = []
    mixture: NotScored | None = None
    groups = list(_sorted_apart(frames))
    if len(groups) > 1:
        mixture = _mixture([group for group, _ in groups])
    for group, names in groups:
        parts = list(_apart_by_kind(group))
        if len(parts) > 1 and mixture is None:
            mixture = _overlap(group, parts[0][1])
        for part, more in parts:
            try:
                stacks.append(_stack(part, {**names, **more}))
            except NotScored as error:
                unused += [_unused(frame, error) for frame in part]
    stacks.sort(key=lambda stack: min(frame.rank for frame in stack.frames))
    return Plan(tuple(stacks), tuple(unused), total, mixture)


def unused_frames(stack: Stack, error: NotScored) -> list[Unused]:
    """List the images of a stack that could not be made a volume."""
    return [_unused(frame, error) for frame in stack.frames]


def _unused(frame: Frame, error: NotScored) -> Unused:
    is_multi = frame.sort["SOPClassUID"] in MULTI_FRAME or frame.tile is not None
    number = frame.index + 1 if is_multi else None
    return Unused(frame.sop_instance_uid, number, error.reason, error.sentence)


def _stack(frames: Sequence[Frame], names: Mapping[str, str]) -> Stack:
    grid = grid_of([frame.plane for frame in frames])
    return Stack(tuple(frames[index] for index in grid.order), grid, names)


Group = tuple[list[Frame], dict[str, str]]


def _sorted_apart(frames: Sequence[Frame]) -> Iterable[Group]:
    """Yield groups that share all that images of one volume share, and what sets each apart."""
    clusters = zip(
        _clusters([frame.plane.orientation for frame in frames], _same_orientation),
        _clusters([frame.plane.spacing for frame in frames], _same_spacing),
        strict=True,
    )
    found: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame, cluster in zip(frames, clusters, strict=True):
        key = (tuple(frame.sort.items()), frame.rows, frame.columns, cluster)
        found[key].append(frame)
    groups = list(found.values())
    varied = [
        keyword
        for keyword in _REASONS
        if len({group[0].sort.get(keyword, "") for group in groups}) > 1
    ]
    for group in groups:
        yield group, {keyword: group[0].sort.get(keyword, "") for keyword in varied}


def _clusters(
    values: Sequence[FloatArray], same: Callable[[FloatArray, FloatArray], bool]
) -> list[int]:
    """Return the cluster of each value, which joins the first one it is near."""
    centres: list[FloatArray] = []
    known: dict[bytes, int] = {}
    numbers = []
    for value in values:
        raw = value.tobytes()
        if raw not in known:
            near = (k for k, centre in enumerate(centres) if same(centre, value))
            known[raw] = next(near, len(centres))
            if known[raw] == len(centres):
                centres.append(value)
        numbers.append(known[raw])
    return numbers


def _same_orientation(one: FloatArray, other: FloatArray) -> bool:
    chords = np.linalg.norm((one - other).reshape(2, 3), axis=1)
    return float(chords.max()) <= float(np.radians(ORIENTATION_TOLERANCE_DEGREES))


def _same_spacing(one: FloatArray, other: FloatArray) -> bool:
    return bool((np.abs(one - other) <= SPACING_TOLERANCE * np.minimum(one, other)).all())


def _apart_by_kind(frames: list[Frame]) -> Iterable[Group]:
    """Take images that lie at one position apart, by the first attribute that can do it."""
    places = _places(frames)
    fullest = max(places.values(), key=len)
    if len(fullest) == 1:
        yield frames, {}
        return
    for keyword in _telling(fullest):
        if len({frame.kind.get(keyword, "") for frame in fullest}) < 2:
            continue
        by_value: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            by_value[frame.kind.get(keyword, "")].append(frame)
        if 2 * len(by_value) > len(frames):
            continue  # a value of its own for nearly every image, as a trigger time may be
        for value, part in by_value.items():
            for smaller, names in _apart_by_kind(part):
                yield smaller, {keyword: value, **names}
        return
    yield from _apart_by_order(places.values())


def _telling(frames: Iterable[Frame]) -> list[str]:
    """Attributes that some of these images have, in the order in which they are looked at."""
    known = {keyword for frame in frames for keyword in frame.kind}
    return [keyword for keyword in dict.fromkeys(k for _, k in KINDS) if keyword in known]


def _apart_by_order(places: Iterable[list[Frame]]) -> Iterable[Group]:
    """Take repetitions apart; where an image is missing, its number says of which one."""
    turns: dict[int, list[Frame]] = defaultdict(list)
    listed = [sorted(place, key=lambda frame: frame.rank) for place in places]
    numbered = _turns_by_number(listed) if len({len(place) for place in listed}) > 1 else None
    for number, place in enumerate(listed):
        for turn, frame in enumerate(place):
            turns[numbered[number][turn] if numbered else turn].append(frame)
    for turn in sorted(turns):
        yield turns[turn], {REPETITION: str(turn + 1)}


def _turns_by_number(places: Sequence[Sequence[Frame]]) -> list[list[int]] | None:
    """Tell repetitions by Instance Numbers that run through all images; None where they do not.

    They run through the slices of one repetition after the other, or through the repetitions of
    one slice after the other: then every slice has numbers of its own.
    """
    numbers = np.array([frame.rank[1] for place in places for frame in place])
    if len(np.unique(numbers)) < len(numbers):
        return None
    slices, repetitions = len(places), max(map(len, places))
    for first in (1, int(numbers.min())):
        counted = [np.array([frame.rank[1] - first for frame in place]) for place in places]
        for within, turns in (
            ([numbers % slices for numbers in counted], [n // slices for n in counted]),
            ([numbers // repetitions for numbers in counted], [n % repetitions for n in counted]),
        ):
            own = [set(found.tolist()) for found in within]
            if all(len(one) == 1 for one in own) and len(set().union(*own)) == slices:
                return [found.tolist() for found in turns]
    return None


def _places(frames: Iterable[Frame]) -> dict[tuple[int, ...], list[Frame]]:
    places: dict[tuple[int, ...], list[Frame]] = defaultdict(list)
    listed = list(frames)
    rungs = np.rint(np.array([frame.plane.position for frame in listed]) / SAME_POSITION_MM)
    for frame, rung in zip(listed, rungs.tolist(), strict=True):
        places[tuple(rung)].append(frame)
    return places


def _mixture(groups: Sequence[list[Frame]]) -> NotScored:
    """Say in what the images of a series differ that one volume must share."""
    firsts = [group[0] for group in groups]
    for keyword, (reason, what) in _REASONS.items():
        values = {frame.sort.get(keyword, "") for frame in firsts}
        if len(values) < 2:
            continue
        if keyword == "SOPInstanceUID":
            counts = ", ".join(str(len(group)) for group in groups[:8])
            return NotScored(
                reason,
                f"The series holds {len(values)} multi-frame instances, with {counts} frames; "
                "one is scored.",
            )
        return NotScored(
            reason, f"The images belong to {len(values)} {what}; one volume needs one."
        )
    sizes = sorted({(frame.columns, frame.rows) for frame in firsts})
    if len(sizes) > 1:
        shown = ", ".join(f"{columns} x {rows}" for columns, rows in sizes[:4])
        return NotScored("mixed_matrix", f"The images have different sizes: {shown}.")
    return _mixed_planes(firsts)


def _mixed_planes(firsts: Sequence[Frame]) -> NotScored:
    orientations = np.stack([frame.plane.orientation for frame in firsts]).reshape(-1, 2, 3)
    chord = float(np.linalg.norm(orientations - orientations[0], axis=2).max())
    angle = float(np.degrees(2 * np.arcsin(min(1.0, chord / 2))))
    if angle > ORIENTATION_TOLERANCE_DEGREES:
        return NotScored(
            "mixed_orientation",
            f"The images lie in different orientations, up to {angle:.1f} degrees apart; "
            "one volume needs parallel slices.",
        )
    spacings = np.stack([frame.plane.spacing for frame in firsts])
    low, high = spacings.min(axis=0), spacings.max(axis=0)
    return NotScored(
        "mixed_spacing",
        f"The images have different Pixel Spacing, {low[0]:.4g} x {low[1]:.4g} mm to "
        f"{high[0]:.4g} x {high[1]:.4g} mm.",
    )


def _overlap(frames: Sequence[Frame], names: Mapping[str, str]) -> NotScored:
    """Say what sets images at the same position apart."""
    places = len(_places(frames))
    keyword = next(iter(names))
    if keyword == REPETITION:
        return NotScored(
            "duplicate_positions",
            f"{len(frames) - places} of {len(frames)} images lie where another one lies; one "
            "volume needs one image per position.",
        )
    values = sorted({frame.kind.get(keyword, "") for frame in frames})
    return NotScored(
        "several_volumes",
        f"The series holds several volumes: {len(frames)} images at {places} positions, "
        f"{keyword} {', '.join(values[:6])}" + (", ..." if len(values) > 6 else "."),
    )
