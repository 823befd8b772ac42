"""Objects in segments: where they lie, what of a segment is used again, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
import xxhash

from storage import tables
from storage.arena import Arena, Slot
from storage.arena_rows import in_use, segment_end, segment_ranges
from storage.arena_segment import BLOCK_BYTES, purge, range_of, records, segment_path
from storage.base import Acceptance, ReceivedInstance, StoreBroken
from storage.database import Database
from storage.intake import Intake
from storage.objects import FileObjects
from tests.storage.samples import received

SEGMENT = 1 << 20


def nothing(segment: int) -> int:
    """No row refers to any object."""
    return 0


@pytest.fixture
def arena(database: Database, objects: FileObjects) -> Iterator[Arena]:
    found = Arena(objects.root, in_use(database), ready_bytes=2 * SEGMENT, segment_bytes=SEGMENT)
    found.start()
    assert found.await_ready(20)
    yield found
    found.stop()


@pytest.fixture
def intake(database: Database, objects: FileObjects, arena: Arena) -> Iterator[Intake]:
    broken: list[Exception] = []
    found = Intake(database, objects, broken.append, arena)
    found.start()
    yield found
    found.stop()
    assert not broken


def written(arena: Arena, data: bytes) -> Slot:
    slot = arena.write([data], len(data), xxhash.xxh3_128_digest(data))
    assert slot is not None
    return slot


def push(intake: Intake, instance: ReceivedInstance, data: bytes) -> Acceptance:
    assert intake.arena is not None
    return intake.accept(replace(instance, size=len(data)), written(intake.arena, data))


def key_of(database: Database, table: type = tables.Instance) -> str:
    with database.snapshot() as tx:
        return str(tx.execute(sa.select(table.object_key)).scalar_one())  # type: ignore[attr-defined]


def test_objects_are_found_again_each_at_a_block_of_its_own(
    arena: Arena, objects: FileObjects
) -> None:
    datas = [os.urandom(size) for size in (1, 4032, 4033, 5000, 60_000)]

    slots = [written(arena, data) for data in datas]

    arena.publish(slots)
    assert [objects.read(slot.key) for slot in slots] == datas
    assert all(slot.offset % BLOCK_BYTES == 0 for slot in slots)
    path = segment_path(objects.root, slots[0].segment.number)
    found = [(offset, length, digest) for offset, length, digest in records(path)]
    assert found == [
        (s.offset, len(d), xxhash.xxh3_128_digest(d)) for s, d in zip(slots, datas, strict=True)
    ]


def test_many_threads_write_beside_each_other(arena: Arena, objects: FileObjects) -> None:
    datas = [os.urandom(3000 + number) for number in range(200)]

    with ThreadPoolExecutor(8) as pool:
        slots = list(pool.map(lambda data: written(arena, data), datas))

    assert [objects.read(slot.key) for slot in slots] == datas


def test_what_is_too_long_is_left_to_a_file(arena: Arena) -> None:
    data = bytes(arena.largest_object + 1)
    assert arena.write([data], len(data), bytes(16)) is None


def test_nobody_waits_for_a_segment(tmp_path: Path) -> None:
    not_started = Arena(tmp_path, nothing, segment_bytes=SEGMENT)
    assert not_started.write([b"x"], 1, bytes(16)) is None


def test_a_failed_flush_says_that_the_disk_is_broken(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = written(arena, b"data")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreBroken, match="must restart"):
        arena.publish([slot])


def test_instances_have_rows_that_lead_to_their_bytes(
    intake: Intake, database: Database, objects: FileObjects
) -> None:
    assert push(intake, received(1), b"the bytes") is Acceptance.STORED
    assert objects.read(key_of(database)) == b"the bytes"


def test_the_same_instance_again_leaves_no_second_copy(
    intake: Intake, database: Database, objects: FileObjects
) -> None:
    push(intake, received(1), b"the bytes")

    assert push(intake, received(1), b"the bytes") is Acceptance.DUPLICATE

    path = objects.place(key_of(database)).path
    assert path.read_bytes().count(b"the bytes") == 1
    assert push(intake, received(2), b"more") is Acceptance.STORED


def test_other_bytes_with_the_same_digest_are_a_conflict(
    intake: Intake, database: Database, objects: FileObjects
) -> None:
    push(intake, received(1), b"first")

    assert push(intake, received(1), b"other") is Acceptance.CONFLICT

    assert objects.read(key_of(database)) == b"first"
    assert objects.read(key_of(database, tables.Conflict)) == b"other"


def test_two_processes_write_to_different_segments(arena: Arena, database: Database) -> None:
    other = Arena(arena.root, in_use(database), ready_bytes=SEGMENT, segment_bytes=SEGMENT)
    other.start()
    assert other.await_ready(20)

    mine, theirs = written(arena, b"mine"), written(other, b"theirs")

    assert mine.segment.number != theirs.segment.number
    other.stop()


def test_after_a_restart_a_segment_goes_on_behind_its_last_row(
    intake: Intake, arena: Arena, database: Database, objects: FileObjects
) -> None:
    push(intake, received(1), b"kept")
    written(arena, b"never acknowledged")  # its process dies here
    key = key_of(database)
    segment, offset, _ = range_of(key)
    arena.stop()

    again = Arena(arena.root, in_use(database), ready_bytes=SEGMENT, segment_bytes=SEGMENT)
    again.start()
    assert again.await_ready(20)

    slot = written(again, b"new")
    assert slot.segment.number == segment
    assert slot.offset == offset + BLOCK_BYTES
    assert b"never acknowledged" not in segment_path(objects.root, segment).read_bytes()
    assert objects.read(key) == b"kept"
    again.stop()


def test_a_segment_is_used_again_when_no_row_refers_to_it(
    intake: Intake, arena: Arena, database: Database
) -> None:
    push(intake, received(1), b"forgotten")
    segment, _, _ = range_of(key_of(database))
    arena.stop()
    with database.transaction() as tx:
        assert segment_end(tx, segment) > 0
        tx.execute(sa.delete(tables.Instance))
        assert segment_end(tx, segment) == 0

    again = Arena(arena.root, in_use(database), ready_bytes=SEGMENT, segment_bytes=SEGMENT)
    again.start()
    assert again.await_ready(20)

    slot = written(again, b"next")
    assert (slot.segment.number, slot.offset) == (segment, BLOCK_BYTES)
    again.stop()


def test_deleted_objects_are_overwritten_and_others_stay(
    intake: Intake, arena: Arena, database: Database, objects: FileObjects
) -> None:
    push(intake, received(1), b"goes")
    push(intake, received(2), b"stays")
    with database.transaction() as tx:
        tx.execute(
            sa.delete(tables.Instance).where(
                tables.Instance.sop_instance_uid == received(1).sop_instance_uid
            )
        )
    key = key_of(database)
    segment, _, _ = range_of(key)

    def ranges(number: int) -> list[tuple[int, int]]:
        with database.snapshot() as tx:
            return segment_ranges(tx, number)

    assert not purge(objects.root, segment, ranges), "while it is written to, it is left alone"
    arena.stop()
    assert purge(objects.root, segment, ranges)

    assert b"goes" not in segment_path(objects.root, segment).read_bytes()
    assert objects.read(key) == b"stays"


def test_names_are_compared_byte_by_byte_whatever_the_locale(database: Database) -> None:
    """With a locale that overlooks slashes a segment in use would look free, and be overwritten."""
    if database.is_sqlite:
        pytest.skip("SQLite compares bytes")
    with database.snapshot() as tx:
        query = sa.text(
            "select collation_name from information_schema.columns "
            "where column_name = 'object_key' and table_name in ('instance', 'conflict')"
        )
        assert list(tx.execute(query).scalars()) == ["C", "C"]


def test_a_segment_another_process_just_wrote_to_is_left_alone(tmp_path: Path) -> None:
    first = Arena(tmp_path, nothing, ready_bytes=SEGMENT, segment_bytes=SEGMENT)
    first.start()
    assert first.await_ready(20)
    number = written(first, b"perhaps still being committed").segment.number
    first.stop()

    second = Arena(
        tmp_path, nothing, ready_bytes=SEGMENT, segment_bytes=SEGMENT, settled_seconds=60
    )
    second.start()
    assert second.await_ready(20)

    assert written(second, b"new").segment.number != number
    second.stop()
