"""What an admin asks: reads only, values out. Rows hold no patient data but routing headers."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from storage.base import FINAL_JOB_STATES, JobState
from storage.database import Transaction
from storage.ladder import shown
from storage.tables import (
    Association,
    Conflict,
    Decision,
    Delivery,
    Destination,
    Generation,
    Instance,
    Job,
    Node,
    Result,
    Retrieval,
    Series,
    StepRun,
    Study,
    Task,
)

Row = dict[str, Any]


def _rows(tx: Transaction, query: sa.Select[*tuple[Any, ...]]) -> list[Row]:
    return [dict(row._mapping) for row in tx.execute(query)]


def series_list(tx: Transaction, limit: int = 50, state: str | None = None) -> list[Row]:
    """Series, the latest first."""
    query = (
        sa.select(
            Series.series_instance_uid,
            Study.study_instance_uid,
            Series.modality,
            Series.state,
            Series.generation,
            Series.n_instances,
            Series.bytes,
            Series.first_at,
            Series.last_at,
        )
        .join(Study, Study.id == Series.study_id)
        .order_by(Series.last_at.desc())
        .limit(limit)
    )
    if state:
        query = query.where(Series.state == state)
    return _rows(tx, query)


def series_ids(tx: Transaction, series_instance_uid: str) -> list[int]:
    """Ids of the series with this UID (one UID may occur in two studies)."""
    query = sa.select(Series.id).where(Series.series_instance_uid == series_instance_uid)
    return list(tx.execute(query).scalars())


def series_show(tx: Transaction, series_id: int) -> Row:
    """Everything known of one series: generations, decisions, jobs, results, deliveries."""
    series = _rows(
        tx,
        sa.select(
            *sa.inspect(Series).columns,
            Study.study_instance_uid,
        )
        .join(Study, Study.id == Series.study_id)
        .where(Series.id == series_id),
    )[0]
    counts = sa.select(
        sa.func.count().label("instances"),
        sa.func.coalesce(sa.func.sum(Instance.duplicates), 0).label("duplicates"),
    ).where(Instance.series_id == series_id)
    conflicts = (
        sa.select(sa.func.count())
        .select_from(Conflict)
        .join(Instance, Instance.id == Conflict.instance_id)
        .where(Instance.series_id == series_id)
    )
    peer = sa.select(Instance.peer).where(Instance.series_id == series_id).limit(1)
    retrieved = sa.select(Retrieval.peer).where(
        Retrieval.series_instance_uid == series["series_instance_uid"]
    )
    generations = sa.select(*sa.inspect(Generation).columns).where(
        Generation.series_id == series_id
    )
    return (
        series
        | _rows(tx, counts)[0]
        | {
            "conflicts": tx.execute(conflicts).scalar_one(),
            "peer": tx.execute(peer).scalar() or "",
            "retrieved_from": tx.execute(retrieved).scalar() or "",
            "generations": _rows(tx, generations.order_by(Generation.generation)),
            "decisions": decisions_of(tx, series_id),
            "jobs": _rows(tx, _jobs().where(Job.series_id == series_id)),
        }
    )


def decisions_of(tx: Transaction, series_id: int) -> list[Row]:
    """Give what the rules said last of the latest decided generation."""
    latest = (
        sa.select(sa.func.max(Decision.generation))
        .where(Decision.series_id == series_id)
        .scalar_subquery()
    )
    last = (
        sa.select(sa.func.max(Decision.id))
        .where(Decision.series_id == series_id, Decision.generation == latest)
        .group_by(Decision.rule)
    )
    query = sa.select(*sa.inspect(Decision).columns).where(Decision.id.in_(last))
    return _rows(tx, query.order_by(Decision.id))


def _jobs() -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(
            Job.id,
            Job.rule,
            Job.mode,
            Job.pipeline,
            Job.model,
            Job.state,
            Job.step,
            Job.attempt,
            Job.progress,
            Job.progress_note,
            Job.reason,
            Job.sentence,
            Job.next_at,
            Job.created_at,
            Job.ended_at,
            Job.generation,
            Series.series_instance_uid,
            Study.study_instance_uid,
        )
        .join(Series, Series.id == Job.series_id)
        .join(Study, Study.id == Series.study_id)
        .order_by(Job.id.desc())
    )


def jobs_list(tx: Transaction, limit: int = 50, state: str | None = None) -> list[Row]:
    """Jobs, the latest first."""
    query = _jobs().limit(limit)
    return _rows(tx, query.where(Job.state == state) if state else query)


def job_show(tx: Transaction, job_id: int) -> Row | None:
    """One job with its steps, results and deliveries."""
    found = _rows(tx, _jobs().where(Job.id == job_id))
    if not found:
        return None
    steps = sa.select(*sa.inspect(StepRun).columns).where(StepRun.job_id == job_id)
    results = sa.select(*sa.inspect(Result).columns).where(Result.job_id == job_id)
    return found[0] | {
        "steps": _rows(tx, steps.order_by(StepRun.id)),
        "results": _rows(tx, results.order_by(Result.id)),
        "deliveries": deliveries_list(tx, job_id=job_id),
    }


def deliveries_list(
    tx: Transaction, limit: int = 50, state: str | None = None, job_id: int | None = None
) -> list[Row]:
    """Deliveries, the latest job first."""
    query = (
        sa.select(
            Delivery.id,
            Delivery.job_id,
            Delivery.destination,
            Delivery.state,
            Delivery.attempt,
            Delivery.status,
            Delivery.sentence,
            Delivery.next_at,
            Delivery.sent_at,
            Delivery.proved_at,
            Delivery.evidence,
            Result.slot,
            Result.sop_instance_uid,
        )
        .join(Result, Result.id == Delivery.result_id)
        .order_by(Delivery.job_id.desc(), Delivery.destination, Delivery.position)
        .limit(limit)
    )
    if state:
        query = query.where(Delivery.state == state)
    if job_id is not None:
        query = query.where(Delivery.job_id == job_id)
    rows = _rows(tx, query)
    for row in rows:
        row["proof"] = shown(row["evidence"])
    return rows


def counts(tx: Transaction) -> Row:
    """How many there are of what, by state; how old the oldest waiting job is."""

    def by(column: Any) -> dict[str, int]:
        query: Any = sa.select(column, sa.func.count()).group_by(column)
        return {str(key): int(n) for key, n in tx.execute(query)}

    waiting = [JobState.QUEUED, JobState.RUNNING, JobState.RETRY_WAIT, JobState.HELD]
    oldest = tx.execute(
        sa.select(sa.func.min(Job.created_at)).where(Job.state.in_(waiting))
    ).scalar()
    return {
        "instances": tx.execute(sa.select(sa.func.count()).select_from(Instance)).scalar_one(),
        "series": by(Series.state),
        "jobs": by(Job.state),
        "deliveries": by(Delivery.state),
        "tasks": by(Task.queue),
        "oldest_waiting_seconds": (tx.now - oldest).total_seconds() if oldest else 0.0,
    }


def unfinished(tx: Transaction) -> int:
    """How many series are open and jobs not ended: 0 means that the node is at rest."""
    n_open = sa.select(sa.func.count()).select_from(Series).where(Series.state == "open")
    final = list(FINAL_JOB_STATES)
    n_jobs = sa.select(sa.func.count()).select_from(Job).where(Job.state.not_in(final))
    return int(tx.execute(n_open).scalar_one()) + int(tx.execute(n_jobs).scalar_one())


def destinations(tx: Transaction) -> list[Row]:
    """How the destinations fare; `standing` in a word: open, suspended, or away (resting)."""
    rows = _rows(tx, sa.select(*sa.inspect(Destination).columns).order_by(Destination.name))
    for row in rows:
        row["standing"] = "suspended" if row["suspended"] else "open"
        if row["open_until"] is not None and not row["suspended"]:
            row["standing"] = "away"
    return rows


def associations_now(tx: Transaction) -> list[Row]:
    """Associations of living receivers that have not ended, the longest first."""
    query = (
        sa.select(
            Association.id,
            Association.peer,
            Association.calling_ae_title,
            Association.address,
            Association.stored,
            Association.refused,
            Association.bytes,
            Association.opened_at,
        )
        .join(Node, Node.owner == Association.owner)
        .where(Association.closed_at.is_(None))
        .order_by(Association.opened_at)
    )
    rows = _rows(tx, query)
    for row in rows:
        row["seconds"] = (tx.now - row["opened_at"]).total_seconds()
    return rows


def nodes(tx: Transaction) -> list[Row]:
    """Give the processes that said they were alive, with the seconds since they did."""
    rows = _rows(tx, sa.select(*sa.inspect(Node).columns).order_by(Node.role))
    for row in rows:
        row["seconds_ago"] = (tx.now - row["heartbeat_at"]).total_seconds()
    return rows
