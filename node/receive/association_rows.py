"""Writes down associations beside the work: nobody waits for these rows, none is essential."""

from __future__ import annotations

import queue
import threading

import structlog

from storage.associations import (
    ClosedAssociation,
    OpenedAssociation,
    close_association,
    open_association,
)
from storage.base import StoreUnavailable
from storage.database import Database

log = structlog.get_logger(__name__)

MOST_WAITING = 10_000


class AssociationRows:
    """A thread that inserts a row when an association opens and completes it when it ends.

    Rows are dropped, and that is logged, while the database is away. `stop` writes what waits.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: queue.Queue[OpenedAssociation | ClosedAssociation | None] = queue.Queue(
            MOST_WAITING
        )
        self._thread = threading.Thread(target=self._run, name="association-rows", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end. Stop the receiver first."""
        self._queue.put(None)
        self._thread.join()

    def opened(self, association: OpenedAssociation) -> None:
        """Note that an association was accepted."""
        self._put(association)

    def closed(self, association: ClosedAssociation) -> None:
        """Note that it ended."""
        self._put(association)

    def _put(self, association: OpenedAssociation | ClosedAssociation) -> None:
        try:
            self._queue.put_nowait(association)
        except queue.Full:
            log.warning("association.not_written", reason="too_many_waiting")

    def _run(self) -> None:
        while (association := self._queue.get()) is not None:
            try:
                self._write(association)
            except StoreUnavailable:
                log.warning("association.not_written", reason="store_unavailable")
            except Exception as error:  # noqa: BLE001 - a thread's outermost loop
                log.error("association.not_written", reason=type(error).__name__)

    def _write(self, association: OpenedAssociation | ClosedAssociation) -> None:
        with self._database.transaction() as tx:
            if isinstance(association, OpenedAssociation):
                open_association(tx, association)
            else:
                close_association(tx, association)
