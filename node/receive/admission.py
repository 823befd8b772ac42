"""Who is in: counts accepted associations, in all and for each peer."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from node.receive.access import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    AssociationRequest,
    PeerRule,
    Rejection,
    identify,
)


@dataclass
class Session:
    """One accepted association, and what came of it so far."""

    peer: PeerRule
    request: AssociationRequest
    id: int = field(default_factory=lambda: _new_id())
    since: float = field(default_factory=time.monotonic)
    stored: int = 0
    refused: int = 0
    bytes: int = 0

    @property
    def names(self) -> dict[str, object]:
        """Who it is, for logs."""
        return {
            "association_id": self.id,
            "peer": self.peer.name,
            "address": self.request.address,
            "calling_ae_title": self.request.calling_ae_title,
        }

    @property
    def counts(self) -> dict[str, int]:
        """What came of it."""
        return {"stored": self.stored, "refused": self.refused, "bytes": self.bytes}


class Admission:
    """Admits associations up to the limits; from many threads.

    Parameters
    ----------
    has_room : callable
        Whether the disk is above its mark.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._sessions: dict[int, Session] = {}

    @property
    def count(self) -> int:
        """How many associations are in."""
        with self._lock:
            return self._held.total()

    @property
    def sessions(self) -> list[Session]:
        """Associations that are in."""
        with self._lock:
            return list(self._sessions.values())

    def admit(
        self, request: AssociationRequest, peers: Sequence[PeerRule], ae_title: str, most: int
    ) -> Session | Rejection:
        """Let an association in, or say why not.

        Parameters
        ----------
        request : AssociationRequest
        peers : sequence of PeerRule
        ae_title : str
            Our own.
        most : int
            Most associations of all peers together.
        """
        peer = identify(request, peers, ae_title)
        if isinstance(peer, Rejection):
            return peer
        if not self._has_room():
            return TEMPORARY_CONGESTION
        with self._lock:
            if self._held.total() >= most or self._held[peer.name] >= peer.max_associations:
                return LOCAL_LIMIT_EXCEEDED
            self._held[peer.name] += 1
            session = Session(peer, request)
            self._sessions[session.id] = session
        return session

    def leave(self, session: Session) -> None:
        """Let an association out."""
        with self._lock:
            self._held[session.peer.name] -= 1
            self._sessions.pop(session.id, None)


def _new_id() -> int:
    """Return a number for an association, in order of time, without asking the database."""
    return time.time_ns() // 1_000_000 << 20 | secrets.randbits(20)
