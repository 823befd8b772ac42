"""Rules of the configuration file: when a series is scored, with what, and where results go.

The annotations are the schema: pydantic reads a file into these values, and nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo

from node.config.attributes import Wanted, attribute, wanted, wanted_bound
from node.config.conditions import Condition, IfMissing
from node.config.patterns import pattern
from node.config.problems import did_you_mean, one_of
from node.config.quantities import durations, flag, listed, seconds, shape, text, whole, word
from pipelines.base import SeriesLabel, Slot

CLOSED = ConfigDict(extra="forbid")
"""Unknown keys are errors, at every level."""
INNER = "\0"
"""Starts the alias of a field that the reader fills in; no file can hold such a key."""
Mode = Literal["live", "shadow", "off"]
Priority = Literal["urgent", "routine", "low"]

SLOTS: tuple[Slot, ...] = ("sr", "seg", "capture")
"""In the order in which they are sent when a rule does not say."""
DAY_SECONDS = 86400.0

Text = Annotated[str, BeforeValidator(text)]
Flag = Annotated[bool, BeforeValidator(flag)]
Seconds = Annotated[float, BeforeValidator(seconds)]

_OPERATORS = (
    "equals", "any_of", "not", "matches", "not_matches", "includes", "excludes",
    "min", "max", "present", "if_missing",
)  # fmt: skip
BARE_LIST = f"{INNER}list"
_SYMBOLS = {"==": "equals", "=": "equals", "!=": "not", ">=": "min", "<=": "max", ">": "min",
            "<": "max", "in": "any_of", "contains": "includes", "regex": "matches",
            "exists": "present"}  # fmt: skip


def name(value: object) -> str:
    """Name of a rule, a pipeline or a model: letters, digits, ``-``, ``_`` and ``.``."""
    written = text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", written):
        raise ValueError(
            f"'{written[:64]}' is not a name. Use letters, digits, - _ and ., at most 64."
        )
    return written


Name = Annotated[str, BeforeValidator(name)]


def _key(value: object) -> str:
    return attribute(str(value))


def _value(value: object, info: ValidationInfo) -> Wanted | None:
    written = text(value)
    return wanted(info.data["key"], written) if "key" in info.data else None


def _values(value: object, info: ValidationInfo) -> tuple[Wanted, ...]:
    return tuple(found for item in listed(value) if (found := _value(item, info)))


def _value_or_values(value: object, info: ValidationInfo) -> tuple[Wanted, ...]:
    return _values(value if isinstance(value, list) else [value], info)


def _bound(value: object, info: ValidationInfo) -> Wanted | None:
    written = text(value)
    return wanted_bound(info.data["key"], written) if "key" in info.data else None


def _upper_bound(value: object, info: ValidationInfo) -> Wanted | None:
    high, low = _bound(value, info), info.data.get("min")
    if high and low and low.value > high.value:
        raise ValueError(f"min {low.text} is above max {high.text}, so nothing can match.")
    return high


_OneWanted = Annotated[Wanted | None, BeforeValidator(_value)]
_AllWanted = Annotated[tuple[Wanted, ...] | None, BeforeValidator(_value_or_values)]
_Pattern = Annotated[str | None, BeforeValidator(pattern)]


@dataclass(frozen=True)
class ConditionLine:
    """A line under ``when`` as the file holds it; `condition` is what it means."""

    __pydantic_config__ = CLOSED

    key: Annotated[str, BeforeValidator(_key), Field(alias=f"{INNER}key")]
    equals: _OneWanted = None
    any_of: Annotated[tuple[Wanted, ...] | None, BeforeValidator(_values)] = None
    differs: Annotated[_AllWanted, Field(alias="not")] = None
    matches: _Pattern = None
    not_matches: _Pattern = None
    includes: _AllWanted = None
    excludes: _AllWanted = None
    min: Annotated[Wanted | None, BeforeValidator(_bound)] = None
    max: Annotated[Wanted | None, BeforeValidator(_upper_bound)] = None
    present: Annotated[bool | None, BeforeValidator(flag)] = None
    if_missing: Annotated[IfMissing, BeforeValidator(word("fail", "ignore", "hold"))] = "fail"

    @property
    def condition(self) -> Condition:
        """The value the rest of the node works with."""
        return Condition(
            self.key, self.equals, self.any_of, self.differs, self.matches, self.not_matches,
            self.includes, self.excludes, self.min, self.max, self.present, self.if_missing,
        )  # fmt: skip


def _lines(value: object) -> dict[str, object]:
    """Give every line under ``when`` the form of a section with its key inside."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"This wants lines such as Modality: CT, not {shape(value) or 'nothing'}.")
    return {key: _line(key, spec) for key, spec in value.items()}


