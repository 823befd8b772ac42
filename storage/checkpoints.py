"""Copies SQLite's write-ahead log into the database beside the work, not in somebody's commit."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from storage.base import StoreUnavailable
from storage.database import Database

EVERY_SECONDS = 0.5
LOG_BYTES = 4 << 20


class Checkpoints:
    """A thread that checkpoints once the log has grown, without holding up who writes.

    It also watches that the log is still the file that was opened.

    Parameters
    ----------
    database : Database
        Nothing is done where it is not SQLite.
    on_lost : callable
        Called once when the log is another file, or none.
    """

    def __init__(self, database: Database, on_lost: Callable[[], None]) -> None:
        self._database = database
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        """Start."""
        if self._database.is_sqlite:
            self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            with contextlib.suppress(
                OSError, StoreUnavailable, sa.exc.SQLAlchemyError, sqlite3.Error
            ):
                self._watch()

    def _watch(self) -> None:
        """Watch over one connection: while it is open, nobody may delete the log."""
        log = Path(f"{self._database.engine.url.database}-wal")
        connection = self._database.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("select 1 from sqlite_master").fetchall()  # opens the log
            opened = log.stat()
            while not self._stopping.wait(EVERY_SECONDS):
                found = log.stat() if log.exists() else None
                if found is None or not os.path.samestat(found, opened):
                    self._stopping.set()
                    self._on_lost()
                elif found.st_size > LOG_BYTES:
                    cursor.execute("pragma wal_checkpoint(passive)").fetchall()
        except sqlite3.Error:
            connection.invalidate()
            raise
        finally:
            connection.close()
