"""Jobs, tasks and deliveries: each move once, by whoever owns it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from storage import deliveries, job_admin, jobs, new_jobs, reaper, tasks
from storage.base import (
    ClosedSeries,
    CompletionVerdict,
    DeliveryState,
    Job,
    JobState,
    LeaseLost,
)
from storage.database import Database
from storage.deliveries import RetrySchedule
from storage.intake import Intake
from storage.jobs import RetryPolicy
from storage.objects import FileObjects
from storage.owner import new_owner
from storage.tables import Task
from tests.conftest import TestClock
from tests.storage.samples import open_job, push, received, result

POLICY = RetryPolicy()
ME, OTHER = "me/a/b/1/2/x", "other/a/b/1/2/x"
LEASE = timedelta(seconds=30)


@pytest.fixture
def intake(database: Database, objects: FileObjects) -> Iterator[Intake]:
    found = Intake(database, objects, lambda error: None)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def job_id(database: Database, intake: Intake) -> int:
    return open_job(database, intake)


def _claim(database: Database, job_id: int, step: str = "convert", owner: str = ME) -> Job | None:
    with database.transaction() as tx:
        return jobs.claim(tx, job_id, step, owner, POLICY)


def _get(database: Database, job_id: int) -> Job:
    with database.snapshot() as tx:
        job = jobs.get(tx, job_id)
    assert job is not None
    return job


def _tasks(database: Database) -> list[str]:
    with database.snapshot() as tx:
        return list(tx.execute(sa.select(Task.message_id).order_by(Task.message_id)).scalars())


def _through_report(database: Database, job_id: int, destinations: dict[str, list[str]]) -> None:
    for step in ("convert", "infer"):
        job = _claim(database, job_id, step)
        assert job is not None
        with database.transaction() as tx:
            jobs.finish_step(tx, job)
    job = _claim(database, job_id, "report")
    assert job is not None
    with database.transaction() as tx:
        jobs.fix_results(tx, job, [result("capture"), result("seg"), result("sr")], destinations)


def test_a_new_job_has_its_task_in_the_same_transaction(database: Database, job_id: int) -> None:
    assert _get(database, job_id).state is JobState.QUEUED
    assert _tasks(database) == [f"convert:{job_id}"]


def test_a_step_is_owned_by_one_only(database: Database, job_id: int) -> None:
    assert _claim(database, job_id) is not None
    assert _claim(database, job_id, owner=OTHER) is None


def test_a_step_is_not_taken_out_of_turn(database: Database, job_id: int) -> None:
    assert _claim(database, job_id, "infer") is None


def test_a_late_owner_cannot_commit_after_its_lease_was_taken(
    database: Database, job_id: int, clock: TestClock
) -> None:
    zombie = _claim(database, job_id)
    clock.forward(31)
    successor = _claim(database, job_id, owner=OTHER)
    assert zombie is not None
    assert successor is not None

    with pytest.raises(LeaseLost), database.transaction() as tx:
        jobs.finish_step(tx, zombie)

    with database.transaction() as tx:
        jobs.finish_step(tx, successor)
    assert _get(database, job_id).step == "infer"


def test_a_heartbeat_keeps_the_lease_and_shows_progress(
    database: Database, job_id: int, clock: TestClock
) -> None:
    job = _claim(database, job_id)
    assert job is not None
    clock.forward(20)
    with database.transaction() as tx:
        jobs.heartbeat(tx, job, POLICY, 0.5, "slices")
    clock.forward(20)

    assert _claim(database, job_id, owner=OTHER) is None
    assert _get(database, job_id).progress == pytest.approx(0.5)


def test_a_job_that_killed_three_workers_is_quarantined(
    database: Database, job_id: int, clock: TestClock
) -> None:
    for _ in range(3):
        assert _claim(database, job_id) is not None
        clock.forward(31)

    assert _claim(database, job_id) is None
    assert _get(database, job_id).state is JobState.QUARANTINED


def test_a_step_given_back_at_shutdown_counts_no_delivery(database: Database, job_id: int) -> None:
    for _ in range(5):
        job = _claim(database, job_id)
        assert job is not None
        with database.transaction() as tx:
            jobs.give_back(tx, job)

    assert _get(database, job_id).state is JobState.QUEUED


def test_a_transient_failure_waits_longer_each_time_and_then_gives_up(
    database: Database, job_id: int, clock: TestClock
) -> None:
    waits = []
    for _ in range(3):
        job = _claim(database, job_id)
        assert job is not None
        with database.transaction() as tx:
            jobs.retry_later(tx, job, POLICY, attempts=4, reason="x", sentence="Away.")
        waiting = _get(database, job_id)
        assert waiting.state is JobState.RETRY_WAIT
        assert waiting.next_at is not None
        waits.append((waiting.next_at - clock.time).total_seconds())
        assert _claim(database, job_id) is None
        clock.time = waiting.next_at
    job = _claim(database, job_id)
    assert job is not None
    with database.transaction() as tx:
        jobs.retry_later(tx, job, POLICY, attempts=4, reason="x", sentence="Away.")

    assert waits == [15, 30, 60]
    assert _get(database, job_id).state is JobState.FAILED


def test_a_retry_survives_the_acknowledgement_of_its_own_message(
    database: Database, job_id: int, clock: TestClock
) -> None:
    with database.transaction() as tx:
        task = tasks.claim(tx, "convert", ME, LEASE)
    job = _claim(database, job_id)
    assert job is not None
    assert task is not None
    with database.transaction() as tx:
        jobs.retry_later(tx, job, POLICY, attempts=4, reason="x", sentence="Away.")
    with database.transaction() as tx:
        tasks.finish(tx, task.message_id, ME)

    assert _tasks(database) == [f"convert:{job_id}"]
    with database.transaction() as tx:
        assert tasks.claim(tx, "convert", ME, LEASE) is None
    clock.forward(16)
    with database.transaction() as tx:
        assert tasks.claim(tx, "convert", ME, LEASE) is not None


def test_a_lost_task_is_made_again(database: Database, job_id: int) -> None:
    with database.transaction() as tx:
        tx.execute(sa.delete(Task))
    with database.transaction() as tx:
        assert reaper.wake_forgotten(tx) == 1
        assert reaper.wake_forgotten(tx) == 0

    assert _tasks(database) == [f"convert:{job_id}"]


def test_the_leases_of_a_dead_process_end_at_once(database: Database, job_id: int) -> None:
    alive = new_owner()
    host, boot, namespace, _, _, rest = alive.split("/")
    dead = f"{host}/{boot}/{namespace}/999999999/1/{rest}"
    assert _claim(database, job_id, owner=dead) is not None

    with database.transaction() as tx:
        assert reaper.expire_dead_leases(tx) == 1

    assert _claim(database, job_id, owner=alive) is not None
    with database.transaction() as tx:
        assert reaper.expire_dead_leases(tx) == 0


def test_new_instances_supersede_a_job_without_results(
    database: Database, intake: Intake, job_id: int
) -> None:
    running = _claim(database, job_id)
    push(intake, received(2))
    newer = open_job_of_next_generation(database)

    assert _get(database, job_id).state is JobState.SUPERSEDED
    assert _get(database, newer).state is JobState.QUEUED
    assert running is not None
    with pytest.raises(LeaseLost), database.transaction() as tx:
        jobs.finish_step(tx, running)


def open_job_of_next_generation(database: Database) -> int:
    from storage import series
    from tests.storage.samples import new_job

    with database.transaction() as tx:
        [closed] = series.close_due(tx, quiet=timedelta(0), max_wait=timedelta(0))
        job_id = new_jobs.insert(tx, closed, new_job("b" * 64))
    assert job_id is not None
    return job_id


def test_the_same_work_is_never_opened_twice(database: Database, job_id: int) -> None:
    from storage import series
    from tests.storage.samples import new_job

    with database.transaction() as tx:
        instances, peers = series.instances_of(tx, _get(database, job_id).series_id)
        closed = ClosedSeries(
            _get(database, job_id).series_id, "1", "2", 1, CompletionVerdict.QUIET,
            instances, "d", peers,
        )  # fmt: skip
        assert new_jobs.insert(tx, closed, new_job("a" * 64)) is None


def test_results_deliveries_and_the_senders_task_are_fixed_together(
    database: Database, job_id: int
) -> None:
    _through_report(database, job_id, {"PACS": ["capture", "seg", "sr"], "RESEARCH": ["sr"]})

    assert _get(database, job_id).state is JobState.DELIVERING
    with database.transaction() as tx:
        claimed = deliveries.claim(tx, job_id, ME)
    assert [item.slot for item in claimed["PACS"]] == ["capture", "seg", "sr"]
    assert [item.slot for item in claimed["RESEARCH"]] == ["sr"]
    assert f"deliver:{job_id}" in _tasks(database)


def test_a_shadow_job_is_done_without_deliveries(database: Database, job_id: int) -> None:
    _through_report(database, job_id, {})

    assert _get(database, job_id).state is JobState.DONE


def test_a_job_is_done_when_every_result_is_at_every_destination(
    database: Database, job_id: int
) -> None:
    _through_report(database, job_id, {"PACS": ["seg", "sr"]})
    with database.transaction() as tx:
        items = deliveries.claim(tx, job_id, ME)["PACS"]
    for item in items:
        with database.transaction() as tx:
            deliveries.finish(tx, item, "sent", 0, "", RetrySchedule())
    with database.transaction() as tx:
        assert deliveries.settle(tx, job_id) is JobState.DONE


def test_a_failed_delivery_waits_and_is_given_up_only_after_its_time(
    database: Database, job_id: int, clock: TestClock
) -> None:
    schedule = RetrySchedule((10.0, 60.0), give_up_seconds=100)
    _through_report(database, job_id, {"PACS": ["sr"]})
    states = []
    for _ in range(3):
        with database.transaction() as tx:
            [item] = deliveries.claim(tx, job_id, ME)["PACS"]
        with database.transaction() as tx:
            states.append(deliveries.finish(tx, item, "retry", None, "away", schedule))
            assert deliveries.claim(tx, job_id, ME) == {}
        clock.forward(70)

    assert states == [DeliveryState.RETRY_WAIT, DeliveryState.RETRY_WAIT, DeliveryState.REFUSED]
    with database.transaction() as tx:
        assert deliveries.settle(tx, job_id) is JobState.FAILED
    with database.transaction() as tx:
        assert job_admin.requeue(tx, job_id)
    assert _get(database, job_id).state is JobState.DELIVERING


def test_a_zombie_sender_cannot_overwrite_what_its_successor_wrote(
    database: Database, job_id: int, clock: TestClock
) -> None:
    _through_report(database, job_id, {"PACS": ["sr"]})
    with database.transaction() as tx:
        [zombie] = deliveries.claim(tx, job_id, ME)["PACS"]
    clock.forward(61)
    with database.transaction() as tx:
        [item] = deliveries.claim(tx, job_id, OTHER)["PACS"]
        deliveries.finish(tx, item, "sent", 0, "", RetrySchedule())

    with pytest.raises(LeaseLost), database.transaction() as tx:
        deliveries.finish(tx, zombie, "retry", None, "", RetrySchedule())


def test_a_cancelled_job_ends_its_runner_and_its_deliveries(
    database: Database, job_id: int
) -> None:
    job = _claim(database, job_id)
    assert job is not None
    with database.transaction() as tx:
        assert job_admin.cancel(tx, job_id)
    with pytest.raises(LeaseLost), database.transaction() as tx:
        jobs.heartbeat(tx, job, POLICY, 0.1, "")


def test_a_job_whose_results_all_arrived_but_was_never_settled_is_woken(
    database: Database, job_id: int
) -> None:
    _through_report(database, job_id, {"PACS": ["sr"]})
    with database.transaction() as tx:
        [item] = deliveries.claim(tx, job_id, ME)["PACS"]
        deliveries.finish(tx, item, "sent", 0, "", RetrySchedule())
        tx.execute(sa.delete(Task))

    with database.transaction() as tx:
        assert reaper.wake_forgotten(tx) == 1
    with database.transaction() as tx:
        assert deliveries.settle(tx, job_id) is JobState.DONE
    with database.transaction() as tx:
        assert reaper.wake_forgotten(tx) == 0 or _tasks(database) == []


def test_a_long_delivery_keeps_its_lease_and_hears_when_it_lost_it(
    database: Database, job_id: int, clock: TestClock
) -> None:
    _through_report(database, job_id, {"PACS": ["sr"]})
    with database.transaction() as tx:
        items = deliveries.claim(tx, job_id, ME)["PACS"]
    for _ in range(5):
        clock.forward(40)
        with database.transaction() as tx:
            deliveries.renew(tx, items)
            assert deliveries.claim(tx, job_id, OTHER) == {}
    clock.forward(61)
    with database.transaction() as tx:
        assert deliveries.claim(tx, job_id, OTHER) != {}

    with pytest.raises(LeaseLost), database.transaction() as tx:
        deliveries.renew(tx, items)


def test_a_retry_begins_with_the_images_and_needs_them(database: Database, job_id: int) -> None:
    from storage.tables import Instance

    job = _claim(database, job_id)
    assert job is not None
    with database.transaction() as tx:
        jobs.finish_step(tx, job)
    job = _claim(database, job_id, "infer")
    assert job is not None
    with database.transaction() as tx:
        jobs.not_scored(tx, job, "no_brain", "This is no head.")

    with database.transaction() as tx:
        assert job_admin.requeue(tx, job_id, limits={"timeout_seconds": 7.0})
    again = _get(database, job_id)
    assert (again.step, again.snapshot["timeout_seconds"]) == ("convert", 7.0)
    assert again.snapshot == {**job.snapshot, "timeout_seconds": 7.0}
    with database.transaction() as tx:
        assert job_admin.cancel(tx, job_id)
        tx.execute(sa.delete(Instance))
        assert not job_admin.requeue(tx, job_id)


def test_a_cancelled_job_of_a_dead_process_is_reaped_once(database: Database, job_id: int) -> None:
    host, boot, namespace, _, _, rest = new_owner().split("/")
    assert _claim(database, job_id, owner=f"{host}/{boot}/{namespace}/999999999/1/{rest}")
    with database.transaction() as tx:
        job_admin.cancel(tx, job_id)
        assert reaper.expire_dead_leases(tx) == 0


def test_a_step_whose_input_is_not_there_starts_over_a_few_times_and_is_then_held(
    database: Database, job_id: int
) -> None:
    states = []
    for _ in range(3):
        for step in ("convert", "infer"):
            job = _claim(database, job_id, step)
            assert job is not None
            with database.transaction() as tx:
                if step == "convert":
                    jobs.finish_step(tx, job)
                else:
                    jobs.start_over(tx, job, ME)
        states.append(_get(database, job_id).state)

    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.HELD]
    assert "node.data" in _get(database, job_id).sentence
