"""Tell readers and admins; keep what was counted of a series."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    timestamp, big = sa.DateTime(timezone=True), sa.BigInteger()
    op.add_column("job", sa.Column("tell_at", timestamp))
    op.add_column("job", sa.Column("notice_of", big.with_variant(sa.Integer, "sqlite")))
    op.create_index("job_tell", "job", ["tell_at"])
    op.add_column("series", sa.Column("counted", sa.Integer))
    op.add_column("series", sa.Column("counted_at", timestamp))
    evidence = sa.Column("evidence", sa.Text, nullable=False, server_default="")
    op.add_column("generation", evidence)
    op.add_column("alert", sa.Column("told_at", timestamp))


def downgrade() -> None:
    """Change it back."""
    op.drop_column("alert", "told_at")
    op.drop_column("generation", "evidence")
    op.drop_column("series", "counted_at")
    op.drop_column("series", "counted")
    op.drop_index("job_tell", "job")
    op.drop_column("job", "notice_of")
    op.drop_column("job", "tell_at")
