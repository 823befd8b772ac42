"""Forgetting: in time, and never what is still needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from storage import associations, gathering, job_admin, jobs, new_jobs, nodes, retention
from storage.associations import OpenedAssociation
from storage.base import JobState
from storage.database import Database
from storage.intake import Intake
from storage.jobs import RetryPolicy
from storage.objects import FileObjects
from storage.tables import Association, Instance
from tests.conftest import TestClock
from tests.storage.samples import close, new_job, open_job, push, received

DAY = timedelta(days=1)
SILENT, ALIVE = "elsewhere/ns/1/2/a", "elsewhere/ns/3/4/b"
TERMS = retention.Terms(
    inputs=7 * DAY, results=30 * DAY, unmatched=3 * DAY, failed=14 * DAY, audit=365 * DAY
)


@pytest.fixture
def intake(database: Database, objects: FileObjects) -> Iterator[Intake]:
    found = Intake(database, objects, lambda error: None)
    yield found
    found.stop()


def _forget(database: Database) -> int:
    with database.transaction() as tx:
        return len(retention.forget(tx, TERMS))


def _days(clock: TestClock, days: float) -> None:
    clock.forward(days * 86400)


def test_a_series_without_job_goes_after_its_time_and_not_before(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    push(intake, received(1))
    clock.forward(60)
    close(database)
    _days(clock, 2.9)
    assert _forget(database) == 0
    _days(clock, 0.2)
    assert _forget(database) == 1
    with database.snapshot() as tx:
        assert tx.execute(sa.select(Instance.id)).first() is None


def test_images_of_an_unfinished_job_stay_however_old(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    open_job(database, intake)
    _days(clock, 400)

    assert _forget(database) == 0


def test_images_that_a_job_reads_beside_its_series_stay_as_long_as_it_needs_them(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    for series_uid in ("1.2.3.5", "1.2.3.6", "1.2.3.7"):
        push(intake, received(1, series_uid=series_uid))
    first, second, third = close(database, quiet=0, max_wait=0)
    waiting = replace(new_job("a" * 64), state=JobState.HELD, reason=gathering.WAITS_FOR_INPUTS)
    with database.transaction() as tx:
        job_id = new_jobs.insert(
            tx, first, replace(waiting, inputs={"flair": (second.series_id, 1)})
        )
        assert job_id is not None
        job = jobs.get(tx, job_id)
        assert job is not None
        prior = {"values": None, "series": {"prior": (third.series_id, 1)}}
        gathering.wait(tx, job, 15.0, "No row yet.", {"prior": prior})
    _days(clock, 30)
    assert _forget(database) == 0

    with database.transaction() as tx:
        gathering.give_up(tx, job, "missing_input", "There is no row.")
    _days(clock, 7.1)

    assert _forget(database) == 3


def test_images_go_a_week_after_their_job_ended(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    job_id = open_job(database, intake)
    _days(clock, 30)
    with database.transaction() as tx:
        job = jobs.claim(tx, job_id, "convert", "me/a/b/1/2/x", RetryPolicy())
        assert job is not None
        jobs.not_scored(tx, job, "x", "Not a head.")
    assert _forget(database) == 0
    _days(clock, 7.1)

    assert _forget(database) == 1


def test_an_open_series_is_never_forgotten(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    push(intake, received(1))
    _days(clock, 400)

    assert _forget(database) == 0


def test_the_work_folder_of_a_job_stays_for_an_hour_after_its_end(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    job_id = open_job(database, intake)
    with database.transaction() as tx:
        assert retention.ended_jobs(tx, [job_id, 999]) == [999]
        job_admin.cancel(tx, job_id)
    clock.forward(1800)
    with database.snapshot() as tx:
        assert retention.ended_jobs(tx, [job_id]) == []
    clock.forward(3600)

    with database.snapshot() as tx:
        assert retention.ended_jobs(tx, [job_id]) == [job_id]


def test_associations_of_a_killed_process_end_and_are_forgotten_in_time(
    database: Database, clock: TestClock
) -> None:
    def ended() -> list[tuple[int, str]]:
        with database.snapshot() as tx:
            rows = tx.execute(
                sa.select(Association.id, Association.end_reason).order_by(Association.id)
            )
            return [(row.id, row.end_reason) for row in rows]

    with database.transaction() as tx:
        nodes.heartbeat(tx, SILENT, "node", "receiver", "1", {})
        for number, owner in ((1, SILENT), (2, ALIVE)):
            opened = OpenedAssociation(number, owner, "CT1", "127.0.0.1", "CT1", "NODE")
            associations.write_associations(tx, [opened], [], {})
    clock.forward(61)
    with database.transaction() as tx:
        nodes.heartbeat(tx, ALIVE, "node", "receiver", "1", {})
        nodes.forget_gone(tx)
    assert ended() == [(1, "gone"), (2, "")]

    _days(clock, 29)
    with database.transaction() as tx:
        assert associations.forget(tx, TERMS.results) == 0
    _days(clock, 2)
    with database.transaction() as tx:
        assert associations.forget(tx, TERMS.results) == 1
    assert ended() == [(2, "")], "one that lasts is kept"
