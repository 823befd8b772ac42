"""Serves one association: reads, hands PDUs to the upper layer and messages to the services."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import assert_never

import structlog

from node.receive.access import AssociationRequest, Rejection
from node.receive.admission import Session
from node.receive.engine import pdu
from node.receive.engine.channel import Channel
from node.receive.engine.host import Engine
from node.receive.engine.messages import MessageError
from node.receive.engine.negotiation import Proposal, known_items_only
from node.receive.engine.pdu import AbortSource, InvalidPDU
from node.receive.engine.provider import Provider
from node.receive.engine.read_buffer import ReadBuffer
from node.receive.engine.upper_layer import (
    Aborted,
    Arrived,
    Indication,
    ReleaseAsked,
    Released,
    Requested,
    UpperLayer,
)
from node.receive.tls import certificate_of

log = structlog.get_logger(__name__)

_REJECT_AFTER_SECONDS = 0.05
"""A requestor made with pynetdicom takes a rejection for a lost connection when it comes before
its other thread has looked; and whoever guesses AE titles may as well wait."""


@dataclass(frozen=True)
class HandOver:
    """An association that is not for the engine: its A-ASSOCIATE-RQ, nothing else was read."""

    request: bytes


class ServedAssociation:
    """One connection, in the thread that calls `open` and then `serve`.

    Parameters
    ----------
    engine : Engine
    channel : Channel
    address : str
        IP address of the peer.
    """

    def __init__(self, engine: Engine, channel: Channel, address: str) -> None:
        self._engine = engine
        self._channel = channel
        self._address = address
        self._limits = engine.limits()
        self._layer = UpperLayer(self._limits, time.monotonic())
        self._buffer: ReadBuffer | None = None
        self._provider: Provider | None = None
        self._session: Session | None = None
        self._hand_over: HandOver | None = None
        self._is_cut = False
        self._is_released = False
        self.refusal = ""
        """Why there was no association, where it was not even rejected."""

    @property
    def session(self) -> Session | None:
        """Who it is; None while nobody was admitted."""
        return self._session

    def cut(self) -> None:
        """End it from another thread: with an A-ABORT, as soon as its own thread looks."""
        self._is_cut = True
        self._channel.interrupt()

    def open(self) -> HandOver | None:
        """Await the A-ASSOCIATE-RQ and answer it.

        Returns
        -------
        HandOver or None
            The association is for somebody else; then nothing was answered.
        """
        while self._session is None and self._hand_over is None and not self._layer.is_over:
            self._step()
        if self._hand_over is not None:
            self._release_buffer()
        return self._hand_over

    def serve(self) -> None:
        """Serve until the association is over."""
        try:
            while not self._layer.is_over:
                self._step()
        except Exception as error:  # noqa: BLE001 - a thread's outermost loop
            log.error("association.failed", error=type(error).__name__)
            self._channel.send(pdu.a_abort(AbortSource.SERVICE_USER), 1.0)

    def close(self) -> None:
        """Close the connection and give everything back, whatever state it is in."""
        self._channel.close()
        if self._provider is not None:
            self._provider.drop()
        self._release_buffer()
        session, self._session = self._session, None
        if session is not None:
            self._engine.host.left(session, released=self._is_released)

    # -- bytes -----------------------------------------------------------------------------

    def _step(self) -> None:
        """Wait for bytes, use them, send what is to be said."""
        count = self._receive(self._layer.deadline - time.monotonic())
        now = time.monotonic()
        if count:
            self._use(now)
        elif count == 0:
            self._ended(now)
        if not self._layer.is_over and now >= self._layer.deadline:
            self._expired(now)
        self._flush()

    def _receive(self, seconds: float) -> int | None:
        """Read into a buffer, which is only held while there is something in it."""
        buffer = self._buffer
        if buffer is None:
            if not self._channel.wait(seconds):
                return None
            buffer = self._buffer = self._engine.buffers.take()
        window = buffer.window()
        if self._layer.awaits_request:
            # Not a byte more than the request, so that it can be handed over.
            window = window[: buffer.missing]
        count = self._channel.receive(window, seconds)
        if count:
            buffer.filled(count)
        return count

    def _use(self, now: float) -> None:
        buffer = self._buffer
        if buffer is None:
            raise AssertionError("nothing was read")
        while not self._layer.is_over and self._hand_over is None:
            indication = self._layer.process(buffer, now)
            if indication is None:
                break
            self._note(indication, now)
        self._tidy(buffer)

    def _tidy(self, buffer: ReadBuffer) -> None:
        """Make room for what comes next; between messages, give the buffer back."""
        provider = self._provider
        if buffer.is_empty and (provider is None or not provider.holds_fragments):
            buffer.clear()
            if provider is None or provider.is_between_messages:
                self._release_buffer()
        elif buffer.is_nearly_full:
            if provider is not None:
                provider.spill()
            buffer.make_room()

    def _release_buffer(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._engine.buffers.give_back(buffer)

    def _flush(self) -> None:
        output = self._layer.take_output()
        if output and not self._channel.send(output, self._limits.pdu_seconds):
            self._closed(time.monotonic())

    def _ended(self, now: float) -> None:
        """Nothing more can be read: the peer closed, or we are to stop."""
        if self._is_cut and self._layer.is_established:
            self._layer.abort(now)
            self._flush()
        elif self._layer.awaits_request:
            self.refusal = "no_association_requested"
        self._closed(now)

    def _expired(self, now: float) -> None:
        if self._layer.awaits_request:
            self.refusal = "no_association_requested"
        self._note(self._layer.expire(now), now)

    def _closed(self, now: float) -> None:
        if not self._layer.is_over:
            self._note(self._layer.closed(now), now)

    # -- indications -----------------------------------------------------------------------

    def _note(self, indication: Indication | None, now: float) -> None:
        match indication:
            case Arrived(values):
                self._take(values, now)
            case None:
                pass
            case Requested(request):
                self._requested(request, now)
            case ReleaseAsked(is_collision):
                if not is_collision:
                    self._is_released = True
                    self._layer.answer_release(now)
            case Released():
                self._is_released = True
                if not self._layer.is_over:
                    self._layer.answer_release(now)
            case Aborted():
                self._drop()
            case _:
                assert_never(indication)

    def _requested(self, request: bytes, now: float) -> None:
        negotiator = self._engine.negotiator
        try:
            proposal = negotiator.read(request)
            request = known_items_only(request)
            if not negotiator.is_for_engine(proposal):
                head = pdu.header(pdu.PDUType.A_ASSOCIATE_RQ, len(request))
                self._hand_over = HandOver(head + request)
                return
        except InvalidPDU as error:
            self._refuse(error, now)
            return
        connection = self._channel.connection
        asked = _request_of(proposal, self._address, connection)
        verdict = self._engine.host.admit(asked)
        if isinstance(verdict, Rejection):
            rejection = pdu.a_associate_rj(verdict.result, verdict.source, verdict.diagnostic)
            time.sleep(_REJECT_AFTER_SECONDS)
            self._layer.reject(rejection, now)
            return
        self._session = verdict
        try:
            confirms = verdict.peer.user is not None
            answer = negotiator.answer(request, proposal, confirms_user=confirms)
        except InvalidPDU as error:
            self._refuse(error, now)
            return
        self._provider = Provider(
            self._engine.host,
            verdict,
            answer.contexts,
            proposal.maximum_length,
            self._engine.largest_instance_bytes,
        )
        self._layer.accept(answer.accept)

    def _refuse(self, error: InvalidPDU, now: float) -> None:
        self.refusal = "malformed"
        self._layer.abort(now, AbortSource.SERVICE_PROVIDER, error.reason)

    def _take(self, values: list[pdu.PresentationDataValue], now: float) -> None:
        provider = self._provider
        if provider is None or not self._layer.is_established:
            return
        try:
            for answer in provider.take(values, now):
                self._layer.send(answer)
        except MessageError as error:
            log.warning("message.refused", sentence=str(error))
            self._drop()
            self._layer.abort(now, error.source, error.reason)

    def _drop(self) -> None:
        if self._provider is not None:
            self._provider.drop()


def _request_of(proposal: Proposal, address: str, connection: socket.socket) -> AssociationRequest:
    return AssociationRequest(
        address=address,
        calling_ae_title=proposal.calling_ae_title,
        called_ae_title=proposal.called_ae_title,
        application_context_name=proposal.application_context_name,
        protocol_version=proposal.protocol_version,
        is_tls=isinstance(connection, ssl.SSLSocket),
        certificate=certificate_of(connection),
        identity=proposal.identity,
    )