def _line(key: str, spec: object) -> dict[str, object]:
    if isinstance(spec, list):
        return {f"{INNER}key": key, BARE_LIST: spec}
    if isinstance(spec, dict):
        return {**spec, f"{INNER}key": key}
    return {f"{INNER}key": key, "equals": spec}


def unknown_operator(operator: str) -> str:
    """Sentence about a key that is no operator."""
    if operator == BARE_LIST:
        return "A list needs an operator. Write { any_of: [A, B] }."
    if operator in _SYMBOLS:
        return f"'{operator}' is not an operator. Did you mean {_SYMBOLS[operator]}?"
    near = did_you_mean(operator[:64], _OPERATORS)
    return f"'{operator[:64]}' is not an operator.{near or f' Write {one_of(_OPERATORS)}.'}"


@dataclass(frozen=True)
class Run:
    """What scores a series.

    Parameters
    ----------
    pipeline : str
        Name in `pipelines.catalogue`.
    model : str
        Name of a model package.
    timeout_seconds : float
        Of one step, hard.
    """

    __pydantic_config__ = CLOSED

    pipeline: Name
    model: Name
    timeout_seconds: Annotated[Seconds, Field(alias="timeout")] = 600.0


def _description(value: object) -> str:
    written = text(value)
    if len(written) > 64 or "\\" in written:
        raise ValueError(
            f"A Series Description has at most 64 characters and no backslash; this has "
            f"{len(written)}."
        )
    return written


@dataclass(frozen=True)
class ResultSeries:
    """Series Number of the first result series, and Series Description of all.

    The slots take `number` (sr), `number` + 1 (seg) and `number` + 2 (capture).
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


def _slots(value: object) -> tuple[str, ...]:
    slots = tuple(word(*SLOTS)(item) for item in listed(value))
    if len(set(slots)) < len(slots):
        raise ValueError("An output is listed twice.")
    return slots


@dataclass(frozen=True)
class Destination:
    """Where results of a rule go.

    Parameters
    ----------
    peer : str
        Name under ``peers``.
    send : tuple of str
        Slots, in the order in which they are sent.
    series : ResultSeries or None
    retry : Retry
    """

    __pydantic_config__ = CLOSED

    peer: Annotated[Text, Field(alias="to")]
    send: Annotated[tuple[Slot, ...], BeforeValidator(_slots)] = SLOTS
    series: ResultSeries | None = None
    retry: Retry = field(default_factory=Retry)


@dataclass(frozen=True)
class RuleLines:
    """A rule as the file holds it; `rule` is what it means."""

    __pydantic_config__ = CLOSED

    name: Name
    mode: Annotated[Mode, BeforeValidator(word("live", "shadow", "off"))]
    when: Annotated[Mapping[str, ConditionLine], BeforeValidator(_lines)]
    run: Run
    priority: Annotated[Priority, BeforeValidator(word("urgent", "routine", "low"))] = "routine"
    deliver: tuple[Destination, ...] = ()
    stop: Flag = False
    note: Text = ""
    owner: Text = ""

    @property
    def rule(self) -> Rule:
        """The value the rest of the node works with."""
        return Rule(
            name=self.name,
            mode=self.mode,
            conditions=tuple(line.condition for line in self.when.values()),
            run=self.run,
            priority=self.priority,
            deliver=self.deliver,
            stop=self.stop,
            note=self.note,
            owner=self.owner,
        )


@dataclass(frozen=True)
class Rule:
    """Which series are scored, with what, and where the results go.

    Parameters
    ----------
    name : str
        Unique in the file.
    mode : str
        ``live``; ``shadow``: everything runs and nothing is sent; ``off``: not run.
    conditions : tuple of Condition
        All must hold.
    run : Run
    priority : str
    deliver : tuple of Destination
    stop : bool
        When it matches, no rule after it is used. A shadow rule stops nothing.
    note, owner : str
        For people.
    """

    name: str
    mode: Mode
    conditions: tuple[Condition, ...]
    run: Run
    priority: Priority = "routine"
    deliver: tuple[Destination, ...] = ()
    stop: bool = False
    note: str = ""
    owner: str = ""

    @property
    def series(self) -> ResultSeries:
        """What the first destination that says something says of the result series."""
        return next((d.series for d in self.deliver if d.series), ResultSeries())

    def labels(self) -> dict[str, SeriesLabel]:
        """Series Number and Description of each kind of result, as a `JobSpec` wants them."""
        description = self.series.description or self.name
        return {
            slot: SeriesLabel(self.series.number + offset, description)
            for offset, slot in enumerate(SLOTS)
        }
