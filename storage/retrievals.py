"""Series that we retrieved from a peer: they are inputs of jobs and never start a rule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from storage.base import SeriesState
from storage.database import Transaction
from storage.tables import Retrieval, Series

ASKED, DONE, FAILED = "asked", "done", "failed"


@dataclass(frozen=True)
class Retrieved:
    """One retrieval: `instances` came, as the peer counted them."""

    state: str
    instances: int
    asked_at: datetime


def ask(tx: Transaction, study_uid: str, series_uid: str, peer: str) -> None:
    """Write down that a series is about to be retrieved, before its first instance comes."""
    values = {
        "series_instance_uid": series_uid,
        "study_instance_uid": study_uid,
        "peer": peer,
        "state": ASKED,
        "instances": 0,
        "asked_at": tx.now,
    }
    statement = tx.insert(Retrieval).values(**values)
    update = {key: values[key] for key in ("peer", "state", "instances", "asked_at")}
    tx.execute(statement.on_conflict_do_update(index_elements=["series_instance_uid"], set_=update))


def settle(tx: Transaction, series_uid: str, instances: int, *, complete: bool) -> None:
    """Write down how a retrieval ended."""
    tx.execute(
        sa.update(Retrieval)
        .where(Retrieval.series_instance_uid == series_uid)
        .values(state=DONE if complete else FAILED, instances=instances)
    )


def get(tx: Transaction, series_uid: str) -> Retrieved | None:
    """Read how a retrieval stands."""
    row = tx.execute(
        sa.select(Retrieval.state, Retrieval.instances, Retrieval.asked_at).where(
            Retrieval.series_instance_uid == series_uid
        )
    ).first()
    return Retrieved(row.state, row.instances, row.asked_at) if row else None


def is_retrieved(tx: Transaction, series_uid: str) -> bool:
    """Whether a series is here because we retrieved it."""
    return get(tx, series_uid) is not None


def recently_asked(tx: Transaction, series_uid: str, within: timedelta) -> bool:
    """Whether a retrieval goes on, or ended a moment ago."""
    found = get(tx, series_uid)
    return found is not None and found.state != FAILED and found.asked_at > tx.now - within


def is_arriving(tx: Transaction, series_uid: str) -> bool:
    """Whether a series is open: more of it may come."""
    found = sa.select(Series.id).where(
        Series.series_instance_uid == series_uid, Series.state == SeriesState.OPEN
    )
    return tx.execute(found.limit(1)).first() is not None


def series_id(tx: Transaction, series_uid: str) -> int | None:
    """Id of a series we hold; None where we hold none of this UID."""
    return tx.execute(
        sa.select(Series.id).where(Series.series_instance_uid == series_uid).limit(1)
    ).scalar()
