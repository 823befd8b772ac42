"""Results we made: what a new one replaces, and where one came from."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from storage.base import Job
from storage.database import Transaction
from storage.tables import (
    Decision,
    Delivery,
    Generation,
    Instance,
    JobInput,
    Result,
    Series,
    StepRun,
    Study,
)
from storage.tables import Job as JobRow

Row = dict[str, Any]
STUDY_LEVEL = "study"


def earlier_results(tx: Transaction, job: Job) -> list[Row]:
    """Give the last result of each kind that the same rule had for the same images before.

    Of a rule that looks at whole studies, any job in the study counts.
    """
    same = (
        Study.study_instance_uid == job.study_instance_uid
        if job.snapshot.get("level") == STUDY_LEVEL
        else JobRow.series_id == job.series_id
    )
    last = (
        sa.select(Result.slot, sa.func.max(JobRow.id).label("job_id"))
        .join(JobRow, JobRow.id == Result.job_id)
        .join(Series, Series.id == JobRow.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(
            JobRow.rule == job.rule,
            JobRow.mode == job.mode,
            JobRow.notice_of.is_(None),
            JobRow.id < job.id,
            same,
        )
        .group_by(Result.slot)
    ).subquery()
    query = (
        sa.select(
            Result.slot,
            Result.series_instance_uid,
            Result.sop_class_uid,
            Result.sop_instance_uid,
            JobRow.frozen_at,
        )
        .join(JobRow, JobRow.id == Result.job_id)
        .join(last, sa.and_(last.c.job_id == Result.job_id, last.c.slot == Result.slot))
        .order_by(Result.job_id.desc(), Result.slot)
    )
    return _rows(tx, query)


def results_named(tx: Transaction, uid: str) -> list[Row]:
    """Results with this SOP Instance UID, or in the series with this Series Instance UID."""
    query = sa.select(*sa.inspect(Result).columns).where(
        sa.or_(Result.sop_instance_uid == uid, Result.series_instance_uid == uid)
    )
    return _rows(tx, query.order_by(Result.id))


def received_in(tx: Transaction, sop_instance_uid: str) -> str | None:
    """Series Instance UID of an instance that was sent to us; None: it was not."""
    query = (
        sa.select(Series.series_instance_uid)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.sop_instance_uid == sop_instance_uid)
    )
    found: str | None = tx.execute(query.limit(1)).scalar()
    return found


def origin(tx: Transaction, result: Row) -> Row:
    """Everything that is written down about how a result came to be.

    Parameters
    ----------
    result : mapping
        As `results_named` gives it.

    Returns
    -------
    dict
        ``result job inputs decision steps deliveries``.
    """
    job_id = result["job_id"]
    job = _rows(tx, sa.select(*sa.inspect(JobRow).columns).where(JobRow.id == job_id))[0]
    return {
        "result": result,
        "job": job,
        "inputs": _inputs(tx, job_id),
        "decision": _decision(tx, job),
        "steps": _rows(
            tx,
            sa.select(*sa.inspect(StepRun).columns)
            .where(StepRun.job_id == job_id)
            .order_by(StepRun.id),
        ),
        "deliveries": _rows(
            tx,
            sa.select(*sa.inspect(Delivery).columns)
            .where(Delivery.result_id == result["id"])
            .order_by(Delivery.id),
        ),
    }


def _inputs(tx: Transaction, job_id: int) -> list[Row]:
    query = (
        sa.select(
            JobInput.role,
            JobInput.generation,
            Series.series_instance_uid,
            Study.study_instance_uid,
            Series.modality,
            Generation.verdict,
            Generation.n_instances,
            Generation.closed_at,
            Generation.input_digest,
        )
        .join(Series, Series.id == JobInput.series_id)
        .join(Study, Study.id == Series.study_id)
        .join(
            Generation,
            sa.and_(
                Generation.series_id == JobInput.series_id,
                Generation.generation == JobInput.generation,
            ),
            isouter=True,
        )
        .where(JobInput.job_id == job_id)
        .order_by(JobInput.role)
    )
    return _rows(tx, query)


def _decision(tx: Transaction, job: Row) -> Row | None:
    """Last thing the rule said of the series before the job was opened."""
    query = (
        sa.select(*sa.inspect(Decision).columns)
        .where(
            Decision.series_id == job["series_id"],
            Decision.rule == job["rule"],
            Decision.decided_at <= job["created_at"],
        )
        .order_by(Decision.id.desc())
        .limit(1)
    )
    found = _rows(tx, query)
    return found[0] if found else None


def _rows(tx: Transaction, query: sa.Select[*tuple[Any, ...]]) -> list[Row]:
    return [dict(row._mapping) for row in tx.execute(query)]
