"""The SQL broker under a real Dramatiq worker, and the relay to RabbitMQ and Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import sqlalchemy as sa
from dramatiq.broker import Broker
from dramatiq.message import Message

from pipelines.broker import Relay, SQLBroker, external_broker, start_worker
from storage import reaper, tasks
from storage.database import Database
from storage.migrate import migrate
from storage.owner import new_owner
from storage.tables import Task
from tests.services import RABBITMQ, REDIS, require_port

DEADLINE = 60.0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """With the database's own clock: leases run out in real time here."""
    found = Database(database_url)
    migrate(found)
    yield found
    found.close()


class Worked:
    """What an actor was given, in order."""

    def __init__(self) -> None:
        self.jobs: list[int] = []
        self.enough = threading.Event()
        self.wanted = 0

    def expect(self, wanted: int) -> None:
        self.wanted = wanted

    def __call__(self, job_id: int) -> None:
        self.jobs.append(job_id)
        if len(self.jobs) >= self.wanted:
            self.enough.set()


def _enqueue(database: Database, queue: str, *jobs: int, priority: int = 5) -> None:
    with database.transaction() as tx:
        for job in jobs:
            tasks.enqueue(tx, queue, job, priority)


def _left(database: Database) -> int:
    with database.snapshot() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(Task)).scalar_one())


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def _declare(broker: Broker, function: Callable[[int], None], queue: str) -> None:
    dramatiq.actor(actor_name="convert", queue_name=queue, broker=broker)(function)


@pytest.fixture
def worked() -> Worked:
    return Worked()


@pytest.fixture
def sql_worker(database: Database, worked: Worked) -> Iterator[SQLBroker]:
    broker = SQLBroker(database, new_owner(), lease_seconds=2)
    _declare(broker, worked, "convert")
    worker = start_worker(broker, ["convert"], 1)
    yield broker
    worker.stop()
    broker.close()


def test_committed_tasks_are_worked_on_and_deleted(
    database: Database, sql_worker: SQLBroker, worked: Worked
) -> None:
    worked.expect(20)
    _enqueue(database, "convert", *range(20))
    sql_worker.wake_up()

    assert worked.enough.wait(DEADLINE)
    assert sorted(worked.jobs) == list(range(20))
    _until(lambda: _left(database) == 0, "tasks were not acknowledged")


def test_urgent_tasks_come_first(database: Database, worked: Worked) -> None:
    worked.expect(3)
    _enqueue(database, "convert", 1, priority=9)
    _enqueue(database, "convert", 2, priority=5)
    _enqueue(database, "convert", 3, priority=0)
    broker = SQLBroker(database, new_owner())
    _declare(broker, worked, "convert")
    worker = start_worker(broker, ["convert"], 1)

    assert worked.enough.wait(DEADLINE)
    worker.stop()
    broker.close()
    assert worked.jobs == [3, 2, 1]


def test_a_task_of_a_transaction_that_failed_was_never_there(
    database: Database, sql_worker: SQLBroker, worked: Worked
) -> None:
    def fail() -> None:
        with database.transaction() as tx:
            tasks.enqueue(tx, "convert", 1, 5)
            raise RuntimeError("the job's transaction failed")

    with pytest.raises(RuntimeError):
        fail()

    assert _left(database) == 0


def test_a_task_is_not_taken_before_its_time(database: Database) -> None:
    with database.transaction() as tx:
        tasks.enqueue(tx, "convert", 1, 5, tx.now + timedelta(seconds=600))
        assert tasks.claim(tx, "convert", "me", timedelta(seconds=1)) is None


_DIES = """
import sys, time
import dramatiq
from pipelines.broker import SQLBroker, start_worker
from storage.database import Database
from storage.owner import new_owner
broker = SQLBroker(Database(sys.argv[1]), new_owner(), lease_seconds=600)
@dramatiq.actor(actor_name="convert", queue_name="convert", broker=broker)
def convert(job_id):
    print("begun", flush=True)
    time.sleep(600)
start_worker(broker, ["convert"], 1)
time.sleep(600)
"""


