"""The one rule that makes lost messages and dead processes harmless.

A job or delivery in a non-final state, due, without live lease and without task gets a new task.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from storage import tasks
from storage.base import FINAL_DELIVERY_STATES, DeliveryState, JobState
from storage.database import Transaction
from storage.destinations import may_go
from storage.owner import is_dead
from storage.tables import Delivery, Job, Task


def expire_dead_leases(tx: Transaction) -> int:
    """End the leases of processes that are known to be gone; how many owners there were."""
    owners: set[str] = set()
    held: list[tuple[Any, sa.ColumnElement[bool]]] = [
        (Job.lease_owner, sa.and_(Job.state == JobState.RUNNING, Job.lease_until > tx.now)),
        (
            Delivery.lease_owner,
            sa.and_(
                Delivery.state.in_([DeliveryState.SENDING, DeliveryState.CONFIRMING]),
                Delivery.lease_until > tx.now,
            ),
        ),
        (Task.owner, Task.state == tasks.LEASED),
    ]
    for column, live in held:
        owners |= set(tx.execute(sa.select(column).where(live).distinct()).scalars())
    dead = [owner for owner in owners if is_dead(owner)]
    if dead:
        tx.execute(sa.update(Job).where(Job.lease_owner.in_(dead)).values(lease_until=tx.now))
        tx.execute(
            sa.update(Delivery).where(Delivery.lease_owner.in_(dead)).values(lease_until=tx.now)
        )
        tx.execute(
            sa.update(Task)
            .where(Task.owner.in_(dead), Task.state == tasks.LEASED)
            .values(state=tasks.QUEUED, owner=None, lease_until=None)
        )
    return len(dead)


def wake_forgotten(tx: Transaction) -> int:
    """Give every due job and delivery without task a new one; how many there were."""
    due = sa.or_(
        Job.state == JobState.QUEUED,
        sa.and_(Job.state == JobState.RETRY_WAIT, Job.next_at <= tx.now),
        sa.and_(Job.state == JobState.RUNNING, Job.lease_until <= tx.now),
    )
    has_task = sa.exists().where(Task.job_id == Job.id, Task.queue == Job.step)
    found = [
        (row.step, row.id, row.priority)
        for row in tx.execute(sa.select(Job.id, Job.step, Job.priority).where(due, ~has_task))
    ]
    found += [("deliver", row.id, row.priority) for row in tx.execute(_forgotten_deliveries(tx))]
    for queue, job_id, priority in found:
        tasks.enqueue(tx, queue, job_id, priority)
    return len(found)


def _forgotten_deliveries(tx: Transaction) -> sa.Select[int, int]:
    due = sa.or_(
        Delivery.state == DeliveryState.PENDING,
        sa.and_(Delivery.state == DeliveryState.RETRY_WAIT, Delivery.next_at <= tx.now),
        sa.and_(Delivery.state == DeliveryState.SENDING, Delivery.lease_until <= tx.now),
    )
    has_task = sa.exists().where(Task.job_id == Job.id, Task.queue == "deliver")
    waits = sa.exists().where(Delivery.job_id == Job.id, due, may_go())
    ended = ~sa.exists().where(
        Delivery.job_id == Job.id, Delivery.state.not_in(list(FINAL_DELIVERY_STATES))
    )
    # A job whose deliveries have all ended, and that nobody settled, is woken to be settled.
    return sa.select(Job.id, Job.priority).where(
        Job.state == JobState.DELIVERING, sa.or_(waits, ended), ~has_task
    )
