"""Sends stored objects to a destination, and never takes silence for success."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AddressInformation

from node.receive.connection import BoundedSocket, MonotonicTimer
from node.receive.guard import keep_pynetdicom_quiet
from node.statuses import (
    NO_SUCH_SOP_CLASS,
    SOP_CLASS_NOT_SUPPORTED,
    Kind,
    is_warning,
    kind_of,
    meaning_of,
)
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

log = structlog.get_logger(__name__)

MOST_CONTEXTS = 128
_NO_PRESENTATION_CONTEXT_WORDS = "accepted no presentation context for"


@dataclass(frozen=True)
class Destination:
    """An Application Entity that results are sent to.

    Parameters
    ----------
    host, port
    ae_title : str
        Its AE title.
    own_ae_title : str
        Ours.
    connect_seconds, associate_seconds, response_seconds : float
        How long to wait for TCP, for the answer to an A-ASSOCIATE-RQ, for each C-STORE-RSP.
    tls : ssl.SSLContext or None
        None: in the clear.
    trouble : str
        Why it cannot be called, whatever the network: a sentence; empty: nothing speaks against it.
    """

    host: str
    port: int
    ae_title: str
    own_ae_title: str
    connect_seconds: float = 10.0
    associate_seconds: float = 30.0
    response_seconds: float = 60.0
    tls: ssl.SSLContext | None = None
    trouble: str = ""

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


@dataclass(frozen=True)
class OutgoingObject:
    """A Part 10 file to be sent as it is; `sha256` of the file, where it is known."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    sha256: str = ""


@dataclass(frozen=True)
class SendOutcome:
    """What became of one object, or of an echo.

    Parameters
    ----------
    kind : {"sent", "retry", "refused"}
        ``sent``: the destination said that it holds the object. ``retry``: not now.
        ``refused``: not before somebody changes something.
    status : int or None
        What the destination answered; None: nothing.
    sentence : str
        What happened and to which object, without patient data; empty for a plain success.
    not_taken : bool
        Whether it was refused because the destination takes no such objects: neither class nor
        transfer syntax were agreed upon. Another object may go in its place.
    """

    kind: Kind
    status: int | None
    sentence: str
    not_taken: bool = False


OnStatus = Callable[[int, SendOutcome], None]


def send(
    destination: Destination,
    files: Sequence[OutgoingObject],
    on_status: OnStatus = lambda index, outcome: None,
) -> list[SendOutcome]:
    """Send objects in their order, in one association.

    Parameters
    ----------
    destination : Destination
    files : sequence of OutgoingObject
        A reader must never see a report without what it reports on, so it comes last; and after
        one that is to be sent later nothing more is sent now.
    on_status : callable
        Told the index and outcome of each object as soon as it is known, so that it can be
        written down before the next one leaves.

    Returns
    -------
    list of SendOutcome
        One for each file.

    Raises
    ------
    ValueError
        The files need more than 128 presentation contexts.
    """
    outcomes: list[SendOutcome] = []

    def tell(outcome: SendOutcome) -> None:
        outcomes.append(outcome)
        on_status(len(outcomes) - 1, outcome)

    if not files:
        return outcomes
    contexts = sorted({(file.sop_class_uid, file.transfer_syntax_uid) for file in files})
    if len(contexts) > MOST_CONTEXTS:
        raise ValueError(f"{len(contexts)} presentation contexts in one association, 128 at most")
    call = Call(destination, contexts)
    try:
        for file in files:
            later = next((o for o in outcomes if o.kind == "retry"), None)
            tell(waits_for(later) if later and call.failure is None else call.store(file))
    finally:
        call.end()
    return outcomes


def waits_for(earlier: SendOutcome) -> SendOutcome:
    """Say what becomes of an object behind one that is to be sent later: it never overtakes it."""
    sentence = f"it waits for an object before it in the same association: {earlier.sentence}"
    return SendOutcome("retry", None, sentence)


