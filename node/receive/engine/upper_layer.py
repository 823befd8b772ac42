"""The upper layer of an acceptor, without sockets: PDUs in, indications and PDUs out.

Time is a number that the caller passes in, from a monotonic clock.

References
----------
DICOM PS3.8 sections 7 (services) and 9.2 (state machine).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.receive.engine import pdu
from node.receive.engine.pdu import (
    AbortReason,
    AbortSource,
    InvalidPDU,
    PDUType,
    PresentationDataValue,
    presentation_data_values,
)
from node.receive.engine.read_buffer import ReadBuffer
from node.receive.engine.states import TRANSITIONS, Event, State

_LARGEST_OTHER_PDU = 1024


@dataclass(frozen=True)
class Limits:
    """How long and how large things may be.

    Parameters
    ----------
    artim_seconds : float
        Within which an A-ASSOCIATE-RQ must have come.
    closing_seconds : float
        Within which the peer must have closed, once nothing more is said.
    pdu_seconds : float
        Within which a PDU that began must have arrived.
    idle_seconds : float
        After which a silent association is aborted.
    lifetime_seconds : float
        Longest association.
    largest_request_bytes, largest_pdu_bytes : int
        Longest A-ASSOCIATE-RQ and P-DATA-TF.
    """

    artim_seconds: float = 10.0
    closing_seconds: float = 2.0
    pdu_seconds: float = 20.0
    idle_seconds: float = 60.0
    lifetime_seconds: float = 86_400.0
    largest_request_bytes: int = 1 << 19
    largest_pdu_bytes: int = 131_072


@dataclass(frozen=True)
class Requested:
    """A-ASSOCIATE indication: the whole A-ASSOCIATE-RQ, to be accepted or rejected."""

    request: bytes


@dataclass(frozen=True, slots=True)
class Arrived:
    """P-DATA indication; the views hold until the buffer is filled again."""

    values: list[PresentationDataValue]


@dataclass(frozen=True)
class ReleaseAsked:
    """A-RELEASE indication, to be answered; a collision, when we had asked ourselves."""

    is_collision: bool = False


@dataclass(frozen=True)
class Released:
    """A-RELEASE confirmation."""


@dataclass(frozen=True)
class Aborted:
    """A-ABORT or A-P-ABORT indication: the association is over."""

    source: int
    reason: int
    by_peer: bool


Indication = Requested | Arrived | ReleaseAsked | Released | Aborted

_EVENTS = {
    PDUType.A_ASSOCIATE_RQ: Event.REQUEST_PDU,
    PDUType.A_ASSOCIATE_AC: Event.ACCEPT_PDU,
    PDUType.A_ASSOCIATE_RJ: Event.REJECT_PDU,
    PDUType.P_DATA_TF: Event.DATA_PDU,
    PDUType.A_RELEASE_RQ: Event.RELEASE_REQUEST_PDU,
    PDUType.A_RELEASE_RP: Event.RELEASE_REPLY_PDU,
    PDUType.A_ABORT: Event.ABORT_PDU,
}
_LENGTH_FOUR = (PDUType.A_RELEASE_RQ, PDUType.A_RELEASE_RP, PDUType.A_ABORT)


class UpperLayer:
    """One connection from its first byte to its last.

    Feed it with `process` until that returns None, send what `take_output` gives, call `expire`
    when `deadline` has passed and `closed` when the peer closed. It is over, and the connection to
    be closed, when `is_over`.

    Parameters
    ----------
    limits : Limits
    now : float
        When the peer connected.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.state = State.IDLE
        self._limits = limits
        self._output: list[bytes] = []
        self._body = memoryview(b"")
        self._reason = AbortReason.NOT_SPECIFIED
        self._answer = b""
        self._in_step = True
        self._artim: float | None = None
        self._pdu_deadline: float | None = None
        self._idle_deadline = now + limits.idle_seconds
        self._end = now + limits.lifetime_seconds
        self._now = now
        self._happens(Event.CONNECTED)

    @property
    def is_over(self) -> bool:
        """Whether the connection is to be closed."""
        return self.state is State.IDLE

    @property
    def awaits_request(self) -> bool:
        """Whether nothing but an A-ASSOCIATE-RQ may come."""
        return self.state is State.AWAITING_REQUEST

    @property
    def is_established(self) -> bool:
        """Whether objects may come."""
        return self.state is State.ESTABLISHED

    @property
    def deadline(self) -> float:
        """When `expire` is to be called, unless something happens before."""
        if self._artim is not None:
            return self._artim
        first = self._idle_deadline if self._pdu_deadline is None else self._pdu_deadline
        return min(first, self._end)

    def take_output(self) -> bytes:
        """Bytes to send, once."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    # -- what comes from the peer ----------------------------------------------------------

    def process(self, buffer: ReadBuffer, now: float) -> Indication | None:
        """Take one PDU out of a buffer.

        Parameters
        ----------
        buffer : ReadBuffer
            What arrived; a PDU is taken out when it is complete.
        now : float

        Returns
        -------
        Indication or None
            None: more bytes are needed (or the association is over).
        """
        self._now = now
        while self.state is not State.IDLE:
            if not self._in_step:
                buffer.clear()
                return None
            head = buffer.header()
            if head is None:
                break
            kind, length = head
            if (refusal := self._refusal(kind, length)) is not None:
                self._in_step = False
                return self._invalid(refusal)
            body = buffer.take_pdu(length)
            if body is None:
                break
            self._pdu_deadline = None
            self._idle_deadline = now + self._limits.idle_seconds
            indication = self._pdu(kind, body)
            if indication is not None:
                return indication
        if self._pdu_deadline is None and not buffer.is_empty:
            self._pdu_deadline = now + self._limits.pdu_seconds
        return None

    def _refusal(self, kind: int, length: int) -> AbortReason | None:
        """Say why a PDU is not even read."""
        largest = _LARGEST_OTHER_PDU
        if kind == PDUType.P_DATA_TF:
            largest = self._limits.largest_pdu_bytes
        elif kind == PDUType.A_ASSOCIATE_RQ:
            largest = self._limits.largest_request_bytes
        elif kind not in _EVENTS:
            return AbortReason.UNRECOGNIZED_PDU
        if length > largest or (kind in _LENGTH_FOUR and length != 4):
            return AbortReason.INVALID_PARAMETER
        return None

    def _pdu(self, kind: int, body: memoryview) -> Indication | None:
        self._body = body
        self._reason = AbortReason.UNEXPECTED_PDU
        try:
            return self._happens(_EVENTS[PDUType(kind)])
        except InvalidPDU as error:
            return self._invalid(error.reason)
        finally:
            self._body = memoryview(b"")

    def _invalid(self, reason: AbortReason) -> Indication | None:
        self._reason = reason
        return self._happens(Event.INVALID_PDU)

    def closed(self, now: float) -> Indication | None:
        """Note that the peer closed the connection, or that it broke."""
        self._now = now
        return self._happens(Event.CLOSED)

    def expire(self, now: float) -> Indication | None:
        """End what took too long; nothing, when `deadline` has not passed."""
        self._now = now
        if now < self.deadline:
            return None
        if self._artim is not None:
            return self._happens(Event.ARTIM_EXPIRED)
        self.abort(now, AbortSource.SERVICE_PROVIDER)
        return Aborted(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED, by_peer=False)

    # -- what we decide --------------------------------------------------------------------

    def accept(self, answer: bytes) -> None:
        """Accept the association with an A-ASSOCIATE-AC."""
        self._answer = answer
        self._happens(Event.ACCEPT)

    def reject(self, answer: bytes, now: float) -> None:
        """Reject it with an A-ASSOCIATE-RJ."""
        self._now = now
        self._answer = answer
        self._happens(Event.REJECT)

    def send(self, data: bytes) -> None:
        """Send P-DATA-TF PDUs."""
        self._answer = data
        self._happens(Event.SEND_DATA)

    def release(self) -> None:
        """Ask the peer for the end of the association."""
        self._happens(Event.RELEASE)

    def answer_release(self, now: float) -> None:
        """Agree to the end of the association."""
        self._now = now
        self._happens(Event.ANSWER_RELEASE)

    def abort(
        self,
        now: float,
        source: AbortSource = AbortSource.SERVICE_USER,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> None:
        """End the association at once."""
        self._now = now
        self._answer = pdu.a_abort(source, reason)
        self._happens(Event.ABORT)

    # -- the table -------------------------------------------------------------------------

    def _happens(self, event: Event) -> Indication | None:
        action = TRANSITIONS.get((event, self.state))
        if action is None:
            raise ValueError(f"{event.name} cannot happen in state {self.state.name}")
        return _ACTIONS[action](self)

    def _start_artim(self, seconds: float) -> None:
        self._artim = self._now + seconds

    def _finish(self) -> None:
        """Close the connection: nothing more comes, nothing more is awaited."""
        self._artim = None
        self.state = State.IDLE

    def _await_close(self) -> None:
        """Say nothing more; the peer closes, or the timer does."""
        self._start_artim(self._limits.closing_seconds)
        self.state = State.AWAITING_CLOSE

    def _ae_5(self) -> None:
        self._start_artim(self._limits.artim_seconds)
        self.state = State.AWAITING_REQUEST

    def _ae_6(self) -> Indication:
        self._artim = None
        self.state = State.DECIDING
        return Requested(bytes(self._body))

    def _ae_7(self) -> None:
        self._output.append(self._answer)
        self.state = State.ESTABLISHED

    def _ae_8(self) -> None:
        self._output.append(self._answer)
        self._await_close()

    def _send_data(self) -> None:
        self._output.append(self._answer)

    def _data(self) -> Indication:
        return Arrived(presentation_data_values(self._body))

    def _ar_1(self) -> None:
        self._output.append(pdu.A_RELEASE_RQ)
        self.state = State.AWAITING_RELEASE_REPLY

    def _ar_2(self) -> Indication:
        self.state = State.RELEASING
        return ReleaseAsked()

    def _ar_3(self) -> Indication:
        self._finish()
        return Released()

    def _ar_4(self) -> None:
        self._output.append(pdu.A_RELEASE_RP)
        self._await_close()

    def _ar_8(self) -> Indication:
        self.state = State.COLLISION_AWAITING_REPLY
        return ReleaseAsked(is_collision=True)

    def _ar_10(self) -> Indication:
        self.state = State.COLLISION_RELEASING
        return Released()

    def _aa_1(self) -> None:
        abort = self._answer if self.state is not State.AWAITING_REQUEST else b""
        self._output.append(abort or pdu.a_abort(AbortSource.SERVICE_USER))
        self._await_close()

    def _aa_3(self) -> Indication:
        source, reason = self._body[2], self._body[3]
        self._finish()
        return Aborted(source, reason, by_peer=True)

    def _aa_4(self) -> Indication:
        self._finish()
        return Aborted(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED, by_peer=True)

    def _aa_6(self) -> None:
        """Ignore the PDU."""

    def _aa_7(self) -> None:
        self._output.append(pdu.a_abort(AbortSource.SERVICE_PROVIDER, self._reason))

    def _aa_8(self) -> Indication:
        self._output.append(pdu.a_abort(AbortSource.SERVICE_PROVIDER, self._reason))
        self._await_close()
        return Aborted(AbortSource.SERVICE_PROVIDER, self._reason, by_peer=False)


_ACTIONS: dict[str, Callable[[UpperLayer], Indication | None]] = {
    "AE-5": UpperLayer._ae_5,
    "AE-6": UpperLayer._ae_6,
    "AE-7": UpperLayer._ae_7,
    "AE-8": UpperLayer._ae_8,
    "DT-1": UpperLayer._send_data,
    "DT-2": UpperLayer._data,
    "AR-1": UpperLayer._ar_1,
    "AR-2": UpperLayer._ar_2,
    "AR-3": UpperLayer._ar_3,
    "AR-4": UpperLayer._ar_4,
    "AR-5": UpperLayer._finish,
    "AR-6": UpperLayer._data,
    "AR-7": UpperLayer._send_data,
    "AR-8": UpperLayer._ar_8,
    "AR-10": UpperLayer._ar_10,
    "AA-1": UpperLayer._aa_1,
    "AA-2": UpperLayer._finish,
    "AA-3": UpperLayer._aa_3,
    "AA-4": UpperLayer._aa_4,
    "AA-5": UpperLayer._finish,
    "AA-6": UpperLayer._aa_6,
    "AA-7": UpperLayer._aa_7,
    "AA-8": UpperLayer._aa_8,
}
