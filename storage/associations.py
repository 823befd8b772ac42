"""Rows of associations: who was connected, when, and how much came of it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from storage.database import Transaction
from storage.tables import Association


@dataclass(frozen=True)
class OpenedAssociation:
    """An association that was accepted; `id` is chosen by who accepted it."""

    id: int
    owner: str
    peer: str
    address: str
    calling_ae_title: str
    called_ae_title: str


@dataclass(frozen=True)
class ClosedAssociation:
    """How an association ended."""

    id: int
    end_reason: str
    stored: int
    refused: int
    bytes: int


def open_association(tx: Transaction, opened: OpenedAssociation) -> None:
    """Write the row of an association that was accepted."""
    values = vars(opened) | {"opened_at": tx.now, "end_reason": ""}
    tx.execute(tx.insert_or_ignore(Association, values, ["id"]))


def close_association(tx: Transaction, closed: ClosedAssociation) -> None:
    """Complete the row of an association that ended."""
    tx.execute(
        sa.update(Association)
        .where(Association.id == closed.id)
        .values(
            closed_at=tx.now,
            end_reason=closed.end_reason,
            stored=closed.stored,
            refused=closed.refused,
            bytes=closed.bytes,
        )
    )
