"""What of the segments of an arena rows refer to."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from storage.arena import InUse
from storage.arena_segment import range_of
from storage.database import Database, Transaction
from storage.tables import Conflict, Instance

_COLUMNS: tuple[Any, ...] = (Instance.object_key, Conflict.object_key)


def segment_end(tx: Transaction, segment: int) -> int:
    """Where the last object of a segment ends that a row refers to; 0: none."""
    first, beyond = _names(segment)
    end = 0
    for column in _COLUMNS:
        query = sa.select(sa.func.max(column)).where(column >= first, column < beyond)
        key = tx.execute(query).scalar()
        if key is not None:
            _, offset, length = range_of(key)
            end = max(end, offset + length)
    return end


def segment_ranges(tx: Transaction, segment: int) -> list[tuple[int, int]]:
    """Offset and length of each object of a segment that a row refers to."""
    first, beyond = _names(segment)
    keys: list[str] = []
    for column in _COLUMNS:
        keys += tx.execute(sa.select(column).where(column >= first, column < beyond)).scalars()
    return [range_of(key)[1:] for key in keys]


def in_use(database: Database) -> InUse:
    """Ask a database, for an `Arena`."""

    def end(segment: int) -> int:
        with database.snapshot() as tx:
            return segment_end(tx, segment)

    return end


def _names(segment: int) -> tuple[str, str]:
    """First possible key of a segment, and what comes after its last."""
    folder = f"arena/{segment:06d}"
    return f"{folder}/", f"{folder}0"
