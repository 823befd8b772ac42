"""Writes down associations beside the work: nobody waits for these rows, none is essential."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Mapping

import structlog

from node.receive.admission import Session
from storage.associations import (
    ClosedAssociation,
    OpenedAssociation,
    write_associations,
)
from storage.base import StoreUnavailable
from storage.database import Database

log = structlog.get_logger(__name__)

MOST_WAITING = 10_000
MOST_AT_ONCE = 500
BATCH_SECONDS = 0.1
"""Between two writes: one transaction serves many, and the first waits for none."""
PROGRESS_SECONDS = 1.0


class AssociationRows:
    """A thread that inserts a row when an association opens and completes it when it ends.

    While it lasts, what came of it so far is written once a second.

    Rows are dropped, and that is logged, while the database is away. `stop` writes what waits.

    Parameters
    ----------
    database : Database
    ended : callable
        Called when rows of associations that ended were written; must not raise.
    """

    def __init__(self, database: Database, ended: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._ended = ended
        self._sessions: Callable[[], Iterable[Session]] = list
        self._noted: dict[int, Mapping[str, int]] = {}
        self._queue: queue.Queue[OpenedAssociation | ClosedAssociation | None] = queue.Queue(
            MOST_WAITING
        )
        self._stopping = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="association-rows", daemon=True)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end. Stop the receiver first."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()

    def follow(self, sessions: Callable[[], Iterable[Session]]) -> None:
        """Write down every second what came of the associations that are in."""
        self._sessions = sessions

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
        while not self._is_over:
            waiting = self._awaited()
            try:
                self._write(waiting)
                self._stopping.wait(BATCH_SECONDS)
            except StoreUnavailable:
                log.warning("association.not_written", reason="store_unavailable")
            except Exception as error:  # noqa: BLE001 - a thread's outermost loop
                log.error("association.not_written", reason=type(error).__name__)

    def _awaited(self) -> list[OpenedAssociation | ClosedAssociation]:
        """Wait for something to write, and take what else is there."""
        found: list[OpenedAssociation | ClosedAssociation | None] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._queue.get(timeout=PROGRESS_SECONDS))
            while len(found) < MOST_AT_ONCE:
                found.append(self._queue.get_nowait())
        self._is_over = None in found
        return [one for one in found if one is not None]

    def _progress(self) -> dict[int, Mapping[str, int]]:
        """Count anew those associations in which something has come since."""
        now: dict[int, Mapping[str, int]] = {}
        for session in self._sessions():
            now[session.id] = session.counts
        changed = {id_: counts for id_, counts in now.items() if self._noted.get(id_) != counts}
        self._noted = now
        return {id_: counts for id_, counts in changed.items() if any(counts.values())}

    def _write(self, waiting: list[OpenedAssociation | ClosedAssociation]) -> None:
        progress = self._progress()
        if not waiting and not progress:
            return
        opened = [one for one in waiting if isinstance(one, OpenedAssociation)]
        closed = [one for one in waiting if isinstance(one, ClosedAssociation)]
        for one in closed:
            progress.pop(one.id, None)
        with self._database.transaction() as tx:
            write_associations(tx, opened, closed, progress)
        if closed:
            self._ended()
