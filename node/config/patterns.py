"""Regular expressions of an admin, checked so that none can stall the node."""

from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found]  # the tree of a pattern
from collections.abc import Iterator
from typing import Any

from node.config.quantities import scalar

MAX_PATTERN_CHARACTERS = 500
MAX_OPEN_REPEATS = 3
"""Of ``*``, ``+`` and the like in a row: the time to match grows with the text to that power."""
_REPEATS = (parser.MAX_REPEAT, parser.MIN_REPEAT, parser.POSSESSIVE_REPEAT)


def pattern(value: object) -> str:
    """Check a pattern of ``matches`` or ``not_matches`` (a pydantic validator).

    Raises
    ------
    ValueError
        It is not a regular expression; or it repeats a group that itself holds a repeat or an
        alternative, as ``(a+)+`` and ``(a|aa)+`` do, and so may need longer than the age of the
        universe for one long description; or it has too many repeats in a row.
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
            f"'{written}' repeats a group that itself holds a repeat or |, which may never end."
        )
    if _open_repeats(tree) > MAX_OPEN_REPEATS:
        raise ValueError(f"'{written}' has more than {MAX_OPEN_REPEATS} of * and + in a row.")
    return written


def _nests(tree: Any, *, repeated: bool) -> bool:
    for operator, argument in tree:
        repeats = operator in _REPEATS
        varies = operator is parser.BRANCH or (repeats and argument[0] != argument[1])
        if repeated and varies:
            return True
        again = repeated or (repeats and argument[1] > 1)
        if any(_nests(inner, repeated=again) for inner in _inside(argument)):
            return True
    return False


def _open_repeats(tree: Any) -> int:
    count = 0
    for operator, argument in tree:
        inside = [_open_repeats(inner) for inner in _inside(argument)]
        count += max(inside, default=0) if operator is parser.BRANCH else sum(inside)
        count += operator in _REPEATS and argument[0] != argument[1] and argument[1] > 1
    return count


def _inside(argument: Any) -> Iterator[Any]:
    """Trees within an operator's argument, however it holds them."""
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from _inside(item)
