"""Proves deliveries: asks destinations for storage commitment and by C-FIND, object by object."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt

from node.commitment import (
    COMMITMENT,
    REQUEST_ACTION,
    WELL_KNOWN_INSTANCE,
    request_of,
    take_report,
)
from node.config.peers import Peer
from node.destinations import Lookup, destination_of, open_lookup
from node.parts import Parts
from node.scu import Call, SendOutcome
from storage import destinations, proofs
from storage.base import Delivery, LeaseLost
from storage.crash import crash_point
from storage.database import Transaction
from storage.destinations import Rest
from storage.ladder import Rung, state_of

log = structlog.get_logger(__name__)

STAY_SECONDS = 2.0
"""How long we stay for a report in the association in which we asked for it."""
MOST_IN_A_REQUEST = 100

Note = Callable[[Transaction, Delivery], None]


class Prover:
    """Climbs the ladder of what is due at one destination; may run in several threads.

    Parameters
    ----------
    parts : Parts
    stay_seconds : float
    rest : Rest
    """

    def __init__(
        self, parts: Parts, stay_seconds: float = STAY_SECONDS, rest: Rest | None = None
    ) -> None:
        self._parts = parts
        self._stay_seconds = stay_seconds
        self._rest = rest or Rest()

    def prove(self, peer: Peer, items: Sequence[Delivery]) -> None:
        """Ask for everything that is due at one destination."""
        rungs: dict[Rung | None, list[Delivery]] = {}
        with self._parts.database.snapshot() as tx:
            for item in items:
                rung = proofs.ladder_of(tx, item).next_rung(item.evidence)
                rungs.setdefault(rung, []).append(item)
        to_ask = rungs.get("commitment", [])
        overdue = [i for i in to_ask if state_of(i.evidence, "commitment") == "asked"]
        self._each(overdue, lambda tx, item: proofs.expired(tx, [item]))
        fresh = [item for item in to_ask if item not in overdue]
        for start in range(0, len(fresh), MOST_IN_A_REQUEST):
            self._ask(peer, fresh[start : start + MOST_IN_A_REQUEST])
        if "find" in rungs:
            self._find(peer, rungs["find"])

    # -- storage commitment ------------------------------------------------------------------

    def _ask(self, peer: Peer, items: Sequence[Delivery]) -> None:
        """Ask for the commitment of some objects; its report may come in any association."""
        if peer.address is None:
            self._leave_out(items, "commitment", f"{peer.name} is not called by DIMSE")
            return
        on_report = (evt.EVT_N_EVENT_REPORT, self._on_report, [peer.name])
        there = destination_of(peer, self._parts.config.node.ae_title)
        call = Call(there, [(COMMITMENT, "")], [on_report])
        try:
            if call.failure is not None:
                self._not_reached(peer, items, "commitment", call.failure)
                return
            self._reached(peer)
            uid = str(generate_uid(prefix=self._parts.config.node.uid_root))
            asked = self._note_asked(items, uid, peer.sending.report_seconds)
            if not asked:
                return
            references = [(item.sop_class_uid, item.sop_instance_uid) for item in asked]
            self._send_request(call, asked, uid, request_of(uid, references))
        finally:
            call.end()

    def _note_asked(self, items: Sequence[Delivery], uid: str, seconds: float) -> list[Delivery]:
        try:
            with self._parts.database.transaction() as tx:
                return proofs.asked(tx, items, uid, timedelta(seconds=seconds))
        except LeaseLost:
            return []

    def _send_request(
        self, call: Call, asked: Sequence[Delivery], uid: str, request: Dataset
    ) -> None:
        there = call.destination
        try:
            answer, _ = call.association.send_n_action(
                request, REQUEST_ACTION, COMMITMENT, WELL_KNOWN_INSTANCE
            )
        except (RuntimeError, ValueError):
            answer = Dataset()
        status = answer.get("Status")
        log.info(
            "commitment.asked",
            destination=asked[0].destination,
            transaction_uid=uid,
            instances=len(asked),
            status=status,
        )
        if status == 0x0000:
            self._stay(call, uid)
            return
        said = "did not answer" if status is None else f"answered 0x{status:04X}"
        sentence = f"{there} {said} when it was asked for storage commitment"
        self._each(asked, lambda tx, item: proofs.unknown(tx, item, "commitment", sentence))

    def _stay(self, call: Call, uid: str) -> None:
        """Keep the association open for a while: some report in it."""
        until = time.monotonic() + self._stay_seconds
        pause = threading.Event()
        while call.association.is_established and time.monotonic() < until:
            with self._parts.database.snapshot() as tx:
                if not proofs.awaits_report(tx, uid):
                    return
            pause.wait(0.05)

    def _on_report(self, event: evt.Event, name: str) -> tuple[int, None]:
        """Take a report in the association in which it was asked for."""
        status = take_report(
            self._parts.database, event.event_information, lambda asked: asked == name
        )
        return status, None

    # -- find --------------------------------------------------------------------------------

    def _find(self, peer: Peer, items: Sequence[Delivery]) -> None:
        """Ask for each object by itself."""
        lookup = open_lookup(peer, self._parts.config.node.ae_title)
        try:
            if lookup.failure is not None:
                self._not_reached(peer, items, "find", lookup.failure)
                return
            self._reached(peer)
            for item in items:
                self._each([item], self._look_for(lookup, item))
        finally:
            lookup.end()

    def _look_for(self, lookup: Lookup, item: Delivery) -> Note:
        there, uid = item.destination, item.sop_instance_uid
        found = lookup.holds(item)
        if found is None:
            sentence = f"{there} did not say whether it holds {uid}"
            return lambda tx, item: proofs.unknown(tx, item, "find", sentence)
        if not found:
            sentence = f"{there} said that it stored {uid}, and does not find it"
            return lambda tx, item: proofs.absent(tx, item, "find", sentence)
        return lambda tx, item: proofs.climbed(tx, item, "find")

    # -- writing it down ---------------------------------------------------------------------

    def _each(self, items: Sequence[Delivery], note: Note) -> None:
        """Write down what became of each object; one that somebody else moved is left alone."""
        for item in items:
            try:
                with self._parts.database.transaction() as tx:
                    note(tx, item)
            except LeaseLost:
                log.info("delivery.discarded", sop_instance_uid=item.sop_instance_uid)
            crash_point("CP8")

    def _leave_out(self, items: Sequence[Delivery], rung: Rung, sentence: str) -> None:
        self._each(items, lambda tx, item: proofs.not_offered(tx, item, rung, sentence))

    def _not_reached(
        self, peer: Peer, items: Sequence[Delivery], rung: Rung, failure: SendOutcome
    ) -> None:
        if failure.not_taken:
            self._reached(peer)
            self._leave_out(items, rung, f"{peer.name} does not offer {rung}")
            return
        if failure.kind == "retry":
            with self._parts.database.transaction() as tx:
                destinations.missed(tx, peer.name, failure.sentence, self._rest)
        sentence = failure.sentence
        self._each(items, lambda tx, item: proofs.unknown(tx, item, rung, sentence))

    def _reached(self, peer: Peer) -> None:
        with self._parts.database.transaction() as tx:
            destinations.reached(tx, peer.name)
