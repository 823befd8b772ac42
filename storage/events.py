"""What happened, append-only, and what a person should look at."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from storage.database import Transaction
from storage.tables import Alert, Event


def record(
    tx: Transaction,
    kind: str,
    *,
    series_id: int | None = None,
    job_id: int | None = None,
    **data: Any,
) -> None:
    """Append an event; `data` holds ids, counts and names of rules, never patient data."""
    tx.execute(
        sa.insert(Event).values(
            at=tx.now,
            node=socket.gethostname()[:64],
            kind=kind,
            series_id=series_id,
            job_id=job_id,
            data=data,
        )
    )


def events_list(
    tx: Transaction, limit: int = 50, job_id: int | None = None, kind: str | None = None
) -> list[dict[str, Any]]:
    """Events, the latest first."""
    query = sa.select(*sa.inspect(Event).columns).order_by(Event.id.desc()).limit(limit)
    if job_id is not None:
        query = query.where(Event.job_id == job_id)
    if kind is not None:
        query = query.where(Event.kind == kind)
    return [dict(row._mapping) for row in tx.execute(query)]


def raise_alert(tx: Transaction, key: str, sentence: str) -> None:
    """Raise an alert, or count it again when it is there."""
    values = {
        "key": key,
        "state": "open",
        "sentence": sentence,
        "first_at": tx.now,
        "last_at": tx.now,
        "count": 1,
    }
    insert = tx.insert(Alert).values(**values)
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "state": "open",
                "sentence": sentence,
                "last_at": tx.now,
                "count": Alert.count + 1,
                "told_at": sa.case((Alert.state == "resolved", None), else_=Alert.told_at),
            },
        )
    )


def open_alerts(tx: Transaction, limit: int = 20) -> list[dict[str, Any]]:
    """Alerts nobody has closed, newest first."""
    rows = tx.execute(
        sa.select(Alert.key, Alert.sentence, Alert.first_at, Alert.last_at, Alert.count)
        .where(Alert.state == "open")
        .order_by(Alert.last_at.desc())
        .limit(limit)
    )
    return [dict(row._mapping) for row in rows]


def untold(tx: Transaction, prefixes: Sequence[str], limit: int = 20) -> list[dict[str, Any]]:
    """Open alerts that nobody was told of yet, the oldest first."""
    of_kind = sa.or_(*(Alert.key.startswith(prefix) for prefix in prefixes))
    rows = tx.execute(
        sa.select(Alert.id, Alert.key, Alert.sentence, Alert.first_at, Alert.last_at, Alert.count)
        .where(Alert.state == "open", Alert.told_at.is_(None), of_kind)
        .order_by(Alert.id)
        .limit(limit)
    )
    return [dict(row._mapping) for row in rows]


def told(tx: Transaction, alert_id: int) -> None:
    """Write down that somebody was told of an alert."""
    tx.execute(sa.update(Alert).where(Alert.id == alert_id).values(told_at=tx.now))


def resolve_alert(tx: Transaction, key: str) -> None:
    """Close an alert; harmless when there is none."""
    tx.execute(sa.update(Alert).where(Alert.key == key).values(state="resolved"))


def resolve_alerts_of(tx: Transaction, job_id: int) -> None:
    """Close what was raised about a job: somebody looked at it, or another takes its place."""
    for kind in ("held", "failed", "quarantined"):
        resolve_alert(tx, f"job.{kind}:{job_id}")
