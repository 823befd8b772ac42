"""How many instances of an open series its sender counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from storage.base import SeriesState
from storage.database import Transaction
from storage.tables import Instance, Series, Study

MOST_AT_ONCE = 20


@dataclass(frozen=True)
class Uncounted:
    """An open series whose sender is to be asked.

    `at` is when that was found, and `silent_since` when something must have come last.
    """

    study_id: int
    study_instance_uid: str
    series_instance_uid: str
    at: datetime
    silent_since: datetime


def due(tx: Transaction, peer: str, pause: timedelta, again: timedelta) -> list[Uncounted]:
    """Open series that a peer sent, and about which it is to be asked now.

    Parameters
    ----------
    pause : timedelta
        Nothing came for so long.
    again : timedelta
        After so long a count that is not what came is asked for again.
    """
    came_from = sa.select(Instance.peer).where(Instance.series_id == Series.id).limit(1)
    rows = tx.execute(
        sa.select(Series.study_id, Study.study_instance_uid, Series.series_instance_uid)
        .join(Study, Study.id == Series.study_id)
        .where(
            Series.state == SeriesState.OPEN,
            Series.last_at <= tx.now - pause,
            came_from.scalar_subquery() == peer,
            sa.or_(
                Series.counted_at.is_(None),
                Series.counted_at < Series.last_at,
                sa.and_(Series.counted != Series.n_instances, Series.counted_at <= tx.now - again),
            ),
        )
        .order_by(Series.last_at)
        .limit(MOST_AT_ONCE)
    )
    return [
        Uncounted(
            row.study_id, row.study_instance_uid, row.series_instance_uid, tx.now, tx.now - pause
        )
        for row in rows
    ]


def settle(tx: Transaction, asked: Uncounted, counts: Mapping[str, int]) -> None:
    """Write down what the sender answered: Series Instance UID to number of instances."""
    for uid, count in counts.items():
        tx.execute(
            sa.update(Series)
            .where(
                Series.study_id == asked.study_id,
                Series.series_instance_uid == uid,
                Series.state == SeriesState.OPEN,
                Series.last_at <= asked.silent_since,
            )
            .values(counted=count, counted_at=asked.at)
        )
