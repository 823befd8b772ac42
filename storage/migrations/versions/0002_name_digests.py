"""Name digests so, since they are no longer SHA-256; compare names of objects byte by byte."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""
    # In words that SQLite and PostgreSQL share; constraints follow the name.
    for table in ("instance", "conflict"):
        op.execute(f"ALTER TABLE {table} RENAME COLUMN sha256 TO digest")
        if op.get_bind().dialect.name == "postgresql":
            # Ranges of names must be ranges of a segment, whatever the database's locale.
            op.execute(f'ALTER TABLE {table} ALTER COLUMN object_key TYPE VARCHAR(160) COLLATE "C"')


def downgrade() -> None:
    """Change it back."""
    for table in ("instance", "conflict"):
        op.execute(f"ALTER TABLE {table} RENAME COLUMN digest TO sha256")