def echo(destination: Destination) -> SendOutcome:
    """Ask a destination whether it is there and takes us (C-ECHO)."""
    call = Call(destination, [(str(Verification), "")])
    try:
        if call.failure:
            return call.failure
        answer = call.echo()
        if "Status" not in answer:
            return SendOutcome("retry", None, f"{destination} did not answer C-ECHO")
        if answer.Status:
            sentence = f"{destination} answered C-ECHO with 0x{answer.Status:04X}"
            return SendOutcome("refused", int(answer.Status), sentence)
        return SendOutcome("sent", 0, "")
    finally:
        call.end()


class CallingAE(AE):
    """An AE whose associations never wait for ever for a peer that stopped in mid-sentence."""

    pdu_seconds = 60.0

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> BoundedSocket:
        assoc.dul.artim_timer = MonotonicTimer.instead_of(assoc.dul.artim_timer)
        assoc.dul._idle_timer = MonotonicTimer.instead_of(assoc.dul._idle_timer)
        bounded = BoundedSocket(assoc, address=address)
        bounded.pdu_seconds = self.pdu_seconds
        bounded.tls_args = tls_args
        return bounded


class Call:
    """One association that we ask for; `failure` says why there is none, or none any more.

    Parameters
    ----------
    destination : Destination
    contexts : sequence of tuple of str
        Abstract syntax, and transfer syntax; empty: those of the Standard's default.
    handlers : sequence
        Of pynetdicom's events, for what the peer asks of us in this association.
    roles : sequence
        Items of SCP/SCU Role Selection.
    """

    def __init__(
        self,
        destination: Destination,
        contexts: Sequence[tuple[str, str]],
        handlers: Sequence[Any] = (),
        roles: Sequence[Any] = (),
    ) -> None:
        keep_pynetdicom_quiet()
        # A file is sent as it is, in pieces. Process-wide; nothing of ours sends otherwise.
        _config.STORE_SEND_CHUNKED_DATASET = True
        self.destination = destination
        self._connected = self._accepted = False
        self._message_id = 0
        self._handlers, self._roles = list(handlers), list(roles)
        self._association: Association | None = None
        if destination.trouble:
            return
        try:
            self._association = self._associate(contexts)
        except OSError as error:
            log.warning("destination.unknown", host=destination.host, error=type(error).__name__)

    def _associate(self, contexts: Sequence[tuple[str, str]]) -> Association:
        there = self.destination
        ae = CallingAE(ae_title=there.own_ae_title)
        ae.pdu_seconds = there.response_seconds
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = there.connect_seconds
        ae.acse_timeout = there.associate_seconds
        ae.dimse_timeout = there.response_seconds
        ae.network_timeout = there.response_seconds + 30.0
        for abstract_syntax, transfer_syntax in contexts:
            if transfer_syntax:
                ae.add_requested_context(abstract_syntax, transfer_syntax)
            else:
                ae.add_requested_context(abstract_syntax)
        return ae.associate(
            there.host,
            there.port,
            ae_title=there.ae_title,
            max_pdu=131_072,
            ext_neg=self._roles,
            tls_args=(there.tls, there.host) if there.tls else None,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._on_connected),
                (evt.EVT_ACCEPTED, self._on_accepted),
                *self._handlers,
            ],
        )

    def _on_connected(self, event: evt.Event) -> None:
        self._connected = True

    def _on_accepted(self, event: evt.Event) -> None:
        self._accepted = True

    @property
    def failure(self) -> SendOutcome | None:
        """Why nothing can be sent now."""
        assoc, there = self._association, self.destination
        if assoc is None:
            sentence = there.trouble or f"{there} cannot be found by its host name"
            return SendOutcome("retry", None, sentence)
        if assoc.is_established:
            return None
        if assoc.is_rejected:
            answer = cast(Any, assoc.acceptor.primitive)
            kind: Kind = "refused" if answer.result == 1 else "retry"
            reason = f"{answer.result_str}: {answer.reason_str}".lower()
            return SendOutcome(kind, None, f"{there} rejected the association ({reason})")
        if not self._connected:
            return SendOutcome("retry", None, f"{there} cannot be reached")
        if not self._accepted:
            return SendOutcome("retry", None, f"{there} did not answer the association request")
        if not assoc.accepted_contexts:
            sentence = f"{there} {_NO_PRESENTATION_CONTEXT_WORDS} any of the objects"
            return SendOutcome("refused", None, sentence, not_taken=True)
        return SendOutcome("retry", None, f"{there} ended the association before this object")

    @property
    def association(self) -> Association:
        """The association, where there is one."""
        if self._association is None:
            raise RuntimeError(f"there is no association with {self.destination}")
        return self._association

    def offers(self, abstract_syntax: str) -> bool:
        """Whether the peer takes part in a service."""
        return any(
            context.abstract_syntax == abstract_syntax
            for context in self.association.accepted_contexts
        )

    def accepts(self, file: OutgoingObject) -> bool:
        """Whether an object can be sent as it is."""
        return any(
            context.abstract_syntax == file.sop_class_uid
            and context.transfer_syntax[0] == file.transfer_syntax_uid
            for context in self.association.accepted_contexts
        )

    def echo(self) -> Dataset:
        """Ask for an answer; an empty data set when there is none."""
        return self.association.send_c_echo()

    def store(self, file: OutgoingObject) -> SendOutcome:
        """Send one object and read the answer."""
        return self.failure or _store(self, file)

    def c_store(self, path: Path) -> Dataset:
        """Send one file and wait for the answer; an empty data set when there is none."""
        self._message_id = self._message_id % 65535 + 1
        return self.association.send_c_store(path, msg_id=self._message_id)

    def end(self) -> None:
        """Release the association, where there is one."""
        if self._association is not None and self._association.is_established:
            self._association.release()


