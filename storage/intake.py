"""The durable accept: file, name and row are on disk before anybody says 0x0000."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from storage.base import (
    Acceptance,
    ReceivedInstance,
    SeriesState,
    StoreBroken,
    StoreUnavailable,
)
from storage.crash import crash_point
from storage.database import Database, Transaction
from storage.objects import FileObjects, Spool, object_key
from storage.tables import Conflict, Instance, Series, Study

MOST_PER_COMMIT = 128
_STOP = object()


@dataclass
class _Waiting:
    """One instance that a receiving thread waits for."""

    received: ReceivedInstance
    spool: Spool
    key: str
    done: threading.Event = field(default_factory=threading.Event)
    acceptance: Acceptance | None = None
    error: Exception | None = None


class Intake:
    """Takes instances in, many threads at once, with one flush and one commit for a batch.

    One thread names and commits everything that has arrived since its last commit, so that the
    price of durability is shared by all associations (group commit).

    Parameters
    ----------
    database : Database
    objects : FileObjects
    on_broken : callable
        Called once when the disk failed; the process is expected to end.
    """

    def __init__(
        self, database: Database, objects: FileObjects, on_broken: Callable[[Exception], None]
    ) -> None:
        self._database = database
        self.objects = objects
        self._on_broken = on_broken
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)

    def start(self) -> None:
        """Start committing."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is waiting, then end. Stop receiving first."""
        self._queue.put(_STOP)
        self._thread.join()

    def accept(self, received: ReceivedInstance, spool: Spool) -> Acceptance:
        """Make one instance durable; blocks until it is.

        Raises
        ------
        StoreUnavailable, StoreFull, StoreBroken
            It is not; the sender must keep its copy. The spool is gone.
        """
        spool.flush()
        key = object_key(
            "objects",
            received.study_instance_uid,
            received.series_instance_uid,
            received.sop_instance_uid,
            received.sha256,
        )
        item = _Waiting(received, spool, key)
        self._queue.put(item)
        item.done.wait()
        if item.error is not None:
            spool.discard()
            raise item.error
        if item.acceptance is None:
            raise AssertionError("committed without an outcome")
        return item.acceptance

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is _STOP:
                return
            batch = [first]
            stopping = False
            while len(batch) < MOST_PER_COMMIT and not self._queue.empty():
                item = self._queue.get()
                if item is _STOP:
                    stopping = True
                    break
                batch.append(item)
            self._commit(batch)
            if stopping:
                return

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            self.objects.publish((item.spool, item.key) for item in batch)
            crash_point("CP1")
            with self._database.transaction() as tx:
                _record(tx, batch)
            crash_point("CP2")
        except (StoreUnavailable, StoreBroken) as error:
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001 - a thread's outermost loop: senders must hear
            self._fail(batch, StoreUnavailable(f"instance not stored ({type(error).__name__})"))
        finally:
            for item in batch:
                item.done.set()

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        for item in batch:
            item.error = error
        if isinstance(error, StoreBroken):
            self._on_broken(error)


def _record(tx: Transaction, batch: list[_Waiting]) -> None:
    """Write the rows of a batch; series in one order everywhere, so that nobody deadlocks."""

    def series_of(item: _Waiting) -> tuple[str, str]:
        return item.received.study_instance_uid, item.received.series_instance_uid

    for (study_uid, series_uid), items in groupby(sorted(batch, key=series_of), key=series_of):
        _record_series(tx, study_uid, series_uid, list(items))


