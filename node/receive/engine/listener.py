"""Accepts connections and serves them with a pool of threads.

Each thread accepts for itself, so that none is born for an association while others are free.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable

import structlog

from node.receive.admission import Session
from node.receive.connection import GuardSettings
from node.receive.engine.association import HandOver, ServedAssociation
from node.receive.engine.channel import Channel
from node.receive.engine.host import Engine
from node.receive.lobby import Lobby

log = structlog.get_logger(__name__)

KEPT_THREADS = 16
"""Threads that await connections; more are started for as long as they are needed."""

Adopt = Callable[[socket.socket, tuple[str, int], bytes], None]
"""Takes an association that is not for the engine: connection, address, A-ASSOCIATE-RQ."""


class Listener:
    """Serves the associations of one port.

    Parameters
    ----------
    listening : socket
        Bound and listening.
    engine : Engine
    settings : GuardSettings
    adopt : callable
        Takes associations that are not for the engine.
    on_refused : callable
        Told the address and the reason of a connection that was turned away.
    count : callable or None
        How many connections there are on all ports, those that were handed over, too.
    ssl_context : callable or None
        Gives the SSLContext for the next connection, where connections begin with TLS.
    lobby : Lobby or None
        Where connections wait that have not asked yet; several ports may share one.
    """

    def __init__(
        self,
        listening: socket.socket,
        engine: Engine,
        settings: GuardSettings,
        adopt: Adopt,
        on_refused: Callable[[str, str], None],
        count: Callable[[], int] | None = None,
        ssl_context: Callable[[], ssl.SSLContext] | None = None,
        lobby: Lobby | None = None,
    ) -> None:
        self._listening = listening
        self._engine = engine
        self._settings = settings
        self._adopt = adopt
        self._on_refused = on_refused
        self._count = count or (lambda: self.live)
        self._ssl_context = ssl_context
        self._lobby = lobby or Lobby()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._live: set[ServedAssociation] = set()
        self._free = 0
        self._is_stopping = False

    @property
    def live(self) -> int:
        """Connections that are served now, associated or not."""
        with self._lock:
            return len(self._live)

    def start(self) -> None:
        """Start the threads."""
        self._listening.settimeout(None)
        for _ in range(KEPT_THREADS):
            self._start_thread()

    def stop(self) -> None:
        """Accept no more; associations go on. The socket is left to its owner."""
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)

    def await_no_association(self, seconds: float) -> bool:
        """Wait until all associations have ended, for so long at most; whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._live, seconds)

    def cut(self, which: Callable[[Session], bool] | None = None) -> None:
        """Abort all associations, or those of some sessions."""
        with self._lock:
            live = list(self._live)
        for association in live:
            session = association.session
            if which is None or (session is not None and which(session)):
                association.cut()

    # -- threads ---------------------------------------------------------------------------

    def _start_thread(self) -> None:
        """Start a thread that accepts; where there may be no more, those there are come back."""
        with self._lock:
            self._free += 1
        try:
            threading.Thread(target=self._run, name="association", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._free -= 1
            log.warning("thread.not_started", threads=threading.active_count())

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                connection, address = self._listening.accept()
            except OSError:
                if not self._is_stopping:
                    time.sleep(0.05)  # out of descriptors, most likely: others will close theirs
                continue
            self._busy()
            try:
                self._serve(connection, address)
            except Exception as error:  # noqa: BLE001 - a thread's outermost loop
                log.warning("connection.failed", address=address[0], error=type(error).__name__)
            if not self._is_kept():
                return

    def _busy(self) -> None:
        """Count this thread as taken; where none is left to accept, start another."""
        with self._lock:
            self._free -= 1
            none_left = self._free <= 0
        if none_left and not self._is_stopping:
            self._start_thread()

    def _is_kept(self) -> bool:
        """Count this thread as free again, unless there are enough of them."""
        with self._lock:
            if self._free >= KEPT_THREADS:
                return False
            self._free += 1
            return True

    # -- one connection --------------------------------------------------------------------

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        refusal = self._refusal(address[0])
        if not refusal:
            try:
                connection = self._wrapped(connection)
            except (OSError, ValueError):  # it was reset before its turn came
                refusal = "no_association_requested"
        if not refusal and not self._lobby.enter(connection, address[0]):
            refusal = "too_many_silent_connections"
        if refusal:
            self._on_refused(address[0], refusal)
            connection.close()
            return
        try:
            association = self._associate(connection, address)
        finally:
            self._lobby.leave(connection)
        if association is None:
            return
        try:
            association.serve()
        finally:
            association.close()
            self._forget(association)

    def _refusal(self, address: str) -> str:
        """Say why nobody may connect from an address; empty when they may."""
        if not self._settings.is_listed(address):
            return "address_not_listed"
        if self._count() >= self._settings.most_connections:
            return "too_many_connections"
        return ""

    def _associate(
        self, connection: socket.socket, address: tuple[str, int]
    ) -> ServedAssociation | None:
        """Await the request; None when there is nothing for us to serve."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            self._shake_hands(connection)
        except (OSError, ValueError):
            self._on_refused(address[0], "no_association_requested")
            connection.close()
            return None
        association = ServedAssociation(self._engine, Channel(connection), address[0])
        self._remember(association)
        try:
            hand_over = association.open()
        except BaseException:
            association.close()
            self._forget(association)
            raise
        if association.refusal:
            self._on_refused(address[0], association.refusal)
        if isinstance(hand_over, HandOver):
            self._forget(association)
            self._adopt(connection, address, hand_over.request)
            return None
        return association

    def _wrapped(self, connection: socket.socket) -> socket.socket:
        """Prepare TLS where it is asked for; nothing is read yet."""
        if self._ssl_context is None:
            return connection
        return self._ssl_context().wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )

    def _shake_hands(self, connection: socket.socket) -> None:
        """Set up TLS, in this connection's own thread, under one limit for all of it."""
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(self._settings.handshake_seconds)
            connection.do_handshake()

    def _remember(self, association: ServedAssociation) -> None:
        with self._lock:
            self._live.add(association)

    def _forget(self, association: ServedAssociation) -> None:
        with self._changed:
            self._live.discard(association)
            self._changed.notify_all()
