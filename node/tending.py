"""What a sender does beside sending: probes destinations that are away, proves, reports.

One thread looks what is due; what takes the network is done by a few others, one at a time for
each peer, so that a peer that hangs keeps nobody but itself waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_role

from node.commitment import COMMITMENT, WELL_KNOWN_INSTANCE, report_of
from node.config.peers import Peer
from node.destinations import destination_of, doors_of, ping
from node.parts import Parts
from node.proving import Prover
from node.scu import Call
from storage import commitment_requests, destinations, proofs
from storage.base import Delivery, StoreUnavailable
from storage.commitment_requests import Owed
from storage.destinations import Rest

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5
ALERT_EVERY_SECONDS = 60.0
MOST_PEERS_AT_ONCE = 8
KEEP_REPORTED = timedelta(days=30)


class Tender:
    """Looks after destinations; stop it before the database is closed.

    Parameters
    ----------
    parts : Parts
    prover : Prover or None
    rest : Rest or None
    """

    def __init__(
        self, parts: Parts, prover: Prover | None = None, rest: Rest | None = None
    ) -> None:
        self._parts = parts
        self._rest = rest or Rest()
        self._prover = prover or Prover(parts, rest=self._rest)
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._alerts_at = 0.0
        self._pool = ThreadPoolExecutor(MOST_PEERS_AT_ONCE, thread_name_prefix="tender")
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; waits for what goes on."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.tick()
            self._stop.wait(TICK_SECONDS)

    def tick(self) -> list[Future[None]]:
        """Begin what is due; never raises. What was begun."""
        try:
            return [*self._probe(), *self._prove(), *self._report(), *self._tidy()]
        except StoreUnavailable as error:
            log.warning("tender.postponed", error=type(error).__name__)
        except Exception:
            log.exception("tender.broken")
        return []

    # -- destinations that are away ------------------------------------------------------------

    def _probe(self) -> list[Future[None]]:
        with self._parts.database.snapshot() as tx:
            if not destinations.is_any_to_probe(tx):
                return []
        with self._parts.database.transaction() as tx:
            names = destinations.to_probe(tx, self._rest)
        return self._begin(names, self._ping)

    def _ping(self, name: str) -> None:
        """Ask a destination whether it is there again; what waits goes as soon as it is."""
        peer = self._parts.config.peers.get(name)
        if peer is None or not peer.takes_results:
            return
        outcome = ping(peer, self._parts.config.node.ae_title)
        with self._parts.database.transaction() as tx:
            if outcome.kind == "retry":
                failures = destinations.missed(tx, name, outcome.sentence, self._rest)
                log.warning("destination.away", destination=name, failures=failures)
                return
            destinations.reached(tx, name, outcome.sentence)
        log.info("destination.back", destination=name)
        self._parts.wakeup.wake_up()

    # -- proof ---------------------------------------------------------------------------------

    def _prove(self) -> list[Future[None]]:
        config = self._parts.config
        doors = doors_of(config.peers, datetime.now().astimezone())
        shut = {name for name, door in doors.items() if door.opens_in > timedelta(0)}
        with self._lock:
            not_now = shut | self._busy
        with self._parts.database.snapshot() as tx:
            if not proofs.is_any_due(tx):
                return []
        with self._parts.database.transaction() as tx:
            claimed = proofs.due(tx, self._parts.owner, not_now)
        by_name: dict[str, list[Delivery]] = {}
        for (_, name), items in claimed.items():
            by_name.setdefault(name, []).extend(items)
        return self._begin(
            list(by_name), lambda name: self._prove_at(config.peers.get(name), by_name[name])
        )

    def _prove_at(self, peer: Peer | None, items: list[Delivery]) -> None:
        if peer is None or not peer.takes_results:
            sentence = f"{items[0].destination} is no longer under peers: in the configuration"
            with self._parts.database.transaction() as tx:
                for item in items:
                    rung = proofs.ladder_of(tx, item).next_rung(item.evidence)
                    if rung is not None:
                        proofs.unknown(tx, item, rung, sentence)
            return
        self._prover.prove(peer, items)
        self._parts.wakeup.wake_up()

    # -- reports that we owe -------------------------------------------------------------------

    def _report(self) -> list[Future[None]]:
        with self._parts.database.snapshot() as tx:
            if not commitment_requests.is_any_due(tx):
                return []
        with self._parts.database.transaction() as tx:
            due = commitment_requests.due(tx)
        return self._begin(
            sorted({owed.peer for owed in due}),
            lambda name: self._report_to(name, [owed for owed in due if owed.peer == name]),
        )

    def _report_to(self, name: str, due: list[Owed]) -> None:
        peer = self._parts.config.peers.get(name)
        for owed in due:
            with self._parts.database.snapshot() as tx:
                judged = commitment_requests.judge(tx, owed.instances)
            kind, information = report_of(owed.transaction_uid, judged)
            taken = peer is not None and self._send_report(peer, kind, information)
            with self._parts.database.transaction() as tx:
                (commitment_requests.sent if taken else commitment_requests.not_sent)(tx, owed)
            log.info(
                "commitment.reported" if taken else "commitment.postponed",
                peer=name,
                transaction_uid=owed.transaction_uid,
                instances=len(judged.held),
                failed=len(judged.failed),
            )

    def _send_report(self, peer: Peer, kind: int, information: Dataset) -> bool:
        """Report in an association of our own, in which we are the SCP; whether it was taken."""
        if peer.address is None:
            return False
        roles = [build_role(COMMITMENT, scp_role=True)]
        there = destination_of(peer, self._parts.config.node.ae_title)
        call = Call(there, [(COMMITMENT, "")], roles=roles)
        try:
            if call.failure is not None:
                return False
            answer, _ = call.association.send_n_event_report(
                information, kind, COMMITMENT, WELL_KNOWN_INSTANCE
            )
            return bool(answer.get("Status") == 0x0000)
        except (RuntimeError, ValueError):
            return False
        finally:
            call.end()

    # -- what grows old ------------------------------------------------------------------------

    def _tidy(self) -> list[Future[None]]:
        if time.monotonic() - self._alerts_at >= ALERT_EVERY_SECONDS:
            self._alerts_at = time.monotonic()
            with self._parts.database.transaction() as tx:
                late = proofs.raise_alerts(tx)
                commitment_requests.forget(tx, KEEP_REPORTED)
            if late:
                log.warning("delivery.unproved", deliveries=late)
        return []

    def _begin(self, names: list[str], work: Callable[[str], None]) -> list[Future[None]]:
        with self._lock:
            self._busy.update(names)
        return [self._pool.submit(self._guarded, name, work) for name in names]

    def _guarded(self, name: str, work: Callable[[str], None]) -> None:
        try:
            work(name)
        except StoreUnavailable as error:
            log.warning("tender.postponed", error=type(error).__name__)
        except Exception:
            log.exception("tender.broken", destination=name)
        finally:
            with self._lock:
                self._busy.discard(name)
