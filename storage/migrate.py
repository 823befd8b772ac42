"""Bring the database to the schema of this version, or say why not."""

from __future__ import annotations

import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.base import StoreUnavailable
from storage.database import Database
from storage.tables import Meta

HEAD = "0006"
"""The newest of `storage.migrations`."""
_LOCK = 7_305_106_117  # any number nobody else locks in this database


class NewerSchema(Exception):
    """Raised when a newer version of scorenode has used this database."""


def migrate(database: Database) -> None:
    """Create or upgrade the tables; safe when several processes start at once.

    Raises
    ------
    NewerSchema
        The database belongs to a newer version; nothing was changed.
    StoreUnavailable
        The database is away.
    """
    try:
        with database.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("set local statement_timeout = 0"))
                connection.execute(sa.text("set local lock_timeout = 0"))
                connection.execute(sa.text("set local idle_in_transaction_session_timeout = 0"))
                connection.execute(sa.text("select pg_advisory_xact_lock(:n)"), {"n": _LOCK})
            if _revision(connection) != HEAD:
                _upgrade(connection)
            _remember_salt(connection)
    except sa.exc.OperationalError as error:
        url = database.engine.url.render_as_string(hide_password=True)
        raise StoreUnavailable(f"the database {url} cannot be used now") from error


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    text = "select version_num from alembic_version"
    return connection.execute(sa.text(text)).scalar_one_or_none()


def _upgrade(connection: Connection) -> None:
    from alembic import command  # a start that finds all in place does without it
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise NewerSchema(
            f"the database has schema {current!r}, which this version of scorenode does not know; "
            "start the newer version, or restore a backup"
        )
    if current != script.get_current_head():
        command.upgrade(config, "head")


def _remember_salt(connection: Connection) -> None:
    """Make the salt of this store's result UIDs, once."""
    if connection.execute(sa.select(Meta.value).where(Meta.key == "instance_salt")).first() is None:
        connection.execute(sa.insert(Meta).values(key="instance_salt", value=secrets.token_hex(16)))
