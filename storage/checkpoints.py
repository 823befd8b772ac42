"""Copies SQLite's write-ahead log into the database beside the work, not in somebody's commit."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import sqlalchemy as sa

from storage.base import StoreUnavailable
from storage.database import Database

EVERY_SECONDS = 0.5
LOG_BYTES = 4 << 20


class Checkpoints:
    """A thread that checkpoints once the log has grown, without holding up who writes.

    Parameters
    ----------
    database : Database
        Nothing is done where it is not SQLite.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
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
        log = Path(f"{self._database.engine.url.database}-wal")
        while not self._stopping.wait(EVERY_SECONDS):
            with contextlib.suppress(
                OSError, StoreUnavailable, sa.exc.SQLAlchemyError, sqlite3.Error
            ):
                if log.stat().st_size > LOG_BYTES:
                    self._checkpoint()

    def _checkpoint(self) -> None:
        connection = self._database.engine.raw_connection()
        try:
            connection.cursor().execute("pragma wal_checkpoint(passive)")
        except sqlite3.Error:
            connection.invalidate()
            raise
        finally:
            connection.close()
