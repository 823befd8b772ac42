"""Processes say that they are alive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from storage.associations import close_gone
from storage.database import Transaction
from storage.owner import is_dead
from storage.tables import Node

GONE_AFTER = timedelta(seconds=60)


def heartbeat(
    tx: Transaction, owner: str, name: str, role: str, version: str, facts: dict[str, Any]
) -> None:
    """Write down that this process lives; forget those that do not."""
    values = {
        "owner": owner,
        "name": name,
        "role": role,
        "version": version,
        "started_at": tx.now,
        "heartbeat_at": tx.now,
        "facts": facts,
    }
    insert = tx.insert(Node).values(**values)
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=["owner"], set_={"heartbeat_at": tx.now, "facts": facts}
        )
    )


def forget_gone(tx: Transaction) -> None:
    """Delete the rows of processes that ended or were silent for a minute; so end associations."""
    rows = tx.execute(sa.select(Node.owner, Node.heartbeat_at)).all()
    gone = [
        row.owner for row in rows if is_dead(row.owner) or tx.now - row.heartbeat_at > GONE_AFTER
    ]
    if gone:
        close_gone(tx, gone)
        tx.execute(sa.delete(Node).where(Node.owner.in_(gone)))


def leave(tx: Transaction, owner: str) -> None:
    """Say that this process ends."""
    tx.execute(sa.delete(Node).where(Node.owner == owner))