def _record_series(tx: Transaction, study_uid: str, series_uid: str, items: list[_Waiting]) -> None:
    series_id, generation = _lock_series(tx, study_uid, series_uid, items[0].received)
    wanted = {item.received.sop_instance_uid for item in items}
    rows = tx.execute(
        sa.select(Instance.id, Instance.sop_instance_uid, Instance.sha256).where(
            Instance.series_id == series_id, Instance.sop_instance_uid.in_(wanted)
        )
    )
    known: dict[str, tuple[int | None, str]] = {
        row.sop_instance_uid: (row.id, row.sha256) for row in rows
    }
    new = []
    for item in items:
        uid = item.received.sop_instance_uid
        if uid not in known:
            known[uid] = (None, item.received.sha256)
            new.append(_instance_row(tx, item, series_id, generation))
            item.acceptance = Acceptance.STORED
        elif known[uid][1] == item.received.sha256:
            item.acceptance = Acceptance.DUPLICATE
            _count_duplicate(tx, series_id, uid)
        else:
            item.acceptance = Acceptance.CONFLICT
    if new:
        tx.execute(sa.insert(Instance), new)
        _grow(tx, series_id, len(new), sum(row["size"] for row in new))
    for item in items:
        if item.acceptance is Acceptance.CONFLICT:
            _set_aside(tx, series_id, item)


def _lock_series(
    tx: Transaction, study_uid: str, series_uid: str, first: ReceivedInstance
) -> tuple[int, int]:
    """Find or make the series and lock its row; its id and the generation that is open next."""
    now = tx.now
    study = tx.insert(Study).values(study_instance_uid=study_uid, first_at=now, last_at=now)
    study_id = tx.execute(
        study.on_conflict_do_update(
            index_elements=["study_instance_uid"], set_={"last_at": now}
        ).returning(Study.id)
    ).scalar_one()
    insert = tx.insert(Series).values(
        study_id=study_id,
        series_instance_uid=series_uid,
        state=SeriesState.OPEN,
        generation=1,
        n_instances=0,
        bytes=0,
        modality=_modality(first),
        first_at=now,
        opened_at=now,
        last_at=now,
    )
    row = tx.execute(
        insert.on_conflict_do_update(
            index_elements=["study_id", "series_instance_uid"],
            set_={"series_instance_uid": series_uid},
        ).returning(Series.id, Series.state, Series.generation)
    ).one()
    closed = row.state == SeriesState.CLOSED
    return row.id, row.generation + closed


def _modality(received: ReceivedInstance) -> str:
    values = received.header.get("Modality") or [""]
    return str(values[0])[:16]


def _grow(tx: Transaction, series_id: int, n: int, size: int) -> None:
    """Count new instances; a closed series opens its next generation."""
    closed = Series.state == SeriesState.CLOSED
    tx.execute(
        sa.update(Series)
        .where(Series.id == series_id)
        .values(
            opened_at=sa.case((closed, tx.now), else_=Series.opened_at),
            generation=Series.generation + sa.case((closed, 1), else_=0),
            state=SeriesState.OPEN,
            last_at=tx.now,
            n_instances=Series.n_instances + n,
            bytes=Series.bytes + size,
        )
    )


def _instance_row(
    tx: Transaction, item: _Waiting, series_id: int, generation: int
) -> dict[str, Any]:
    received = item.received
    return {
        "series_id": series_id,
        "sop_instance_uid": received.sop_instance_uid,
        "generation": generation,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "sha256": received.sha256,
        "size": received.size,
        "object_key": item.key,
        "peer": received.peer,
        "association_id": received.association_id,
        "received_at": tx.now,
        "duplicates": 0,
        "header": dict(received.header),
    }


def _count_duplicate(tx: Transaction, series_id: int, uid: str) -> None:
    tx.execute(
        sa.update(Instance)
        .where(Instance.series_id == series_id, Instance.sop_instance_uid == uid)
        .values(duplicates=Instance.duplicates + 1)
    )


def _set_aside(tx: Transaction, series_id: int, item: _Waiting) -> None:
    """Keep other bytes under a known UID beside the first."""
    instance_id = tx.execute(
        sa.select(Instance.id).where(
            Instance.series_id == series_id,
            Instance.sop_instance_uid == item.received.sop_instance_uid,
        )
    ).scalar_one()
    values = {
        "instance_id": instance_id,
        "sha256": item.received.sha256,
        "object_key": item.key,
        "peer": item.received.peer,
        "received_at": tx.now,
    }
    tx.execute(tx.insert_or_ignore(Conflict, values, ["instance_id", "sha256"]))
