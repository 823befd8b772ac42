"""A pynetdicom server that no stranger can shut, fill or hang.

Called through pynetdicom's public hooks `AE.make_server(server_class=, request_handler=)`. What is
added to it: only listed addresses get in; silent connections wait in a `Lobby` before any object is
made for them; every PDU has a size and a deadline; an object has a size; time is monotonic; what
goes wrong in a thread of pynetdicom ends its association instead of the thread alone.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from pynetdicom import _config, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from node.receive.connection import GuardedSocket, GuardSettings, MonotonicTimer, read_request
from node.receive.lobby import Lobby

log = structlog.get_logger(__name__)

_MOST_WAITING_MESSAGES = 16
_IDLE_TURN_SECONDS = 0.025
_ABORT = struct.pack(">BxIxxBB", 0x07, 4, 2, 0)


def keep_pynetdicom_quiet() -> None:
    """Keep data sets and PDUs out of pynetdicom's log: we log for ourselves."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False


class GuardedDUL(DULServiceProvider):
    """The upper layer's thread: with a monotonic clock, and an end that others hear of."""

    def __init__(self, assoc: Association) -> None:
        super().__init__(assoc)
        self.daemon = True
        self._idle_timer = MonotonicTimer(60)
        self.artim_timer = MonotonicTimer(30)

    def run_reactor(self) -> None:
        """Run until the association ends; an exception ends it too."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - a thread's outermost loop
            log.warning("association.failed", error=type(error).__name__)
            if self.socket is not None:
                self.socket.send(_ABORT)
                self.socket.close()
            self.to_user_queue.put(cast(Any, None))


class GuardedDIMSE(DIMSEServiceProvider):
    """Collects messages, within bounds."""

    def __init__(self, assoc: Association, largest_bytes: int) -> None:
        super().__init__(assoc)
        self._largest = largest_bytes
        self._size = 0
        self._refusing = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a fragment; one too many aborts the association."""
        if self._refusing:
            return
        self._size += sum(len(data) for _, data in primitive.presentation_data_value_list)
        if self._size > self._largest or self.msg_queue.qsize() > _MOST_WAITING_MESSAGES:
            self._abort("message_too_large")
            return
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # noqa: BLE001 - whatever a hostile command set provokes
            self._abort(type(error).__name__)
        if self.message is None:
            self._size = 0

    def _abort(self, reason: str) -> None:
        log.warning("message.refused", reason=reason)
        self._refusing = True
        self.message = None
        self.dul.event_queue.put("Evt19")


class _Turns(threading.Event):
    """What pynetdicom asks before each turn of an association: spreads those of idle ones."""

    def __init__(self, dimse: DIMSEServiceProvider) -> None:
        super().__init__()
        self._messages = dimse.msg_queue
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a message, for a moment at most, then for leave to go on."""
        with self._messages.not_empty:
            if not self._messages.queue:
                self._messages.not_empty.wait(_IDLE_TURN_SECONDS)
        return super().wait(timeout)


class GuardedAssociation(Association):
    """An association that was asked of us."""

    def __init__(self, ae: ApplicationEntity, server: GuardedServer) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.dul = GuardedDUL(self)
        self.dimse = GuardedDIMSE(self, server.settings.largest_instance_bytes)
        self._reactor_checkpoint = _Turns(self.dimse)
        self.acse_timeout = ae.acse_timeout
        self.dimse_timeout = ae.dimse_timeout
        self.network_timeout = ae.network_timeout
        self._server = server
        self.session: Any = None
        """What the receiver keeps of it."""

    def run_reactor(self) -> None:
        """Serve the association, then tell the server that it ended, however it did."""
        server = cast(GuardedServer, self._server)
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - a thread's outermost loop
            log.warning("association.failed", error=type(error).__name__)
            self.is_aborted = True
        finally:
            self.dul.kill_dul()
            if self.dul.socket is not None:
                self.dul.socket.close()
            server.ended(self)

    def cut(self) -> None:
        """End it from another thread, without waiting for a peer that may not listen."""
        connection = self.dul.socket.socket if self.dul.socket is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.settimeout(1.0)
                connection.sendall(_ABORT)
                connection.shutdown(socket.SHUT_RDWR)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve a message; one that is no valid request is no reason to keep a peer waiting."""
        if not msg.is_valid_request:
            log.warning("message.refused", reason="not_a_valid_request")
            self.abort()
            return
        super()._serve_request(msg, context_id)


