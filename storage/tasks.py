"""Wake-ups for workers. A task row is the message; the job's own row is the truth."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from storage.database import Transaction
from storage.tables import Task

QUEUED, LEASED, PUBLISHED = "queued", "leased", "published"


@dataclass(frozen=True)
class ClaimedTask:
    """A task somebody may work on now."""

    message_id: str
    queue: str
    job_id: int
    deliveries: int = 0


def enqueue(
    tx: Transaction, queue: str, job_id: int, priority: int, eta: datetime | None = None
) -> None:
    """Ask for a worker; the same queue and job again moves the wake-up that is there.

    Upserting by name means that a retry written while its own message is still being worked on
    survives the acknowledgement: the owner changed, so the acknowledgement deletes nothing.
    """
    values = {
        "message_id": f"{queue}:{job_id}",
        "queue": queue,
        "job_id": job_id,
        "priority": priority,
        "eta": eta or tx.now,
        "state": QUEUED,
        "owner": None,
        "lease_until": None,
        "deliveries": 0,
    }
    insert = tx.insert(Task).values(**values)
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=["message_id"],
            set_={k: v for k, v in values.items() if k not in ("message_id", "queue", "job_id")},
        )
    )


def claim(
    tx: Transaction, queue: str, owner: str, lease: timedelta, state: str = LEASED
) -> ClaimedTask | None:
    """Take the most urgent due task of a queue, if there is one."""
    due = sa.or_(
        sa.and_(Task.state == QUEUED, Task.eta <= tx.now),
        sa.and_(Task.state.in_([LEASED, PUBLISHED]), Task.lease_until < tx.now),
    )
    pick = (
        sa.select(Task.message_id)
        .where(Task.queue == queue, due)
        .order_by(Task.priority, Task.eta)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    row = tx.execute(
        sa.update(Task)
        .where(Task.message_id == pick)
        .values(
            state=state,
            owner=owner,
            lease_until=tx.now + lease,
            deliveries=Task.deliveries + 1,
        )
        .returning(Task.message_id, Task.queue, Task.job_id, Task.deliveries)
    ).first()
    return ClaimedTask(row.message_id, row.queue, row.job_id, row.deliveries) if row else None


def finish(tx: Transaction, message_id: str, owner: str) -> None:
    """Delete a task, if it is still ours."""
    tx.execute(sa.delete(Task).where(Task.message_id == message_id, Task.owner == owner))


def forget_published(tx: Transaction, queue: str, job_id: int) -> None:
    """Delete the row of a message that came through an external broker: it arrived."""
    tx.execute(
        sa.delete(Task).where(Task.message_id == f"{queue}:{job_id}", Task.state == PUBLISHED)
    )


def give_back(tx: Transaction, message_id: str, owner: str) -> None:
    """Put a task back, if it is still ours."""
    tx.execute(
        sa.update(Task)
        .where(Task.message_id == message_id, Task.owner == owner)
        .values(state=QUEUED, owner=None, lease_until=None, deliveries=Task.deliveries - 1)
    )


def renew(tx: Transaction, message_ids: list[str], owner: str, lease: timedelta) -> None:
    """Keep holding tasks."""
    tx.execute(
        sa.update(Task)
        .where(Task.message_id.in_(message_ids), Task.owner == owner)
        .values(lease_until=tx.now + lease)
    )
