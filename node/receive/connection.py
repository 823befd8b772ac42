"""One connection of the listener: its bytes come in PDUs of a bounded size, within deadlines."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pynetdicom.association import Association
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

_A_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_PDU_HEADER = struct.Struct(">BxI")
_LARGEST_OTHER_PDU = 1024
_IDLE_AFTER_SECONDS = 0.25
_IDLE_TURN_MS = 25
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


@dataclass(frozen=True)
class GuardSettings:
    """Limits of the listener.

    Parameters
    ----------
    is_listed : callable
        Whether anybody may call from an IP address.
    request_seconds : float
        Within which a connection must have sent its A-ASSOCIATE-RQ.
    handshake_seconds : float
        Within which TLS must be set up.
    pdu_seconds : float
        Within which a PDU that began must have arrived, and an answer must have left.
    largest_request_bytes : int
        Longest A-ASSOCIATE-RQ.
    largest_instance_bytes : int
        Longest data set.
    most_connections : int
        All associations and waiting connections together.
    longest_association_seconds : float
    """

    is_listed: Callable[[str], bool]
    request_seconds: float = 10.0
    handshake_seconds: float = 5.0
    pdu_seconds: float = 20.0
    largest_request_bytes: int = 1 << 20
    largest_instance_bytes: int = 2 << 30
    most_connections: int = 1024
    longest_association_seconds: float = 86_400.0


class CannotListen(OSError):
    """Raised when an address cannot be listened on; the sentence says which and why."""


@contextlib.contextmanager
def listening_on(host: str, port: int) -> Iterator[None]:
    """Name the address where it cannot be listened on.

    Raises
    ------
    CannotListen
    """
    try:
        yield
    except OSError as error:
        sentence = f"Nobody can listen on {host}:{port} here ({error.strerror or error})."
        raise CannotListen(sentence) from error


class RefusedPDU(OSError):
    """Raised when a peer sends a PDU that no peer should; an OSError, so that pynetdicom closes."""


class MonotonicTimer(Timer):
    """pynetdicom's timer, deaf to changes of the clock."""

    @classmethod
    def instead_of(cls, timer: Timer) -> MonotonicTimer:
        """Make one with the same limit."""
        return cls(timer.timeout)

    @property
    def remaining(self) -> float:
        """Seconds until it expires; 1 when it never does."""
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return self.timeout
        until = time.monotonic() if self._end_time is None else self._end_time
        return self.timeout - (until - self._start_time)

    def start(self) -> None:
        """Start again from now."""
        self._start_time = time.monotonic()
        self._end_time = None

    def stop(self) -> None:
        """Stop."""
        self._end_time = time.monotonic()


def read_exactly(connection: socket.socket, size: int, deadline: float) -> bytearray:
    """Read so many bytes before a time of `time.monotonic`; fewer when the peer closed.

    Raises
    ------
    OSError
        The deadline passed, or the connection broke.
    """
    buffer = bytearray(size)
    view, at = memoryview(buffer), 0
    while at < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("a PDU took too long to arrive")
        connection.settimeout(left)
        count = connection.recv_into(view[at:])
        if not count:
            return buffer[:at]
        at += count
        if _QUICKACK is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
    return buffer


def read_request(connection: socket.socket, settings: GuardSettings) -> bytes:
    """Read the A-ASSOCIATE-RQ that every connection must begin with.

    Raises
    ------
    RefusedPDU
        It began with something else.
    OSError
        Nothing, or not all of it, came in time.
    """
    deadline = time.monotonic() + settings.request_seconds
    header = read_exactly(connection, 6, deadline)
    if len(header) < 6:
        raise RefusedPDU("the connection was closed before it asked for an association")
    kind, length = _PDU_HEADER.unpack(header)
    if kind != _A_ASSOCIATE_RQ or length > settings.largest_request_bytes:
        raise RefusedPDU(f"began with PDU type {kind:#04x} of {length} bytes")
    return bytes(header + read_exactly(connection, length, deadline))


class BoundedSocket(AssociationSocket):
    """A connection on which no PDU takes for ever, in either direction, and that closes for sure.

    pynetdicom's own would wait without limit for a peer that stopped reading or broke off in the
    midst of a PDU, and its thread with it.
    """

    pdu_seconds = 60.0
    largest_pdu = 1 << 24

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a part of a PDU."""
        if self.socket is None:
            raise RefusedPDU("the connection is closed")
        if nr_bytes > self.largest_pdu:
            raise RefusedPDU(f"a PDU of {nr_bytes} bytes was refused")
        return read_exactly(self.socket, nr_bytes, time.monotonic() + self.pdu_seconds)

    def send(self, bytestream: bytes) -> None:
        """Send, within the deadline of a PDU."""
        try:
            if self.socket is None:
                raise RefusedPDU("the connection is closed")
            self.socket.settimeout(self.pdu_seconds)
            self.socket.sendall(bytestream)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")

    def _shutdown_socket(self) -> None:
        """Close, also where the peer is gone and there is nothing to shut down."""
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class GuardedSocket(BoundedSocket):
    """Hands out the request that was read already, then PDUs within their limits."""

    def __init__(
        self,
        assoc: Association,
        connection: socket.socket,
        request: bytes,
        settings: GuardSettings,
    ) -> None:
        super().__init__(assoc, client_socket=connection)
        self._request = memoryview(request)
        self.pdu_seconds = settings.pdu_seconds
        self._body_next = False
        self._heard = time.monotonic()
        self._ends = time.monotonic() + settings.longest_association_seconds
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a little where nothing came for a while.

        pynetdicom asks a thousand times a second, of idle associations too.
        """
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        if self._request:
            return True
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        try:
            is_idle = time.monotonic() - self._heard > _IDLE_AFTER_SECONDS
            return bool(self._poll.poll(_IDLE_TURN_MS if is_idle else 0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a part of a PDU: its header, then its body, in turn."""
        self._heard = time.monotonic()
        if self._request:
            part, self._request = self._request[:nr_bytes], self._request[nr_bytes:]
            return bytearray(part)
        part_of_pdu = super().recv(nr_bytes)
        if not self._body_next and len(part_of_pdu) == 6:
            self._check(part_of_pdu)
        self._body_next = not self._body_next
        return part_of_pdu

    def _check(self, header: bytearray) -> None:
        kind, length = _PDU_HEADER.unpack(header)
        largest = _LARGEST_OTHER_PDU
        if kind == _P_DATA_TF:
            largest = self.assoc.acceptor.maximum_length or 0
        if not 1 <= kind <= 7 or length > largest:
            raise RefusedPDU(f"a PDU of type {kind:#04x} with {length} bytes was refused")
        if time.monotonic() > self._ends:
            raise RefusedPDU("the association lasted too long")
