"""Closing series that are proved complete, without waiting until they have been quiet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from storage.associations import RELEASED
from storage.base import ClosedSeries, CompletionVerdict, SeriesState
from storage.database import Transaction
from storage.series import (
    OPEN_SERIES,
    Judge,
    close,
    evidence_of,
    instances_of,
    sender_count,
)
from storage.tables import Association, Instance, Series

MOST_LOOKS = 200
"""In one search; the rest comes in the next."""


@dataclass(frozen=True)
class _Seen:
    """How a series was when it was last looked at: it changes when something comes."""

    last_at: datetime
    counted_at: datetime | None
    n_instances: int


class EarlyClosing:
    """Finds and closes series that are proved complete.

    A series is looked at when something has come since the last look. It is closed when all that
    its open generation consists of came in one association and that was released: its sender has
    sent what it wanted to send. A sender that opens an association for each image may be in the
    midst of a scan, whatever is complete so far; its series wait until they have been quiet.

    Parameters
    ----------
    judge : Judge
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._seen: dict[int, _Seen] = {}
        self._waiting: dict[int, int] = {}

    def find(self, tx: Transaction) -> list[int]:
        """Name series that may be closed now; reads only.

        Parameters
        ----------
        tx : Transaction
            A snapshot will do.
        """
        rows = tx.execute(
            sa.select(
                Series.id,
                Series.generation,
                Series.last_at,
                Series.n_instances,
                Series.counted,
                Series.counted_at,
            ).where(Series.state == SeriesState.OPEN)
        ).all()
        fresh = [row for row in rows if self._seen.get(row.id) != _seen(row)][:MOST_LOOKS]
        known = {row.id for row in rows}
        self._seen = {key: seen for key, seen in self._seen.items() if key in known}
        self._waiting = {key: value for key, value in self._waiting.items() if key in known}
        for row in fresh:
            self._look_at(tx, row)
        ended = _ended(tx, set(self._waiting.values()))
        ready = [series for series, association in self._waiting.items() if association in ended]
        for series in ready:
            del self._waiting[series]
        return ready

    def _look_at(self, tx: Transaction, row: Any) -> None:
        """Remember which association to wait for, if a look at the end of it is worth while."""
        self._seen[row.id] = _seen(row)
        self._waiting.pop(row.id, None)
        one = tx.execute(
            sa.select(Instance.header, Instance.association_id, Instance.peer)
            .where(Instance.series_id == row.id, Instance.generation == row.generation)
            .limit(1)
        ).first()
        if one is None or one.association_id is None:
            return
        counted = sender_count(row, one.peer)
        if self._judge.may_be_complete(one.peer, one.header, row.n_instances, counted):
            self._waiting[row.id] = one.association_id

    def close(self, tx: Transaction, series_id: int) -> ClosedSeries | None:
        """Close a series that `find` named, if it is proved complete.

        Where a receiver has just added to it, or holds it, nothing is done: `find` will name it
        again.
        """
        row = tx.execute(
            OPEN_SERIES.where(Series.id == series_id).with_for_update(skip_locked=True, of=Series)
        ).first()
        if row is None or self._seen.get(series_id) != _seen(row):
            self._seen.pop(series_id, None)
            return None
        if not _came_at_once(tx, row):
            return None
        instances, peers = instances_of(tx, series_id)
        proved = self._judge.judge(*evidence_of(row, instances, peers))
        if proved is None or proved.verdict is not CompletionVerdict.PROVED_COMPLETE:
            return None
        return close(tx, row, proved, instances, peers)


def _seen(row: Any) -> _Seen:
    return _Seen(row.last_at, row.counted_at, row.n_instances)


def _ended(tx: Transaction, associations: set[int]) -> set[int]:
    """Which of these associations have ended, however."""
    if not associations:
        return set()
    query = sa.select(Association.id).where(
        Association.id.in_(associations), Association.closed_at.is_not(None)
    )
    return set(tx.execute(query).scalars())


def _came_at_once(tx: Transaction, row: Any) -> bool:
    """Whether the open generation came in one association, which was released."""
    reasons = tx.execute(
        sa.select(Instance.association_id, Association.end_reason)
        .distinct()
        .outerjoin(Association, Association.id == Instance.association_id)
        .where(Instance.series_id == row.id, Instance.generation == row.generation)
    ).all()
    return [reason for _, reason in reasons] == [RELEASED]
