"""Studies as rules see them: their complete series, and decisions that wait for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from storage.base import ClosedSeries, CompletionVerdict, JobState, SeriesState, sources_of
from storage.database import Transaction
from storage.series import instances_of
from storage.tables import Decision, Generation, Job, Series, Study

Series_ = aliased(Series)
WAITING, DECIDED_LATER = "waiting", "decided_later"


@dataclass(frozen=True)
class StudyNow:
    """A study as it is now.

    Parameters
    ----------
    first_at, last_at : datetime
        When its first and its last instance came.
    arriving : int
        Series that are not complete.
    closed : tuple of ClosedSeries
        The latest generation of those that are.
    """

    first_at: datetime
    last_at: datetime
    arriving: int
    closed: tuple[ClosedSeries, ...]


def study_of(tx: Transaction, series_id: int) -> StudyNow:
    """Read the study that a series belongs to."""
    study = tx.execute(
        sa.select(Study.id, Study.first_at, Study.last_at)
        .join(Series, Series.study_id == Study.id)
        .where(Series.id == series_id)
    ).one()
    rows = tx.execute(
        sa.select(Series.id, Series.state).where(Series.study_id == study.id).order_by(Series.id)
    ).all()
    closed = [closed_series(tx, row.id) for row in rows if row.state == SeriesState.CLOSED]
    arriving = sum(row.state == SeriesState.OPEN for row in rows)
    return StudyNow(
        study.first_at, study.last_at, arriving, tuple(one for one in closed if one is not None)
    )


def closed_series(tx: Transaction, series_id: int) -> ClosedSeries | None:
    """Read the latest closed generation of a series; None when there is none."""
    row = tx.execute(
        sa.select(
            Series.id,
            Series.series_instance_uid,
            Study.study_instance_uid,
            Generation.generation,
            Generation.verdict,
            Generation.input_digest,
            Generation.evidence,
        )
        .join(Study, Study.id == Series.study_id)
        .join(Generation, Generation.series_id == Series.id)
        .where(Series.id == series_id)
        .order_by(Generation.generation.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    everything, peers = instances_of(tx, row.id)
    instances = tuple(one for one in everything if one.generation <= row.generation)
    return ClosedSeries(
        series_id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        generation=row.generation,
        verdict=CompletionVerdict(row.verdict),
        instances=instances,
        input_digest=row.input_digest,
        peers=peers,
        evidence=row.evidence,
    )


def completed_since(tx: Transaction, since: datetime) -> list[int]:
    """Give the last completed series of each study of which one was completed since then."""
    query = (
        sa.select(sa.func.max(Series.id))
        .join(Generation, Generation.series_id == Series.id)
        .where(Generation.closed_at >= since, Series.state == SeriesState.CLOSED)
        .group_by(Series.study_id)
        .order_by(sa.func.max(Generation.closed_at))
    )
    return [int(found) for found in tx.execute(query).scalars()]


def due_again(tx: Transaction, quiet: timedelta, max_wait: timedelta) -> list[int]:
    """Ids of series whose decision waited for a study that has settled since, or waited enough.

    A study has settled when none of its series is open and nothing came for the quiet time.
    """
    still_open = (
        sa.select(sa.func.count())
        .where(Series.study_id == Study.id, Series.state == SeriesState.OPEN)
        .correlate(Study)
        .scalar_subquery()
    )
    rows = tx.execute(
        sa.select(
            Decision.series_id,
            sa.func.max(Decision.decided_at).label("decided_at"),
            Study.first_at,
            Study.last_at,
            still_open.label("still_open"),
        )
        .join(Series_, Series_.id == Decision.series_id)
        .join(Study, Study.id == Series_.study_id)
        .where(Decision.outcome == WAITING)
        .group_by(Decision.series_id, Study.id, Study.first_at, Study.last_at)
    ).all()
    return [
        row.series_id
        for row in rows
        if row.first_at <= tx.now - max_wait
        or (not row.still_open and row.decided_at < row.last_at + quiet <= tx.now)
    ]


def lock(tx: Transaction, series_id: int) -> bool:
    """Take a series so that nobody decides about it beside us; False where somebody does."""
    row = tx.execute(
        sa.select(Series.id)
        .where(Series.id == series_id, Series.state == SeriesState.CLOSED)
        .with_for_update(skip_locked=True)
    ).first()
    return row is not None


def end_waiting(tx: Transaction, series_id: int, rules: Sequence[str] | None, sentence: str) -> int:
    """Mark decisions of a study that waited as decided later; how many.

    Parameters
    ----------
    rules : sequence of str or None
        Names; None: all, also of rules that are not there any more.
    """
    study = sa.select(Series.study_id).where(Series.id == series_id).scalar_subquery()
    ids = sa.select(Series.id).where(Series.study_id == study)
    waiting = [Decision.series_id.in_(ids), Decision.outcome == WAITING]
    if rules is not None:
        waiting.append(Decision.rule.in_(list(rules)))
    done: Any = tx.execute(
        sa.update(Decision).where(*waiting).values(outcome=DECIDED_LATER, sentence=sentence)
    )
    return int(done.rowcount)


def supersede_others(tx: Transaction, series_id: int, rule: str, keep: Sequence[str]) -> int:
    """Let jobs of a rule in a study give way that took other inputs and have no results yet.

    Parameters
    ----------
    keep : sequence of str
        Idempotency keys of the jobs that stay.
    """
    study = sa.select(Series.study_id).where(Series.id == series_id).scalar_subquery()
    ids = sa.select(Series.id).where(Series.study_id == study)
    done: Any = tx.execute(
        sa.update(Job)
        .where(
            Job.series_id.in_(ids),
            Job.rule == rule,
            Job.notice_of.is_(None),
            Job.idem_key.not_in(list(keep)),
            Job.state.in_(sources_of(JobState.SUPERSEDED)),
        )
        .values(
            state=JobState.SUPERSEDED,
            lease_token=Job.lease_token + 1,
            lease_owner=None,
            lease_until=None,
            ended_at=tx.now,
            sentence="More series of the study arrived; another job takes the place of this one.",
        )
    )
    return int(done.rowcount)


def has_earlier_job(tx: Transaction, closed: ClosedSeries, rule: str) -> bool:
    """Whether a rule has a job for an earlier generation of a series that nothing replaced."""
    found = tx.execute(
        sa.select(Job.id)
        .where(
            Job.series_id == closed.series_id,
            Job.rule == rule,
            Job.notice_of.is_(None),
            Job.generation < closed.generation,
            Job.state.not_in([JobState.SUPERSEDED, JobState.CANCELLED, JobState.HELD]),
        )
        .limit(1)
    ).first()
    return found is not None
