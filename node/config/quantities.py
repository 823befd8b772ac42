"""Values of the configuration file as people write them: 45s, 10GB, 5%, yes.

Each function is a pydantic validator: it takes what stood in the file and returns the value, or
raises ValueError with a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from node.config.problems import did_you_mean, one_of
from node.config.yaml_lines import Scalar

T = TypeVar("T")

_YAML_BOOLEANS = {"y", "n", "yes", "no", "on", "off", "true", "false"}
_TRUE, _FALSE = {"yes", "true", "on"}, {"no", "false", "off"}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31557600.0}
_BYTES = {
    "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_NUMBER = re.compile(r"([-+]?[0-9]+(?:\.[0-9]+)?) ?([A-Za-z%]*)")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z%]*)")


def shape(value: object) -> str:
    """Name what stood in the file, without quoting it at length."""
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list):
        return "a list"
    return f"'{str(value)[:64]}'"


def scalar(value: object) -> str:
    """One value, quoted or not; a list, a section or nothing is refused."""
    if isinstance(value, list | dict):
        raise ValueError(f"This wants one value, not {shape(value)}.")
    written = str(value).strip()
    if not written or (getattr(value, "plain", False) and written in ("~", "null")):
        raise ValueError("This has no value.")
    return written


def text(value: object) -> str:
    """Text; unquoted words that are truth values to YAML are refused."""
    written = scalar(value)
    if isinstance(value, Scalar) and value.plain and written.lower() in _YAML_BOOLEANS:
        raise ValueError(
            f"{written} without quotes is a truth value to YAML, and text is wanted here. "
            f"Write '{written}' in quotes."
        )
    if any(ord(character) < 32 for character in written):
        raise ValueError("This text holds a control character.")
    return written


def texts(value: object) -> tuple[str, ...]:
    """List of texts."""
    return each(value, text)


def listed(value: object) -> list[object]:
    """List with at least one item."""
    if not isinstance(value, list):
        raise ValueError(f"This wants a list such as [A, B], not {shape(value)}.")
    if not value:
        raise ValueError("This list is empty.")
    return value


def each(value: object, read: Callable[[object], T]) -> tuple[T, ...]:
    """Read all items of a list, and say what is wrong with all of them."""
    found, wrong = [], []
    for item in listed(value):
        try:
            found.append(read(item))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(" ".join(dict.fromkeys(wrong)))
    return tuple(found)


@dataclass(frozen=True)
class Word:
    """A validator for one of some words."""

    words: tuple[str, ...]

    def __call__(self, value: object) -> str:
        """Read one."""
        written = scalar(value).lower()
        if written not in self.words:
            near = did_you_mean(written, self.words)
            raise ValueError(f"'{written[:64]}' is not known. Write {one_of(self.words)}.{near}")
        return written


def word(*words: str) -> Word:
    """Make a validator for one of some words."""
    return Word(words)


@dataclass(frozen=True)
class WordList:
    """A validator for a list of some words, each at most once."""

    words: tuple[str, ...]

    def __call__(self, value: object) -> tuple[str, ...]:
        """Read a list."""
        found = each(value, Word(self.words))
        if len(set(found)) < len(found):
            raise ValueError("A word is listed twice.")
        return found


def flag(value: object) -> bool:
    """Either yes or no, in any of the forms of YAML."""
    written = scalar(value).lower()
    if written in _TRUE | _FALSE:
        return written in _TRUE
    raise ValueError(f"'{written[:64]}' is neither yes nor no.")


@dataclass(frozen=True)
class Whole:
    """A validator for a whole number between two limits, both included."""

    low: int
    high: int

    def __call__(self, value: object) -> int:
        """Read one."""
        written = scalar(value)
        if not re.fullmatch(r"[-+]?[0-9]{1,18}", written):
            raise ValueError(f"'{written[:64]}' is not a whole number.")
        if not self.low <= int(written) <= self.high:
            raise ValueError(f"{written} is out of range: {self.low} to {self.high}.")
        return int(written)


def whole(low: int, high: int) -> Whole:
    """Make a validator for a whole number between two limits, both included."""
    return Whole(low, high)


@dataclass(frozen=True)
class Amount:
    """A validator for a number, with one unit that may be left out."""

    unit: str = ""

    def __call__(self, value: object) -> float:
        """Read one."""
        written = scalar(value)
        match = _NUMBER.fullmatch(written)
        if match is None:
            example = f" Write 5 or 5{self.unit}." if self.unit else ""
            raise ValueError(f"'{written[:64]}' is not a number.{example}")
        if match[2] not in ("", self.unit):
            wants = f"this is in {self.unit}" if self.unit else "this has no unit"
            raise ValueError(f"The unit of '{written[:64]}' does not fit: {wants}.")
        return float(match[1])


number, millimetres, degrees = Amount(), Amount("mm"), Amount("deg")


def percent(value: object) -> float:
    """Share: 10%."""
    written = scalar(value)
    match = _AMOUNT.fullmatch(written)
    if match is None or match[2] != "%" or not 0 < float(match[1]) <= 100:
        raise ValueError(f"'{written[:64]}' is not a share. Write 10%; at most 100%.")
    return float(match[1])


def day(value: object) -> date:
    """Date: 2026-12-31."""
    written = scalar(value)
    try:
        return date.fromisoformat(written)
    except ValueError as error:
        raise ValueError(f"'{written[:64]}' is not a date. Write 2026-12-31.") from error


def version_range(value: object) -> str:
    """Version, quoted: '1.2.0' is that one, '1.x' the newest of 1."""
    written = scalar(value)
    if getattr(value, "plain", False):
        raise ValueError(f"A version needs quotes, or YAML may change it. Write '{written[:64]}'.")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}(\.x)?", written) or written.count(".") > 2:
        raise ValueError(f"'{written[:64]}' is not a version. Write '1.2.0', '1.2.x' or '1.x'.")
    return written


def seconds(value: object) -> float:
    """Duration: 30s, 20m, 3h, 7d, 2w, 7y."""
    written = scalar(value)
    match = _AMOUNT.fullmatch(written)
    if match is None or match[2].lower() not in _SECONDS:
        unit = " It needs a unit." if match and not match[2] else ""
        raise ValueError(f"'{written[:64]}' is not a duration.{unit} Write 45s, 20m, 3h, 7d or 2w.")
    duration = float(match[1]) * _SECONDS[match[2].lower()]
    if not 0 < duration <= 100 * 366 * 86400:
        raise ValueError(f"{written[:64]} is out of range: more than 0s, at most 100 years.")
    return duration


def durations(value: object) -> tuple[float, ...]:
    """List of durations."""
    return each(value, seconds)


def size_bytes(value: object) -> int:
    """Size: 500MB, 10GB, 8GiB."""
    written = scalar(value)
    match = _AMOUNT.fullmatch(written)
    if match is None or match[2].upper() not in _BYTES or float(match[1]) <= 0:
        raise ValueError(f"'{written[:64]}' is not a size. Write 500MB, 10GB or 8GiB.")
    return int(float(match[1]) * _BYTES[match[2].upper()])


def size_or_off(value: object) -> int:
    """Size, or ``off`` (also 0) for none."""
    if scalar(value).lower() in _FALSE | {"0"}:
        return 0
    return size_bytes(value)


@dataclass(frozen=True)
class FreeSpace:
    """A mark on a disk: a share of it, or a size.

    Parameters
    ----------
    percent : float or None
    size_bytes : int or None
    """

    percent: float | None = None
    size_bytes: int | None = None

    def in_bytes(self, total_bytes: int) -> int:
        """Mark in bytes on a disk of that size."""
        if self.size_bytes is not None:
            return self.size_bytes
        return int(total_bytes * (self.percent or 0.0) / 100.0)


def free_space(value: object) -> FreeSpace:
    """Mark on a disk: 5% or 10GB."""
    if isinstance(value, FreeSpace):
        return value
    written = scalar(value)
    match = _AMOUNT.fullmatch(written)
    if match and match[2] == "%":
        if not 0 < float(match[1]) < 100:
            raise ValueError(f"{written} is out of range: more than 0%, less than 100%.")
        return FreeSpace(percent=float(match[1]))
    try:
        return FreeSpace(size_bytes=size_bytes(value))
    except ValueError as error:
        raise ValueError(f"'{written[:64]}' is neither a share nor a size: 5% or 10GB.") from error
