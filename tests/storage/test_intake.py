"""The durable accept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage import retention
from storage.base import Acceptance, SeriesState, StoreBroken
from storage.database import Database
from storage.intake import Intake
from storage.objects import FileObjects
from storage.tables import Conflict, Instance, Series
from tests.conftest import TestClock
from tests.storage.samples import SERIES, close, push, received


@pytest.fixture
def broken() -> list[Exception]:
    return []


@pytest.fixture
def intake(database: Database, objects: FileObjects, broken: list[Exception]) -> Iterator[Intake]:
    found = Intake(database, objects, broken.append)
    found.start()
    yield found
    found.stop()


def _rows(database: Database) -> list[sa.Row[tuple[str, str, int]]]:
    with database.snapshot() as tx:
        query = sa.select(Instance.sop_instance_uid, Instance.object_key, Instance.duplicates)
        return list(tx.execute(query).all())


def test_an_accepted_instance_has_its_bytes_its_name_and_its_row(
    database: Database, intake: Intake
) -> None:
    assert push(intake, received(1), b"the bytes") is Acceptance.STORED

    [row] = _rows(database)
    assert row.sop_instance_uid == f"{SERIES}.1"
    assert intake.objects.read(row.object_key) == b"the bytes"
    assert list(intake.objects.incoming.iterdir()) == []


def test_the_same_instance_again_is_a_duplicate_and_only_counted(
    database: Database, intake: Intake
) -> None:
    push(intake, received(1))
    close(database, quiet=0)

    assert push(intake, received(1)) is Acceptance.DUPLICATE

    assert [row.duplicates for row in _rows(database)] == [1]
    with database.snapshot() as tx:
        assert tx.execute(sa.select(Series.state)).scalar_one() == SeriesState.CLOSED


def test_other_bytes_under_a_known_uid_are_set_aside_and_the_first_kept(
    database: Database, intake: Intake
) -> None:
    push(intake, received(1), b"first")

    assert push(intake, received(1, b"changed"), b"second") is Acceptance.CONFLICT

    [row] = _rows(database)
    assert intake.objects.read(row.object_key) == b"first"
    with database.snapshot() as tx:
        key = tx.execute(sa.select(Conflict.object_key)).scalar_one()
    assert intake.objects.read(key) == b"second"


def test_many_associations_at_once_share_commits_and_lose_nothing(
    database: Database, intake: Intake
) -> None:
    numbers = [(series, number) for series in range(4) for number in range(25)]
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(
            pool.map(lambda n: push(intake, received(n[1], series_uid=f"1.2.{n[0]}")), numbers)
        )

    assert set(outcomes) == {Acceptance.STORED}
    assert len(_rows(database)) == 100
    with database.snapshot() as tx:
        assert list(tx.execute(sa.select(Series.n_instances)).scalars()) == [25] * 4


def test_an_instance_after_closing_opens_the_next_generation(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    push(intake, received(1))
    clock.forward(60)
    [first] = close(database)

    push(intake, received(2))
    assert close(database) == []
    clock.forward(60)
    [second] = close(database)

    assert (first.generation, len(first.instances)) == (1, 1)
    assert (second.generation, len(second.instances)) == (2, 2)
    assert first.input_digest != second.input_digest


def test_a_failed_flush_is_not_acknowledged_and_ends_the_process(
    intake: Intake, broken: list[Exception], tmp_path: Path
) -> None:
    spool = intake.objects.spool()
    spool.write_all([b"x"])
    # A pipe cannot be flushed: fdatasync fails with EINVAL, as a broken disk would with EIO.
    reader, writer = os.pipe()
    os.dup2(writer, spool._fd)

    with pytest.raises(StoreBroken):
        intake.accept(received(1), spool)

    with pytest.raises(StoreBroken):
        push(intake, received(2))  # its own flush would succeed, and prove nothing
    assert broken
    assert list(intake.objects.incoming.iterdir()) == []
    os.close(reader)
    os.close(writer)


def test_a_folder_that_cannot_be_written_fails_every_waiting_sender(
    database: Database, intake: Intake
) -> None:
    folder = intake.objects.root / "objects"
    shutil.rmtree(folder)
    folder.write_text("in the way")

    with pytest.raises(Exception, match="cannot name an object"):
        push(intake, received(1))

    assert _rows(database) == []


def test_deleting_one_series_never_takes_the_bytes_of_the_same_instance_sent_again(
    database: Database, intake: Intake
) -> None:
    push(intake, received(1), b"the bytes")
    [first] = _rows(database)
    with database.transaction() as tx:
        tx.execute(sa.delete(Instance))

    push(intake, received(1), b"the bytes")
    intake.objects.remove(first.object_key)

    [row] = _rows(database)
    assert intake.objects.read(row.object_key) == b"the bytes"


def test_a_duplicate_leaves_no_second_file(database: Database, intake: Intake) -> None:
    for _ in range(3):
        push(intake, received(1), b"the bytes")
    for _ in range(2):
        push(intake, received(1, b"changed"), b"other bytes")

    files = [path for path in intake.objects.root.glob("objects/*/*") if path.is_file()]
    assert len(files) == 2


def test_the_same_bytes_under_another_transfer_syntax_are_a_conflict(
    database: Database, intake: Intake
) -> None:
    push(intake, received(1), b"as explicit")
    other = replace(received(1), transfer_syntax_uid="1.2.840.10008.1.2.5")

    assert push(intake, other, b"as RLE") is Acceptance.CONFLICT
    [row] = _rows(database)
    assert intake.objects.read(row.object_key) == b"as explicit"


def test_a_nul_in_the_modality_of_one_sender_hurts_nobody(
    database: Database, intake: Intake
) -> None:
    poison = replace(received(1), header={"Modality": ["C\0T"]})

    assert push(intake, poison) is Acceptance.STORED
    assert push(intake, received(2, series_uid="1.9")) is Acceptance.STORED


def test_a_sender_that_starts_over_keeps_its_series_open(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    push(intake, received(1))
    push(intake, received(2))
    for number in (1, 2, 1, 2):
        clock.forward(20)
        push(intake, received(number))
        assert close(database) == []
    clock.forward(46)

    [closed] = close(database)
    assert closed.generation == 1


def test_files_without_rows_are_found_and_those_with_rows_are_not(
    database: Database, intake: Intake
) -> None:
    push(intake, received(1))
    intake.objects.put("objects/ab/orphan.dcm", b"left by a crash")

    keys = [key for some in intake.objects.keys_older_than(-1) for key in some]
    with database.snapshot() as tx:
        assert retention.without_rows(tx, keys) == ["objects/ab/orphan.dcm"]


def test_new_instances_take_the_prepared_path_on_every_database(
    database: Database, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_path(*_: object) -> None:
        raise AssertionError("a batch of new instances was refused by the database")

    monkeypatch.setattr("storage.intake_rows._record", slow_path)

    assert push(intake, received(1)) is Acceptance.STORED
    assert push(intake, received(2)) is Acceptance.STORED
