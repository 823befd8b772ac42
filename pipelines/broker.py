"""Dramatiq brokers: our own over SQL, and RabbitMQ or Redis woken by a relay.

The database is the only truth; a broker only wakes workers. A message is a job id.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import dramatiq
import structlog
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from storage import tasks
from storage.bell import Rings
from storage.database import Database

Queue = Literal["convert", "infer", "report", "deliver"]
QUEUES: tuple[Queue, ...] = ("convert", "infer", "report", "deliver")
PUBLISHED_FOR = timedelta(seconds=60)
LONGEST_PUBLISHED = timedelta(hours=1)
RABBITMQ_SECONDS = {"blocked_connection_timeout": 30, "socket_timeout": 10, "stack_timeout": 15}
"""A broker that is out of memory blocks publishers; we come back later instead."""
DAY_MILLISECONDS = 24 * 3600 * 1000

log = structlog.get_logger()


class Wakeup(Protocol):
    """Tells workers that tasks were committed."""

    def wake_up(self) -> int:
        """Pass committed tasks on; how many there were. Never raises: the next one tries again."""


class SQLBroker(Broker):
    """A Dramatiq broker whose messages are the rows of the ``task`` table.

    A consumed row is leased: while its worker lives the lease is renewed, when it dies another
    worker takes it. There is no delay queue (a row has an ``eta``) and no dead letter queue (the
    job's row says what went wrong).

    Parameters
    ----------
    database : Database
    owner : str
        `storage.owner.new_owner` of this process.
    rings : Rings, optional
        What tells consumers of committed tasks; only those of this process when left out.
    lease_seconds, poll_seconds : float
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        rings: Rings | None = None,
        *,
        lease_seconds: float = 30.0,
        poll_seconds: float = 0.2,
    ) -> None:
        super().__init__(middleware=[])
        self.database = database
        self.owner = owner
        self.lease = timedelta(seconds=lease_seconds)
        self.poll_seconds = poll_seconds
        self.held: set[str] = set()
        self.guard = threading.Lock()
        self.rings = rings or Rings()
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="task-leases", daemon=True)

    def close(self) -> None:
        """Stop renewing leases."""
        self._stop.set()
        self.rings.close()

    def wake_up(self) -> int:
        """Wake consumers; those of other hosts poll."""
        self.rings.ring()
        return 0

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known; it needs nothing in the database."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Commit a task for the job a message names."""
        with self.database.transaction() as tx:
            eta = tx.now + timedelta(milliseconds=delay or 0)
            tasks.enqueue(tx, message.queue_name, int(message.args[0]), 5, eta)
        self.rings.ring()
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> Consumer:
        """Start taking tasks of a queue."""
        with self.guard:  # the consumers of several queues start at the same time
            if self._heart.ident is None:
                self._heart.start()
                self.rings.listen()
        return _SQLConsumer(self, queue_name, prefetch, timeout / 1000)

    def _beat(self) -> None:
        while not self._stop.wait(self.lease.total_seconds() / 3):
            with self.guard:
                held = list(self.held)
            if not held:
                continue
            try:
                with self.database.transaction() as tx:
                    tasks.renew(tx, held, self.owner, self.lease)
            except Exception as error:  # noqa: BLE001 - a thread's outermost loop must go on
                log.warning("broker.lease_not_renewed", error=type(error).__name__)


