"""Connections that have not asked for an association yet: few, for a short time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass

MOST_WAITING_PER_ADDRESS = 16
MOST_WAITING = 256
YOUNG_SECONDS = 1.0


@dataclass(frozen=True)
class _Guest:
    connection: socket.socket
    address: str
    since: float


class Lobby:
    """Counts who waits; where too many do, one of the most crowded address goes.

    Silent connections of a few addresses thus never shut the door to others. An honest sender at
    the same address speaks within a moment of connecting, and is let in as long as those who do
    not come no faster than they are sent away.
    """

    def __init__(
        self, per_address: int = MOST_WAITING_PER_ADDRESS, total: int = MOST_WAITING
    ) -> None:
        self._per_address = per_address
        self._total = total
        self._lock = threading.Lock()
        self._guests: list[_Guest] = []

    def enter(self, connection: socket.socket, address: str) -> bool:
        """Let a connection in; False when it must be turned away."""
        with self._lock:
            if not self._make_room(address):
                return False
            self._guests.append(_Guest(connection, address, time.monotonic()))
            return True

    def leave(self, connection: socket.socket) -> None:
        """Forget a connection, whether it is there or not."""
        with self._lock:
            self._guests = [guest for guest in self._guests if guest.connection is not connection]

    def _make_room(self, address: str) -> bool:
        """Drop one where there are too many: of the address that has most, the oldest.

        A newcomer whose own address is the most crowded is turned away while all of those are
        young: there may be honest ones among them.
        """
        same = sum(guest.address == address for guest in self._guests)
        is_crowded = same >= self._per_address
        if not is_crowded and len(self._guests) < self._total:
            return True
        most = address if is_crowded else self._most_crowded()
        oldest = next(guest for guest in self._guests if guest.address == most)
        if most == address and time.monotonic() - oldest.since < YOUNG_SECONDS:
            return same < 4 * self._per_address and len(self._guests) < self._total
        self._guests.remove(oldest)
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: that forgets the TLS layer while its thread uses it.
            socket.socket.shutdown(oldest.connection, socket.SHUT_RDWR)
        return True

    def _most_crowded(self) -> str:
        return Counter(guest.address for guest in self._guests).most_common(1)[0][0]
