"""The sender: C-STOREs the due results of a job; only stored bytes are ever sent."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Self

import structlog

from node.config.peers import Peer, PeerTLS
from node.parts import Parts
from node.scu import Destination, OutgoingObject, SendOutcome, send
from storage import deliveries, jobs, tasks
from storage.base import Delivery, Job, LeaseLost, StoreUnavailable
from storage.crash import crash_point
from storage.database import Database
from storage.deliveries import LEASE, Kind, RetrySchedule

log = structlog.get_logger()


class Sender:
    """Sends what is due of a job, destination by destination, each in one association.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

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
            claimed = deliveries.claim(tx, job_id, self._parts.owner)
            job = jobs.get(tx, job_id)
        if job is None:
            return
        everything = [item for items in claimed.values() for item in items]
        with _LeaseKeeper(self._parts.database, everything) as keeper:
            self._send_all(job, claimed, keeper)
        with self._parts.database.transaction() as tx:
            deliveries.settle(tx, job_id)

    def _send_all(self, job: Job, claimed: dict[str, list[Delivery]], keeper: _LeaseKeeper) -> None:
        for name, items in claimed.items():
            keeper.check()
            terms = job.snapshot["destinations"].get(name, {})
            schedule = RetrySchedule(
                tuple(terms.get("after_seconds", RetrySchedule.after_seconds)),
                terms.get("give_up_seconds", RetrySchedule.give_up_seconds),
            )
            self._send(name, items, schedule, keeper)

    def _send(
        self, name: str, items: list[Delivery], schedule: RetrySchedule, keeper: _LeaseKeeper
    ) -> None:
        peer = self._parts.config.peers.get(name)
        if peer is None or peer.address is None:
            sentence = f"{name} has no address under peers: in the configuration; add it."
            for item in items:
                with keeper.without(item):
                    self._finish(item, "retry", None, sentence, schedule)
            return
        done: set[int] = set()

        def on_status(place: int, outcome: SendOutcome) -> None:
            done.add(place)
            item = items[place]
            with keeper.without(item):
                self._finish(item, outcome.kind, outcome.status, outcome.sentence, schedule)
            crash_point("CP7")
            keeper.check()

        outcomes = send(
            destination_of(peer, self._parts.config.node.ae_title),
            [self._outgoing(item) for item in items],
            on_status,
        )
        for place, outcome in enumerate(outcomes):
            if place not in done:
                on_status(place, outcome)

    def _outgoing(self, item: Delivery) -> OutgoingObject:
        return OutgoingObject(
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            path=self._parts.objects.path(item.object_key),
        )

    def _finish(
        self, item: Delivery, kind: Kind, status: int | None, sentence: str, schedule: RetrySchedule
    ) -> None:
        try:
            with self._parts.database.transaction() as tx:
                state = deliveries.finish(tx, item, kind, status, sentence, schedule)
        except LeaseLost:
            log.warning("delivery.discarded", sop_instance_uid=item.sop_instance_uid)
            return
        event = log.info if kind == "sent" else log.warning
        event(
            "result.delivered" if kind == "sent" else "result.refused",
            destination=item.destination,
            slot=item.slot,
            sop_instance_uid=item.sop_instance_uid,
            status=status,
            state=state,
        )


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


def destination_of(peer: Peer, own_ae_title: str) -> Destination:
    """Where a peer is called; its address must be known."""
    if peer.address is None:
        raise ValueError(f"peer {peer.name} has no address")
    return Destination(
        host=peer.address.host,
        port=peer.address.port,
        ae_title=peer.address.ae_title,
        own_ae_title=own_ae_title,
        connect_seconds=min(peer.timeout_seconds, 10.0),
        associate_seconds=peer.timeout_seconds,
        response_seconds=peer.timeout_seconds,
        tls=_client_context(peer.tls),
    )


def _client_context(tls: PeerTLS) -> ssl.SSLContext | None:
    """Make what a peer is called with over TLS; None: it is called in the clear."""
    if tls.authorities is None:
        return None
    context = ssl.create_default_context(cafile=str(tls.authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
