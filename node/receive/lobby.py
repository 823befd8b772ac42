"""Connections that have not asked for an association yet: few, for a short time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
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
    """Counts who waits; where too many of one address do, the one that waited longest goes.

    Silent connections thus never shut the door: not to others, and not to an honest sender at the
    same address, which speaks within a moment of connecting.
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
        """Drop the oldest of the same address, or of all, unless everybody is young."""
        same = [guest for guest in self._guests if guest.address == address]
        crowd = same if len(same) >= self._per_address else self._guests
        if len(same) < self._per_address and len(self._guests) < self._total:
            return True
        oldest = crowd[0]
        if time.monotonic() - oldest.since < YOUNG_SECONDS:
            return len(same) < 4 * self._per_address and len(self._guests) < self._total
        self._guests.remove(oldest)
        with contextlib.suppress(OSError):
            oldest.connection.shutdown(socket.SHUT_RDWR)
        return True
