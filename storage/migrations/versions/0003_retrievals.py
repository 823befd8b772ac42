"""Remember what we retrieved ourselves: it never starts a rule."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    timestamp = sa.DateTime(timezone=True)
    op.create_table(
        "retrieval",
        sa.Column("series_instance_uid", sa.String(64), primary_key=True),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("asked_at", timestamp, nullable=False),
    )


def downgrade() -> None:
    """Change it back."""
    op.drop_table("retrieval")