class GuardedHandler(RequestHandler):
    """Turns a connection into an association, in the connection's own thread."""

    def handle(self) -> None:
        """Set up TLS, wait for the request, then let pynetdicom serve it."""
        server = cast(GuardedServer, self.server)
        connection = cast(socket.socket, self.request)
        try:
            connection = server.secure(connection)
            request = read_request(connection, server.settings)
        finally:
            server.lobby.leave(cast(socket.socket, self.request))
        self.request = connection
        server.adopt(connection, cast(tuple[str, int], self.client_address), request)


class GuardedServer(ThreadedAssociationServer):
    """Listens, lets listed addresses in, and knows every association that it serves.

    `shutdown` stops listening; associations in progress go on until they end or are aborted.

    Parameters
    ----------
    settings : GuardSettings
    on_refused : callable
        Told the address and the reason of a connection that was turned away.
    on_end : callable
        Told each association that ended, in its own thread.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        *args: Any,
        settings: GuardSettings,
        on_refused: Callable[[str, str], None],
        on_end: Callable[[GuardedAssociation], None],
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.lobby = Lobby()
        self._on_refused = on_refused
        self._on_end = on_end
        self._lock = threading.Lock()
        self._live: set[GuardedAssociation] = set()
        super().__init__(*args, **kwargs)

    @property
    def live(self) -> list[GuardedAssociation]:
        """Associations whose thread has not ended, accepted or not."""
        with self._lock:
            return list(self._live)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; nothing here may wait for the peer."""
        listener = cast(socket.socket, self.socket)
        connection, address = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection may stay."""
        address = str(client_address[0])
        reason = ""
        if not self.settings.is_listed(address):
            reason = "address_not_listed"
        elif len(self.live) >= self.settings.most_connections:
            reason = "too_many_connections"
        elif not self.lobby.enter(request, address):
            reason = "too_many_silent_connections"
        if reason:
            self._on_refused(address, reason)
        return not reason

    def adopt(self, connection: socket.socket, address: tuple[str, int], request: bytes) -> None:
        """Serve an association whose A-ASSOCIATE-RQ, and nothing more, was read already."""
        assoc = self._association(connection, address, request)
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": address})
        self._began(assoc)
        assoc.start()

    def _association(
        self, connection: socket.socket, address: tuple[str, int], request: bytes
    ) -> GuardedAssociation:
        assoc = GuardedAssociation(self.ae, self)
        assoc.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        assoc.set_socket(GuardedSocket(assoc, connection, request, self.settings))
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = self.ae_title
        assoc.acceptor.address_info = AddressInformation.from_tuple(self.server_address)
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        # Shared, not copied for each association: negotiation only reads them.
        assoc.acceptor.supported_contexts = self.contexts
        assoc.requestor.address_info = AddressInformation.from_tuple(address)
        self._bind_handlers(assoc)
        return assoc

    def _bind_handlers(self, assoc: GuardedAssociation) -> None:
        for event in self.get_events():
            handlers: Any = self.get_handlers(event)
            if event.is_intervention and handlers:
                assoc.bind(event, *handlers)
            elif event.is_notification:
                for handler, args in handlers:
                    assoc.bind(event, handler, args)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread."""
        try:
            self.finish_request(request, client_address)
        except (OSError, ValueError) as error:
            reason = "no_association_requested" if isinstance(error, OSError) else "malformed"
            self._on_refused(str(client_address[0]), reason)
            self.shutdown_request(request)
        finally:
            self.lobby.leave(request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection."""
        socketserver.ThreadingMixIn.process_request(self, request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with one connection; the default prints to stderr."""
        self.lobby.leave(request)
        log.warning("connection.failed", address=str(client_address[0]))

    def secure(self, connection: socket.socket) -> socket.socket:
        """Set up TLS where it is asked for, under a deadline."""
        if self.ssl_context is None:
            return connection
        connection.settimeout(self.settings.handshake_seconds)
        return self.ssl_context.wrap_socket(connection, server_side=True)

    def _began(self, assoc: GuardedAssociation) -> None:
        """Count an association in."""
        with self._lock:
            self._live.add(assoc)

    def ended(self, assoc: GuardedAssociation) -> None:
        """Count an association out."""
        with self._lock:
            self._live.discard(assoc)
        self._on_end(assoc)

    def shutdown(self) -> None:
        """Stop listening."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
