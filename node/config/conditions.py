"""One line under ``when``: what is wanted of an attribute, and whether a series has it.

Values are taken from all instances of a series. Logic has three values: met, not met, and
missing, for which the line says itself what follows (`if_missing`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from node.config.attributes import (
    Value,
    Wanted,
    as_number,
    comparable,
    composed,
    folded,
    kind_of,
    scan_keys,
    values_of,
)

Header = Mapping[str, Sequence[Value] | None]
"""Values of one instance by key of condition; empty: missing; None: its header is too long, so
that nobody knows."""
IfMissing = Literal["fail", "ignore", "hold"]
ConditionOutcome = Literal["met", "not_met", "missing_ignored", "missing_hold"]
_Row = tuple[Value, ...]

MAX_MATCHED_CHARACTERS = 256
MAX_SHOWN_CHARACTERS = 160
MAX_SHOWN_VALUES = 4


@dataclass(frozen=True)
class Condition:
    """What is wanted of one attribute; operators that are not used are None.

    `key` has the form of `node.config.attributes.attribute`. `differs` is the operator ``not``;
    `minimum` and `maximum` are ``min`` and ``max``.
    """

    key: str
    equals: Wanted | None = None
    any_of: tuple[Wanted, ...] | None = None
    differs: tuple[Wanted, ...] | None = None
    matches: str | None = None
    not_matches: str | None = None
    includes: tuple[Wanted, ...] | None = None
    excludes: tuple[Wanted, ...] | None = None
    minimum: Wanted | None = None
    maximum: Wanted | None = None
    present: bool | None = None
    if_missing: IfMissing = "fail"

    def __str__(self) -> str:
        return " and ".join(self._words())

    def _words(self) -> Iterable[str]:
        if self.equals:
            yield self.equals.text
        for name, values in (
            ("any of", self.any_of),
            ("not", self.differs),
            ("includes", self.includes),
            ("excludes", self.excludes),
        ):
            if values:
                yield f"{name} {', '.join(value.text for value in values)}"
        if self.matches:
            yield f"matches '{self.matches}'"
        if self.not_matches:
            yield f"not matches '{self.not_matches}'"
        if self.minimum:
            yield f"min {self.minimum.text}"
        if self.maximum:
            yield f"max {self.maximum.text}"
        if self.present is not None:
            yield "present" if self.present else "absent"


@dataclass(frozen=True)
class ConditionResult:
    """What was wanted, what was found, and what follows; texts for people.

    `found` may hold text from the images: it belongs in the database and before an admin's
    eyes, never in a log.
    """

    key: str
    wanted: str
    found: str
    outcome: ConditionOutcome


@dataclass(frozen=True, eq=False)
class Tally:
    """Values of one attribute over the instances of a series, and how often each.

    `unread` says for how many of the missing ones nobody knows.
    """

    rows: Counter[_Row]
    missing: int
    total: int
    unread: int = 0


def tally(key: str, headers: Sequence[Header]) -> Tally:
    """Count the values of one attribute over all instances."""
    rows = Counter(_row(values_of(key, header)) for header in headers)
    missing = rows.pop((), 0)
    names = scan_keys(key)
    unread = sum(any(header.get(name, ()) is None for name in names) for header in headers)
    return Tally(rows, missing, len(headers), unread)


def evaluate(condition: Condition, found: Tally) -> ConditionResult:
    """Hold a condition against all instances of a series.

    Every instance must satisfy each operator, except that ``includes`` is satisfied by any one
    instance. An attribute that only some instances have counts as missing where every instance
    must have it.

    Parameters
    ----------
    condition : Condition
    found : Tally
        Of the attribute the condition names.
    """
    return ConditionResult(condition.key, str(condition), _shown(found), _outcome(condition, found))


def _row(values: Sequence[Value] | None) -> _Row:
    if values is None:
        return ()
    row = tuple(v.strip(" \0") if isinstance(v, str) else float(v) for v in values)
    return row if any(value != "" for value in row) else ()


def _outcome(condition: Condition, found: Tally) -> ConditionOutcome:
    rows, missing = list(found.rows), found.missing
    if found.unread:
        wrong = condition.present is False or not _holds(condition, rows)
        return "not_met" if rows and wrong else "missing_hold"
    if condition.present is not None:
        met = missing == 0 < found.total if condition.present else not rows
        return "met" if met else "not_met"
    if rows and not _holds(condition, rows):
        return "not_met"
    if rows and (missing == 0 or not _asks_every_instance(condition)):
        return "met"
    match condition.if_missing:
        case "fail":
            return "not_met"
        case "ignore":
            return "met" if rows else "missing_ignored"
        case "hold":
            return "missing_hold"


def _asks_every_instance(condition: Condition) -> bool:
    return any(
        operator is not None
        for operator in (
            condition.equals, condition.any_of, condition.differs, condition.matches,
            condition.not_matches, condition.minimum, condition.maximum,
        )
    )  # fmt: skip


def _holds(condition: Condition, rows: Sequence[_Row]) -> bool:
    included = condition.includes is None or any(
        _has_all(condition.key, condition.includes, row) for row in rows
    )
    return included and all(_row_holds(condition, row) for row in rows)


def _row_holds(condition: Condition, row: _Row) -> bool:
    key = condition.key
    return (
        (condition.equals is None or _equal(key, condition.equals, row))
        and (condition.any_of is None or any(_equal(key, w, row) for w in condition.any_of))
        and not any(_equal(key, w, row) for w in condition.differs or ())
        and not any(_has(key, w, row) for w in condition.excludes or ())
        and (condition.matches is None or _matches(condition.matches, row))
        and (condition.not_matches is None or not _matches(condition.not_matches, row))
        and all(_within(condition, value) for value in row)
    )


def _has_all(key: str, wanted: Sequence[Wanted], row: _Row) -> bool:
    return all(_has(key, one, row) for one in wanted)


def _has(key: str, wanted: Wanted, row: _Row) -> bool:
    return any(_same(key, wanted, value) for value in row)


def _equal(key: str, wanted: Wanted, row: _Row) -> bool:
    if len(row) == 1:
        return _same(key, wanted, row[0])
    return wanted.value == folded(text_of(row))


def _same(key: str, wanted: Wanted, found: Value) -> bool:
    if kind_of(key) == "private" and isinstance(found, float):
        return as_number(wanted.value) == found
    return comparable(key, found) == wanted.value


def _within(condition: Condition, found: Value) -> bool:
    if condition.minimum is None and condition.maximum is None:
        return True
    if kind_of(condition.key) == "private":
        number: Value | None = as_number(found)
    else:
        number = comparable(condition.key, found)
    return (condition.minimum is None or _ordered(condition.minimum.value, number)) and (
        condition.maximum is None or _ordered(number, condition.maximum.value)
    )


def _ordered(low: Value | None, high: Value | None) -> bool:
    if isinstance(low, str) and isinstance(high, str):
        return low <= high
    return isinstance(low, float) and isinstance(high, float) and low <= high


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(composed(pattern))


def _matches(pattern: str, row: _Row) -> bool:
    text = composed(text_of(row))[:MAX_MATCHED_CHARACTERS]
    return _pattern(pattern).search(text) is not None


def text_of(row: Sequence[Value]) -> str:
    """All values of an attribute in one text, as DICOM writes them."""
    return "\\".join(value if isinstance(value, str) else f"{value:.10g}" for value in row)


def _shown(found: Tally) -> str:
    rows = found.rows
    if found.unread:
        return f"not known: the header of {found.unread} of {found.total} is too long"
    if not rows:
        return "missing"
    texts = [_printable(text_of(row)) for row, _ in rows.most_common(MAX_SHOWN_VALUES)]
    shown = texts[0] if len(rows) == 1 else f"varies ({len(rows)} values): {', '.join(texts)}"
    if len(rows) > MAX_SHOWN_VALUES:
        shown += ", ..."
    return f"{shown}; missing in {found.missing} of {found.total}" if found.missing else shown


def _printable(text: str) -> str:
    clean = "".join(character if character.isprintable() else "�" for character in text)
    return clean if len(clean) <= MAX_SHOWN_CHARACTERS else clean[:MAX_SHOWN_CHARACTERS] + "..."
