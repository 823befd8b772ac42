"""Regular expressions of an admin, checked so that none can stall the node."""

from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found]  # the tree of a pattern
from collections.abc import Iterator
from typing import Any

from node.quantities import scalar

MAX_PATTERN_CHARACTERS = 500
_MANY = 16
"""A repeat of at most so many counts as bounded."""


def pattern(value: object) -> str:
    """Check a pattern of ``matches`` or ``not_matches`` (a pydantic validator).

    Raises
    ------
    ValueError
        It is not a regular expression, or repeats within a repeat, as ``(a+)+`` does: such a
        pattern may need longer than the age of the universe for one long description.
    """
    written = scalar(value)
    if len(written) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"This pattern is longer than {MAX_PATTERN_CHARACTERS} characters.")
    try:
        re.compile(written)
        tree = parser.parse(written)
    except (re.error, RecursionError, OverflowError) as error:
        position = getattr(error, "pos", None)
        at = f" at character {position + 1}" if position is not None else ""
        reason = getattr(error, "msg", "too complicated")
        raise ValueError(f"'{written}' is not a regular expression: {reason}{at}.") from error
    if _nests(tree, repeated=False):
        raise ValueError(
            f"'{written}' repeats within a repeat, which may never end. Use one * or + only."
        )
    return written


def _nests(tree: Any, *, repeated: bool) -> bool:
    for operator, argument in tree:
        again = operator in (parser.MAX_REPEAT, parser.MIN_REPEAT) and argument[1] > _MANY
        if again and repeated:
            return True
        if any(_nests(inner, repeated=repeated or again) for inner in _inside(argument)):
            return True
    return False


def _inside(argument: Any) -> Iterator[Any]:
    """Trees within an operator's argument, however it holds them."""
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from _inside(item)
