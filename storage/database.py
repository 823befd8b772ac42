"""The database: an engine with safe settings, transactions, and the clock that decides."""

from __future__ import annotations

import contextlib
import threading
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


BUSY_SECONDS = 20
"""How long a writer waits for another one of SQLite."""

_CHECKPOINT_BY_OTHERS = "pragma wal_autocheckpoint=16000"
"""Pages; before that `storage.checkpoints` has come by, unless it cannot keep up."""


class Clock(Protocol):
    """Says what time it is, inside a transaction."""

    def now(self, connection: Connection) -> datetime:
        """Timezone-aware UTC."""


class DatabaseClock:
    """The database's own clock: the only one that decides about quiet times and leases."""

    def now(self, connection: Connection) -> datetime:
        """Time of the database server; SQLite has none but the host's, to the millisecond."""
        if connection.dialect.name == "sqlite":
            now = datetime.now(UTC)
            return now.replace(microsecond=now.microsecond // 1000 * 1000)
        found: datetime = connection.exec_driver_sql("select clock_timestamp()").scalar_one()
        return found.astimezone(UTC)


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
        self._turn = threading.RLock()

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
        with self.turn(), self._begin(read=False) as tx:
            yield tx
        for act in tx.after_commit:
            act()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the writers of this process: SQLite takes one at a time.

        It would find that out by itself, and sleep for up to 25 ms before it looks again.

        Raises
        ------
        StoreUnavailable
            Somebody writes for ever.
        """
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailable("the database is busy: another transaction does not end")
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Read only: takes no write lock."""
        with self._begin(read=True) as tx:
            yield tx

    @contextmanager
    def _begin(self, *, read: bool) -> Iterator[Transaction]:
        with (
            self.errors_translated(),
            self.engine.connect().execution_options(scorenode_read=read) as connection,
            self._not_kept_when_broken(connection),
            connection.begin(),
        ):
            yield Transaction(connection, self.clock)

    @contextmanager
    def errors_translated(self) -> Iterator[None]:
        """Say in our words that the database is away.

        Raises
        ------
        StoreUnavailable
            `StoreFull` when its disk is full.
        """
        try:
            yield
        except _AWAY as error:
            if "full" in str(getattr(error, "orig", "")):
                raise StoreFull("the database's disk is full") from error
            url = self.engine.url.render_as_string(hide_password=True)
            raise StoreUnavailable(
                f"the database {url} cannot be used now ({type(error).__name__})"
            ) from error

    @contextmanager
    def _not_kept_when_broken(self, connection: Connection) -> Iterator[None]:
        """Throw a connection away after an error of SQLite.

        Where a file cannot be opened for writing, for want of descriptors or of space, SQLite opens
        it for reading and says nothing: such a connection would refuse every row for ever.
        """
        try:
            yield
        except _AWAY:
            if self.is_sqlite:
                connection.invalidate()
            raise

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


class Writer:
    """Transactions on one connection that is kept: for who writes all the time, one at a time.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Write: commits at the end, rolls back on an exception.

        Raises
        ------
        StoreUnavailable
            The database is away; the next transaction connects anew.
        """
        with self._database.errors_translated():
            connection = self._connection or self._database.engine.connect()
            self._connection = connection
            try:
                with self._database.turn(), connection.begin():
                    yield Transaction(connection, self._database.clock)
            except sa.exc.IntegrityError:
                raise
            except BaseException:
                connection.invalidate()
                self.close()
                raise

    @contextmanager
    def in_driver_words(self) -> Iterator[Transaction]:
        """Write with nothing but `Transaction.driver_sql` and `Transaction.now`.

        On SQLite SQLAlchemy spends several times what the database does on a transaction; this
        one goes straight to the driver.
        """
        if not self._database.is_sqlite:
            with self.transaction() as tx:
                yield tx
            return
        with self._database.errors_translated():
            if self._connection is None:
                self._connection = self._database.engine.connect()
                self._connection.connection.cursor().execute(_CHECKPOINT_BY_OTHERS)
            tx = Transaction(self._connection, self._database.clock)
            with self._database.turn():
                try:
                    tx.driver_sql("BEGIN IMMEDIATE", ())
                    yield tx
                    tx.driver_sql("COMMIT", ())
                except sa.exc.IntegrityError:
                    tx.driver_sql("ROLLBACK", ())
                    raise
                except BaseException:
                    # Closing the connection rolls back, whatever state it is in.
                    self._connection.invalidate()
                    self.close()
                    raise

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.close()


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
        f"busy_timeout={1000 * BUSY_SECONDS}",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        cursor.execute(f"pragma {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read = connection.get_execution_options().get("scorenode_read", False)
    connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")
