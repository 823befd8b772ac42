"""Closing series: one statement decides, so that a generation is closed once by whoever comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from storage.base import (
    ClosedSeries,
    Completeness,
    CompletionVerdict,
    SenderCount,
    SeriesState,
    StoredInstance,
)
from storage.database import Transaction
from storage.tables import Decision, Generation, Instance, Result, Series, Study


class Judge(Protocol):
    """Tells of a series, by something other than time, whether all of it has come."""

    def may_be_complete(
        self, peer: str, header: Mapping[str, Any], instances: int, counted: SenderCount | None
    ) -> bool:
        """Whether it is worth looking at all headers: from one of them, and two numbers."""

    def judge(
        self, peer: str, headers: Sequence[Mapping[str, Any]], counted: SenderCount | None
    ) -> Completeness | None:
        """Say whether all instances have come; None where that cannot be told."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for more of a series: since the last instance, and since the first."""

    quiet: timedelta
    max_wait: timedelta


def close_due(
    tx: Transaction,
    *,
    quiet: timedelta,
    max_wait: timedelta,
    judge: Judge | None = None,
    limit: int = 16,
    by_peer: Mapping[str, Patience] | None = None,
) -> list[ClosedSeries]:
    """Close the series that have been quiet long enough, or open too long.

    Decisions and jobs are inserted in the same transaction by the caller. A series whose row a
    receiver holds right now is skipped and seen at the next sweep. Where a judge can tell, its
    verdict stands instead of *quiet* or *forced*. `by_peer` is for series from peers that are
    given more or less time than others.
    """
    now = tx.now
    patience = {"": Patience(quiet, max_wait), **(by_peer or {})}
    is_quiet = Series.last_at <= _by_peer({k: now - p.quiet for k, p in patience.items()})
    is_over = Series.opened_at <= _by_peer({k: now - p.max_wait for k, p in patience.items()})
    due = tx.execute(
        OPEN_SERIES.add_columns(is_quiet.label("is_quiet"))
        .where(sa.or_(is_quiet, is_over))
        .order_by(Series.last_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Series)
    ).all()
    closed = []
    for row in due:
        instances, peers = instances_of(tx, row.id)
        by_time = CompletionVerdict.QUIET if row.is_quiet else CompletionVerdict.FORCED
        proved = judge.judge(*evidence_of(row, instances, peers)) if judge else None
        closed.append(close(tx, row, proved or Completeness(by_time, ""), instances, peers))
    return closed


def _by_peer(moments: Mapping[str, datetime]) -> sa.ColumnElement[Any]:
    """Moment for the peer that a series came from; the one without a name is for all others."""
    if len(moments) == 1:
        return sa.literal(moments[""], Series.last_at.type)
    came_from = sa.select(Instance.peer).where(Instance.series_id == Series.id).limit(1)
    return sa.case(
        *[
            (came_from.scalar_subquery() == peer, sa.literal(moment, Series.last_at.type))
            for peer, moment in moments.items()
            if peer
        ],
        else_=sa.literal(moments[""], Series.last_at.type),
    )


def evidence_of(
    row: Any, instances: Sequence[StoredInstance], peers: Sequence[str]
) -> tuple[str, list[Mapping[str, Any]], SenderCount | None]:
    """Give a judge what it looks at: of a row of `OPEN_SERIES`, and what came of it."""
    peer = peers[0] if peers else ""
    return peer, [instance.header for instance in instances], sender_count(row, peer)


def sender_count(row: Any, peer: str) -> SenderCount | None:
    """Give what the sender counted since the last instance came."""
    if row.counted_at is None or row.counted_at < row.last_at or row.counted is None:
        return None
    return SenderCount(peer, row.counted)


OPEN_SERIES = (
    sa.select(
        Series.id,
        Series.generation,
        Series.last_at,
        Series.n_instances,
        Series.counted,
        Series.counted_at,
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
            evidence=completeness.sentence,
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
