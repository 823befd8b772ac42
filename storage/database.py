"""The database: an engine with safe settings, transactions, and the clock that decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, CursorResult, Engine
from sqlalchemy.sql import Executable
from sqlalchemy.sql.dml import Insert

from storage.base import StoreFull, StoreUnavailable

_AWAY = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.InternalError,  # a server that became read-only after a failover
    sa.exc.TimeoutError,
)
_POSTGRESQL = {
    # A peer that went silent must not hold rows, nor us, for the two hours of TCP's keepalive.
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_POSTGRESQL_SESSION = {
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "synchronous_commit": "on",
}


class Clock(Protocol):
    """Says what time it is, inside a transaction."""

    def now(self, connection: Connection) -> datetime:
        """Timezone-aware UTC."""


class DatabaseClock:
    """The database's own clock: the only one that decides about quiet times and leases."""

    def now(self, connection: Connection) -> datetime:
        """Time of the database server; on SQLite that is the host's."""
        if connection.dialect.name == "sqlite":
            text = connection.exec_driver_sql("select strftime('%Y-%m-%d %H:%M:%f','now')").scalar()
            return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
        now: datetime = connection.exec_driver_sql("select clock_timestamp()").scalar_one()
        return now.astimezone(UTC)


class Transaction:
    """One transaction in progress."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._now: datetime | None = None
        self.after_commit: list[Callable[[], None]] = []

    @property
    def now(self) -> datetime:
        """The clock's time, asked once per transaction."""
        if self._now is None:
            self._now = self._clock.now(self._connection)
        return self._now

    def execute(self, statement: Executable, rows: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement; with `rows` once for each of them."""
        result: Any = self._connection.execute(statement, rows)
        return result  # type: ignore[no-any-return]

    def driver_sql(self, text: str, values: Any) -> list[Any]:
        """Run a statement in the words of the driver; with a list of values once for each.

        Returns
        -------
        list
            Rows; none, where the statement returns none.
        """
        dialect: Any = self._connection.dialect
        cursor = self._connection.connection.cursor()
        try:
            if isinstance(values, list):
                cursor.executemany(text, values)
            else:
                cursor.execute(text, values)
            return list(cursor.fetchall()) if cursor.description else []
        except dialect.dbapi.Error as error:
            raise sa.exc.DBAPIError.instance(
                text, None, error, dialect.dbapi.Error, hide_parameters=True, dialect=dialect
            ) from error
        finally:
            cursor.close()

    def insert(self, table: type[Any]) -> sqlite.Insert | postgresql.Insert:
        """Start an INSERT that knows ON CONFLICT on both databases."""
        if self._connection.dialect.name == "sqlite":
            return sqlite.insert(table)
        return postgresql.insert(table)

    def insert_or_ignore(self, table: type[Any], values: dict[str, Any], key: list[str]) -> Insert:
        """INSERT that does nothing when `key` is there already."""
        return self.insert(table).values(**values).on_conflict_do_nothing(index_elements=key)


class Database:
    """Where rows live: SQLite for one host, PostgreSQL for many.

    Parameters
    ----------
    url : str
        SQLAlchemy URL, ``sqlite:////path`` or ``postgresql+psycopg://...``.
    clock : Clock
        Handed in so that time can be tested.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock: Clock = clock or DatabaseClock()
        self.engine = make_engine(url)

    @property
    def is_sqlite(self) -> bool:
        """Whether the rows are in a file on this host."""
        return self.engine.dialect.name == "sqlite"

    def insert(self, table: Any) -> sqlite.Insert | postgresql.Insert:
        """Start an INSERT that knows ON CONFLICT on both databases."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Write: commits at the end, rolls back on an exception.

        Raises
        ------
        StoreUnavailable
            The database is away; `StoreFull` when its disk is full.
        """
        with self._begin(read=False) as tx:
            yield tx
        for act in tx.after_commit:
            act()

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Read only: takes no write lock."""
        with self._begin(read=True) as tx:
            yield tx

    @contextmanager
    def _begin(self, *, read: bool) -> Iterator[Transaction]:
        try:
            with (
                self.engine.connect().execution_options(scorenode_read=read) as connection,
                connection.begin(),
            ):
                yield Transaction(connection, self.clock)
        except _AWAY as error:
            if "full" in str(getattr(error, "orig", "")):
                raise StoreFull("the database's disk is full") from error
            url = self.engine.url.render_as_string(hide_password=True)
            raise StoreUnavailable(
                f"the database {url} cannot be used now ({type(error).__name__})"
            ) from error

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def make_engine(url: str) -> Engine:
    """Engine whose commits are flushed to disk before they return."""
    options: dict[str, Any] = {"pool_pre_ping": True, "hide_parameters": True}
    if url.startswith("postgresql"):
        # What the admin's URL says counts.
        unnamed = {k: v for k, v in _POSTGRESQL.items() if k not in sa.make_url(url).query}
        options |= {"pool_size": 8, "max_overflow": 24, "connect_args": unnamed}
    engine = sa.create_engine(url, **options)
    if engine.dialect.name == "postgresql":
        sa.event.listen(engine, "connect", _prepare_postgresql)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name, value in _POSTGRESQL_SESSION.items():
            cursor.execute(f"set {name} = '{value}'")
    connection.autocommit = False


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=20000",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        cursor.execute(f"pragma {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read = connection.get_execution_options().get("scorenode_read", False)
    connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")
