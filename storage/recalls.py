"""What becomes of jobs whose model is recalled, and which of its results have left."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from storage import job_admin
from storage.base import JobState
from storage.database import Transaction
from storage.events import raise_alert, record
from storage.tables import Delivery, Job, Result, Series, Study

STOPPABLE = (JobState.QUEUED, JobState.RETRY_WAIT, JobState.RUNNING)


def stop(tx: Transaction, model: str, sentence: str) -> int:
    """Hold the jobs of a model and cancel what was not sent yet; how many there were.

    Notices to readers go on: they say that there is no result.

    A runner that works on one is killed at its next heartbeat.
    """
    held = tx.execute(
        sa.update(Job)
        .where(Job.model == model, Job.state.in_(STOPPABLE), Job.notice_of.is_(None))
        .values(
            state=JobState.HELD,
            reason="config",
            sentence=sentence,
            lease_token=Job.lease_token + 1,
            lease_owner=None,
            lease_until=None,
            next_at=None,
            deliveries=0,
        )
        .returning(Job.id)
    ).scalars()
    stopped = list(held.all())
    for job_id in stopped:
        raise_alert(tx, f"job.held:{job_id}", sentence)
    going = sa.select(Job.id).where(
        Job.model == model, Job.state == JobState.DELIVERING, Job.notice_of.is_(None)
    )
    for job_id in tx.execute(going).scalars().all():
        if job_admin.cancel(tx, job_id):
            tx.execute(sa.update(Job).where(Job.id == job_id).values(sentence=sentence))
            stopped.append(job_id)
    if stopped:
        record(tx, "model.stopped", jobs=len(stopped))
    return len(stopped)


def sent(tx: Transaction, model: str) -> list[dict[str, Any]]:
    """List the results of a model that destinations have, the latest first."""
    rows = tx.execute(
        sa.select(
            Result.sop_instance_uid,
            Result.slot,
            Delivery.destination,
            Delivery.sent_at,
            Delivery.job_id,
            Job.snapshot,
            Series.series_instance_uid,
            Study.study_instance_uid,
        )
        .join(Result, Result.id == Delivery.result_id)
        .join(Job, Job.id == Delivery.job_id)
        .join(Series, Series.id == Job.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Job.model == model, Delivery.sent_at.is_not(None))
        .order_by(Delivery.sent_at.desc(), Delivery.id)
    ).mappings()
    return [
        {key: value for key, value in row.items() if key != "snapshot"}
        | {"model_digest": row["snapshot"].get("model_digest", "")}
        for row in rows
    ]
