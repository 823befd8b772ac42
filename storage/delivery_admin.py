"""What an admin does to one delivery: send it now, hold it, let it go."""

from __future__ import annotations

import sqlalchemy as sa

from storage import tasks
from storage.base import DeliveryState, JobState
from storage.database import Transaction
from storage.events import record
from storage.retraction import RETRACTED
from storage.tables import Delivery as DeliveryRow
from storage.tables import Job


def retry(tx: Transaction, delivery_id: int) -> bool:
    """Send one delivery now: it waits, was refused or given up, was never proved, or is held.

    What was taken back is not sent again.
    """
    states = [
        DeliveryState.RETRY_WAIT,
        DeliveryState.REFUSED,
        DeliveryState.UNPROVED,
        DeliveryState.HELD,
    ]
    job_id = tx.execute(
        sa.update(DeliveryRow)
        .where(
            DeliveryRow.id == delivery_id,
            DeliveryRow.state.in_(states),
            DeliveryRow.job_id.in_(sa.select(Job.id).where(Job.reason != RETRACTED)),
        )
        .values(state=DeliveryState.PENDING, next_at=None, attempt=0)
        .returning(DeliveryRow.job_id)
    ).scalar()
    if job_id is None:
        return False
    tx.execute(
        sa.update(Job)
        .where(Job.id == job_id, Job.state == JobState.FAILED)
        .values(state=JobState.DELIVERING, ended_at=None)
    )
    tasks.enqueue(tx, "deliver", job_id, 0)
    return True


def hold(tx: Transaction, delivery_id: int) -> bool:
    """Keep one delivery back until it is released; one that is being sent goes."""
    states = [DeliveryState.PENDING, DeliveryState.RETRY_WAIT]
    job_id = tx.execute(
        sa.update(DeliveryRow)
        .where(DeliveryRow.id == delivery_id, DeliveryRow.state.in_(states))
        .values(state=DeliveryState.HELD, next_at=None)
        .returning(DeliveryRow.job_id)
    ).scalar()
    if job_id is not None:
        record(tx, "delivery.held", job_id=job_id, delivery_id=delivery_id)
    return job_id is not None


def release(tx: Transaction, delivery_id: int) -> bool:
    """Let a delivery go that an admin held."""
    held = DeliveryRow.state == DeliveryState.HELD
    found = tx.execute(sa.select(DeliveryRow.id).where(DeliveryRow.id == delivery_id, held)).first()
    return found is not None and retry(tx, delivery_id)
