"""Deliveries: one row per result and destination; the row says when to try again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from storage import tasks
from storage.base import (
    FINAL_DELIVERY_STATES,
    Delivery,
    DeliveryState,
    JobState,
    LeaseLost,
)
from storage.database import Transaction
from storage.events import raise_alert, record, resolve_alert
from storage.tables import Delivery as DeliveryRow
from storage.tables import Destination, Job, Result

Kind = Literal["sent", "retry", "refused"]


LEASE = timedelta(seconds=60)
ALERT_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class RetrySchedule:
    """When a delivery that failed is tried again; seconds.

    The waits before the second, third, ... attempt; the last one repeats until `give_up_seconds`
    after the delivery was created. A refused object waits the longest time at once, because only
    a PACS admin can change the answer.
    """

    after_seconds: tuple[float, ...] = (30.0, 120.0, 600.0, 3600.0)
    give_up_seconds: float = 7 * 86400.0

    def wait(self, kind: Kind, attempt: int, group: str = "") -> timedelta:
        """Wait after the `attempt`-th failure, counted from 1, with jitter.

        Deliveries of one `group` (a job and its destination) wait equally long, so that they go
        together again.
        """
        last = len(self.after_seconds) - 1
        seconds = self.after_seconds[last if kind == "refused" else min(attempt - 1, last)]
        jitter = random.Random(f"{group}:{attempt}").uniform(0.9, 1.1)  # noqa: S311 - jitter
        return timedelta(seconds=seconds * jitter)


def claim(tx: Transaction, job_id: int, owner: str) -> dict[str, list[Delivery]]:
    """Own the due deliveries of a job, by destination, in the order of sending.

    Destinations an admin suspended are left out.
    """
    due = sa.or_(
        DeliveryRow.state == DeliveryState.PENDING,
        sa.and_(DeliveryRow.state == DeliveryState.RETRY_WAIT, DeliveryRow.next_at <= tx.now),
        sa.and_(DeliveryRow.state == DeliveryState.SENDING, DeliveryRow.lease_until <= tx.now),
    )
    ids = (
        tx.execute(
            sa.update(DeliveryRow)
            .where(DeliveryRow.job_id == job_id, due, not_suspended())
            .values(
                state=DeliveryState.SENDING,
                lease_owner=owner,
                lease_until=tx.now + LEASE,
                lease_token=DeliveryRow.lease_token + 1,
            )
            .returning(DeliveryRow.id)
        )
        .scalars()
        .all()
    )
    found: dict[str, list[Delivery]] = {}
    for delivery in find(tx, DeliveryRow.id.in_(ids), limit=1000):
        found.setdefault(delivery.destination, []).append(delivery)
    return found


def find(tx: Transaction, *conditions: sa.ColumnElement[bool], limit: int = 200) -> list[Delivery]:
    """Deliveries by job, destination and place in the order of sending."""
    columns = [
        *sa.inspect(DeliveryRow).columns,
        Result.slot,
        Result.sop_instance_uid,
        Result.sop_class_uid,
        Result.transfer_syntax_uid,
        Result.object_key,
    ]
    rows = tx.execute(
        sa.select(*columns)
        .join(Result, Result.id == DeliveryRow.result_id)
        .where(*conditions)
        .order_by(DeliveryRow.job_id.desc(), DeliveryRow.destination, DeliveryRow.position)
        .limit(limit)
    )
    return [_delivery(row) for row in rows]


def renew(tx: Transaction, deliveries: list[Delivery]) -> None:
    """Keep owning deliveries while a long association goes on.

    Raises
    ------
    LeaseLost
        Somebody else has one of them by now.
    """
    for delivery in deliveries:
        found = tx.execute(
            sa.update(DeliveryRow).where(_fenced(delivery)).values(lease_until=tx.now + LEASE)
        )
        if found.rowcount == 0:
            raise LeaseLost(f"delivery {delivery.id} is no longer ours")


def finish(
    tx: Transaction,
    delivery: Delivery,
    kind: Kind,
    status: int | None,
    sentence: str,
    schedule: RetrySchedule,
) -> DeliveryState:
    """Write down what the destination answered (CP7), and when to try again.

    Raises
    ------
    LeaseLost
        Somebody else sends it by now.
    """
    attempt = delivery.attempt + 1
    values: dict[str, Any] = {
        "attempt": attempt,
        "status": status,
        "sentence": sentence,
        "lease_owner": None,
        "lease_until": None,
    }
    if kind == "sent":
        values |= {"state": DeliveryState.SENT, "sent_at": tx.now, "next_at": None}
    else:
        values |= _next_try(tx, delivery, kind, attempt, sentence, schedule)
    found = tx.execute(sa.update(DeliveryRow).where(_fenced(delivery)).values(**values))
    if found.rowcount == 0:
        raise LeaseLost(f"delivery {delivery.id} is no longer ours")
    if kind == "sent":
        resolve_alert(tx, f"delivery.late:{delivery.id}")
    _note_destination(tx, delivery.destination, kind, sentence)
    return DeliveryState(values["state"])


def _next_try(
    tx: Transaction,
    delivery: Delivery,
    kind: Kind,
    attempt: int,
    sentence: str,
    schedule: RetrySchedule,
) -> dict[str, Any]:
    age = tx.now - (delivery.created_at or tx.now)
    group = f"{delivery.job_id}:{delivery.destination}"
    if age >= ALERT_AFTER or kind == "refused":
        raise_alert(tx, f"delivery.late:{delivery.id}", f"{delivery.destination}: {sentence}")
    if age >= timedelta(seconds=schedule.give_up_seconds):
        return {"state": DeliveryState.REFUSED, "next_at": None}
    return {
        "state": DeliveryState.RETRY_WAIT,
        "next_at": tx.now + schedule.wait(kind, attempt, group),
    }


def settle(tx: Transaction, job_id: int) -> JobState:
    """End the job when all its deliveries ended; otherwise ask for the next try."""
    job = tx.execute(
        sa.select(Job.state, Job.priority).where(Job.id == job_id).with_for_update()
    ).one()
    rows = tx.execute(
        sa.select(
            DeliveryRow.state,
            DeliveryRow.next_at,
            DeliveryRow.lease_until,
            not_suspended().label("may_go"),
        ).where(DeliveryRow.job_id == job_id)
    ).all()
    if job.state != JobState.DELIVERING:
        return JobState(job.state)
    waiting = [row for row in rows if DeliveryState(row.state) not in FINAL_DELIVERY_STATES]
    if waiting:
        times = [row.next_at or row.lease_until or tx.now for row in waiting if row.may_go]
        if times:
            tasks.enqueue(tx, "deliver", job_id, job.priority, min(times))
        return JobState.DELIVERING
    refused = sum(row.state == DeliveryState.REFUSED for row in rows)
    state = JobState.FAILED if refused else JobState.DONE
    sentence = (
        f"{refused} of {len(rows)} deliveries were refused for good; see 'scorenode deliveries ls'."
        if refused
        else f"{len(rows)} deliveries made."
    )
    tx.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.state == JobState.DELIVERING)
        .values(
            state=state,
            ended_at=tx.now,
            progress=1.0,
            reason="refused" if refused else "",
            sentence=sentence,
        )
    )
    record(tx, f"job.{state}", job_id=job_id)
    return state


def retry(tx: Transaction, delivery_id: int) -> bool:
    """Try one delivery again now, also one that was refused for good."""
    states = [DeliveryState.RETRY_WAIT, DeliveryState.REFUSED]
    job_id = tx.execute(
        sa.update(DeliveryRow)
        .where(DeliveryRow.id == delivery_id, DeliveryRow.state.in_(states))
        .values(state=DeliveryState.PENDING, next_at=None, attempt=0)
        .returning(DeliveryRow.job_id)
    ).scalar()
    if job_id is None:
        return False
    tx.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.state == JobState.FAILED)
        .values(state=JobState.DELIVERING, ended_at=None)
    )
    tasks.enqueue(tx, "deliver", job_id, 0)
    return True


def _note_destination(tx: Transaction, name: str, kind: Kind, sentence: str) -> None:
    ok = kind == "sent"
    stamp = {"last_ok_at": tx.now} if ok else {"last_failure_at": tx.now}
    values: dict[str, Any] = {"name": name, "last_sentence": "" if ok else sentence, **stamp}
    insert = tx.insert(Destination).values(failures=0 if ok else 1, suspended=False, **values)
    failures = 0 if ok else Destination.failures + 1
    tx.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_={**values, "failures": failures})
    )


def not_suspended() -> sa.ColumnElement[bool]:
    """Condition on a delivery: no admin suspended its destination."""
    return ~sa.exists().where(
        Destination.name == DeliveryRow.destination, Destination.suspended.is_(True)
    )


def _fenced(delivery: Delivery) -> sa.ColumnElement[bool]:
    return sa.and_(
        DeliveryRow.id == delivery.id,
        DeliveryRow.lease_token == delivery.lease_token,
        DeliveryRow.state == DeliveryState.SENDING,
    )


def _delivery(row: Any) -> Delivery:
    names = [n for n in Delivery.__dataclass_fields__ if n != "facts"]
    values = {name: getattr(row, name) for name in names}
    return Delivery(**values | {"state": DeliveryState(row.state)})
