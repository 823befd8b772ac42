"""Forgetting: what was kept long enough goes; nothing of an unfinished job or delivery does.

Rows go first, in one transaction; the files after its commit. A crash in between leaves files
without rows, which nothing refers to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from storage.base import FINAL_JOB_STATES, JobState, SeriesState
from storage.database import Transaction
from storage.events import record
from storage.tables import Conflict, Delivery, Event, Instance, Job, JobInput, Result, Series

MOST_SERIES_AT_ONCE = 50
MOST_EVENTS_AT_ONCE = 10_000
WORK_FOLDER_KEPT = timedelta(hours=1)


@dataclass(frozen=True)
class Terms:
    """How long after the end of their jobs objects are kept; `unmatched` has no job.

    `failed` is for images of jobs that broke, `audit` for the record of what happened.
    """

    inputs: timedelta
    results: timedelta
    unmatched: timedelta
    failed: timedelta
    audit: timedelta


def forget(tx: Transaction, terms: Terms) -> list[str]:
    """Delete the rows of what is over its time; the keys of the objects to delete after commit."""
    _forget_events(tx, terms)
    return _forget_inputs(tx, terms) + _forget_results(tx, terms)


def _forget_inputs(tx: Transaction, terms: Terms) -> list[str]:
    broke = Job.state.in_([JobState.FAILED, JobState.QUARANTINED])
    kept_until = tx.now - terms.inputs, tx.now - terms.failed
    unfinished = _has_job(Job.state.not_in(list(FINAL_JOB_STATES)))
    recent = _has_job(
        sa.or_(
            sa.and_(~broke, Job.ended_at > kept_until[0]),
            sa.and_(broke, Job.ended_at > kept_until[1]),
        )
    )
    over = sa.or_(
        sa.and_(~_has_job(), Series.last_at <= tx.now - terms.unmatched),
        sa.and_(_has_job(), ~unfinished, ~recent, Series.last_at <= max(kept_until)),
    )
    held = sa.select(Instance.id).where(Instance.series_id == Series.id).exists()
    ids = list(
        tx.execute(
            sa.select(Series.id)
            .where(Series.state == SeriesState.CLOSED, held, over)
            .limit(MOST_SERIES_AT_ONCE)
            .with_for_update(skip_locked=True)
        ).scalars()
    )
    if not ids:
        return []
    instances = sa.select(Instance.id).where(Instance.series_id.in_(ids))
    conflicts = tx.execute(
        sa.delete(Conflict)
        .where(Conflict.instance_id.in_(instances))
        .returning(Conflict.object_key)
    ).scalars()
    keys = list(conflicts)
    keys += tx.execute(
        sa.delete(Instance).where(Instance.series_id.in_(ids)).returning(Instance.object_key)
    ).scalars()
    for series_id in ids:
        record(tx, "series.forgotten", series_id=series_id)
    return keys


def _has_job(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Whether there is such a job of a series, or one that reads it beside its own."""
    own = sa.select(Job.id).where(Job.series_id == Series.id, *conditions)
    read = sa.select(JobInput.series_id).join(Job, Job.id == JobInput.job_id).where(*conditions)
    return sa.or_(own.exists(), Series.id.in_(read))


def _forget_results(tx: Transaction, terms: Terms) -> list[str]:
    """Delete the bytes of old results; their rows stay, so that they are known when they return."""
    ended: Any = sa.select(Job.id).where(
        Job.state.in_(list(FINAL_JOB_STATES)), Job.ended_at <= tx.now - terms.results
    )
    rows = tx.execute(
        sa.select(Result.id, Result.object_key)
        .where(Result.job_id.in_(ended), Result.object_key != "")
        .limit(1000)
    ).all()
    if rows:
        ids = [row.id for row in rows]
        tx.execute(sa.delete(Delivery).where(Delivery.result_id.in_(ids)))
        tx.execute(sa.update(Result).where(Result.id.in_(ids)).values(object_key=""))
    return [row.object_key for row in rows]


def _forget_events(tx: Transaction, terms: Terms) -> None:
    old = sa.select(Event.id).where(Event.at <= tx.now - terms.audit).limit(MOST_EVENTS_AT_ONCE)
    tx.execute(sa.delete(Event).where(Event.id.in_(old)))


def ended_jobs(tx: Transaction, job_ids: list[int]) -> list[int]:
    """Which of these jobs ended a while ago, or are not known: their work folders may go."""
    if not job_ids:
        return []
    final = list(FINAL_JOB_STATES)
    needed = sa.or_(
        Job.state.not_in(final), Job.ended_at.is_(None), Job.ended_at > tx.now - WORK_FOLDER_KEPT
    )
    going_on = set(tx.execute(sa.select(Job.id).where(Job.id.in_(job_ids), needed)).scalars())
    return [job_id for job_id in job_ids if job_id not in going_on]


def without_rows(tx: Transaction, keys: list[str]) -> list[str]:
    """Which of these objects no row refers to: a crash between commit and deletion left them."""
    known: set[str] = set()
    columns: list[Any] = [Instance.object_key, Conflict.object_key, Result.object_key]
    for column in columns:
        for start in range(0, len(keys), 500):
            query = sa.select(column).where(column.in_(keys[start : start + 500]))
            known |= set(tx.execute(query).scalars())
    return [key for key in keys if key not in known]
