"""What must hold after every accident, looked at from outside: rows by sqlite3, bytes by number."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from benchmarks.acknowledged import Load, generated, number_of, uid_of
from storage.base import StoreUnavailable
from storage.objects import FileObjects
from tests.durability.receiver_process import ReceiverProcess, Setup

SENT_AFTERWARDS = 6


def assert_all_held(setup: Setup, acknowledged: Iterable[int]) -> None:
    """Every acknowledged instance has its row, and its bytes are the bytes that were sent.

    So have the others: whatever has a row can be read, acknowledged or not.
    """
    rows = rows_of(setup)
    lost = [number for number in acknowledged if number not in rows]
    assert not lost, f"acknowledged and gone: {lost}"
    store = FileObjects(setup.folder / "data")
    damaged = [number for number, key in rows.items() if not _is_whole(store, number, key)]
    assert not damaged, f"other bytes than were sent: {damaged}"


def rows_of(setup: Setup) -> dict[int, str]:
    """Keys of the objects by the numbers of the instances, from a database that is in order."""
    with contextlib.closing(sqlite3.connect(setup.folder / "node.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        found = connection.execute("select sop_instance_uid, object_key from instance").fetchall()
    return {number_of(uid): key for uid, key in found}


def assert_works_again(setup: Setup, first: int) -> int:
    """A receiver that starts now leaves nothing behind of what was in progress, and accepts.

    Returns
    -------
    int
        A number that nothing was sent under.
    """
    with ReceiverProcess(setup) as receiver:
        assert not leftovers(setup)
        load = Load(receiver.port, first, associations=2, most=SENT_AFTERWARDS)
        load.start()
        load.join()
        assert len(load.acknowledged) == SENT_AFTERWARDS
        assert not leftovers(setup)
    return load.next_number


def leftovers(setup: Setup) -> list[Path]:
    """What lies in ``incoming/``."""
    return list((setup.folder / "data" / "incoming").iterdir())


def _is_whole(store: FileObjects, number: int, key: str) -> bool:
    try:
        held = store.read(key)
    except StoreUnavailable:
        return False
    sent = generated(number).data
    meta, data = held[: -len(sent)], held[-len(sent) :]
    is_same = hashlib.sha256(data).digest() == hashlib.sha256(sent).digest()
    return is_same and meta[128:132] == b"DICM" and uid_of(number).encode() in meta
