"""Who is in, what each brought, and what is told of it; the same for both engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from node.log import is_debugging
from node.receive.access import AssociationRequest, Rejection, address_of, identify, is_listed
from node.receive.admission import Admission, Session
from node.receive.association_rows import AssociationRows
from node.receive.identity import StoreRequest
from node.receive.reception import Reception
from node.receive.settings import ReceiverSettings
from node.receive.store_service import StoreService
from node.statuses import SUCCESS, Status
from storage.associations import RELEASED, ClosedAssociation, OpenedAssociation
from storage.base import Acceptance

log = structlog.get_logger(__name__)

Facts = Mapping[str, object]
OnEvent = Callable[[str, Facts], None]
"""Told every event that is logged, with the same facts: for metrics."""


class Associations:
    """Admits associations and hands their objects to the store service; from many threads.

    Parameters
    ----------
    service : StoreService
    settings : ReceiverSettings
        May be replaced while it serves.
    rows : AssociationRows or None
        Where associations are written down.
    on_event : callable
    """

    def __init__(
        self,
        service: StoreService,
        settings: ReceiverSettings,
        rows: AssociationRows | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.service = service
        self.settings = settings
        self._rows = rows
        self._is_told_of_each = on_event is not None
        self._on_event: OnEvent = on_event or (lambda event, facts: None)
        self._admission = Admission(service.has_room)
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], float] = {}
        if rows is not None:
            rows.follow(lambda: self.sessions)

    @property
    def count(self) -> int:
        """How many are established now."""
        return self._admission.count

    @property
    def sessions(self) -> list[Session]:
        """Those that are established now, with what came of each so far."""
        return self._admission.sessions

    def is_listed(self, address: str) -> bool:
        """Whether any peer may call from an address."""
        return is_listed(self.settings.peers, address_of(address))

    def is_unwelcome(self, session: Session) -> bool:
        """Whether it would not be admitted any more, or as somebody else."""
        found = identify(session.request, self.settings.peers, self.settings.ae_title)
        return isinstance(found, Rejection) or found.name != session.peer.name

    def turned_away(self, address: str, reason: str) -> None:
        """Log a connection that was turned away, once a minute for each address."""
        self._on_event("connection.refused", {"address": address, "reason": reason})
        now = time.monotonic()
        with self._lock:
            if now - self._told.get((address, reason), -60.0) < 60.0:
                return
            if len(self._told) > 1000:
                self._told.clear()
            self._told[address, reason] = now
        log.warning("connection.refused", address=address, reason=reason)

    def admit(self, request: AssociationRequest) -> Session | Rejection:
        """Let an association in, or say why not."""
        settings = self.settings
        verdict = self._admission.admit(
            request, settings.peers, settings.ae_title, settings.max_associations
        )
        if isinstance(verdict, Rejection):
            self.tell(
                "association.rejected",
                reason=verdict.reason,
                address=request.address,
                calling_ae_title=request.calling_ae_title,
                called_ae_title=request.called_ae_title,
            )
            return verdict
        self.tell("association.accepted", **verdict.names)
        if self._rows is not None:
            self._rows.opened(_opened(verdict, settings.owner))
        return verdict

    def left(self, session: Session, *, released: bool) -> None:
        """Note that an association ended."""
        self._admission.leave(session)
        reason = RELEASED if released else "aborted"
        facts = session.counts
        seconds = round(time.monotonic() - session.since, 3)
        self.tell(f"association.{reason}", **session.names, **facts, seconds=seconds)
        if self._rows is not None:
            self._rows.closed(ClosedAssociation(session.id, reason, **facts))

    def reception(self, request: StoreRequest) -> Reception:
        """Begin to take in a data set."""
        return self.service.reception(request)

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
            self.tell("instance.stored", outcome=str(acceptance), **facts)
        else:
            session.refused += 1
            self.tell("instance.refused", sentence=status.comment, **facts)

    def tell(self, event: str, **facts: object) -> None:
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