class _SQLConsumer(Consumer):
    """Takes tasks of one queue; not more than `prefetch` at a time."""

    def __init__(self, broker: SQLBroker, queue: str, prefetch: int, timeout: float) -> None:
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._timeout = timeout
        self._mine: set[str] = set()
        self._room = threading.Event()

    def __next__(self) -> MessageProxy | None:
        if len(self._mine) >= self._prefetch:
            self._room.wait(self._timeout)
            self._room.clear()
            return None
        broker = self._broker
        rings = broker.rings.count
        try:
            with broker.database.transaction() as tx:
                task = tasks.claim(tx, self._queue, broker.owner, broker.lease)
        except Exception as error:
            # Dramatiq restarts a consumer only on its own connection errors.
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]
        if task is None:
            broker.rings.wait_after(rings, broker.poll_seconds)
            return None
        with broker.guard:
            broker.held.add(task.message_id)
        self._mine.add(task.message_id)
        return MessageProxy(_message(task.queue, task.queue, task.job_id))

    def ack(self, message: MessageProxy) -> None:
        """Delete the task, unless it was moved to a later time meanwhile."""
        self._let_go(message, keep=False)

    def nack(self, message: MessageProxy) -> None:
        """Do as `ack`: what went wrong stands in the job's row, and the reaper looks after it."""
        self._let_go(message, keep=False)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give back what was taken and not begun."""
        for message in messages:
            self._let_go(message, keep=True)

    def _let_go(self, message: MessageProxy, *, keep: bool) -> None:
        broker = self._broker
        act = tasks.give_back if keep else tasks.finish
        # First of all make room: if the database is away now, the lease runs out by itself.
        with broker.guard:
            broker.held.discard(message.message_id)
        self._mine.discard(message.message_id)
        self._room.set()
        try:
            with broker.database.transaction() as tx:
                act(tx, message.message_id, broker.owner)
        except Exception as error:
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]


class Relay:
    """Passes committed tasks to an external broker, and again when nobody took them.

    The task row stays as *published* until a worker claims its job. A message that got lost is
    published again when the row's lease is over.
    """

    def __init__(self, database: Database, broker: Broker, owner: str, prefix: str) -> None:
        self._database = database
        self._broker = broker
        self._owner = owner
        self._prefix = prefix
        self._guard = threading.Lock()

    def wake_up(self) -> int:
        """Publish every due task; how many went out."""
        with self._guard:
            return sum(self._flush_queue(queue) for queue in QUEUES)

    def _flush_queue(self, queue: Queue) -> int:
        published = 0
        try:
            while self._publish_one(queue):
                published += 1
        except Exception as error:  # noqa: BLE001 - each transport has errors of its own
            log.warning("broker.away", queue=queue, error=type(error).__name__)
        return published

    def _publish_one(self, queue: Queue) -> bool:
        with self._database.transaction() as tx:
            task = tasks.claim(tx, queue, self._owner, PUBLISHED_FOR, tasks.PUBLISHED)
            if task is not None:
                # What nobody takes is published again, ever more rarely.
                again = min(PUBLISHED_FOR * 2.0 ** min(task.deliveries - 1, 6), LONGEST_PUBLISHED)
                tasks.renew(tx, [task.message_id], self._owner, again)
        if task is None:
            return False
        try:
            self._broker.enqueue(_message(self._prefix + queue, queue, task.job_id))
        except Exception:
            with self._database.transaction() as tx:
                tasks.give_back(tx, task.message_id, self._owner)
            raise
        return True


def external_broker(url: str) -> Broker:
    """RabbitMQ or Redis with the settings that keep messages.

    Parameters
    ----------
    url : str
        ``amqp://...``, ``amqps://...``, ``redis://...`` or ``rediss://...``

    References
    ----------
    RabbitMQ closes the channel of a consumer that does not acknowledge in time; our steps may
    be long, so the queue asks for a day (RabbitMQ >= 3.12; older ones redeliver, which the lease
    in the job's row makes harmless).
    """
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        class PatientRabbitmqBroker(RabbitmqBroker):
            def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
                arguments: dict[str, Any] = super()._build_queue_arguments(queue_name)  # type: ignore[no-untyped-call]
                return arguments | {"x-consumer-timeout": DAY_MILLISECONDS}

        settings = urlencode({k: v for k, v in RABBITMQ_SECONDS.items() if k not in url})
        url += ("&" if "?" in url else "?") + settings
        return PatientRabbitmqBroker(url=url, confirm_delivery=True, middleware=[])
    from dramatiq.brokers.redis import RedisBroker

    return RedisBroker(  # type: ignore[no-untyped-call]
        url=url, middleware=[], maintenance_chance=1_000_000, heartbeat_timeout=15_000
    )


def start_worker(
    broker: Broker, queues: Iterable[str], threads: int, middleware: Iterable[Middleware] = ()
) -> dramatiq.Worker:
    """Start a Dramatiq worker in this process that takes no more than it has threads for."""
    for item in middleware:
        broker.add_middleware(item)
    worker = dramatiq.Worker(broker, queues=set(queues), worker_threads=threads, worker_timeout=200)
    worker.queue_prefetch = threads
    worker.start()
    return worker


def _message(queue_name: str, actor_name: str, job_id: int) -> Message[Any]:
    return Message(
        queue_name=queue_name,
        actor_name=actor_name,
        args=(job_id,),
        kwargs={},
        options={},
        message_id=f"{actor_name}:{job_id}",
    )
