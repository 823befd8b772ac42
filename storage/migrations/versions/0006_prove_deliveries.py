"""Prove deliveries: evidence of each, breakers of destinations, commitments asked of us."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    timestamp = sa.DateTime(timezone=True)
    op.add_column("delivery", sa.Column("proved_at", timestamp))
    op.add_column("delivery", sa.Column("transaction_uid", sa.String(64)))
    op.add_column("delivery", sa.Column("evidence", sa.JSON(), nullable=False, server_default="{}"))
    op.create_index("ix_delivery_transaction_uid", "delivery", ["transaction_uid"])
    op.add_column("destination", sa.Column("open_until", timestamp))
    op.add_column("destination", sa.Column("checked_at", timestamp))
    op.add_column(
        "destination", sa.Column("capabilities", sa.JSON(), nullable=False, server_default="{}")
    )
    op.create_table(
        "commitment_request",
        sa.Column("peer", sa.String(64), primary_key=True),
        sa.Column("transaction_uid", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_at", timestamp, nullable=False),
        sa.Column("asked_at", timestamp, nullable=False),
    )
    op.create_index("ix_commitment_request_state", "commitment_request", ["state"])


def downgrade() -> None:
    """Change it back."""
    op.drop_table("commitment_request")
    op.drop_column("destination", "capabilities")
    op.drop_column("destination", "checked_at")
    op.drop_column("destination", "open_until")
    op.drop_index("ix_delivery_transaction_uid", "delivery")
    op.drop_column("delivery", "evidence")
    op.drop_column("delivery", "transaction_uid")
    op.drop_column("delivery", "proved_at")
