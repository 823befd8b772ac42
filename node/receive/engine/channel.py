"""One TCP connection, plain or TLS: reads and writes under deadlines, by the socket rules.

TCP_NODELAY, because a response must not wait for the peer's acknowledgement; TCP_QUICKACK after
every read, because many senders have no TCP_NODELAY and wait for ours, 40 ms per object; every
response in one write.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_LEAST_SECONDS = 0.001


class Channel:
    """A connection that was accepted.

    Parameters
    ----------
    connection : socket or SSLSocket
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._timeout = -1.0
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read, for so long at most."""
        if self._is_tls and self.connection.pending():  # type: ignore[attr-defined]
            return True
        return bool(self._poll.poll(max(0.0, seconds) * 1000 + 1))

    def receive(self, window: memoryview, seconds: float) -> int | None:
        """Read what is there into a window.

        Parameters
        ----------
        window : memoryview
        seconds : float
            How long to wait for the first byte.

        Returns
        -------
        int or None
            How many bytes; 0: the connection is closed or broken; None: nothing came in time.
        """
        try:
            self._allow(seconds)
            count = self.connection.recv_into(window)
            if self._is_tls and count:
                count += self._drained(window[count:])
            if _QUICKACK is not None:
                self.connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except (TimeoutError, ssl.SSLWantReadError):
            return None
        except (OSError, ValueError):
            return 0
        return count

    def _drained(self, window: memoryview) -> int:
        """Take what has arrived already, without waiting: TLS gives one record of 16 KiB a time."""
        receive, taken = self.connection.recv_into, 0
        self.connection.settimeout(0)
        self._timeout = 0.0
        with contextlib.suppress(ssl.SSLWantReadError):
            while taken < len(window) and (count := receive(window[taken:])):
                taken += count
        return taken

    def send(self, data: bytes, seconds: float) -> bool:
        """Send everything; False when the peer does not take it in time, or is gone."""
        try:
            self._allow(seconds)
            self.connection.sendall(data)
        except (OSError, ValueError):
            return False
        return True

    def interrupt(self) -> None:
        """Make reads end as if the peer had closed; from another thread."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: that forgets the TLS layer while its thread uses it.
            socket.socket.shutdown(self.connection, socket.SHUT_RD)

    def close(self) -> None:
        """Close, also where the peer is gone."""
        with contextlib.suppress(OSError):
            self.connection.close()

    def _allow(self, seconds: float) -> None:
        """Set the time limit of the next call, unless it is about that already."""
        seconds = max(seconds, _LEAST_SECONDS)
        if self._timeout <= 0 or not 0.9 * self._timeout < seconds < 1.1 * self._timeout:
            self.connection.settimeout(seconds)
            self._timeout = seconds
