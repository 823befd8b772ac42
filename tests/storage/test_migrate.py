"""The schema and its revisions."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from storage.database import Database
from storage.migrate import HEAD, NewerSchema, migrate
from storage.tables import Base, Meta


def test_the_revisions_lead_to_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == HEAD


def test_migrating_again_changes_nothing_and_keeps_the_salt(database: Database) -> None:
    query = sa.select(Meta.value).where(Meta.key == "instance_salt")
    with database.snapshot() as tx:
        before = tx.execute(query).scalar_one()
    migrate(database)
    with database.snapshot() as tx:
        assert tx.execute(query).scalar_one() == before


def test_a_newer_schema_is_refused_with_a_sentence(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute(sa.text("update alembic_version set version_num = '9999'"))

    with pytest.raises(NewerSchema, match="start the newer version"):
        migrate(database)