def test_the_task_of_a_killed_worker_goes_to_another(
    database: Database, database_url: str, worked: Worked
) -> None:
    _enqueue(database, "convert", 7)
    with subprocess.Popen(
        [sys.executable, "-c", _DIES, database_url], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"begun"
        os.kill(process.pid, signal.SIGKILL)
    worked.expect(1)

    with database.transaction() as tx:
        assert reaper.expire_dead_leases(tx) == 1
    broker = SQLBroker(database, new_owner())
    _declare(broker, worked, "convert")
    worker = start_worker(broker, ["convert"], 1)

    assert worked.enough.wait(DEADLINE)
    worker.stop()
    broker.close()
    assert worked.jobs == [7]


def test_an_actor_that_raises_leaves_no_task_behind(database: Database) -> None:
    began = threading.Event()

    def fails(job_id: int) -> None:
        began.set()
        raise ValueError("a mistake of ours")

    broker = SQLBroker(database, new_owner())
    _declare(broker, fails, "convert")
    worker = start_worker(broker, ["convert"], 1)
    _enqueue(database, "convert", 1)

    assert began.wait(DEADLINE)
    _until(lambda: _left(database) == 0, "the task stayed")
    worker.stop()
    broker.close()


@pytest.mark.services
@pytest.mark.parametrize(("url", "port"), [(RABBITMQ, 5672), (REDIS, 6379)], ids=["amqp", "redis"])
def test_the_relay_wakes_workers_behind_an_external_broker(
    database: Database, worked: Worked, url: str, port: int
) -> None:
    require_port(port, url.partition(":")[0])
    prefix = f"test.{uuid.uuid4().hex[:8]}."
    broker = external_broker(url)

    def convert(job_id: int) -> None:
        with database.transaction() as tx:
            tasks.forget_published(tx, "convert", job_id)
        worked(job_id)

    _declare(broker, convert, f"{prefix}convert")
    worker = start_worker(broker, [f"{prefix}convert"], 1)
    worked.expect(5)
    _enqueue(database, "convert", *range(5))
    relay = Relay(database, broker, new_owner(), prefix)

    assert relay.wake_up() == 5
    assert relay.wake_up() == 0
    assert worked.enough.wait(DEADLINE)
    worker.stop()
    _delete_queues(broker, f"{prefix}convert")
    broker.close()
    assert sorted(worked.jobs) == list(range(5))
    assert _left(database) == 0


def _delete_queues(broker: Broker, queue: str) -> None:
    channel = getattr(broker, "channel", None)
    for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
        if channel is not None:
            channel.queue_delete(name)
    if channel is None:
        broker.flush_all()


def test_a_broker_that_is_away_loses_nothing(database: Database) -> None:
    _enqueue(database, "convert", 1)
    relay = Relay(database, external_broker("amqp://guest:guest@127.0.0.1:9/"), new_owner(), "x.")

    assert relay.wake_up() == 0
    with database.snapshot() as tx:
        assert tx.execute(sa.select(Task.state)).scalar_one() == tasks.QUEUED


def test_consumers_that_start_together_start_one_heartbeat(database: Database) -> None:
    broker = SQLBroker(database, new_owner())
    together = threading.Barrier(8)

    def consume() -> None:
        together.wait()
        broker.consume("convert")

    threads = [threading.Thread(target=consume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [thread.name for thread in threading.enumerate()].count("task-leases") == 1
    broker.close()


def test_a_hundred_failed_publishes_do_not_block_the_queue(database: Database) -> None:
    _enqueue(database, "convert", 1)
    relay = Relay(database, Unreachable(middleware=[]), new_owner(), "x.")

    for _ in range(100):
        assert relay.wake_up() == 0

    with database.transaction() as tx:
        task = tasks.claim(tx, "convert", "me", timedelta(seconds=1))
    assert task is not None


class Unreachable(Broker):
    """A transport whose server is away."""

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        raise ConnectionRefusedError
