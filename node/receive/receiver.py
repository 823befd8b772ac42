"""The Storage and Verification SCP: listens, and lets two engines serve who comes.

One port, two engines: associations for nothing but Storage and Verification are served by our own
(`node.receive.engine`), all others by pynetdicom (`node.receive.guard`). Both ask the same
`Associations` who may come in, store through the same service and tell the same events.
"""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import structlog

from node.commitment import COMMITMENT, CommitmentService
from node.receive.admission import Session
from node.receive.association_rows import AssociationRows
from node.receive.associations import Associations, OnEvent
from node.receive.connection import GuardSettings, listening_on
from node.receive.engine.host import Engine
from node.receive.engine.listener import Listener
from node.receive.engine.negotiation import Negotiator
from node.receive.engine.read_buffer import BUFFER_BYTES, BufferPool
from node.receive.engine.upper_layer import Limits
from node.receive.guard import GuardedHandler, GuardedServer, keep_pynetdicom_quiet
from node.receive.lobby import Lobby
from node.receive.settings import ReceiverSettings
from node.receive.storage_scp import StorageSCP, application_entity
from node.receive.store_service import StoreService
from node.receive.tls import InvalidTLS, TLSFiles, server_context

log = structlog.get_logger(__name__)

Context = Callable[[], ssl.SSLContext]


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
        self._associations = Associations(service, settings, rows, on_event)
        self._guard = GuardSettings(is_listed=self._associations.is_listed, **(guard or {}))
        self._server: GuardedServer | None = None
        self._commitment = commitment
        self._has_engine = engine
        self._listeners: list[Listener] = []
        self._tls_socket: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._thread: threading.Thread | None = None

    @property
    def settings(self) -> ReceiverSettings:
        """What it goes by now."""
        return self._associations.settings

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
        return self._associations.count

    @property
    def sessions(self) -> list[Session]:
        """Associations that are established now, with what came of each so far."""
        return self._associations.sessions

    def reconfigure(self, settings: ReceiverSettings) -> None:
        """Admit by other rules from now on; addresses and ports stay.

        Certificates are read again; where they cannot be used the old ones stay. Who would not be
        admitted any more, or as somebody else, is cut off.
        """
        self._associations.settings = settings
        for listener in self._listeners:
            listener.cut(self._associations.is_unwelcome)
        for assoc in self._server.live if self._server else ():
            if assoc.session is not None and self._associations.is_unwelcome(assoc.session):
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
        scp = StorageSCP(self._associations)
        handlers: list[Any] = scp.handlers()
        if self._commitment is not None:
            # Both roles: peers ask us, and report to us what we asked of them.
            ae.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
            handlers += self._commitment.handlers()
        with listening_on(*address):
            server = ae.make_server(
                address,
                evt_handlers=handlers,
                server_class=GuardedServer,
                request_handler=GuardedHandler,
                settings=self._guard,
                on_refused=self._associations.turned_away,
                on_end=scp.on_end,
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
        self._associations.tell("receiver.started", port=self.port)

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
        self._associations.tell("receiver.stopped", associations=self._connections())

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
            host=self._associations,
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
                self._associations.turned_away,
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
