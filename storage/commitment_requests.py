"""Storage commitments that peers ask of us, and the reports that are owed to them.

We hold what we received for as long as its job and retention say, and vouch for just that.

References
----------
DICOM PS3.4 annex J.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from storage.database import Transaction
from storage.events import record
from storage.tables import CommitmentRequest, Instance

NO_SUCH_INSTANCE, CLASS_INSTANCE_CONFLICT = 0x0112, 0x0119
OWED, REPORTED, GIVEN_UP = "owed", "reported", "given_up"
KEEP_TRYING = timedelta(hours=24)
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=15)
LEASE = timedelta(minutes=2)
MOST_OWED = 1000
"""Reports that one peer may be owed at a time."""

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


@dataclass(frozen=True)
class Owed:
    """A report that is owed to a peer."""

    peer: str
    transaction_uid: str
    instances: tuple[Reference, ...]
    attempt: int


@dataclass(frozen=True)
class Judged:
    """What we hold of what a peer asked for, and why not the rest (Failure Reason)."""

    held: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]


def ask(tx: Transaction, peer: str, transaction_uid: str, instances: Sequence[Reference]) -> bool:
    """Note a request; False: the peer used its Transaction UID before."""
    values = {
        "peer": peer,
        "transaction_uid": transaction_uid,
        "state": OWED,
        "instances": [list(one) for one in instances],
        "attempt": 0,
        "next_at": tx.now,
        "asked_at": tx.now,
    }
    insert = tx.insert(CommitmentRequest).values(**values)
    found = tx.execute(
        insert.on_conflict_do_nothing(index_elements=["peer", "transaction_uid"]).returning(
            CommitmentRequest.peer
        )
    )
    return found.first() is not None


def owes_too_much(tx: Transaction, peer: str) -> bool:
    """Whether so many reports are owed to a peer that it must wait with further requests."""
    row = CommitmentRequest
    query = sa.select(sa.func.count()).where(row.peer == peer, row.state == OWED)
    return int(tx.execute(query).scalar_one()) >= MOST_OWED


def is_any_due(tx: Transaction) -> bool:
    """Whether a report is to be sent now."""
    row = CommitmentRequest
    query = sa.select(row.peer).where(row.state == OWED, row.next_at <= tx.now)
    return tx.execute(query.limit(1)).first() is not None


def due(tx: Transaction) -> list[Owed]:
    """Give the reports to be sent now; nobody else gets them for a while."""
    row = CommitmentRequest
    keys = tx.execute(
        sa.select(row.peer, row.transaction_uid)
        .where(row.state == OWED, row.next_at <= tx.now)
        .order_by(row.next_at)
        .limit(20)
        .with_for_update(skip_locked=True)
    ).all()
    owed = []
    for peer, transaction_uid in keys:
        mine = sa.and_(row.peer == peer, row.transaction_uid == transaction_uid)
        found = tx.execute(
            sa.update(row)
            .where(mine, row.state == OWED)
            .values(next_at=tx.now + LEASE)
            .returning(row.instances, row.attempt)
        ).one()
        instances = tuple((str(a), str(b)) for a, b in found.instances)
        owed.append(Owed(peer, transaction_uid, instances, found.attempt))
    return owed


def judge(tx: Transaction, instances: Sequence[Reference]) -> Judged:
    """Say which instances we hold: row committed, bytes durable (CP2), not deleted yet."""
    uids = [uid for _, uid in instances]
    known: dict[str, set[str]] = {}
    for start in range(0, len(uids), 500):
        query = sa.select(Instance.sop_instance_uid, Instance.sop_class_uid).where(
            Instance.sop_instance_uid.in_(uids[start : start + 500])
        )
        for uid, sop_class in tx.execute(query):
            known.setdefault(uid, set()).add(sop_class)
    held, failed = [], []
    for sop_class, uid in instances:
        if sop_class in known.get(uid, set()):
            held.append((sop_class, uid))
        else:
            reason = CLASS_INSTANCE_CONFLICT if uid in known else NO_SUCH_INSTANCE
            failed.append(((sop_class, uid), reason))
    return Judged(tuple(held), tuple(failed))


def sent(tx: Transaction, owed: Owed) -> None:
    """Note that a report was taken."""
    _set(tx, owed, REPORTED)
    record(tx, "commitment.reported", peer=owed.peer, instances=len(owed.instances))


def not_sent(tx: Transaction, owed: Owed) -> None:
    """Try again later; after a day no more: the peer will ask again."""
    asked_at = tx.execute(sa.select(CommitmentRequest.asked_at).where(_is(owed))).scalar_one()
    if tx.now - asked_at >= KEEP_TRYING:
        _set(tx, owed, GIVEN_UP)
        record(tx, "commitment.given_up", peer=owed.peer)
        return
    wait = min(FIRST_WAIT * 2.0 ** min(owed.attempt, 30), LONGEST_WAIT)
    values = {"next_at": tx.now + wait, "attempt": owed.attempt + 1}
    tx.execute(sa.update(CommitmentRequest).where(_is(owed)).values(**values))


def forget(tx: Transaction, older_than: timedelta) -> None:
    """Delete requests that were answered long ago."""
    tx.execute(
        sa.delete(CommitmentRequest).where(
            CommitmentRequest.state != OWED, CommitmentRequest.asked_at <= tx.now - older_than
        )
    )


def _set(tx: Transaction, owed: Owed, state: str) -> None:
    tx.execute(sa.update(CommitmentRequest).where(_is(owed)).values(state=state))


def _is(owed: Owed) -> sa.ColumnElement[bool]:
    return sa.and_(
        CommitmentRequest.peer == owed.peer,
        CommitmentRequest.transaction_uid == owed.transaction_uid,
    )
