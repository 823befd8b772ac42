"""What all sections of the configuration file share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict

from node.config.quantities import flag, seconds, text
from pipelines.base import Slot

CLOSED = ConfigDict(extra="forbid")
"""Unknown keys are errors, at every level."""
INNER = "\0"
"""Starts the alias of a field that the reader fills in; no file can hold such a key."""
DAY_SECONDS = 86400.0
USUAL_SLOTS: tuple[Slot, ...] = ("sr", "seg", "capture")
"""What is made by every job, and sent when a rule does not say what."""

Text = Annotated[str, BeforeValidator(text)]
Flag = Annotated[bool, BeforeValidator(flag)]
Seconds = Annotated[float, BeforeValidator(seconds)]


def name(value: object) -> str:
    """Name of a rule, an input or a model: letters, digits, ``-``, ``_`` and ``.``."""
    written = text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", written):
        raise ValueError(
            f"'{written[:64]}' is not a name. Use letters, digits, - _ and ., at most 64."
        )
    return written


Name = Annotated[str, BeforeValidator(name)]
