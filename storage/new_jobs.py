"""Opening jobs: each work once, older generations give way."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from storage import tasks
from storage.base import FINAL_JOB_STATES, ClosedSeries, JobState, NewJob, sources_of
from storage.database import Transaction
from storage.events import raise_alert, record, resolve_alerts_of
from storage.jobs import MAIN_INPUT, STEP_ORDER, tell_at
from storage.tables import Job as JobRow
from storage.tables import JobInput


def insert(tx: Transaction, closed: ClosedSeries, new: NewJob) -> int | None:
    """Create a job with its task; None when the same work is there already."""
    job_id = insert_row(tx, closed.series_id, closed.generation, new, STEP_ORDER[0])
    if job_id is None:
        return None
    for role, (series_id, generation) in new.inputs.items():
        _insert_input(tx, job_id, role, series_id, generation)
    _supersede_older(tx, closed, new.rule)
    if new.state is JobState.QUEUED:
        tasks.enqueue(tx, STEP_ORDER[0], job_id, new.priority)
    elif new.state is JobState.HELD:
        raise_alert(tx, f"job.held:{job_id}", new.sentence)
    record(tx, "job.opened", series_id=closed.series_id, job_id=job_id, rule=new.rule)
    return job_id


def insert_row(
    tx: Transaction, series_id: int, generation: int, new: NewJob, step: str
) -> int | None:
    """Write the row of a job about a generation of a series, without a task; None: it is there."""
    values = {
        "idem_key": new.idem_key,
        "series_id": series_id,
        "generation": generation,
        "rule": new.rule,
        "mode": new.mode,
        "pipeline": new.pipeline,
        "model": new.model,
        "config_digest": new.config_digest,
        "snapshot": dict(new.snapshot),
        "priority": new.priority,
        "state": new.state,
        "step": step,
        "sentence": new.sentence,
        "frozen_at": tx.now.replace(microsecond=0),
        "created_at": tx.now,
        "attempt": 0,
        "deliveries": 0,
        "lease_token": 0,
        "progress": 0.0,
        "progress_note": "",
        "reason": new.reason,
        "tell_at": tell_at(tx, new.snapshot, ended=new.state in FINAL_JOB_STATES),
        "ended_at": tx.now if new.state in FINAL_JOB_STATES else None,
        "notice_of": new.notice_of,
    }
    if new.next_at_seconds is not None:
        values["next_at"] = tx.now + timedelta(seconds=new.next_at_seconds)
    statement = tx.insert(JobRow).values(**values)
    job_id: int | None = tx.execute(
        statement.on_conflict_do_nothing(index_elements=["idem_key"]).returning(JobRow.id)
    ).scalar()
    if job_id is not None:
        _insert_input(tx, job_id, MAIN_INPUT, series_id, generation)
    return job_id


def _insert_input(tx: Transaction, job_id: int, role: str, series_id: int, generation: int) -> None:
    tx.execute(
        sa.insert(JobInput).values(
            job_id=job_id, role=role, series_id=series_id, generation=generation
        )
    )


def _supersede_older(tx: Transaction, closed: ClosedSeries, rule: str) -> None:
    """Jobs of earlier generations that have no results yet give way."""
    gone = tx.execute(
        sa.update(JobRow)
        .where(
            JobRow.series_id == closed.series_id,
            JobRow.rule == rule,
            JobRow.generation < closed.generation,
            JobRow.state.in_(sources_of(JobState.SUPERSEDED)),
        )
        .values(
            state=JobState.SUPERSEDED,
            lease_token=JobRow.lease_token + 1,
            lease_owner=None,
            lease_until=None,
            ended_at=tx.now,
            sentence=f"More instances arrived; generation {closed.generation} replaces this job.",
        )
        .returning(JobRow.id)
    ).scalars()
    for job_id in gone.all():
        resolve_alerts_of(tx, job_id)
