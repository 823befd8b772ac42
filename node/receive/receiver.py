"""The Storage and Verification SCP: admits peers, hands their objects to the store service.

One port, two engines: associations for nothing but Storage and Verification are served by our own
(`node.receive.engine`), all others by pynetdicom (`node.receive.guard`). Both ask the same
`Receiver` who may come in, store through the same service and tell the same events.
"""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt

from node.commitment import COMMITMENT, CommitmentService
from node.log import is_debugging
from node.receive.access import (
    NO_REASON_GIVEN,
    AssociationRequest,
    PeerRule,
    Rejection,
    address_of,
    identify,
    is_listed,
)
from node.receive.admission import Admission, Session
from node.receive.association_rows import AssociationRows
from node.receive.connection import GuardSettings, listening_on
from node.receive.engine.host import Engine
from node.receive.engine.listener import Listener
from node.receive.engine.negotiation import Negotiator
from node.receive.engine.read_buffer import BUFFER_BYTES, BufferPool
from node.receive.engine.upper_layer import Limits
from node.receive.guard import (
    GuardedAssociation,
    GuardedHandler,
    GuardedServer,
    keep_pynetdicom_quiet,
)
from node.receive.identity import StoreRequest
from node.receive.lobby import Lobby
from node.receive.reception import Reception
from node.receive.storage_scp import (
    application_entity,
    association_request,
    store_request,
    store_response,
)
from node.receive.store_service import StoreService
from node.receive.tls import InvalidTLS, TLSFiles, server_context
from node.statuses import OUT_OF_RESOURCES, SUCCESS, Status
from storage.associations import RELEASED, ClosedAssociation, OpenedAssociation
from storage.base import Acceptance

log = structlog.get_logger(__name__)

Context = Callable[[], ssl.SSLContext]
Facts = Mapping[str, object]
OnEvent = Callable[[str, Facts], None]
"""Told every event that is logged, with the same facts: for metrics."""


