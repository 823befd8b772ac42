"""Notices on both databases: opened once, the newest takes the place of what nobody has made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from storage import counting, jobs, new_jobs, notices, series
from storage.base import Job
from storage.database import Database
from storage.intake import Intake
from storage.jobs import RetryPolicy
from storage.objects import FileObjects
from storage.tables import Job as JobRow
from storage.tables import Series
from tests.conftest import TestClock
from tests.storage.samples import new_job, push, received, result

TOLD = {
    "tell_reader": ["sr"],
    "tell_after_seconds": 60.0,
    "destinations": {"PACS": {"send": ["sr"]}},
    "labels": {"sr": {"number": 1, "description": "x"}},
    "uid_root": "1.2.",
    "station": "here",
    "memory_bytes": 1,
}


@pytest.fixture
def intake(database: Database, objects: FileObjects) -> Iterator[Intake]:
    found = Intake(database, objects, lambda error: None)
    found.start()
    yield found
    found.stop()


def _open(database: Database) -> int:
    with database.transaction() as tx:
        closed = series.close_due(tx, quiet=timedelta(0), max_wait=timedelta(0))[0]
        job_id = new_jobs.insert(tx, closed, replace(new_job("a" * 64), snapshot=TOLD))
    assert job_id is not None
    return job_id


def _claim(database: Database, job_id: int, step: str) -> Job:
    with database.transaction() as tx:
        job = jobs.claim(tx, job_id, step, "test", RetryPolicy())
    assert job is not None
    return job


def _tell(database: Database) -> int:
    with database.transaction() as tx:
        return notices.open_due(tx) if notices.is_due(tx) else 0


def _all(database: Database) -> list[tuple[int, str, str]]:
    with database.snapshot() as tx:
        rows = tx.execute(
            sa.select(JobRow.id, JobRow.state, JobRow.snapshot)
            .where(JobRow.notice_of.is_not(None))
            .order_by(JobRow.id)
        ).all()
    return [(row.id, row.state, row.snapshot["notice"]["status"]) for row in rows]


def test_notices_follow_a_job_to_its_end(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    push(intake, received(1))
    job_id = _open(database)
    assert _tell(database) == 0
    clock.forward(61)
    assert (_tell(database), _tell(database)) == (1, 0)
    ((running, state, status),) = _all(database)
    assert (state, status) == ("queued", "running")

    made = _claim(database, running, "report")
    with database.transaction() as tx:
        jobs.fix_results(tx, made, [result("sr")], {"PACS": ["sr"]})
    job = _claim(database, job_id, "convert")
    with database.transaction() as tx:
        jobs.not_scored(tx, job, "no_head", "There is no head.")
    assert _tell(database) == 1

    with database.snapshot() as tx:
        last = jobs.get(tx, _all(database)[-1][0])
    assert last is not None
    assert (last.notice_of, last.step) == (job_id, "report")
    assert (last.snapshot["notice"]["status"], last.snapshot["notice"]["earlier"]) == (
        "not_scored",
        "k",
    )


def test_an_unmade_notice_gives_way(database: Database, intake: Intake, clock: TestClock) -> None:
    push(intake, received(1))
    job_id = _open(database)
    clock.forward(61)
    _tell(database)
    job = _claim(database, job_id, "convert")
    with database.transaction() as tx:
        jobs.not_scored(tx, job, "no_head", "There is no head.")
    _tell(database)

    assert [told[1:] for told in _all(database)] == [
        ("superseded", "running"),
        ("queued", "not_scored"),
    ]


def test_what_a_sender_counts_holds_until_more_comes(
    database: Database, intake: Intake, clock: TestClock
) -> None:
    push(intake, received(1))
    pause, again = timedelta(seconds=10), timedelta(seconds=15)

    def due() -> list[counting.Uncounted]:
        with database.snapshot() as tx:
            return counting.due(tx, "CT1", pause, again)

    assert due() == []
    clock.forward(10)
    (asked,) = due()
    with database.transaction() as tx:
        counting.settle(tx, asked, {asked.series_instance_uid: 2, "1.2.3.99": 7})
        assert tx.execute(sa.select(Series.counted)).scalars().all() == [2]
    assert due() == []
    clock.forward(15)
    assert len(due()) == 1, "it has more, so it is asked again"
    push(intake, received(2))
    assert due() == [], "something has come: it is left alone for a while"
    clock.forward(10)
    (asked,) = due()
    push(intake, received(3))
    with database.transaction() as tx:
        counting.settle(tx, asked, {asked.series_instance_uid: 3})
        assert tx.execute(sa.select(Series.counted)).scalars().all() == [2], "it came too late"
