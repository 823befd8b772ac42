"""What an admin does to jobs: start again, cancel, let held ones go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from storage import tasks
from storage.base import TO_SEND, DeliveryState, Job, JobState, sources_of
from storage.database import Transaction
from storage.events import record, resolve_alerts_of
from storage.gathering import WAITS_FOR_INPUTS
from storage.jobs import DELIVER, IMPLAUSIBLE, LACKS_SERIES, first_step, get, tell_at
from storage.retraction import RETRACTED
from storage.tables import Delivery, Instance, Result
from storage.tables import Job as JobRow


def requeue(
    tx: Transaction, job_id: int, by: str = "", limits: Mapping[str, float] | None = None
) -> bool:
    """Start a job that waits or ended badly again, from the images.

    A job that has its results only sends again what was not sent: results are never remade. One
    whose images retention has deleted cannot be started again, nor one whose results were taken
    back, nor one that only tells which series a rule lacks.

    Parameters
    ----------
    tx : Transaction
    job_id : int
    by : str
        Who asks.
    limits : mapping or None
        Time and memory that each step may take from now on (`timeout_seconds`, `memory_bytes`),
        in place of those the job was opened with.

    Returns
    -------
    bool
        False: the job is not there, or does not wait; `why_not` says more.
    """
    job = get(tx, job_id)
    if job is None or job.state in (JobState.DELIVERING, JobState.RUNNING):
        return False
    if job.reason in (RETRACTED, LACKS_SERIES):
        return False
    if tx.execute(sa.select(Result.id).where(Result.job_id == job_id).limit(1)).first():
        return _redeliver(tx, job, by)
    if not _has_images(tx, job):
        return False
    if job.snapshot.get("gather") and "gathered" not in job.snapshot:
        return _gather(tx, job, by)
    found = tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(sources_of(JobState.QUEUED)))
        .values(
            state=JobState.QUEUED,
            step=first_step(job),
            snapshot=_accepted(job) | dict(limits or {}),
            attempt=0,
            deliveries=0,
            next_at=None,
            ended_at=None,
            reason="",
            sentence="",
            lease_token=JobRow.lease_token + 1,
            tell_at=tell_at(tx, job.snapshot, ended=False),
        )
    )
    if found.rowcount == 0:
        return False
    tasks.enqueue(tx, first_step(job), job.id, job.priority)
    resolve_alerts_of(tx, job_id)
    record(tx, "job.requeued", job_id=job_id, by=by)
    return True


def why_not(tx: Transaction, job_id: int) -> str:
    """Say why `requeue` does nothing with a job, and what would help; whole sentences."""
    job = get(tx, job_id)
    if job is None:
        return f"There is no job {job_id}."
    if job.reason == RETRACTED:
        return f"The results of job {job_id} were taken back; they are never sent again."
    if job.reason == LACKS_SERIES:
        return (
            f"Job {job_id} only tells that the study lacks a series: {job.sentence} When the "
            "series comes the rule is decided again by itself; when the rule was changed: "
            f"scorenode jobs replay {job_id}."
        )
    if job.state in (JobState.QUEUED, JobState.RUNNING, JobState.DELIVERING):
        return f"Job {job_id} is {job.state}: it goes on by itself."
    if job.state in sources_of(JobState.QUEUED) and not _has_images(tx, job):
        return f"The images of job {job_id} were deleted (retention); send them again."
    return f"Job {job_id} is {job.state} and waits for nothing."


def _has_images(tx: Transaction, job: Job) -> bool:
    held = sa.select(Instance.id).where(Instance.series_id == job.series_id).limit(1)
    return tx.execute(held).first() is not None


def _accepted(job: Job) -> dict[str, Any]:
    """Keep what the rule said; a result that an admin lets go is not held again."""
    limits: dict[str, Any] = {"accept_result": {}} if job.reason == IMPLAUSIBLE else {}
    return dict(job.snapshot) | limits


def _gather(tx: Transaction, job: Job, by: str) -> bool:
    """Fetch the inputs of a job first, or look for them again now."""
    sources = [JobState.HELD, *sources_of(JobState.QUEUED)]
    found = tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job.id, JobRow.state.in_(sources))
        .values(
            state=JobState.HELD,
            reason=WAITS_FOR_INPUTS,
            sentence="Waits for its inputs.",
            next_at=tx.now,
            attempt=0,
            ended_at=None,
            tell_at=tell_at(tx, job.snapshot, ended=False),
        )
    )
    if found.rowcount == 0:
        return False
    record(tx, "job.requeued", job_id=job.id, by=by)
    return True


def _redeliver(tx: Transaction, job: Job, by: str) -> bool:
    unsent = [DeliveryState.REFUSED, DeliveryState.UNPROVED, DeliveryState.CANCELLED]
    found = tx.execute(
        sa.update(Delivery)
        .where(Delivery.job_id == job.id, Delivery.state.in_(unsent))
        .values(state=DeliveryState.PENDING, attempt=0, next_at=None)
    )
    if found.rowcount == 0:
        return False
    tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job.id, JobRow.state.in_(sources_of(JobState.DELIVERING)))
        .values(state=JobState.DELIVERING, ended_at=None, reason="", sentence="")
    )
    tasks.enqueue(tx, DELIVER, job.id, job.priority)
    record(tx, "job.requeued", job_id=job.id, by=by)
    return True


def release_held(tx: Transaction, reason: str) -> int:
    """Queue all jobs held for a reason (after a reload, say); how many there were."""
    rows = tx.execute(
        sa.select(JobRow.id).where(JobRow.state == JobState.HELD, JobRow.reason == reason)
    ).scalars()
    return sum(requeue(tx, job_id) for job_id in rows.all())


def cancel(tx: Transaction, job_id: int, by: str = "") -> bool:
    """Stop a job; a runner that works on it is killed at its next heartbeat."""
    job = get(tx, job_id)
    if job is None:
        return False
    found = tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_(sources_of(JobState.CANCELLED)))
        .values(
            state=JobState.CANCELLED,
            lease_token=JobRow.lease_token + 1,
            lease_owner=None,
            lease_until=None,
            ended_at=tx.now,
            tell_at=tell_at(tx, job.snapshot, ended=True),
            sentence="Cancelled by an admin.",
        )
    )
    if found.rowcount == 0:
        return False
    waiting = [DeliveryState.HELD, *TO_SEND]
    tx.execute(
        sa.update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.state.in_(waiting))
        .values(state=DeliveryState.CANCELLED, lease_token=Delivery.lease_token + 1)
    )
    resolve_alerts_of(tx, job_id)
    record(tx, "job.cancelled", job_id=job_id, by=by)
    return True