@dataclass(frozen=True)
class TLSSettings:
    """A port on which connections begin with TLS."""

    files: TLSFiles
    host: str = "0.0.0.0"  # noqa: S104 - as for the plain port
    port: int = 2762


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
    tls : TLSSettings or None
    is_plain : bool
        Whether there is a port without TLS, too.
    buffer_bytes : int
        For what is read from the network, as long as it lasts.
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
    tls: TLSSettings | None = None
    is_plain: bool = True
    buffer_bytes: int = 64 << 20


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
    commitment : CommitmentService or None
        Takes storage commitments and reports on them; None: they are not accepted.
    engine : bool
        Whether our own engine serves what it can; otherwise pynetdicom serves everything.
    """

    def __init__(
        self,
        service: StoreService,
        settings: ReceiverSettings,
        rows: AssociationRows | None = None,
        on_event: OnEvent | None = None,
        guard: Mapping[str, Any] | None = None,
        *,
        commitment: CommitmentService | None = None,
        engine: bool = True,
    ) -> None:
        self._service = service
        self.settings = settings
        self._rows = rows
        self._is_told_of_each = on_event is not None
        self._on_event: OnEvent = on_event or (lambda event, facts: None)
        self._guard = GuardSettings(is_listed=self._is_listed, **(guard or {}))
        self._admission = Admission(service.has_room)
        self._lock = threading.Lock()
        self._server: GuardedServer | None = None
        self._commitment = commitment
        self._has_engine = engine
        self._listeners: list[Listener] = []
        self._tls_socket: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
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

    @property
    def sessions(self) -> list[Session]:
        """Associations that are established now, with what came of each so far."""
        return self._admission.sessions

    def reconfigure(self, settings: ReceiverSettings) -> None:
        """Admit by other rules from now on; addresses and ports stay.

        Certificates are read again; where they cannot be used the old ones stay. Who would not be
        admitted any more, or as somebody else, is cut off.
        """
        self.settings = settings
        for listener in self._listeners:
            listener.cut(self._is_unwelcome)
        for assoc in self._server.live if self._server else ():
            if assoc.session is not None and self._is_unwelcome(assoc.session):
                assoc.cut()
        if self._context is not None and settings.tls is not None:
            try:
                self._context = self._new_context(settings.tls.files)
            except InvalidTLS as error:
                log.error("tls.refused", sentence=str(error))
            else:
                log.info("tls.loaded")

    @property
    def tls_port(self) -> int:
        """The port on which connections begin with TLS.

        Raises
        ------
        RuntimeError
            There is none.
        """
        if self._tls_socket is None:
            raise RuntimeError("the receiver has no port for TLS")
        return int(self._tls_socket.getsockname()[1])

    def _new_context(self, files: TLSFiles) -> ssl.SSLContext:
        demand = all(peer.needs_certificate for peer in self.settings.peers)
        return server_context(files, demand=demand)

    def start(self) -> None:
        """Listen.

        Raises
        ------
        CannotListen, InvalidTLS
        """
        keep_pynetdicom_quiet()
        address = (self.settings.host, self.settings.port)
        if not self.settings.is_plain:
            address = ("127.0.0.1", 0)  # never listened to: pynetdicom's server needs an address
        ae = application_entity(
            self.settings.ae_title,
            self.settings.max_pdu_bytes,
            request_seconds=self._guard.request_seconds,
            idle_seconds=self.settings.idle_seconds,
        )
        handlers: list[Any] = []
        if self._commitment is not None:
            # Both roles: peers ask us, and report to us what we asked of them.
            ae.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
            handlers = self._commitment.handlers()
        with listening_on(*address):
            server = ae.make_server(
                address,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_C_STORE, self._on_c_store),
                    *handlers,
                ],
                server_class=GuardedServer,
                request_handler=GuardedHandler,
                settings=self._guard,
                on_refused=self._on_refused,
                on_end=self._on_end,
            )
        self._server = cast(GuardedServer, server)
        if self._has_engine:
            self._listeners = self._make_listeners(self._server)
            for listener in self._listeners:
                listener.start()
        else:
            self._thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="receiver"
            )
            self._thread.start()
        # What is loaded by now stays: looking through it for garbage again and again costs more
        # than the garbage of a whole association.
        gc.collect()
        gc.freeze()
        if self._rows is not None:
            self._rows.follow(lambda: self.sessions)
        self._tell("receiver.started", port=self.port)

    def stop(self) -> None:
        """Stop listening, let associations end, abort those that do not; wait for all."""
        if self._server is None:
            return
        self._stop_listening(self._server)
        self._await_no_association(self.settings.drain_seconds)
        for assoc in self._server.live:
            assoc.cut()
        for listener in self._listeners:
            listener.cut()
        self._await_no_association(5.0)
        self._tell("receiver.stopped", associations=self._connections())

    def _stop_listening(self, server: GuardedServer) -> None:
        if self._listeners:
            for listener in self._listeners:
                listener.stop()
            server.server_close()
            if self._tls_socket is not None:
                self._tls_socket.close()
        elif self._thread is not None:
            server.shutdown()
            self._thread.join()

    def _connections(self) -> int:
        own = sum(listener.live for listener in self._listeners)
        return own + len(cast(GuardedServer, self._server).live)

    def _await_no_association(self, seconds: float) -> None:
        server = cast(GuardedServer, self._server)
        deadline = time.monotonic() + seconds
        for listener in self._listeners:
            listener.await_no_association(max(0.0, deadline - time.monotonic()))
        for assoc in server.live:
            assoc.join(max(0.0, deadline - time.monotonic()))

    def _make_listeners(self, server: GuardedServer) -> list[Listener]:
        """Our own engine, on each port; the server takes what is not for the engine."""
        engine = Engine(
            host=self,
            negotiator=Negotiator(
                server.contexts,
                self.settings.max_pdu_bytes,
                served_elsewhere=[COMMITMENT],
            ),
            buffers=BufferPool(max(1, self.settings.buffer_bytes // BUFFER_BYTES)),
            limits=self._limits,
            largest_instance_bytes=self._guard.largest_instance_bytes,
        )
        lobby = Lobby()

        def listener(listening: socket.socket, context: Context | None = None) -> Listener:
            return Listener(
                listening,
                engine,
                self._guard,
                server.adopt,
                self._on_refused,
                count=self._connections,
                ssl_context=context,
                lobby=lobby,
            )

        listeners = []
        plain = cast(socket.socket, server.socket)
        if self.settings.is_plain:
            listeners.append(listener(plain))
        else:
            plain.close()
        if self.settings.tls is not None:
            tls = self.settings.tls
            self._context = self._new_context(tls.files)
            with listening_on(tls.host, tls.port):
                self._tls_socket = socket.create_server((tls.host, tls.port), backlog=128)
            listeners.append(
                listener(self._tls_socket, lambda: cast(ssl.SSLContext, self._context))
            )
        return listeners

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

    def _is_unwelcome(self, session: Session) -> bool:
        found = identify(session.request, self.settings.peers, self.settings.ae_title)
        return isinstance(found, Rejection) or found.name != session.peer.name

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
        reason = RELEASED if released else "aborted"
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
        is_stored = status.code == SUCCESS
        if is_stored:
            session.stored += 1
            session.bytes += size
            if not self._is_told_of_each and not is_debugging():
                return
        facts = {
            **session.names,
            "sop_instance_uid": request.sop_instance_uid,
            "status": status.code,
            "bytes": size,
            "seconds": round(seconds, 4),
        }
        if is_stored:
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
