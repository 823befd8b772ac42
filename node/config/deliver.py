"""Where results go: ``deliver`` of a rule."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from node.config.base import CLOSED, DAY_SECONDS, USUAL_SLOTS, Seconds, Text
from node.config.image import UpperBound
from node.config.problems import did_you_mean, one_of
from node.config.quantities import WordList, durations, number, shape, text, whole, word
from pipelines.base import DOCUMENTS, OF_LABEL_MAP, SLOTS, Slot
from sr_templates.checks.texts import unfit

Confirmation = Literal["commitment", "find"]
Fallback = Literal["capture", "pdf", "sr", "text"]


def _description(value: object) -> str:
    written = text(value)
    if len(written) > 64 or "\\" in written:
        raise ValueError(
            f"A Series Description has at most 64 characters and no backslash; this has "
            f"{len(written)}."
        )
    if why := unfit(written):
        raise ValueError(f"This {why}; no result that says it would leave.")
    return written


@dataclass(frozen=True)
class ResultSeries:
    """Series Number of the first result series, and Series Description of all.

    Each slot takes `number` plus its place in `pipelines.base.SLOTS`: sr 0, seg 1, capture 2, ...
    """

    __pydantic_config__ = CLOSED

    number: Annotated[int, BeforeValidator(whole(1, 2147483600))] = 9101
    description: Annotated[str, BeforeValidator(_description)] = ""


@dataclass(frozen=True)
class Retry:
    """When a delivery that failed is tried again.

    Parameters
    ----------
    after_seconds : tuple of float
        Waits before the second, third, ... attempt; the last one repeats.
    give_up_seconds : float
        After so long it is kept, reported, and tried no more.
    """

    __pydantic_config__ = CLOSED

    after_seconds: Annotated[
        tuple[float, ...], BeforeValidator(durations), Field(alias="after")
    ] = (30.0, 120.0, 600.0, 3600.0)
    give_up_seconds: Annotated[Seconds, Field(alias="give_up")] = 7 * DAY_SECONDS

    def wait_seconds(self, failures: int) -> float:
        """Wait after that many failed attempts, 1 and up."""
        return self.after_seconds[min(failures, len(self.after_seconds)) - 1]


@dataclass(frozen=True)
class Limits:
    """Lowest and highest value of a named result, both included."""

    __pydantic_config__ = CLOSED

    min: Annotated[float | None, BeforeValidator(number)] = None
    max: Annotated[float | None, BeforeValidator(UpperBound(number))] = None

    def holds(self, value: float) -> bool:
        """Whether a value lies between them."""
        return (self.min is None or self.min <= value) and (self.max is None or value <= self.max)


RESULT_NAMES = ("volume_ml", "probability", "score")
"""Named numbers of findings, with the unit behind the name where there is one."""


def result_limits(value: object) -> object:
    """Check that what limits are given for are names of results."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"This wants results such as volume_ml, not {shape(value) or 'nothing'}.")
    for key in value:
        if key not in RESULT_NAMES:
            near = did_you_mean(str(key)[:64], RESULT_NAMES)
            raise ValueError(f"'{str(key)[:64]}' is no result. Write {one_of(RESULT_NAMES)}.{near}")
    return value


ResultLimits = Annotated[Mapping[str, Limits], BeforeValidator(result_limits)]


@dataclass(frozen=True)
class Fallbacks:
    """What is sent where the destination does not take an output."""

    __pydantic_config__ = CLOSED

    seg: Annotated[Fallback | None, BeforeValidator(word("capture", "sr"))] = None
    labelmap: Annotated[Fallback | None, BeforeValidator(word("capture", "sr"))] = None
    rtstruct: Annotated[Fallback | None, BeforeValidator(word("capture", "sr"))] = None
    sr: Annotated[Fallback | None, BeforeValidator(word("text", "pdf", "capture"))] = None
    sr3d: Annotated[Fallback | None, BeforeValidator(word("sr", "text", "pdf", "capture"))] = None
    outlines: Annotated[Fallback | None, BeforeValidator(word("capture", "text"))] = None
    text: Annotated[Fallback | None, BeforeValidator(word("pdf", "capture"))] = None
    capture: Annotated[Fallback | None, BeforeValidator(word("pdf", "sr"))] = None
    pdf: Annotated[Fallback | None, BeforeValidator(word("capture"))] = None


@dataclass(frozen=True)
class Destination:
    """Where results of a rule go.

    Parameters
    ----------
    peer : str
        Name under ``peers``.
    send : tuple of str
        Slots, in the order in which they are sent.
    only_if : mapping or None
        Name of a result to the limits within which the results are sent at all.
    series : ResultSeries or None
    if_refused : Fallbacks or None
    confirm : tuple of str
        How it is proved that the destination holds them.
    retry : Retry
    """

    __pydantic_config__ = CLOSED

    peer: Annotated[Text, Field(alias="to")]
    send: Annotated[tuple[Slot, ...], BeforeValidator(WordList(SLOTS))] = USUAL_SLOTS
    only_if: ResultLimits | None = None
    series: ResultSeries | None = None
    if_refused: Fallbacks | None = None
    confirm: Annotated[
        tuple[Confirmation, ...], BeforeValidator(WordList(("commitment", "find")))
    ] = ()
    retry: Retry = field(default_factory=Retry)

    @property
    def slots(self) -> tuple[str, ...]:
        """What it gets, reports last, so that none is read without what it refers to."""
        label_map = "labelmap" in self.send and "seg" not in self.send
        named = [OF_LABEL_MAP.get(slot, slot) if label_map else slot for slot in self.send]
        return tuple(sorted(named, key=DOCUMENTS.__contains__))

    @property
    def made(self) -> frozenset[str]:
        """What must be there for it: what it gets, or what stands in for that."""
        instead = asdict(self.if_refused or Fallbacks())
        return frozenset(self.slots).union(
            *(in_place_of(slot, self.slots, instead) for slot in self.slots)
        )


BEFORE_LABEL_MAP = {other: slot for slot, other in OF_LABEL_MAP.items()}
_NEXT_BEST: Mapping[str, tuple[str, ...]] = {
    "seg": ("capture",),
    "sr3d": ("sr", "text", "capture"),
    "sr": ("text", "capture"),
    "text": ("capture",),
    "pdf": ("capture",),
}
"""What also goes in the place of a fallback, the best first, where that is not to be had either."""


def in_place_of(
    slot: str, send: Collection[str], if_refused: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Name what may go in the place of an output that a destination does not take, best first.

    Parameters
    ----------
    slot : str
    send : collection of str
        What the rule sends; anything else that goes is a fallback, and falls back further.
    if_refused : mapping
        As the rule has it: output to fallback, or None.
    """
    first = if_refused.get(BEFORE_LABEL_MAP.get(slot, slot))
    if first is None:
        return () if slot in send else _NEXT_BEST.get(slot, ())
    return (first, *(other for other in _NEXT_BEST.get(first, ()) if other != slot))
