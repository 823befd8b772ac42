"""How the command line shows things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 200

console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
errors = Console(stderr=True)


def show(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, as_json: bool) -> None:
    """Print rows: all keys as JSON, or some columns as a table."""
    if as_json:
        print_json(list(rows))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = list(columns)
    for name in names:
        # A UID that is cut off cannot be copied; only sentences may be broken over lines.
        is_long = "sentence" in name or name in ("folder", "title", "trouble")
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=not is_long)
    for row in rows:
        table.add_row(*(text(row[name]) for name in names))
    console.print(table if rows else "nothing")


def print_json(value: Any) -> None:
    """Print a value as JSON, times in ISO 8601."""
    print(json.dumps(value, indent=1, default=_plain))  # noqa: T201 - what it is for


def text(value: Any) -> str:
    """Give a cell's text."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
