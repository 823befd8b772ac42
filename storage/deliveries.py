"""Deliveries: one row per result and destination; the row says when to try again."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Self

import sqlalchemy as sa

from storage import tasks
from storage.base import (
    FINAL_DELIVERY_STATES,
    TO_SEND,
    Delivery,
    DeliveryState,
    JobState,
    LeaseLost,
)
from storage.database import Transaction
from storage.destinations import Door, Doors, lock, may_go
from storage.events import raise_alert, record, resolve_alert
from storage.tables import Delivery as DeliveryRow
from storage.tables import Job, Result, Series, Study

Kind = Literal["sent", "retry", "refused"]


LEASE = timedelta(seconds=60)
ALERT_AFTER = timedelta(hours=1)
BUSY_WAIT = timedelta(seconds=1)
"""Until a delivery is looked at again that found its destination busy."""


@dataclass(frozen=True)
class RetrySchedule:
    """When a delivery that failed is tried again; seconds.

    The waits before the second, third, ... attempt; the last one repeats until `give_up_seconds`
    after the delivery was created. A refused object waits the longest time at once, because only
    a PACS admin can change the answer.
    """

    after_seconds: tuple[float, ...] = (30.0, 120.0, 600.0, 3600.0)
    give_up_seconds: float = 7 * 86400.0

    @classmethod
    def of(cls, terms: Mapping[str, Any]) -> Self:
        """Read what a job froze of its rule for one destination."""
        return cls(
            tuple(terms.get("after_seconds", cls.after_seconds)),
            terms.get("give_up_seconds", cls.give_up_seconds),
        )

    def wait(self, kind: Kind, attempt: int, group: str = "") -> timedelta:
        """Wait after the `attempt`-th failure, counted from 1, with jitter.

        Deliveries of one `group` (a job and its destination) wait equally long, so that they go
        together again.
        """
        last = len(self.after_seconds) - 1
        seconds = self.after_seconds[last if kind == "refused" else min(attempt - 1, last)]
        jitter = random.Random(f"{group}:{attempt}").uniform(0.9, 1.1)  # noqa: S311 - jitter
        return timedelta(seconds=seconds * jitter)


def claim(
    tx: Transaction, job_id: int, owner: str, doors: Doors | None = None
) -> dict[str, list[Delivery]]:
    """Own the due deliveries of a job, by destination, in the order of sending.

    Left out are destinations that an admin suspended, that rest, whose time window is shut, or
    that have as many associations as they may have.
    """
    due = _due(tx)
    waiting = sa.select(DeliveryRow.destination).where(DeliveryRow.job_id == job_id, due, may_go())
    names = sorted(set(tx.execute(waiting).scalars()))
    free = [name for name in names if _is_free(tx, name, job_id, (doors or {}).get(name, Door()))]
    if not free:
        return {}
    ids = (
        tx.execute(
            sa.update(DeliveryRow)
            .where(DeliveryRow.job_id == job_id, due, DeliveryRow.destination.in_(free))
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


def _due(tx: Transaction) -> sa.ColumnElement[bool]:
    return sa.or_(
        DeliveryRow.state == DeliveryState.PENDING,
        sa.and_(DeliveryRow.state == DeliveryState.RETRY_WAIT, DeliveryRow.next_at <= tx.now),
        sa.and_(DeliveryRow.state == DeliveryState.SENDING, DeliveryRow.lease_until <= tx.now),
    )


def _is_free(tx: Transaction, name: str, job_id: int, door: Door) -> bool:
    """Whether one more association with a destination may begin now."""
    if door.opens_in > timedelta(0):
        return False
    lock(tx, name)
    others = sa.select(sa.func.count(sa.distinct(DeliveryRow.job_id))).where(
        DeliveryRow.destination == name,
        DeliveryRow.job_id != job_id,
        DeliveryRow.state == DeliveryState.SENDING,
        DeliveryRow.lease_until > tx.now,
    )
    return int(tx.execute(others).scalar_one()) < door.associations


def find(tx: Transaction, *conditions: sa.ColumnElement[bool], limit: int = 200) -> list[Delivery]:
    """Deliveries by job, destination and place in the order of sending."""
    columns = [
        *sa.inspect(DeliveryRow).columns,
        Study.study_instance_uid,
        Result.slot,
        Result.series_instance_uid,
        Result.sop_instance_uid,
        Result.sop_class_uid,
        Result.transfer_syntax_uid,
        Result.object_key,
        Result.sha256,
    ]
    rows = tx.execute(
        sa.select(*columns)
        .join(Result, Result.id == DeliveryRow.result_id)
        .join(Job, Job.id == DeliveryRow.job_id)
        .join(Series, Series.id == Job.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(*conditions)
        .order_by(
            DeliveryRow.job_id.desc(),
            DeliveryRow.destination,
            DeliveryRow.position,
            DeliveryRow.id,
        )
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
    confirm: Sequence[str] = (),
) -> DeliveryState:
    """Write down what the destination answered (CP7), and when to try again.

    What was cancelled while it was under way, and arrived, stays cancelled and is known as sent.

    Parameters
    ----------
    confirm : sequence of str
        How it is to be proved that an object is there that was sent; empty: it is not.

    Raises
    ------
    LeaseLost
        Somebody else sends it by now.
    """
    attempt = delivery.attempt + 1
    values: dict[str, Any] = {"attempt": attempt, "status": status, "sentence": sentence}
    if kind == "sent":
        values |= {
            "state": DeliveryState.CONFIRMING if confirm else DeliveryState.SENT,
            "sent_at": tx.now,
            "next_at": tx.now if confirm else None,
            "transaction_uid": None,
            "evidence": {"store": _store_evidence(tx, status, sentence)},
        }
    else:
        values |= _next_try(tx, delivery, kind, attempt, sentence, schedule)
    try:
        _let_go(tx, delivery, values)
    except LeaseLost:
        if kind != "sent" or not _arrived_cancelled(tx, delivery, values):
            raise
        return DeliveryState.CANCELLED
    if kind == "sent":
        resolve_alert(tx, f"delivery.late:{delivery.id}")
    return DeliveryState(values["state"])


def _arrived_cancelled(tx: Transaction, delivery: Delivery, values: dict[str, Any]) -> bool:
    """Keep that an object arrived whose delivery was cancelled meanwhile; False: it was not."""
    kept = {key: values[key] for key in ("attempt", "status", "sent_at", "evidence")}
    found = tx.execute(
        sa.update(DeliveryRow)
        .where(
            DeliveryRow.id == delivery.id,
            DeliveryRow.lease_token == delivery.lease_token + 1,
            DeliveryRow.state == DeliveryState.CANCELLED,
        )
        .values(**kept)
    )
    return found.rowcount > 0


def is_ours(tx: Transaction, delivery: Delivery) -> bool:
    """Whether a delivery that was claimed may still go: it was not cancelled, nor taken over."""
    return tx.execute(sa.select(DeliveryRow.id).where(_fenced(delivery))).first() is not None


def _store_evidence(tx: Transaction, status: int | None, sentence: str) -> dict[str, Any]:
    found: dict[str, Any] = {"state": "sent", "at": tx.now.isoformat(), "status": status}
    return found | ({"warning": sentence} if sentence else {})


def _let_go(tx: Transaction, delivery: Delivery, values: dict[str, Any]) -> None:
    values = values | {"lease_owner": None, "lease_until": None}
    found = tx.execute(sa.update(DeliveryRow).where(_fenced(delivery)).values(**values))
    if found.rowcount == 0:
        raise LeaseLost(f"delivery {delivery.id} is no longer ours")


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
    given_up = age >= timedelta(seconds=schedule.give_up_seconds)
    if age >= ALERT_AFTER or kind == "refused" or given_up:
        raise_alert(tx, f"delivery.late:{delivery.id}", f"{delivery.destination}: {sentence}")
    if given_up:
        return {"state": DeliveryState.REFUSED, "next_at": None}
    return {
        "state": DeliveryState.RETRY_WAIT,
        "next_at": tx.now + schedule.wait(kind, attempt, group),
    }


def fall_back(
    tx: Transaction, delivery: Delivery, slots: Sequence[str], owner: str, sentence: str
) -> list[Delivery] | None:
    """Send another result in the place of one that the destination does not take.

    Parameters
    ----------
    slots : sequence of str
        What may go in its place, the best first; the first is taken that was made and that the
        destination has not refused.

    Returns
    -------
    list of Delivery or None
        What is to be sent now, owned by us; empty: it is on its way already. None: there is nothing
        to send in its place, and nothing was changed.

    Raises
    ------
    LeaseLost
    """
    not_taken = sa.exists().where(
        DeliveryRow.result_id == Result.id,
        DeliveryRow.destination == delivery.destination,
        DeliveryRow.state.in_([DeliveryState.REPLACED, DeliveryState.REFUSED]),
    )
    made = dict(
        tx.execute(
            sa.select(Result.slot, Result.id).where(
                Result.job_id == delivery.job_id, Result.slot.in_(slots), ~not_taken
            )
        ).all()
    )
    slot = next((slot for slot in slots if slot in made), None)
    if slot is None:
        return None
    words = f"{sentence}; the {slot} goes in its place"
    values = {"state": DeliveryState.REPLACED, "sentence": words, "next_at": None}
    _let_go(tx, delivery, values)
    resolve_alert(tx, f"delivery.late:{delivery.id}")
    record(tx, "delivery.replaced", job_id=delivery.job_id, slot=delivery.slot, by=slot)
    return _take_place(tx, delivery, made[slot], owner)


def _take_place(tx: Transaction, delivery: Delivery, result_id: int, owner: str) -> list[Delivery]:
    """Insert the delivery of another result in the place of one; nothing where it is there."""
    row = {
        "job_id": delivery.job_id,
        "result_id": result_id,
        "destination": delivery.destination,
        "position": delivery.position,
        "state": DeliveryState.SENDING,
        "attempt": 0,
        "lease_owner": owner,
        "lease_until": tx.now + LEASE,
        "lease_token": 1,
        "sentence": "",
        "created_at": delivery.created_at or tx.now,
        "evidence": {},
    }
    insert = tx.insert(DeliveryRow).values(**row)
    new_id = tx.execute(
        insert.on_conflict_do_nothing(index_elements=["result_id", "destination"]).returning(
            DeliveryRow.id
        )
    ).scalar()
    return find(tx, DeliveryRow.id == new_id) if new_id is not None else []


def settle(tx: Transaction, job_id: int, doors: Doors | None = None) -> JobState:
    """End the job when all its deliveries ended; otherwise ask for the next try."""
    job = tx.execute(
        sa.select(Job.state, Job.priority).where(Job.id == job_id).with_for_update()
    ).one()
    rows = tx.execute(
        sa.select(
            DeliveryRow.state,
            DeliveryRow.destination,
            DeliveryRow.next_at,
            DeliveryRow.lease_until,
            may_go().label("may_go"),
        ).where(DeliveryRow.job_id == job_id)
    ).all()
    if job.state != JobState.DELIVERING:
        return JobState(job.state)
    if any(DeliveryState(row.state) not in FINAL_DELIVERY_STATES for row in rows):
        times = [
            _next_look(tx, row, (doors or {}).get(row.destination, Door()))
            for row in rows
            if row.may_go and DeliveryState(row.state) in TO_SEND
        ]
        if times:
            tasks.enqueue(tx, "deliver", job_id, job.priority, min(times))
        return JobState.DELIVERING
    return _end(tx, job_id, [DeliveryState(row.state) for row in rows])


def _next_look(tx: Transaction, row: Any, door: Door) -> datetime:
    """When a delivery that waits should be looked at; one that is due found its peer busy."""
    at: datetime = row.next_at or row.lease_until or tx.now
    if at <= tx.now:
        at = tx.now + BUSY_WAIT
    return max(at, tx.now + door.opens_in)


def _end(tx: Transaction, job_id: int, states: Sequence[DeliveryState]) -> JobState:
    """End a job of which every delivery has ended."""
    refused, unproved = states.count(DeliveryState.REFUSED), states.count(DeliveryState.UNPROVED)
    proved, sent = states.count(DeliveryState.PROVED), states.count(DeliveryState.SENT)
    state, reason = JobState.DONE, ""
    sentence = f"{proved + sent} deliveries made" + (f", {proved} proved." if proved else ".")
    if unproved:
        state, reason = JobState.FAILED, "unproved"
        sentence = f"{unproved} of {len(states)} deliveries were never proved"
    if refused:
        state, reason = JobState.FAILED, "refused"
        sentence = f"{refused} of {len(states)} deliveries were refused for good"
    if state is JobState.FAILED:
        sentence += "; see 'scorenode deliveries ls'."
    tx.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.state == JobState.DELIVERING)
        .values(state=state, ended_at=tx.now, progress=1.0, reason=reason, sentence=sentence)
    )
    record(tx, f"job.{state}", job_id=job_id)
    return state


def _fenced(delivery: Delivery) -> sa.ColumnElement[bool]:
    return sa.and_(
        DeliveryRow.id == delivery.id,
        DeliveryRow.lease_token == delivery.lease_token,
        DeliveryRow.state == DeliveryState.SENDING,
    )


def _delivery(row: Any) -> Delivery:
    values = {name: getattr(row, name) for name in Delivery.__dataclass_fields__}
    return Delivery(**values | {"state": DeliveryState(row.state)})


def kinds_of(tx: Transaction, job_id: int, slots: Collection[str]) -> set[tuple[str, str]]:
    """SOP Class and transfer syntax of results of a job."""
    rows = tx.execute(
        sa.select(Result.sop_class_uid, Result.transfer_syntax_uid).where(
            Result.job_id == job_id, Result.slot.in_(list(slots))
        )
    )
    return {(row.sop_class_uid, row.transfer_syntax_uid) for row in rows}
