"""Other bytes under a known UID: set aside, refused, or put in the place of the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.base import Acceptance, OnConflict, SeriesState, StoreUnavailable
from storage.database import Database
from storage.intake import LARGE_BYTES, Intake
from storage.objects import FileObjects
from storage.place import Place
from storage.tables import Conflict, Instance, Series, Study
from tests.storage.samples import close, push, received

FIRST, OTHER = b"the first bytes", b"other bytes"


@contextmanager
def started(database: Database, objects: FileObjects, policy: OnConflict) -> Iterator[Intake]:
    intake = Intake(database, objects, lambda error: None, on_conflict=lambda: policy)
    intake.start()
    try:
        yield intake
    finally:
        intake.stop()


def sent(intake: Intake, *contents: bytes) -> list[Acceptance]:
    """Send several contents under one UID."""
    return [push(intake, received(1, content), content) for content in contents]


def held(database: Database, objects: FileObjects) -> tuple[list[bytes], list[bytes]]:
    """What is kept as the instance, and what was set aside."""
    with database.snapshot() as tx:
        keys = tx.execute(sa.select(Instance.object_key)).scalars().all()
        aside = tx.execute(sa.select(Conflict.object_key).order_by(Conflict.id)).scalars().all()
    return [objects.read(key) for key in keys], [objects.read(key) for key in aside]


def series_of(database: Database) -> tuple[int, str, int, int]:
    with database.snapshot() as tx:
        row = tx.execute(
            sa.select(Series.generation, Series.state, Series.n_instances, Series.bytes)
        ).one()
    return row.generation, row.state, row.n_instances, row.bytes


POLICIES: dict[OnConflict, tuple[Acceptance, list[bytes], list[bytes]]] = {
    OnConflict.KEEP_FIRST: (Acceptance.CONFLICT, [FIRST], [OTHER]),
    OnConflict.REFUSE: (Acceptance.REFUSED, [FIRST], []),
    OnConflict.REPLACE: (Acceptance.REPLACED, [OTHER], [FIRST]),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_keeps_what_it_says_and_nothing_else(
    database: Database, objects: FileObjects, policy: OnConflict
) -> None:
    acceptance, kept, aside = POLICIES[policy]
    with started(database, objects, policy) as intake:
        assert sent(intake, FIRST, OTHER) == [Acceptance.STORED, acceptance]

    assert held(database, objects) == (kept, aside)
    assert len(list((objects.root / "objects").rglob("*.dcm"))) == len(kept) + len(aside)
    assert list(objects.incoming.iterdir()) == []


def test_a_replaced_instance_opens_the_next_generation_of_a_closed_series(
    database: Database, objects: FileObjects
) -> None:
    with started(database, objects, OnConflict.REPLACE) as intake:
        sent(intake, FIRST)
        [before] = close(database, quiet=0)
        sent(intake, OTHER)

        assert series_of(database) == (2, SeriesState.OPEN, 1, len(OTHER))
        [after] = close(database, quiet=0)
    assert after.generation == 2
    assert after.input_digest != before.input_digest
    assert len(after.instances) == 1


def test_what_took_the_place_is_a_duplicate_when_it_comes_again(
    database: Database, objects: FileObjects
) -> None:
    with started(database, objects, OnConflict.REPLACE) as intake:
        found = sent(intake, FIRST, OTHER, OTHER, FIRST)

    assert found[1:] == [Acceptance.REPLACED, Acceptance.DUPLICATE, Acceptance.REPLACED]
    assert held(database, objects) == ([FIRST], [FIRST, OTHER])


def test_a_refused_instance_leaves_a_closed_series_closed(
    database: Database, objects: FileObjects
) -> None:
    with started(database, objects, OnConflict.REFUSE) as intake:
        sent(intake, FIRST)
        close(database, quiet=0)
        sent(intake, OTHER)

    assert series_of(database) == (1, SeriesState.CLOSED, 1, len(FIRST))


def test_what_comes_again_takes_the_place_of_an_object_that_cannot_be_read(
    database: Database, objects: FileObjects
) -> None:
    with started(database, objects, OnConflict.KEEP_FIRST) as intake:
        assert sent(intake, FIRST) == [Acceptance.STORED]
        with database.snapshot() as tx:
            [key] = tx.execute(sa.select(Instance.object_key)).scalars()
        objects.path(key).unlink()

        assert sent(intake, FIRST) == [Acceptance.REPLACED]

        assert sent(intake, FIRST) == [Acceptance.DUPLICATE]
    with database.snapshot() as tx:
        [new] = tx.execute(sa.select(Instance.object_key)).scalars()
    assert objects.read(new) == FIRST


@pytest.mark.parametrize("policy", [OnConflict.KEEP_FIRST, OnConflict.REPLACE])
def test_bytes_made_to_have_the_digest_of_others_are_kept_all_the_same(
    database: Database, objects: FileObjects, policy: OnConflict
) -> None:
    # One digest for different bytes of one length, as somebody may contrive for any checksum.
    forged = [
        (replace(received(1, content), digest="xxh3:" + "0" * 32), content)
        for content in (b"bytes 1", b"bytes 2", b"bytes 3", b"bytes 2")
    ]
    with started(database, objects, policy) as intake:
        for instance, content in forged:
            push(intake, instance, content)

    kept, aside = held(database, objects)
    assert {b"bytes 1", b"bytes 2", b"bytes 3"} == {*kept, *aside}


class WritingObjects(FileObjects):
    """Objects that are compared only while everybody else can write rows."""

    database: Database
    compared = 0

    def same_data(self, one: str | Place, other: str, size: int) -> bool | None:
        with self.database.transaction() as tx:
            tx.execute(sa.update(Study).values(last_at=tx.now))
        self.compared += 1
        return super().same_data(one, other, size)


@pytest.mark.parametrize("ending", [b"same", b"else"])
def test_a_large_instance_that_comes_again_is_compared_before_the_rows_are_written(
    database: Database, tmp_path: Path, ending: bytes
) -> None:
    objects = WritingObjects(tmp_path / "large")
    objects.database = database
    first = b"x" * LARGE_BYTES
    with started(database, objects, OnConflict.KEEP_FIRST) as intake:
        accepted = sent(intake, first + b"same")
        again = replace(received(1, first + b"same"), size=len(first) + 4)
        accepted.append(push(intake, again, first + ending))

    same = ending == b"same"
    assert accepted == [Acceptance.STORED, Acceptance.DUPLICATE if same else Acceptance.CONFLICT]
    assert objects.compared == 1
    assert list(objects.incoming.iterdir()) == []


class UnreadableObjects(FileObjects):
    """Objects whose comparison fails in a way that nobody foresaw."""

    def same_data(self, one: str | Place, other: str, size: int) -> bool | None:
        raise MemoryError


def test_a_comparison_that_fails_leaves_nothing_and_the_sender_its_copy(
    database: Database, tmp_path: Path
) -> None:
    objects = UnreadableObjects(tmp_path / "large")
    content = b"x" * LARGE_BYTES
    with started(database, objects, OnConflict.KEEP_FIRST) as intake:
        sent(intake, content)
        with pytest.raises(StoreUnavailable, match="not stored"):
            sent(intake, content)

    assert list(objects.incoming.iterdir()) == []
    assert held(database, objects) == ([content], [])
