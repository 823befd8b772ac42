"""The durable accept: file, name and row are on disk before anybody says 0x0000."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from storage.arena import Arena
from storage.base import (
    Acceptance,
    LogLost,
    OnConflict,
    ReceivedInstance,
    StoreBroken,
    StoreUnavailable,
)
from storage.checkpoints import Checkpoints
from storage.crash import crash_point
from storage.database import Database
from storage.intake_rows import IntakeRows, Named
from storage.objects import FileObjects, Incoming, Spool
from storage.place import Place

MOST_PER_COMMIT = 128
LARGE_BYTES = 4 << 20
"""From here on an instance is compared with the one that we hold before its turn comes."""


@dataclass
class _Waiting:
    """One instance that a receiving thread waits for."""

    named: Named
    incoming: Incoming
    woken: threading.Event = field(default_factory=threading.Event)
    is_done: bool = False
    error: Exception | None = None


class Intake:
    """Takes instances in, many threads at once, with one flush and one commit for a batch.

    The first thread that comes names and commits everything that has arrived by then, its own
    instance and those of others; whoever comes meanwhile waits, and one of them is next. So the
    price of durability is shared by all associations (group commit), and a thread that is alone
    waits for no other.

    Parameters
    ----------
    database : Database
    objects : FileObjects
    on_broken : callable
        Called when the disk failed; the process is expected to end. With `LogLost` it, and all
        others that use the database, are expected to end in order.
    arena : Arena or None
        Where small objects go; started and stopped by the caller.
    on_conflict : callable
        What to do with other bytes under the UID of an instance that we hold.
    """

    def __init__(
        self,
        database: Database,
        objects: FileObjects,
        on_broken: Callable[[Exception], None],
        arena: Arena | None = None,
        on_conflict: Callable[[], OnConflict] = lambda: OnConflict.KEEP_FIRST,
    ) -> None:
        self._checkpoints = Checkpoints(database, self._lose_log)
        self._rows = IntakeRows(database, objects.same_data, on_conflict)
        self.objects = objects
        self.arena = arena
        self._on_broken = on_broken
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Waiting] = []
        self._is_committing = False
        self._broken: StoreBroken | None = None

    def start(self) -> None:
        """Be ready."""
        self._checkpoints.start()

    def stop(self) -> None:
        """Wait for the commit in progress. Stop receiving first."""
        with self._idle:
            self._idle.wait_for(lambda: not self._is_committing and not self._queue)
        self._rows.close()
        self._checkpoints.stop()

    def accept(self, received: ReceivedInstance, incoming: Incoming) -> Acceptance:
        """Make one instance durable; blocks until it is.

        Raises
        ------
        StoreUnavailable, StoreFull, StoreBroken
            It is not; the sender must keep its copy. What was on its way in is gone.
        """
        if self._broken is not None:
            incoming.discard()
            raise self._broken
        try:
            incoming.flush()
        except StoreBroken as error:
            self._break(error)
            raise
        item = _Waiting(Named(received, incoming.key), incoming)
        if received.size >= LARGE_BYTES and isinstance(incoming, Spool):
            self._compare(item.named, incoming)
        if not self._is_first(item):
            item.woken.wait()
        if not item.is_done:
            self._lead()
        if item.error is not None:
            raise item.error
        if self._broken is not None:
            raise self._broken
        if item.named.acceptance is None:
            raise AssertionError("committed without an outcome")
        return item.named.acceptance

    def _compare(self, named: Named, spool: Spool) -> None:
        try:
            self._rows.compare(named, Place(spool.path))
        except StoreUnavailable:
            spool.discard()
            raise
        except Exception as error:
            spool.discard()
            raise StoreUnavailable(f"not stored ({type(error).__name__})") from error

    def _break(self, error: StoreBroken) -> None:
        """Take nothing more: after a failed flush another may succeed for bytes that are gone."""
        self._broken = error
        self._on_broken(error)

    def _lose_log(self) -> None:
        self._break(LogLost("the write-ahead log of the database was deleted"))

    def _is_first(self, item: _Waiting) -> bool:
        """Queue an instance; True when nobody commits, so that this thread is to do it."""
        with self._lock:
            self._queue.append(item)
            first = not self._is_committing
            self._is_committing = True
            return first

    def _lead(self) -> None:
        """Commit what is queued, then wake the one who is next and those who are done."""
        with self._lock:
            batch = self._queue[:MOST_PER_COMMIT]
            del self._queue[:MOST_PER_COMMIT]
        try:
            self._commit(batch)
        finally:
            for item in batch:
                item.is_done = True
            with self._idle:
                self._is_committing = bool(self._queue)
                if self._queue:
                    self._queue[0].woken.set()
                else:
                    self._idle.notify_all()
            for item in batch:
                item.woken.set()

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            _publish(batch)
        except (StoreUnavailable, StoreBroken) as error:
            self._fail(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is durable
            self._fail(batch, StoreUnavailable(f"not stored ({type(error).__name__})"))
            return
        crash_point("CP1")
        try:
            self._rows.record([item.named for item in batch])
        except (StoreUnavailable, StoreBroken) as error:
            self._fail(batch, error, is_published=True)
        except Exception:  # noqa: BLE001 - one sender's mistake is not to be another's
            for item in batch:
                self._record_alone(item)
        else:
            crash_point("CP2")
            _settle(batch)

    def _record_alone(self, item: _Waiting) -> None:
        """Write the row of an instance whose batch the database refused; its bytes are durable."""
        try:
            self._rows.record([item.named])
        except (StoreUnavailable, StoreBroken) as error:
            self._fail([item], error, is_published=True)
        except Exception as error:  # noqa: BLE001 - its sender must hear, whatever it is
            trouble = StoreUnavailable(f"not stored ({type(error).__name__})")
            self._fail([item], trouble, is_published=True)
        else:
            _settle([item])

    def _fail(self, batch: list[_Waiting], error: Exception, *, is_published: bool = False) -> None:
        """Say that instances are not stored.

        Where the rows failed, nobody knows whether they were committed all the same: the bytes
        stay, and go when they turn out to have no row.
        """
        if isinstance(error, StoreBroken):
            self._break(error)
        for item in batch:
            item.error = error
            if is_published:
                item.incoming.settle(kept=True)
            else:
                item.incoming.discard()


def _publish(batch: list[_Waiting]) -> None:
    """Make bytes and names durable, with one call for each store (CP1)."""
    stores: dict[Any, list[Any]] = defaultdict(list)
    for item in batch:
        stores[item.incoming.store].append(item.incoming)
    for store, incoming in stores.items():
        store.publish(incoming)


def _settle(batch: list[_Waiting]) -> None:
    """Keep what has a row; delete what was known already."""
    for item in batch:
        item.incoming.settle(kept=not item.named.is_unused)
