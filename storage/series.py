"""Closing series: one statement decides, so that a generation is closed once by whoever comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from storage.base import (
    ClosedSeries,
    Completeness,
    CompletionVerdict,
    SeriesState,
    StoredInstance,
)
from storage.database import Transaction
from storage.tables import Decision, Generation, Instance, Result, Series, Study


class Judge(Protocol):
    """Tells of a series, by something other than time, whether all of it has come."""

    def may_be_complete(self, header: Mapping[str, Any], instances: int) -> bool:
        """Whether it is worth looking at all instances: from one header, and their number."""

    def judge(self, instances: Sequence[StoredInstance]) -> Completeness | None:
        """Say whether they are all; None where that cannot be told."""


def close_due(
    tx: Transaction,
    *,
    quiet: timedelta,
    max_wait: timedelta,
    judge: Judge | None = None,
    limit: int = 16,
) -> list[ClosedSeries]:
    """Close the series that have been quiet long enough, or open too long.

    Decisions and jobs are inserted in the same transaction by the caller. A series whose row a
    receiver holds right now is skipped and seen at the next sweep. Where a judge can tell, its
    verdict stands instead of *quiet* or *forced*.
    """
    now = tx.now
    due = tx.execute(
        OPEN_SERIES.where(sa.or_(Series.last_at <= now - quiet, Series.opened_at <= now - max_wait))
        .order_by(Series.last_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Series)
    ).all()
    closed = []
    for row in due:
        instances, peers = instances_of(tx, row.id)
        is_quiet = row.last_at <= now - quiet
        by_time = CompletionVerdict.QUIET if is_quiet else CompletionVerdict.FORCED
        proved = judge.judge(instances) if judge else None
        closed.append(close(tx, row, proved or Completeness(by_time, ""), instances, peers))
    return closed


OPEN_SERIES = (
    sa.select(
        Series.id,
        Series.generation,
        Series.last_at,
        Series.n_instances,
        Series.series_instance_uid,
        Study.study_instance_uid,
    )
    .join(Study, Study.id == Series.study_id)
    .where(Series.state == SeriesState.OPEN)
)


def close(
    tx: Transaction,
    row: Any,
    completeness: Completeness,
    instances: tuple[StoredInstance, ...],
    peers: tuple[str, ...],
) -> ClosedSeries:
    """Close the open generation of a series whose row of `OPEN_SERIES` is locked."""
    verdict = completeness.verdict
    digest = input_digest(instances)
    tx.execute(sa.update(Series).where(Series.id == row.id).values(state=SeriesState.CLOSED))
    tx.execute(
        sa.insert(Generation).values(
            series_id=row.id,
            generation=row.generation,
            closed_at=tx.now,
            verdict=verdict,
            n_instances=len(instances),
            input_digest=digest,
        )
    )
    return ClosedSeries(
        series_id=row.id,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        generation=row.generation,
        verdict=verdict,
        instances=instances,
        input_digest=digest,
        peers=peers,
        evidence=completeness.sentence,
    )


def instances_of(
    tx: Transaction, series_id: int
) -> tuple[tuple[StoredInstance, ...], tuple[str, ...]]:
    """Instances of a series, ordered by SOP Instance UID, and the peers they came from."""
    query = (
        sa.select(Instance)
        .where(Instance.series_id == series_id)
        .order_by(Instance.sop_instance_uid)
    )
    columns = sa.inspect(Instance).columns
    rows = tx.execute(query.with_only_columns(*columns)).all()
    instances = tuple(
        StoredInstance(
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            digest=row.digest,
            size=row.size,
            object_key=row.object_key,
            generation=row.generation,
            header=row.header,
        )
        for row in rows
    )
    return instances, tuple(sorted({row.peer for row in rows}))


def object_keys_of(tx: Transaction, series_id: int, up_to_generation: int) -> list[str]:
    """Where the bytes of a generation lie, in the order of `instances_of`."""
    query = (
        sa.select(Instance.object_key)
        .where(Instance.series_id == series_id, Instance.generation <= up_to_generation)
        .order_by(Instance.sop_instance_uid)
    )
    return list(tx.execute(query).scalars())


def input_digest(instances: Iterable[StoredInstance]) -> str:
    """Digest of what a job reads: SOP Instance UIDs and the digests of their bytes."""
    lines = sorted(f"{i.sop_instance_uid}:{i.digest}" for i in instances)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def record_decisions(
    tx: Transaction,
    closed: ClosedSeries,
    decisions: Sequence[dict[str, Any]],
    config_digest: str,
) -> None:
    """Keep what every rule said: dicts with ``rule``, ``outcome``, ``sentence``, ``data``."""
    if not decisions:
        return
    common = {
        "series_id": closed.series_id,
        "generation": closed.generation,
        "config_digest": config_digest,
        "decided_at": tx.now,
    }
    tx.execute(sa.insert(Decision), [common | decision for decision in decisions])


def is_own_result(tx: Transaction, series_instance_uid: str) -> bool:
    """Whether a series is one we made: results that come back are never scored."""
    found = tx.execute(
        sa.select(Result.id).where(Result.series_instance_uid == series_instance_uid).limit(1)
    ).first()
    return found is not None
