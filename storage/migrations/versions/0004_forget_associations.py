"""Find associations that ended long ago."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    op.create_index("association_closed", "association", ["closed_at"])


def downgrade() -> None:
    """Change it back."""
    op.drop_index("association_closed", "association")
