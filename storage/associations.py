"""Rows of associations: who was connected, when, and how much came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from storage.database import Transaction
from storage.tables import Association

RELEASED = "released"
"""End of an association whose requestor had nothing more to send."""


GONE = "gone"
"""End of an association whose process was killed."""
MOST_FORGOTTEN = 5000


@dataclass(frozen=True)
class OpenedAssociation:
    """An association that was accepted; `id` is chosen by who accepted it."""

    id: int
    owner: str
    peer: str
    address: str
    calling_ae_title: str
    called_ae_title: str


@dataclass(frozen=True)
class ClosedAssociation:
    """How an association ended."""

    id: int
    end_reason: str
    stored: int
    refused: int
    bytes: int


def write_associations(
    tx: Transaction,
    opened: Iterable[OpenedAssociation],
    closed: Iterable[ClosedAssociation],
    progress: Mapping[int, Mapping[str, int]],
) -> None:
    """Write down what became of associations since the last time, each kind in one statement.

    Parameters
    ----------
    tx : Transaction
    opened, closed : iterable
        Those that were accepted, and those that ended.
    progress : mapping
        From the id of others to what has come of them so far: ``stored refused bytes``.
    """
    ended = {one.id: _end(tx, one) for one in closed}
    fresh = [
        _NOTHING_YET | vars(one) | {"opened_at": tx.now} | ended.pop(one.id, {}) for one in opened
    ]
    if fresh:
        insert = tx.insert(Association).on_conflict_do_nothing(index_elements=["id"])
        tx.execute(insert, fresh)
    for changes in (ended, progress):
        _update(tx, changes)


def close_gone(tx: Transaction, owners: Iterable[str]) -> None:
    """Write down that associations ended with the processes that had them."""
    tx.execute(
        sa.update(Association)
        .where(Association.owner.in_(list(owners)), Association.closed_at.is_(None))
        .values(closed_at=tx.now, end_reason=GONE)
    )


def forget(tx: Transaction, kept: timedelta) -> int:
    """Delete rows of associations that ended long ago, some at a time; how many."""
    old = (
        sa.select(Association.id)
        .where(Association.closed_at < tx.now - kept)
        .order_by(Association.closed_at)
        .limit(MOST_FORGOTTEN)
    )
    return tx.execute(sa.delete(Association).where(Association.id.in_(old))).rowcount


_NOTHING_YET = {"closed_at": None, "end_reason": "", "stored": 0, "refused": 0, "bytes": 0}


def _end(tx: Transaction, one: ClosedAssociation) -> dict[str, Any]:
    return vars(one) | {"closed_at": tx.now}


def _update(tx: Transaction, changes: Mapping[int, Mapping[str, Any]]) -> None:
    """Write the same columns of many rows."""
    if not changes:
        return
    columns = sorted(next(iter(changes.values())).keys() - {"id"})
    tx.execute(
        sa.update(Association.__table__)  # type: ignore[arg-type]
        .where(Association.id == sa.bindparam("row"))
        .values({column: sa.bindparam(column) for column in columns}),
        [{"row": id_, **{c: values[c] for c in columns}} for id_, values in changes.items()],
    )
