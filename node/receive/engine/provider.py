"""The services of an association: C-STORE and C-ECHO, and what all else is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from node.receive.admission import Session
from node.receive.engine import pdu
from node.receive.engine.commands import Command, CommandField, response, text
from node.receive.engine.host import Host
from node.receive.engine.messages import MessageError, MessageReader, Part, Request
from node.receive.engine.negotiation import VERIFICATION, Context
from node.receive.engine.pdu import PresentationDataValue
from node.receive.identity import StoreRequest
from node.receive.reception import Reception
from node.statuses import (
    CANNOT_UNDERSTAND,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Status,
)

_SUCCESS = Status(SUCCESS)


class Provider:
    """Serves the requests of one association, one after the other.

    Parameters
    ----------
    host : Host
    session : Session
    contexts : mapping
        Accepted presentation contexts by id.
    maximum_length : int
        Longest P-DATA-TF that the peer takes; 0: any.
    largest_instance_bytes : int
        Longest data set.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        contexts: Mapping[int, Context],
        maximum_length: int,
        largest_instance_bytes: int,
    ) -> None:
        self._host = host
        self._session = session
        self._contexts = contexts
        self._maximum_length = maximum_length
        self._largest = largest_instance_bytes
        self._reader = MessageReader(contexts)
        self._request: Request | None = None
        self._storing: tuple[StoreRequest, Reception, float] | None = None

    @property
    def is_between_messages(self) -> bool:
        """Whether no message has begun."""
        return self._reader.is_between_messages

    @property
    def holds_fragments(self) -> bool:
        """Whether views that were handed in are still needed."""
        return self._storing is not None and self._storing[1].holds_fragments

    def spill(self) -> None:
        """Write out what views hold, so that their memory can be used again."""
        if self._storing is not None:
            self._storing[1].spill()

    def drop(self) -> None:
        """Forget the object in progress: its association is over."""
        storing, self._storing = self._storing, None
        if storing is not None:
            storing[1].discard()

    def take(self, values: Sequence[PresentationDataValue], now: float) -> Iterator[bytes]:
        """Take PDVs; what is to be answered, as P-DATA-TF PDUs.

        Raises
        ------
        MessageError
            The association is to be aborted.
        """
        for context_id, control, data in values:
            found = self._reader.take(context_id, control, data)
            if isinstance(found, Part):
                status = self._fragment(data, found)
            elif found is not None:
                status = self._begin(found, now)
            else:
                continue
            if status is not None and self._request is not None:
                message = response(self._request.command, status)
                yield pdu.p_data(self._request.context_id, message, self._maximum_length)

    def _begin(self, request: Request, now: float) -> Status | None:
        """Begin to serve a request; one without a data set is answered at once."""
        self._request = request
        command = request.command
        if not command.has_data_set:
            return self._status_without_store(request)
        if command.field == CommandField.C_STORE_RQ:
            asked = self._store_request(command, self._contexts[request.context_id])
            self._storing = asked, self._host.reception(asked), now
        return None

    def _fragment(self, data: memoryview, part: Part) -> Status | None:
        if self._storing is None:
            if part is Part.MORE or self._request is None:
                return None
            return self._status_without_store(self._request)
        _, reception, _ = self._storing
        reception.take(data)
        if reception.size > self._largest:
            raise MessageError("a data set is longer than allowed")
        return self._finish() if part is Part.LAST else None

    def _finish(self) -> Status | None:
        storing, self._storing = self._storing, None
        if storing is None:
            return None
        asked, reception, began = storing
        status, acceptance = reception.finish()
        seconds = time.monotonic() - began
        self._host.answered(self._session, asked, status, acceptance, reception.size, seconds)
        return status

    def _status_without_store(self, request: Request) -> Status | None:
        """Status of what brings no object; None: there is no answer to it."""
        match request.command.field:
            case CommandField.C_CANCEL_RQ:
                return None
            case CommandField.C_ECHO_RQ:
                known = self._contexts[request.context_id].abstract_syntax_uid == VERIFICATION
                return _SUCCESS if known else Status(SOP_CLASS_NOT_SUPPORTED)
            case CommandField.C_STORE_RQ:
                return Status(CANNOT_UNDERSTAND, "the request has no data set")
            case _:
                return Status(UNRECOGNIZED_OPERATION)

    def _store_request(self, command: Command, context: Context) -> StoreRequest:
        return StoreRequest(
            sop_class_uid=text(command.sop_class_uid),
            sop_instance_uid=text(command.sop_instance_uid),
            abstract_syntax_uid=context.abstract_syntax_uid,
            transfer_syntax_uid=context.transfer_syntax_uid,
            peer=self._session.peer.name,
            association_id=self._session.id,
        )
