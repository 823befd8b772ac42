"""Rows of a table, and why there may be none."""

from __future__ import annotations

from collections.abc import Mapping

Row = Mapping[str, str]
"""Column to text; empty where there is no value."""


class TableAway(Exception):
    """Raised when a table cannot be read now; the sentence names it and holds no patient data."""


class TableRefused(Exception):
    """Raised when a table cannot be read before somebody changes something."""
