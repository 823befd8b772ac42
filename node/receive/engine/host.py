"""What an association needs from the node, and what all associations share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from node.receive.access import AssociationRequest, Rejection
from node.receive.admission import Session
from node.receive.engine.negotiation import Negotiator
from node.receive.engine.read_buffer import BufferPool
from node.receive.engine.upper_layer import Limits
from node.receive.identity import StoreRequest
from node.receive.reception import Reception
from node.statuses import Status
from storage.base import Acceptance


class Host(Protocol):
    """The node, as an association sees it; from many threads."""

    def admit(self, request: AssociationRequest) -> Session | Rejection:
        """Let an association in, or say why not."""

    def left(self, session: Session, *, released: bool) -> None:
        """Note that it ended."""

    def reception(self, request: StoreRequest) -> Reception:
        """Begin to take in a data set."""

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


@dataclass(frozen=True)
class Engine:
    """What all associations share.

    Parameters
    ----------
    host : Host
    negotiator : Negotiator
    buffers : BufferPool
    limits : callable
        Asked for each association, so that a changed configuration counts at once.
    largest_instance_bytes : int
        Longest data set.
    """

    host: Host
    negotiator: Negotiator
    buffers: BufferPool
    limits: Callable[[], Limits]
    largest_instance_bytes: int = 2 << 30
