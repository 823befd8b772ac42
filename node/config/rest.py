"""What is left of a piece of the file without its mistakes, so that checks can see the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from node.config.base import INNER
from node.config.yaml_lines import Path as Place

ROUNDS = 4
"""What is left may lack a key that its section needs, and then goes, too."""


def mistaken(error: ValidationError) -> set[Place]:
    """Places of mistakes within a piece."""
    return {
        tuple(part for part in one["loc"] if not str(part).startswith(INNER))
        for one in error.errors()
    }


def rest_of(
    adapter: TypeAdapter[Any],
    value: object,
    error: ValidationError,
    context: Mapping[str, Any],
    instead: Mapping[str, object],
) -> Any:
    """Read a piece without what is wrong in it; None where too little is left.

    Parameters
    ----------
    adapter : TypeAdapter
    value : object
        As the file holds it.
    error : ValidationError
        What is wrong with it.
    context : mapping
        Of the adapter.
    instead : mapping
        Values for keys that must be there.
    """
    for _ in range(ROUNDS):
        value = _without(
            {**instead, **value} if isinstance(value, dict) else value, mistaken(error)
        )
        if not isinstance(value, dict):
            return None
        value = {**instead, **value}
        try:
            return adapter.validate_python(value, context=context)
        except ValidationError as again:
            error = again
    return None


def is_near(place: Place, mistakes: Collection[Place]) -> bool:
    """Whether a place is that of a mistake, lies in it, or holds it."""
    return any(place[: len(other)] == other[: len(place)] for other in mistakes)


def _without(value: object, mistakes: Collection[Place]) -> object:
    """Copy a value without the keys at some places; an item of a list goes with its list."""
    if () in mistakes or not isinstance(value, dict):
        return None
    kept: dict[object, object] = {}
    for key, inner in value.items():
        own = {place[1:] for place in mistakes if place[0] == key}
        found = inner if not own else _of_list(inner, own)
        if found is not None:
            kept[key] = found
    lacking = {place[0] for place in mistakes if len(place) == 1} - set(value)
    return None if lacking else kept


def _of_list(value: object, mistakes: Collection[Place]) -> object:
    if not isinstance(value, list):
        return _without(value, mistakes)
    items = [
        _without(item, own) if (own := {p[1:] for p in mistakes if p[:1] == (place,)}) else item
        for place, item in enumerate(value)
    ]
    return None if () in mistakes or None in items else items
