"""The Storage and Verification SCP: admits peers, hands their objects to the store service.

One port, two engines: associations for nothing but Storage and Verification are served by our own
(`node.receive.engine`), all others by pynetdicom (`node.receive.guard`). Both ask the same
`Receiver` who may come in, store through the same service and tell the same events.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt

from node.receive.access import (
    NO_REASON_GIVEN,
    AssociationRequest,
    PeerRule,
    Rejection,
    address_of,
    is_listed,
)
from node.receive.admission import Admission, Session
from node.receive.association_rows import AssociationRows
from node.receive.connection import GuardSettings
from node.receive.engine.host import Engine
from node.receive.engine.listener import Listener
from node.receive.engine.negotiation import Negotiator
from node.receive.engine.read_buffer import BufferPool
from node.receive.engine.upper_layer import Limits
from node.receive.guard import (
    GuardedAssociation,
    GuardedHandler,
    GuardedServer,
    keep_pynetdicom_quiet,
)
from node.receive.identity import StoreRequest
from node.receive.reception import Reception
from node.receive.storage_scp import (
    application_entity,
    association_request,
    store_request,
    store_response,
)
from node.receive.store_service import StoreService
from node.statuses import OUT_OF_RESOURCES, SUCCESS, Status
from storage.associations import ClosedAssociation, OpenedAssociation
from storage.base import Acceptance

log = structlog.get_logger(__name__)

Facts = Mapping[str, object]
OnEvent = Callable[[str, Facts], None]
"""Told every event that is logged, with the same facts: for metrics."""


@dataclass(frozen=True)
class ReceiverSettings:
    """Whom the receiver serves, and where.

    Parameters
    ----------
    ae_title : str
        Our own; a peer that calls anybody else is rejected.
    peers : tuple of PeerRule
        Who may open associations; nobody else is answered.
    host, port
        Where to listen; port 0 takes any free one.
    max_associations : int
    max_pdu_bytes : int
        Longest P-DATA-TF PDU we take.
    idle_seconds : float
        After which a silent association is aborted.
    drain_seconds : float
        How long `Receiver.stop` lets associations end by themselves.
    owner : str
        This process, for the rows of associations.
    """

    ae_title: str
    peers: tuple[PeerRule, ...]
    host: str = "0.0.0.0"  # noqa: S104 - an Application Entity is there to be reached
    port: int = 11112
    max_associations: int = 64
    max_pdu_bytes: int = 131_072
    idle_seconds: float = 60.0
    drain_seconds: float = 10.0
    owner: str = ""


class Receiver:
    """Serves associations until it is stopped.

    Stop it before the intake: it waits for the objects that are being stored.

    Parameters
    ----------
    service : StoreService
    settings : ReceiverSettings
    rows : AssociationRows or None
        Where associations are written down; started and stopped by the caller.
    on_event : callable
    guard : mapping
        Other values for fields of `GuardSettings`.
    engine : bool
        Whether our own engine serves what it can; otherwise pynetdicom serves everything.
    """

    def __init__(
        self,
        service: StoreService,
        settings: ReceiverSettings,
        rows: AssociationRows | None = None,
        on_event: OnEvent = lambda event, facts: None,
        guard: Mapping[str, Any] | None = None,
        *,
        engine: bool = True,
    ) -> None:
        self._service = service
        self.settings = settings
        self._rows = rows
        self._on_event = on_event
        self._guard = GuardSettings(is_listed=self._is_listed, **(guard or {}))
        self._admission = Admission(service.has_room)
        self._lock = threading.Lock()
        self._server: GuardedServer | None = None
        self._has_engine = engine
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._turned_away: dict[tuple[str, str], float] = {}

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises
        ------
        RuntimeError
            It was not started.
        """
        if self._server is None:
            raise RuntimeError("the receiver was not started")
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """How many associations are established now."""
        return self._admission.count

    def reconfigure(self, settings: ReceiverSettings) -> None:
        """Admit by other rules from now on; address and port stay."""
        self.settings = settings

    def start(self) -> None:
        """Listen.

        Raises
        ------
        OSError
            The address cannot be listened on.
        """
        keep_pynetdicom_quiet()
        ae = application_entity(
            self.settings.ae_title,
            self.settings.max_pdu_bytes,
            request_seconds=self._guard.request_seconds,
            idle_seconds=self.settings.idle_seconds,
        )
        server = ae.make_server(
            (self.settings.host, self.settings.port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_C_STORE, self._on_c_store),
            ],
            server_class=GuardedServer,
            request_handler=GuardedHandler,
            settings=self._guard,
            on_refused=self._on_refused,
            on_end=self._on_end,
        )
        self._server = cast(GuardedServer, server)
        if self._has_engine:
            self._listener = self._listener_of(self._server)
            self._listener.start()
        else:
            self._thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="receiver"
            )
            self._thread.start()
        self._tell("receiver.started", port=self.port)

    def stop(self) -> None:
        """Stop listening, let associations end, abort those that do not; wait for all."""
        if self._server is None:
            return
        self._stop_listening(self._server)
        self._await_no_association(self.settings.drain_seconds)
        for assoc in self._server.live:
            assoc.cut()
        if self._listener is not None:
            self._listener.cut()
        self._await_no_association(5.0)
        self._tell("receiver.stopped", associations=self._connections())

    def _stop_listening(self, server: GuardedServer) -> None:
        if self._listener is not None:
            self._listener.stop()
            server.server_close()
        elif self._thread is not None:
            server.shutdown()
            self._thread.join()

    def _connections(self) -> int:
        engine = 0 if self._listener is None else self._listener.live
        return engine + len(cast(GuardedServer, self._server).live)

    def _await_no_association(self, seconds: float) -> None:
        server = cast(GuardedServer, self._server)
        deadline = time.monotonic() + seconds
        if self._listener is not None:
            self._listener.await_no_association(seconds)
        for assoc in server.live:
            assoc.join(max(0.0, deadline - time.monotonic()))

    def _listener_of(self, server: GuardedServer) -> Listener:
        """Our own engine, on the socket of the server, which takes what is not for the engine."""
        engine = Engine(
            host=self,
            negotiator=Negotiator(server.contexts, self.settings.max_pdu_bytes),
            buffers=BufferPool(),
            limits=self._limits,
            largest_instance_bytes=self._guard.largest_instance_bytes,
        )
        return Listener(
            cast(socket.socket, server.socket),
            engine,
            self._guard,
            server.adopt,
            self._on_refused,
            adopted=lambda: len(server.live),
        )

    def _limits(self) -> Limits:
        guard = self._guard
        return Limits(
            artim_seconds=guard.request_seconds,
            pdu_seconds=guard.pdu_seconds,
            idle_seconds=self.settings.idle_seconds,
            lifetime_seconds=guard.longest_association_seconds,
            largest_request_bytes=min(guard.largest_request_bytes, Limits.largest_request_bytes),
            largest_pdu_bytes=self.settings.max_pdu_bytes,
        )

    # -- who gets in ---------------------------------------------------------------------

    def _is_listed(self, address: str) -> bool:
        return is_listed(self.settings.peers, address_of(address))

    def _on_requested(self, event: evt.Event) -> None:
        """Admit or reject; whatever goes wrong here rejects."""
        assoc = cast(GuardedAssociation, event.assoc)
        try:
            verdict = self.admit(association_request(assoc))
        except Exception as error:  # noqa: BLE001 - a DIMSE handler: nobody gets in by a mistake
            log.error("association.failed", error=type(error).__name__)
            verdict = NO_REASON_GIVEN
        if isinstance(verdict, Rejection):
            self._reject(assoc, verdict)
        else:
            assoc.session = verdict

    def admit(self, request: AssociationRequest) -> Session | Rejection:
        """Let an association in, or say why not."""
        settings = self.settings
        verdict = self._admission.admit(
            request, settings.peers, settings.ae_title, settings.max_associations
        )
        if isinstance(verdict, Rejection):
            self._tell(
                "association.rejected",
                reason=verdict.reason,
                address=request.address,
                calling_ae_title=request.calling_ae_title,
                called_ae_title=request.called_ae_title,
            )
            return verdict
        self._tell("association.accepted", **verdict.names)
        if self._rows is not None:
            self._rows.opened(_opened(verdict, settings.owner))
        return verdict

    def _reject(self, assoc: GuardedAssociation, rejection: Rejection) -> None:
        assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        assoc.is_rejected = True
        assoc.kill()

    def _on_refused(self, address: str, reason: str) -> None:
        """Log a connection that was turned away, once a minute for each address."""
        self._on_event("connection.refused", {"address": address, "reason": reason})
        now = time.monotonic()
        with self._lock:
            if now - self._turned_away.get((address, reason), -60.0) < 60.0:
                return
            if len(self._turned_away) > 1000:
                self._turned_away.clear()
            self._turned_away[address, reason] = now
        log.warning("connection.refused", address=address, reason=reason)

    def _on_end(self, assoc: GuardedAssociation) -> None:
        session: Session | None = assoc.session
        if session is not None:
            self.left(session, released=assoc.is_released)

    def left(self, session: Session, *, released: bool) -> None:
        """Note that an association ended."""
        self._admission.leave(session)
        reason = "released" if released else "aborted"
        facts = session.counts
        seconds = round(time.monotonic() - session.since, 3)
        self._tell(f"association.{reason}", **session.names, **facts, seconds=seconds)
        if self._rows is not None:
            self._rows.closed(ClosedAssociation(session.id, reason, **facts))

    # -- what they bring -----------------------------------------------------------------

    def _on_c_store(self, event: evt.Event) -> Dataset:
        """Answer one C-STORE request."""
        session: Session = cast(GuardedAssociation, event.assoc).session
        request = store_request(event, session)
        began = time.monotonic()
        size, acceptance = 0, None
        try:
            with cast(Any, event.request).DataSet.getbuffer() as data:
                size = len(data)
                status, acceptance = self._service.store(request, data)
        except Exception as error:  # noqa: BLE001 - a DIMSE handler: the sender must hear something
            log.error("instance.failed", error=type(error).__name__)
            status = Status(OUT_OF_RESOURCES, "internal error")
        self.answered(session, request, status, acceptance, size, time.monotonic() - began)
        return store_response(status)

    def reception(self, request: StoreRequest) -> Reception:
        """Begin to take in a data set."""
        return self._service.reception(request)

    def answered(
        self,
        session: Session,
        request: StoreRequest,
        status: Status,
        acceptance: Acceptance | None,
        size: int,
        seconds: float,
    ) -> None:
        """Count an object and what it was answered."""
        facts = {
            **session.names,
            "sop_instance_uid": request.sop_instance_uid,
            "status": status.code,
            "bytes": size,
            "seconds": round(seconds, 4),
        }
        if status.code == SUCCESS:
            session.stored += 1
            session.bytes += size
            self._tell("instance.stored", outcome=str(acceptance), **facts)
        else:
            session.refused += 1
            self._tell("instance.refused", sentence=status.comment, **facts)

    def _tell(self, event: str, **facts: object) -> None:
        """Log an event and hand it on."""
        match event:
            case "instance.stored":
                log.debug(event, **facts)
            case "instance.refused" | "association.rejected" | "association.aborted":
                log.warning(event, **facts)
            case _:
                log.info(event, **facts)
        self._on_event(event, facts)


def _opened(session: Session, owner: str) -> OpenedAssociation:
    request = session.request
    return OpenedAssociation(
        id=session.id,
        owner=owner,
        peer=session.peer.name,
        address=request.address,
        calling_ae_title=request.calling_ae_title[:16],
        called_ae_title=request.called_ae_title[:16],
    )
