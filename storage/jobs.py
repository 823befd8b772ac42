"""Jobs: every move is one UPDATE whose WHERE names the states it may come from and the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from storage import tasks
from storage.base import (
    FINAL_JOB_STATES,
    DeliveryState,
    Job,
    JobState,
    LeaseLost,
    NewResult,
    sources_of,
)
from storage.database import Transaction
from storage.events import raise_alert, record
from storage.tables import Delivery, Result, Series, StepRun, Study
from storage.tables import Job as JobRow

STEP_ORDER = ("convert", "infer", "report")
DELIVER = "deliver"
TELL_AFTER_SECONDS = 1800.0
IMPLAUSIBLE = "implausible_result"
"""Reason of jobs whose result lies outside the limits of their rule: an admin looks at it."""
LACKS_SERIES = "missing_series"
"""Reason of jobs that only tell a reader which series a rule lacks: they cannot be started."""
MAIN_INPUT = "series"
"""Role of the series a job is about; named inputs have roles of their own."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long to hold, how often to try, how long to wait in between.

    Seconds throughout; tests hand in short ones.
    """

    lease_seconds: float = 30.0
    first_wait_seconds: float = 15.0
    longest_wait_seconds: float = 900.0
    transient_attempts: int = 10
    bug_attempts: int = 3
    killer_deliveries: int = 3

    @property
    def lease(self) -> timedelta:
        """How long a claim lasts without a heartbeat."""
        return timedelta(seconds=self.lease_seconds)

    def wait(self, attempt: int) -> timedelta:
        """Doubling wait after the `attempt`-th failure, counted from 1."""
        seconds = self.first_wait_seconds * 2.0 ** min(attempt - 1, 30)
        return timedelta(seconds=min(seconds, self.longest_wait_seconds))


def tell_at(tx: Transaction, snapshot: Mapping[str, Any], *, ended: bool) -> datetime | None:
    """When a reader is to be told how a job stands; None where the rule does not ask for it.

    A reader is told when the job ends, and when it takes longer than the rule says.
    """
    if not (snapshot.get("tell_reader") and snapshot.get("destinations")):
        return None
    wait = snapshot.get("tell_after_seconds", TELL_AFTER_SECONDS)
    return tx.now if ended else tx.now + timedelta(seconds=wait)


def first_step(job: Job) -> str:
    """Where a job begins; a notice is only a report."""
    return STEP_ORDER[0] if job.notice_of is None else STEP_ORDER[-1]


def get(tx: Transaction, job_id: int) -> Job | None:
    """Read one job."""
    row = tx.execute(_select().where(JobRow.id == job_id)).first()
    return _job(row) if row else None


def find(tx: Transaction, *conditions: sa.ColumnElement[bool], limit: int = 100) -> list[Job]:
    """Jobs, newest first."""
    rows = tx.execute(_select().where(*conditions).order_by(JobRow.id.desc()).limit(limit))
    return [_job(row) for row in rows]


def claim(tx: Transaction, job_id: int, step: str, owner: str, policy: RetryPolicy) -> Job | None:
    """Own one step of a job, if it is due and nobody else has it (CP4).

    A job whose step was claimed `killer_deliveries` times without an end killed its worker each
    time: it is quarantined instead.
    """
    due = sa.or_(
        JobRow.state == JobState.QUEUED,
        sa.and_(JobRow.state == JobState.RETRY_WAIT, JobRow.next_at <= tx.now),
        sa.and_(JobRow.state == JobState.RUNNING, JobRow.lease_until <= tx.now),
    )
    row = tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job_id, JobRow.step == step, due)
        .values(
            state=JobState.RUNNING,
            lease_owner=owner,
            lease_until=tx.now + policy.lease,
            lease_token=JobRow.lease_token + 1,
            deliveries=JobRow.deliveries + 1,
            next_at=None,
            progress=0.0,
            progress_note=step,
        )
        .returning(JobRow.id)
    ).first()
    if row is None:
        return None
    job = get(tx, job_id)
    if job is not None and job.deliveries > policy.killer_deliveries:
        sentence = (
            f"Step {step} ended its process {job.deliveries - 1} times; the job is set aside. "
            f"Look at the worker's log, then 'scorenode jobs retry {job_id}'."
        )
        _move(tx, job, JobState.QUARANTINED, reason="killed_worker", sentence=sentence)
        raise_alert(tx, f"job.quarantined:{job_id}", sentence)
        return None
    return job


def heartbeat(tx: Transaction, job: Job, policy: RetryPolicy, progress: float, note: str) -> None:
    """Keep owning a job and say how far it is.

    Raises
    ------
    LeaseLost
        Somebody else has it, or it was cancelled or superseded.
    """
    found = tx.execute(
        sa.update(JobRow)
        .where(_fenced(job))
        .values(
            lease_until=tx.now + policy.lease,
            progress=min(max(progress, 0.0), 1.0),
            progress_note=note[:64],
        )
    )
    if found.rowcount == 0:
        raise LeaseLost(f"job {job.id} is no longer ours")


def finish_step(tx: Transaction, job: Job) -> None:
    """Go on to the next step: its task is in the same transaction (CP5)."""
    step = STEP_ORDER[STEP_ORDER.index(job.step) + 1]
    _move(tx, job, JobState.QUEUED, step=step, attempt=0, deliveries=0)
    tasks.enqueue(tx, step, job.id, job.priority)


def fix_results(
    tx: Transaction,
    job: Job,
    results: Sequence[NewResult],
    destinations: Mapping[str, Sequence[str]],
) -> None:
    """Fix the results for ever, with their deliveries and the sender's task (CP6).

    Parameters
    ----------
    destinations : mapping
        Destination name to the slots it gets, in the order of sending.
    """
    ids = {}
    for result in results:
        ids[result.slot] = tx.execute(
            sa.insert(Result)
            .values(
                job_id=job.id,
                made_at=tx.now,
                **{name: getattr(result, name) for name in NewResult.__dataclass_fields__},
            )
            .returning(Result.id)
        ).scalar_one()
    rows = [
        {
            "job_id": job.id,
            "result_id": ids[slot],
            "destination": destination,
            "position": position,
            "state": DeliveryState.PENDING,
            "attempt": 0,
            "lease_token": 0,
            "sentence": "",
            "created_at": tx.now,
            "evidence": {},
        }
        for destination, slots in destinations.items()
        for position, slot in enumerate(slots)
        if slot in ids
    ]
    if not rows:
        _move(tx, job, JobState.DONE, sentence=f"{len(results)} results kept in the node.")
        return
    tx.execute(sa.insert(Delivery), rows)
    _move(tx, job, JobState.DELIVERING, attempt=0, deliveries=0)
    tasks.enqueue(tx, DELIVER, job.id, job.priority)


MOST_STARTS_OVER = 3


def start_over(tx: Transaction, job: Job, owner: str) -> None:
    """Begin with the first step again, because what an earlier one wrote is not there."""
    record_step(
        tx,
        job,
        owner=owner,
        started_at=tx.now,
        outcome="started_over",
        reason="work_folder",
        sentence="What the step before wrote is not there.",
        seconds=0.0,
        facts={},
    )
    earlier = tx.execute(
        sa.select(sa.func.count())
        .select_from(StepRun)
        .where(StepRun.job_id == job.id, StepRun.outcome == "started_over")
    ).scalar_one()
    if int(earlier) >= MOST_STARTS_OVER:
        sentence = (
            "The process that was to go on does not see what the step before wrote: check that "
            "node.data is the same shared folder on every host."
        )
        hold(tx, job, "work_folder", sentence)
        return
    _move(tx, job, JobState.QUEUED, step=STEP_ORDER[0], deliveries=job.deliveries)
    tasks.enqueue(tx, STEP_ORDER[0], job.id, job.priority)


def give_back(tx: Transaction, job: Job) -> None:
    """Return a step that was not finished, without counting it."""
    _move(tx, job, JobState.QUEUED, deliveries=job.deliveries - 1)
    tasks.enqueue(tx, job.step, job.id, job.priority)


def not_scored(tx: Transaction, job: Job, reason: str, sentence: str) -> None:
    """End a job whose input must not be scored."""
    _move(tx, job, JobState.NOT_SCORED, reason=reason, sentence=sentence)


def hold(tx: Transaction, job: Job, reason: str, sentence: str) -> None:
    """Wait for an admin; costs no attempt."""
    values: dict[str, Any] = {"reason": reason, "sentence": sentence, "deliveries": 0}
    if reason == IMPLAUSIBLE:
        values["tell_at"] = tell_at(tx, job.snapshot, ended=True)
    _move(tx, job, JobState.HELD, **values)
    raise_alert(tx, f"job.held:{job.id}", sentence)


def retry_later(
    tx: Transaction, job: Job, policy: RetryPolicy, *, attempts: int, reason: str, sentence: str
) -> None:
    """Try the step again after a while, or give up after `attempts`."""
    attempt = job.attempt + 1
    if attempt >= attempts:
        sentence = f"{sentence} Given up after {attempt} attempts."
        _move(tx, job, JobState.FAILED, attempt=attempt, reason=reason, sentence=sentence)
        raise_alert(tx, f"job.failed:{job.id}", sentence)
        return
    next_at = tx.now + policy.wait(attempt)
    _move(
        tx,
        job,
        JobState.RETRY_WAIT,
        attempt=attempt,
        deliveries=0,
        next_at=next_at,
        reason=reason,
        sentence=sentence,
    )
    tasks.enqueue(tx, job.step, job.id, job.priority, next_at)


def runner_died(tx: Transaction, job: Job, policy: RetryPolicy, sentence: str) -> None:
    """Count a step that ended its process; set the job aside when it did so too often."""
    if job.deliveries >= policy.killer_deliveries:
        _move(tx, job, JobState.QUARANTINED, reason="killed_runner", sentence=sentence)
        raise_alert(tx, f"job.quarantined:{job.id}", sentence)
        return
    next_at = tx.now + policy.wait(1)
    _move(tx, job, JobState.RETRY_WAIT, next_at=next_at, reason="killed_runner", sentence=sentence)
    tasks.enqueue(tx, job.step, job.id, job.priority, next_at)


def record_step(
    tx: Transaction,
    job: Job,
    *,
    owner: str,
    started_at: datetime,
    outcome: str,
    reason: str,
    sentence: str,
    seconds: float,
    facts: Mapping[str, Any],
) -> None:
    """Keep how one attempt at a step went."""
    tx.execute(
        sa.insert(StepRun).values(
            job_id=job.id,
            step=job.step,
            attempt=job.attempt,
            owner=owner,
            started_at=started_at,
            ended_at=tx.now,
            outcome=outcome,
            reason=reason,
            sentence=sentence,
            seconds=seconds,
            facts=dict(facts),
        )
    )


def _move(tx: Transaction, job: Job, target: JobState, **values: Any) -> None:
    """Move an owned job and let go of it.

    Raises
    ------
    LeaseLost
        The fence says that it is not ours any more: nothing was changed.
    """
    values |= {"state": target, "lease_owner": None, "lease_until": None}
    if target in FINAL_JOB_STATES or target is JobState.DELIVERING:
        values["tell_at"] = tell_at(tx, job.snapshot, ended=True)
    if target in FINAL_JOB_STATES:
        values |= {"ended_at": tx.now, "progress": 1.0}
    found = tx.execute(
        sa.update(JobRow).where(_fenced(job), JobRow.state.in_(sources_of(target))).values(**values)
    )
    if found.rowcount == 0:
        raise LeaseLost(f"job {job.id} is no longer ours")
    if target in FINAL_JOB_STATES:
        record(tx, f"job.{target}", job_id=job.id, reason=values.get("reason", ""))


def _fenced(job: Job) -> sa.ColumnElement[bool]:
    return sa.and_(
        JobRow.id == job.id,
        JobRow.lease_token == job.lease_token,
        JobRow.state == JobState.RUNNING,
    )


def _select() -> sa.Select[Any]:
    return (
        sa.select(*sa.inspect(JobRow).columns, Series.series_instance_uid, Study.study_instance_uid)
        .join(Series, Series.id == JobRow.series_id)
        .join(Study, Study.id == Series.study_id)
    )


def _job(row: Any) -> Job:
    values = {name: getattr(row, name) for name in Job.__dataclass_fields__}
    return Job(**values | {"state": JobState(row.state)})
