"""Jobs that are held until their inputs have been fetched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from storage import tasks
from storage.base import Job, JobState
from storage.database import Transaction
from storage.events import record, resolve_alert
from storage.jobs import STEP_ORDER, find, tell_at
from storage.tables import Job as JobRow
from storage.tables import JobInput

WAITS_FOR_INPUTS = "inputs"
"""Reason of jobs that are held until what they need has been fetched."""
CLAIM = timedelta(minutes=10)
"""Nobody else looks after a claimed job for so long."""


def is_due(tx: Transaction) -> bool:
    """Whether there is anything to claim; reads only."""
    return bool(find(tx, _waiting(), JobRow.next_at <= tx.now, limit=1))


def claim(tx: Transaction, limit: int = 8) -> list[Job]:
    """Take jobs whose inputs are to be looked after now."""
    due = [job.id for job in find(tx, _waiting(), JobRow.next_at <= tx.now, limit=limit)]
    taken = tx.execute(
        sa.update(JobRow)
        .where(JobRow.id.in_(due), _waiting(), JobRow.next_at <= tx.now)
        .values(next_at=tx.now + CLAIM)
        .returning(JobRow.id)
    ).scalars()
    ids = list(taken.all())
    return find(tx, JobRow.id.in_(ids), limit=limit)[::-1] if ids else []


def wait(tx: Transaction, job: Job, seconds: float, sentence: str, gathered: Any) -> None:
    """Look again after a while; what was gathered so far is kept, and the images of its series."""
    for item in gathered.values():
        _reads(tx, job, item["series"])
    tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job.id, _waiting())
        .values(
            next_at=tx.now + timedelta(seconds=seconds),
            attempt=JobRow.attempt + 1,
            sentence=sentence,
            snapshot=dict(job.snapshot) | {"gathered_so_far": gathered},
        )
    )


def go_on(
    tx: Transaction,
    job: Job,
    gathered: Mapping[str, Any],
    series: Mapping[str, tuple[int, int]],
) -> bool:
    """Queue a job whose inputs are there; False when it does not wait any more.

    Parameters
    ----------
    gathered : mapping
        Name of an input to JSON values.
    series : mapping
        Name of an input to id and generation of a series.
    """
    done = tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job.id, _waiting())
        .values(
            state=JobState.QUEUED,
            reason="",
            sentence="",
            next_at=None,
            attempt=0,
            snapshot=dict(job.snapshot) | {"gathered": dict(gathered)},
        )
    )
    if done.rowcount == 0:
        return False
    _reads(tx, job, series)
    tasks.enqueue(tx, STEP_ORDER[0], job.id, job.priority)
    resolve_alert(tx, f"job.held:{job.id}")
    record(tx, "job.gathered", job_id=job.id, inputs=sorted({*gathered, *series}))
    return True


def _reads(tx: Transaction, job: Job, series: Mapping[str, tuple[int, int]]) -> None:
    """Write down which series a job reads: their images are kept as long as it needs them."""
    for role, (series_id, generation) in series.items():
        values = {"job_id": job.id, "role": role, "series_id": series_id}
        statement = tx.insert(JobInput).values(generation=generation, **values)
        tx.execute(statement.on_conflict_do_nothing())


def give_up(tx: Transaction, job: Job, reason: str, sentence: str) -> None:
    """End a job whose input is not there and that must not run without."""
    tx.execute(
        sa.update(JobRow)
        .where(JobRow.id == job.id, _waiting())
        .values(
            state=JobState.NOT_SCORED,
            reason=reason,
            sentence=sentence,
            next_at=None,
            ended_at=tx.now,
            tell_at=tell_at(tx, job.snapshot, ended=True),
            progress=1.0,
        )
    )
    resolve_alert(tx, f"job.held:{job.id}")
    record(tx, "job.not_scored", job_id=job.id, reason=reason)


def inputs_of(tx: Transaction, job_id: int) -> dict[str, list[tuple[int, int]]]:
    """Roles of a job to the series it reads: id and generation of each."""
    found: dict[str, list[tuple[int, int]]] = {}
    rows = tx.execute(
        sa.select(JobInput.role, JobInput.series_id, JobInput.generation)
        .where(JobInput.job_id == job_id)
        .order_by(JobInput.role, JobInput.series_id)
    )
    for role, series_id, generation in rows:
        found.setdefault(role, []).append((series_id, generation))
    return found


def _waiting() -> sa.ColumnElement[bool]:
    return sa.and_(JobRow.state == JobState.HELD, JobRow.reason == WAITS_FOR_INPUTS)
