"""The durable accept: file, name and row are on disk before anybody says 0x0000."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from storage.base import Acceptance, ReceivedInstance, StoreBroken, StoreUnavailable
from storage.crash import crash_point
from storage.database import Database
from storage.intake_rows import IntakeRows, Named
from storage.objects import FileObjects, Spool, object_key

MOST_PER_COMMIT = 128


@dataclass
class _Waiting:
    """One instance that a receiving thread waits for."""

    named: Named
    spool: Spool
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
        Called when the disk failed; the process is expected to end.
    """

    def __init__(
        self, database: Database, objects: FileObjects, on_broken: Callable[[Exception], None]
    ) -> None:
        self._database = database
        self._rows = IntakeRows(database)
        self.objects = objects
        self._on_broken = on_broken
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Waiting] = []
        self._is_committing = False

    def start(self) -> None:
        """Be ready; there is no thread of its own."""

    def stop(self) -> None:
        """Wait for the commit in progress. Stop receiving first."""
        with self._idle:
            self._idle.wait_for(lambda: not self._is_committing and not self._queue)

    def accept(self, received: ReceivedInstance, spool: Spool) -> Acceptance:
        """Make one instance durable; blocks until it is.

        Raises
        ------
        StoreUnavailable, StoreFull, StoreBroken
            It is not; the sender must keep its copy. The spool is gone.
        """
        try:
            spool.flush()
        except StoreBroken as error:
            self._on_broken(error)
            raise
        key = object_key(
            "objects",
            received.study_instance_uid,
            received.series_instance_uid,
            received.sop_instance_uid,
            received.sha256,
            # A file belongs to one row only: deleting one never takes another's bytes away.
            uuid.uuid4().hex,
        )
        item = _Waiting(Named(received, key), spool)
        if not self._is_first(item):
            item.woken.wait()
        if not item.is_done:
            self._lead()
        if item.error is not None:
            spool.discard()
            raise item.error
        if item.named.acceptance is None:
            raise AssertionError("committed without an outcome")
        return item.named.acceptance

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
            self.objects.publish((item.spool, item.named.key) for item in batch)
        except (StoreUnavailable, StoreBroken) as error:
            self._fail(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is durable
            self._fail(batch, StoreUnavailable(f"not stored ({type(error).__name__})"))
            return
        crash_point("CP1")
        try:
            self._rows.record([item.named for item in batch])
            crash_point("CP2")
            self._remove_unused(batch)
        except (StoreUnavailable, StoreBroken) as error:
            self._fail(batch, error)
        except Exception:  # noqa: BLE001 - one sender's mistake is not to be another's
            for item in batch:
                self._record_alone(item)

    def _record_alone(self, item: _Waiting) -> None:
        """Write the row of an instance whose batch the database refused; its file has its name."""
        try:
            self._rows.record([item.named])
            self._remove_unused([item])
        except (StoreUnavailable, StoreBroken) as error:
            self._fail([item], error)
        except Exception as error:  # noqa: BLE001 - its sender must hear, whatever it is
            self._fail([item], StoreUnavailable(f"not stored ({type(error).__name__})"))

    def _remove_unused(self, batch: list[_Waiting]) -> None:
        """Delete files that no row refers to: what was known already."""
        for item in batch:
            if item.named.is_unused:
                self.objects.remove(item.named.key)

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        for item in batch:
            item.error = error
        if isinstance(error, StoreBroken):
            self._on_broken(error)
