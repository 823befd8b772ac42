"""Content items that an administrator's template describes, of what a model says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from highdicom.sr import Measurement, RelationshipTypeValues, TextContentItem

from models.base import Code
from sr_templates import codes
from sr_templates.checks.texts import unfit
from sr_templates.described import GroupLine, MeasurementLine, TemplateMismatch, TextLine
from sr_templates.outputs import pick

LARGEST = 1e15
"""A Decimal String has no room for more digits; what is not finite is beyond it."""


def text_item(name: Code, text: str) -> TextContentItem:
    """Content item of a text in a group, for which highdicom has no class of its own."""
    return TextContentItem(codes.concept(name), text, RelationshipTypeValues.CONTAINS)


def is_missing(line: MeasurementLine | TextLine, scope: Mapping[str, Any]) -> bool:
    """Whether a number or text is not there that may be missing."""
    if line.if_missing == "refuse":
        return False
    try:
        return pick(scope, line.value) is None
    except TemplateMismatch:
        return True


def measurement(group: GroupLine, line: MeasurementLine, scope: Mapping[str, Any]) -> Measurement:
    """Give the content item of a number; TemplateMismatch where it is none, or out of its range."""
    found = pick(scope, line.value)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        kind = type(found).__name__
        raise TemplateMismatch(f"group {group.id}: {line.value} is {kind}, wanted a number")
    if not abs(found) < LARGEST:
        raise TemplateMismatch(f"group {group.id}: {line.value} is no number a report can hold")
    if line.range and not line.range[0] <= found <= line.range[1]:
        low, high = line.range
        raise TemplateMismatch(
            f"group {group.id}: {line.value} = {found:g} is outside {low:g} to {high:g}"
        )
    item = Measurement(
        name=codes.concept(line.name),
        value=round(float(found), line.digits),
        unit=codes.concept(line.unit),
        method=codes.concept(line.method) if line.method else None,
    )
    if line.observed:
        item[0].ObservationDateTime = _date(group, line, scope)
    return item


def texts(group: GroupLine, line: TextLine, scope: Mapping[str, Any]) -> list[TextContentItem]:
    """Give the content item of a text, none of an empty one; TemplateMismatch where it is none."""
    found = pick(scope, line.value)
    if not isinstance(found, str):
        kind = type(found).__name__
        raise TemplateMismatch(f"group {group.id}: {line.value} is {kind}, wanted a text")
    if why := unfit(found):
        raise TemplateMismatch(f"group {group.id}: {line.value} {why}")
    return [text_item(line.name, found.strip())] if found.strip() else []


def _date(group: GroupLine, line: MeasurementLine, scope: Mapping[str, Any]) -> str:
    text = str(pick(scope, line.observed))
    try:
        return date.fromisoformat(text[:10]).strftime("%Y%m%d")
    except ValueError:
        sentence = f"group {group.id}: {line.observed} is no date such as 2026-03-01"
        raise TemplateMismatch(sentence) from None


def mapped(group: GroupLine, path: str, known: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
    """Give the code of what is at a path; TemplateMismatch where the map has none for it."""
    found = pick(scope, path)
    word = json.dumps(found) if isinstance(found, bool) or found is None else str(found)
    if word not in known:
        raise TemplateMismatch(
            f"group {group.id}: {path} = {word[:64]} is not in its map ({', '.join(known)})"
        )
    return known[word]