def _store(call: Call, file: OutgoingObject) -> SendOutcome:
    """Send one object and read the answer."""
    there, uid = call.destination, file.sop_instance_uid
    if not call.accepts(file):
        what = f"SOP class {file.sop_class_uid} in transfer syntax {file.transfer_syntax_uid}"
        sentence = f"{there} {_NO_PRESENTATION_CONTEXT_WORDS} {what}"
        return SendOutcome("refused", None, sentence, not_taken=True)
    try:
        if not _is_what_it_is_called(file):
            return SendOutcome("refused", None, f"the file of {uid} holds another object")
        answer = call.c_store(file.path)
    except OSError as error:
        return SendOutcome("retry", None, f"the file of {uid} cannot be read ({error.strerror})")
    except (InvalidDicomError, AttributeError, ValueError):
        return SendOutcome("refused", None, f"the file of {uid} is not a DICOM file")
    except RuntimeError:
        return SendOutcome("retry", None, f"{there} ended the association before {uid}")
    return _outcome(there, uid, answer)


def _is_what_it_is_called(file: OutgoingObject) -> bool:
    """Whether the file's own header names the object that we are about to send under its name."""
    meta, _ = split_dataset(file.path)
    named = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    return named == (file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid)


def _outcome(there: Destination, uid: str, answer: Dataset) -> SendOutcome:
    if "Status" not in answer:
        return SendOutcome("retry", None, f"{there} did not answer for {uid}")
    status = int(answer.Status)
    kind = kind_of(status)
    if status == 0:
        return SendOutcome(kind, status, "")
    sentence = f"{there} answered 0x{status:04X} for {uid}: {meaning_of(status)}"
    if is_warning(status):
        log.warning("result.stored_with_warning", sop_instance_uid=uid, status=status)
    not_taken = status in (SOP_CLASS_NOT_SUPPORTED, NO_SUCH_SOP_CLASS)
    return SendOutcome(kind, status, sentence, not_taken)
