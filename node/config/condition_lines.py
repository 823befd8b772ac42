"""Lines under ``when`` and ``header``, as the file holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.attributes import Wanted, attribute, wanted, wanted_bound
from node.config.base import CLOSED, INNER
from node.config.conditions import Condition, IfMissing
from node.config.patterns import pattern
from node.config.problems import did_you_mean, one_of
from node.config.quantities import each, flag, shape, text, word

_OPERATORS = (
    "equals", "any_of", "not", "matches", "not_matches", "includes", "excludes",
    "min", "max", "present", "if_missing",
)  # fmt: skip
BARE_LIST = f"{INNER}list"
_SYMBOLS = {"==": "equals", "=": "equals", "!=": "not", ">=": "min", "<=": "max", ">": "min",
            "<": "max", "in": "any_of", "contains": "includes", "regex": "matches",
            "exists": "present"}  # fmt: skip


def _key(value: object) -> str:
    return attribute(str(value))


def _value(value: object, info: ValidationInfo) -> Wanted | None:
    written = text(value)
    return wanted(info.data["key"], written) if "key" in info.data else None


def _values(value: object, info: ValidationInfo) -> tuple[Wanted, ...]:
    return tuple(found for found in each(value, lambda item: _value(item, info)) if found)


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


def condition_lines(value: object) -> dict[str, object]:
    """Give every line the form of a section with its key inside."""
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


Conditions = Annotated[Mapping[str, ConditionLine], BeforeValidator(condition_lines)]
