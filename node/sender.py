"""The sender: stores the due results of a job at its destinations; only stored bytes are sent."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Self

import structlog

from node.config.deliver import in_place_of
from node.config.peers import Peer
from node.destinations import StoreCall, doors_of, open_call
from node.parts import Parts
from node.scu import OutgoingObject, SendOutcome, waits_for
from storage import deliveries, destinations, jobs, tasks
from storage.base import Delivery, Job, LeaseLost, StoreUnavailable
from storage.crash import crash_point
from storage.database import Database
from storage.deliveries import LEASE, RetrySchedule
from storage.destinations import Doors, Rest

log = structlog.get_logger()


class Sender:
    """Sends what is due of a job, destination by destination, each in one association.

    Parameters
    ----------
    parts : Parts
    rest : Rest
        How long a destination that is away is left alone.
    """

    def __init__(self, parts: Parts, rest: Rest | None = None) -> None:
        self._parts = parts
        self._rest = rest or Rest()

    def deliver(self, job_id: int) -> None:
        """Send what is due of one job; never raises."""
        with structlog.contextvars.bound_contextvars(job_id=job_id):
            try:
                self._deliver(job_id)
            except LeaseLost:
                log.warning("delivery.discarded")
            except StoreUnavailable as error:
                log.warning("delivery.postponed", error=type(error).__name__)
            except Exception:
                log.exception("delivery.broken")
        self._parts.wakeup.wake_up()

    def _deliver(self, job_id: int) -> None:
        with self._parts.database.transaction() as tx:
            tasks.forget_published(tx, jobs.DELIVER, job_id)
            claimed = deliveries.claim(tx, job_id, self._parts.owner, self._doors())
            job = jobs.get(tx, job_id)
        if job is None:
            return
        everything = [item for items in claimed.values() for item in items]
        with _LeaseKeeper(self._parts.database, everything) as keeper:
            for name, items in claimed.items():
                keeper.check()
                self._send(job, name, items, keeper)
        with self._parts.database.transaction() as tx:
            deliveries.settle(tx, job_id, self._doors())

    def _doors(self) -> Doors:
        return doors_of(self._parts.config.peers, datetime.now().astimezone())

    def _send(self, job: Job, name: str, items: list[Delivery], keeper: _LeaseKeeper) -> None:
        terms: Mapping[str, Any] = job.snapshot["destinations"].get(name, {})
        peer = self._parts.config.peers.get(name)
        if peer is None or not peer.takes_results:
            sentence = f"{name} has no address under peers: in the configuration; add it."
            for item in items:
                self._finish(item, SendOutcome("retry", None, sentence), terms, keeper)
            return
        call = open_call(peer, self._parts.config.node.ae_title, self._contexts(job, items, terms))
        try:
            last = self._send_all(call, items, terms, keeper)
        finally:
            call.end()
        if last is not None:
            self._note(peer, last)

    def _contexts(
        self, job: Job, items: list[Delivery], terms: Mapping[str, Any]
    ) -> list[tuple[str, str]]:
        """Name everything that may be sent, fallbacks too: an association agrees on it once."""
        wanted = {(item.sop_class_uid, item.transfer_syntax_uid) for item in items}
        slots = {slot for item in items for slot in _in_place_of(item, terms)}
        if slots:
            with self._parts.database.snapshot() as tx:
                wanted |= deliveries.kinds_of(tx, job.id, slots)
        return sorted(wanted)

    def _send_all(
        self,
        call: StoreCall,
        items: list[Delivery],
        terms: Mapping[str, Any],
        keeper: _LeaseKeeper,
    ) -> SendOutcome | None:
        """Send in order; what is behind an object that must wait, waits too.

        The last outcome; None: all was cancelled before it was sent.
        """
        queue, later, outcome = deque(items), None, None
        while queue:
            item = queue.popleft()
            if not self._is_ours(item):
                log.warning("delivery.discarded", sop_instance_uid=item.sop_instance_uid)
                continue
            if later is not None and call.failure is None:
                outcome = waits_for(later)
            else:
                outcome = call.store(self._outgoing(item))
            if outcome.kind == "retry":
                later = later or outcome
            if outcome.not_taken and (instead := self._fall_back(item, outcome, terms, keeper)):
                queue.extendleft(instead)
                continue
            self._finish(item, outcome, terms, keeper)
            crash_point("CP7")
            keeper.check()
        return later or outcome

    def _is_ours(self, item: Delivery) -> bool:
        """Whether it may still go: it may have been cancelled, by the recall of a model say."""
        with self._parts.database.snapshot() as tx:
            return deliveries.is_ours(tx, item)

    def _fall_back(
        self,
        item: Delivery,
        outcome: SendOutcome,
        terms: Mapping[str, Any],
        keeper: _LeaseKeeper,
    ) -> list[Delivery] | None:
        """Put something in the place of an object; None: there is nothing to put there."""
        slots = _in_place_of(item, terms)
        if not slots:
            return None
        with keeper.without(item), self._parts.database.transaction() as tx:
            owner = self._parts.owner
            instead = deliveries.fall_back(tx, item, slots, owner, outcome.sentence)
        if instead is None:
            return None
        keeper.add(instead)
        log.info(
            "delivery.replaced",
            destination=item.destination,
            slot=item.slot,
            sop_instance_uid=item.sop_instance_uid,
        )
        return instead

    def _outgoing(self, item: Delivery) -> OutgoingObject:
        return OutgoingObject(
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            path=self._parts.objects.path(item.object_key),
            sha256=item.sha256,
        )

    def _finish(
        self,
        item: Delivery,
        outcome: SendOutcome,
        terms: Mapping[str, Any],
        keeper: _LeaseKeeper,
    ) -> None:
        try:
            with keeper.without(item), self._parts.database.transaction() as tx:
                state = deliveries.finish(
                    tx,
                    item,
                    outcome.kind,
                    outcome.status,
                    outcome.sentence,
                    RetrySchedule.of(terms),
                    terms.get("confirm", ()),
                )
        except LeaseLost:
            log.warning("delivery.discarded", sop_instance_uid=item.sop_instance_uid)
            return
        event = log.info if outcome.kind == "sent" else log.warning
        event(
            "result.delivered" if outcome.kind == "sent" else "result.refused",
            destination=item.destination,
            slot=item.slot,
            sop_instance_uid=item.sop_instance_uid,
            status=outcome.status,
            state=state,
        )

    def _note(self, peer: Peer, last: SendOutcome) -> None:
        """Keep whether the destination could be reached; after several times not, it rests."""
        with self._parts.database.transaction() as tx:
            if last.kind == "retry" and last.status is None:
                failures = destinations.missed(tx, peer.name, last.sentence, self._rest)
            else:
                failures = 0
                destinations.reached(tx, peer.name, last.sentence if last.kind != "sent" else "")
        if failures >= destinations.FAILURES_TO_REST:
            log.warning("destination.away", destination=peer.name, failures=failures)


def _in_place_of(item: Delivery, terms: Mapping[str, Any]) -> tuple[str, ...]:
    return in_place_of(item.slot, terms.get("send", ()), terms.get("if_refused", {}))


class _LeaseKeeper:
    """Renews the leases of deliveries while an association goes on, however long it takes.

    Stop: leaving the ``with`` ends the thread before the deliveries are settled.
    """

    def __init__(self, database: Database, items: list[Delivery]) -> None:
        self._database = database
        self._waiting = list(items)
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery-leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def without(self, item: Delivery) -> Iterator[None]:
        """Write down what became of a delivery: from then on it needs no lease."""
        with self._guard:
            self._waiting = [other for other in self._waiting if other.id != item.id]
            yield

    def add(self, items: list[Delivery]) -> None:
        """Keep more leases."""
        with self._guard:
            self._waiting += items

    def check(self) -> None:
        """Raise LeaseLost when somebody else has what we wanted to send."""
        if self._lost.is_set():
            raise LeaseLost("somebody else sends the rest")

    def _run(self) -> None:
        while not self._stop.wait(LEASE.total_seconds() / 4):
            with self._guard:
                try:
                    with self._database.transaction() as tx:
                        deliveries.renew(tx, self._waiting)
                except LeaseLost:
                    self._lost.set()
                    return
                except Exception as error:  # noqa: BLE001 - the next round tries again
                    log.warning("delivery.lease_not_renewed", error=type(error).__name__)
