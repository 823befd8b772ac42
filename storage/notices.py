"""Notices: jobs that tell a reader what became of another job.

A notice is a job with the one step report, so that it is made, kept and delivered like every
result. It is opened once for each thing there is to tell of a job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from storage import tasks
from storage.base import FINAL_JOB_STATES, Job, JobState, NewJob, sources_of
from storage.database import Transaction
from storage.events import record
from storage.gathering import WAITS_FOR_INPUTS
from storage.jobs import LACKS_SERIES, STEP_ORDER, get
from storage.new_jobs import insert_row
from storage.tables import Job as JobRow
from storage.tables import Result, Series

PIPELINE = "notice"
DEADLINE_SECONDS = 300.0
MOST_AT_ONCE = 20
Subject = aliased(JobRow)


@dataclass(frozen=True)
class _Earlier:
    """The last notice that a reader has, and what it said."""

    status: str
    report_key: str
    """Where its report lies; empty where it had none."""


def is_due(tx: Transaction) -> bool:
    """Whether a reader is to be told something now; reads only."""
    query = sa.select(JobRow.id).where(JobRow.tell_at <= tx.now).limit(1)
    return tx.execute(query).first() is not None


def open_due(tx: Transaction) -> int:
    """Open the notices that are due; how many there were."""
    due = tx.execute(
        sa.select(JobRow.id)
        .where(JobRow.tell_at <= tx.now)
        .order_by(JobRow.tell_at)
        .limit(MOST_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    opened = 0
    for job_id in due.scalars().all():
        tx.execute(sa.update(JobRow).where(JobRow.id == job_id).values(tell_at=None))
        job = get(tx, job_id)
        said = _said(tx, job) if job is not None else None
        if job is not None and said is not None:
            opened += _open(tx, job, said)
    return opened


def _said(tx: Transaction, job: Job) -> dict[str, Any] | None:
    """Give what there is to tell of a job now; None: nothing."""
    minutes = int((tx.now - job.created_at).total_seconds() // 60)
    made = sa.select(Result.id).where(Result.job_id == job.id).limit(1)
    if tx.execute(made).first() is not None:
        earlier = _earlier(tx, job)
        return {"status": "scored"} if earlier and earlier.status != "scored" else None
    told = {"reason": job.reason, "sentence": job.sentence, "minutes": minutes}
    advice = {"advice": f"Ask who runs the node about job {job.id}."}
    match job.state:
        case JobState.NOT_SCORED:
            return {"status": "not_scored"} | told
        case JobState.CANCELLED:
            return {"status": "not_scored"} | told | {"reason": "cancelled"}
        case JobState.FAILED | JobState.QUARANTINED:
            return {"status": "failed"} | told | advice
        case JobState.HELD if job.reason != WAITS_FOR_INPUTS:
            return {"status": "not_scored"} | told | advice
    if job.state in FINAL_JOB_STATES:
        return None
    return {"status": "running"} | told | advice


def _open(tx: Transaction, job: Job, said: Mapping[str, Any]) -> bool:
    """Open the notice, unless the same was told before."""
    told = f"{job.idem_key}\nnotice\n{said['status']}\n{said.get('reason', '')}"
    decided_by = sa.select(JobRow.config_digest).where(JobRow.id == job.id)
    new = NewJob(
        rule=job.rule,
        mode=job.mode,
        pipeline=PIPELINE,
        model=job.model,
        priority=job.priority,
        idem_key=hashlib.sha256(told.encode()).hexdigest(),
        config_digest=tx.execute(decided_by).scalar_one(),
        state=JobState.QUEUED,
        reason="",
        sentence="",
        snapshot=_snapshot(job, said, _earlier(tx, job)),
        notice_of=job.id,
    )
    job_id = insert_row(tx, job.series_id, job.generation, new, STEP_ORDER[-1])
    if job_id is None:
        return False
    _supersede_unmade(tx, job, job_id)
    tasks.enqueue(tx, STEP_ORDER[-1], job_id, job.priority)
    record(
        tx, "notice.opened", series_id=job.series_id, job_id=job_id, about=job.id,
        status=said["status"], reason=said.get("reason", ""),
    )  # fmt: skip
    return True


def _snapshot(job: Job, said: Mapping[str, Any], earlier: _Earlier | None) -> dict[str, Any]:
    of_rule, slots = job.snapshot, job.snapshot["tell_reader"]
    kept = ("uid_root", "station", "utc_offset_minutes", "memory_bytes", "model_digest", "model")
    return {
        **{key: of_rule[key] for key in kept if key in of_rule},
        "timeout_seconds": DEADLINE_SECONDS,
        "labels": {slot: of_rule["labels"][slot] for slot in slots},
        "destinations": {
            name: {**terms, "send": list(slots), "only_if": {}}
            for name, terms in of_rule["destinations"].items()
        },
        "notice": {**said, "earlier": earlier.report_key if earlier else ""},
    }


def _about(job: Job) -> sa.ColumnElement[bool]:
    """Condition on `Subject`: what was told of it, this job's notice takes the place of."""
    study = sa.select(Series.study_id).where(Series.id == job.series_id).scalar_subquery()
    of_study = sa.select(Series.id).where(Series.study_id == study)
    return sa.and_(
        Subject.rule == job.rule,
        sa.or_(
            Subject.series_id == job.series_id,
            sa.and_(
                Subject.series_id.in_(of_study),
                sa.or_(Subject.state == JobState.SUPERSEDED, Subject.reason == LACKS_SERIES),
            ),
        ),
    )


def _earlier(tx: Transaction, job: Job) -> _Earlier | None:
    row = tx.execute(
        sa.select(JobRow.snapshot, Result.slot, Result.object_key)
        .join(Subject, Subject.id == JobRow.notice_of)
        .join(Result, Result.job_id == JobRow.id)
        .where(
            _about(job),
            JobRow.state.in_([JobState.DELIVERING, JobState.DONE]),
            Result.object_key != "",
        )
        .order_by(JobRow.id.desc(), Result.slot.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    return _Earlier(row.snapshot["notice"]["status"], row.object_key if row.slot == "sr" else "")


def _supersede_unmade(tx: Transaction, job: Job, kept: int) -> None:
    """Notices about the same that are not made yet give way: the newest thing is told."""
    older = sa.select(JobRow.id).join(Subject, Subject.id == JobRow.notice_of).where(_about(job))
    tx.execute(
        sa.update(JobRow)
        .where(
            JobRow.id.in_(older),
            JobRow.id != kept,
            JobRow.state.in_(sources_of(JobState.SUPERSEDED)),
        )
        .values(
            state=JobState.SUPERSEDED,
            lease_token=JobRow.lease_token + 1,
            lease_owner=None,
            lease_until=None,
            ended_at=tx.now,
            sentence="Something newer is told.",
        )
    )
