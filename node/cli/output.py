"""How the command line shows things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 200
_SENTENCE_WIDTH = 24


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed, before a socket lands there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: its own
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


_open_closed_streams()
console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
errors = Console(stderr=True)


def show(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, as_json: bool) -> None:
    """Print rows: all keys as JSON, or some columns as a table."""
    if as_json:
        print_json(list(rows))
        return
    names = list(columns)
    cells = [[text(row[name]) for name in names] for row in rows]
    if not rows:
        console.print("nothing")
    elif _narrowest(names, cells) > console.width:
        _show_records(names, cells)
    else:
        _show_table(names, cells)


def _narrowest(names: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Columns a terminal must have: an id or UID that is cut off cannot be typed again."""
    widths = [
        _SENTENCE_WIDTH
        if _is_sentence(name)
        else max(len(name), *(len(row[place]) for row in cells))
        for place, name in enumerate(names)
    ]
    return sum(widths) + 2 * len(widths)


def _is_sentence(name: str) -> bool:
    """Whether a column may be broken over lines."""
    return "sentence" in name or name in ("folder", "title", "trouble")


def _show_table(names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        broken = _is_sentence(name)
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=not broken)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _show_records(names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Show one line for each value: for terminals that are too narrow for a table."""
    indent = max(len(name) for name in names) + 2
    for row in cells:
        for name, cell in zip(names, row, strict=True):
            label = f"{name.replace('_', ' '):{indent}}"
            console.print(label + cell, highlight=False, markup=False, soft_wrap=True)
        console.print()


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
