"""Taking results back: who got them, and the job that tells those who did."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from storage import tasks
from storage.base import TO_SEND, DeliveryState, Job, JobState, NewResult
from storage.database import Transaction
from storage.events import record
from storage.jobs import DELIVER, STEP_ORDER
from storage.tables import Delivery, Result
from storage.tables import Job as JobRow

RULE = "(retraction)"
"""Stands for a rule in jobs that take results back; no rule can have this name."""
PIPELINE = "retraction"
RETRACTED = "retracted"
"""Reason of a job whose results were taken back."""
UNSENT = TO_SEND | {DeliveryState.HELD, DeliveryState.REFUSED}
NOT_THERE = (DeliveryState.REFUSED, DeliveryState.REPLACED)
"""The destination said that it does not take the object."""


class Changed(RuntimeError):
    """Raised when something was sent since it was read who has what, or the job was taken back."""


@dataclass(frozen=True)
class Sent:
    """A result of a job, and the destinations that have it, or may have it."""

    slot: str
    sop_instance_uid: str
    object_key: str
    destinations: frozenset[str]


def sent_results(tx: Transaction, job_id: int) -> list[Sent]:
    """Results of a job, in the order they were made.

    Where a sender was interrupted, a destination may hold what it never acknowledged: whoever was
    tried at all counts, but who said no.
    """
    tried = sa.and_(
        sa.or_(Delivery.attempt > 0, Delivery.state == DeliveryState.SENDING),
        Delivery.state.not_in(NOT_THERE),
    )
    found = tx.execute(
        sa.select(Delivery.result_id, Delivery.destination).where(Delivery.job_id == job_id, tried)
    ).all()
    columns = sa.inspect(Result).columns
    rows = tx.execute(sa.select(*columns).where(Result.job_id == job_id).order_by(Result.id))
    return [
        Sent(
            row.slot,
            row.sop_instance_uid,
            row.object_key,
            frozenset(one.destination for one in found if one.result_id == row.id),
        )
        for row in rows
    ]


def note_key(job: Job) -> str:
    """Idempotency key of the job that takes the results of a job back: there is only one."""
    return hashlib.sha256(f"retraction of {job.idem_key}".encode()).hexdigest()


def retracting_job(tx: Transaction, job: Job) -> int | None:
    """Id of the job that takes the results of a job back; None where there is none."""
    found: int | None = tx.execute(
        sa.select(JobRow.id).where(JobRow.idem_key == note_key(job))
    ).scalar()
    return found


def retract(
    tx: Transaction,
    job: Job,
    sent: Sequence[Sent],
    notes: Mapping[str, tuple[NewResult, Sequence[str]]],
    reason: str,
) -> int | None:
    """Take the results of a job back: stop what is not sent yet, open the job that tells.

    Parameters
    ----------
    job : Job
    sent : sequence of Sent
        Who has what, as it was when the notes were made.
    notes : mapping
        Slot of each rejection note to the note and the destinations it goes to; empty: nobody has
        any of the results.
    reason : str
        An admin's sentence; without patient data.

    Returns
    -------
    int or None
        Id of the job whose deliveries are the notes; None where nobody is to be told.

    Raises
    ------
    Changed
        Nothing was changed; the notes must be made anew.
    """
    state, ended_at = _locked(tx, job, sent)
    stopped = tx.execute(
        sa.update(Delivery)
        .where(
            Delivery.job_id == job.id,
            Delivery.state.in_(list(UNSENT)),
        )
        .values(state=DeliveryState.CANCELLED, lease_token=Delivery.lease_token + 1)
    ).rowcount
    told = _open(tx, job, notes) if notes else None
    where = f"rejection notes: job {told}" if told else "nobody had them"
    tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job.id)
        .values(
            state=JobState.CANCELLED if state == JobState.DELIVERING else state,
            ended_at=ended_at or tx.now,
            reason=RETRACTED,
            sentence=f"Results taken back by an admin ({where}): {reason}",
        )
    )
    record(tx, "job.retracted", job_id=job.id, notes=told, stopped=stopped)
    return told


def _locked(tx: Transaction, job: Job, sent: Sequence[Sent]) -> tuple[str, datetime | None]:
    """Keep senders off the job until this transaction ends; its state, and when it ended."""
    row = tx.execute(
        sa.select(JobRow.state, JobRow.reason, JobRow.ended_at)
        .where(JobRow.id == job.id)
        .with_for_update()
    ).one()
    tx.execute(sa.select(Delivery.id).where(Delivery.job_id == job.id).with_for_update()).all()
    if row.reason == RETRACTED or sent_results(tx, job.id) != list(sent):
        raise Changed
    return row.state, row.ended_at


def _open(tx: Transaction, job: Job, notes: Mapping[str, tuple[NewResult, Sequence[str]]]) -> int:
    told: int = tx.execute(
        sa.insert(JobRow).values(**_values(tx, job)).returning(JobRow.id)
    ).scalar_one()
    for note, destinations in notes.values():
        result_id = tx.execute(
            sa.insert(Result)
            .values(
                job_id=told,
                made_at=tx.now,
                **{name: getattr(note, name) for name in NewResult.__dataclass_fields__},
            )
            .returning(Result.id)
        ).scalar_one()
        for destination in destinations:
            tx.execute(
                sa.insert(Delivery).values(
                    job_id=told,
                    result_id=result_id,
                    destination=destination,
                    position=0,
                    state=DeliveryState.PENDING,
                    attempt=0,
                    lease_token=0,
                    sentence="",
                    created_at=tx.now,
                )
            )
    tasks.enqueue(tx, DELIVER, told, 0)
    return told


def _values(tx: Transaction, job: Job) -> dict[str, Any]:
    """Columns of the job that tells: nothing of it runs, it only delivers."""
    return {
        "idem_key": note_key(job),
        "series_id": job.series_id,
        "generation": job.generation,
        "rule": RULE,
        "mode": job.mode,
        "pipeline": PIPELINE,
        "model": job.model,
        "config_digest": "",
        "snapshot": dict(job.snapshot) | {"retracts": job.id},
        "priority": 0,
        "state": JobState.DELIVERING,
        "step": STEP_ORDER[-1],
        "sentence": f"Takes back the results of job {job.id}.",
        "frozen_at": tx.now.replace(microsecond=0),
        "created_at": tx.now,
        "attempt": 0,
        "deliveries": 0,
        "lease_token": 0,
        "progress": 0.0,
        "progress_note": "",
        "reason": "",
    }
