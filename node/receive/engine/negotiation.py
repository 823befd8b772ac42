"""What an A-ASSOCIATE-RQ asks and what it is answered: pynetdicom negotiates, once per request.

A sender opens its associations with the same bytes every time, so that the answer is remembered.
Who may come in is no part of it: that is decided for each connection. Requests with a user
identity are never remembered.

References
----------
DICOM PS3.8 section 9.3.2 (A-ASSOCIATE-RQ), PS3.7 annex D (user information items).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from node.receive.access import APPLICATION_CONTEXT_NAME, UserIdentity
from node.receive.engine.pdu import AbortReason, InvalidPDU
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

VERIFICATION = "1.2.840.10008.1.1"

_FIXED_BYTES = 68
_ITEM = struct.Struct(">BxH")
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAXIMUM_LENGTH, _USER_IDENTITY = 0x51, 0x58

_KNOWN_USER_ITEMS = frozenset((0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58))

_MOST_REMEMBERED = 128
_LONGEST_REMEMBERED = 65_536


@dataclass(frozen=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Proposal:
    """What an A-ASSOCIATE-RQ says, as far as it decides who serves it.

    Parameters
    ----------
    protocol_version : int
    called_ae_title, calling_ae_title, application_context_name : str
        Without padding.
    abstract_syntax_uids : tuple of str
        By presentation context, in the order they are proposed.
    maximum_length : int
        Longest P-DATA-TF that the peer takes; 0: any.
    identity : UserIdentity or None
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context_name: str
    abstract_syntax_uids: tuple[str, ...]
    maximum_length: int
    identity: UserIdentity | None


@dataclass(frozen=True)
class Answer:
    """An A-ASSOCIATE-AC, and the presentation contexts it accepts."""

    accept: bytes
    contexts: Mapping[int, Context]


class Negotiator:
    """Reads requests and answers them.

    Parameters
    ----------
    supported : list of PresentationContext
        What we accept.
    maximum_length : int
        Longest P-DATA-TF that we take.
    served_elsewhere : collection of str
        SOP classes of `supported` that are not for the engine.
    """

    def __init__(
        self,
        supported: list[PresentationContext],
        maximum_length: int,
        *,
        served_elsewhere: Collection[str] = (),
    ) -> None:
        self._supported = supported
        self._maximum_length = maximum_length
        self._served_elsewhere = frozenset(served_elsewhere)
        self._proposals: dict[bytes, Proposal] = {}
        self._answers: dict[bytes, Answer] = {}

    def read(self, request: bytes) -> Proposal:
        """Read an A-ASSOCIATE-RQ, given without its PDU header.

        Raises
        ------
        InvalidPDU
            It is not what the Standard says.
        """
        found = self._proposals.get(request)
        if found is None:
            found = _proposal(request)
            self._remember(self._proposals, request, found, found)
        return found

    def is_for_engine(self, proposal: Proposal) -> bool:
        """Whether nothing is proposed that we support but the engine does not serve."""
        return self._served_elsewhere.isdisjoint(proposal.abstract_syntax_uids)

    def answer(self, request: bytes, proposal: Proposal, *, confirms_user: bool = False) -> Answer:
        """Negotiate presentation contexts and roles; say that the user is known, where so.

        Raises
        ------
        InvalidPDU
            pynetdicom cannot make sense of the request.
        """
        found = self._answers.get(request)
        if found is None:
            try:
                found = self._negotiate(request, confirms_user=confirms_user)
            except InvalidPDU:
                raise
            except Exception as error:  # whatever a hostile request provokes in pynetdicom
                raise InvalidPDU(
                    AbortReason.INVALID_PARAMETER,
                    f"an A-ASSOCIATE-RQ is invalid ({type(error).__name__})",
                ) from error
            self._remember(self._answers, request, proposal, found)
        return found

    def _remember(
        self, memory: dict[bytes, Any], request: bytes, proposal: Proposal, found: object
    ) -> None:
        if proposal.identity is not None or len(request) > _LONGEST_REMEMBERED:
            return
        if len(memory) >= _MOST_REMEMBERED:
            memory.clear()
        memory[request] = found

    def _negotiate(self, request: bytes, *, confirms_user: bool) -> Answer:
        asked = _decoded(request)
        roles = {
            cast(str, item.sop_class_uid): (item.scu_role, item.scp_role)
            for item in asked.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
        }
        results, roles_agreed = negotiate_as_acceptor(
            asked.presentation_context_definition_list, self._supported, cast(Any, roles)
        )
        contexts = {
            cast(int, result.context_id): Context(
                str(result.abstract_syntax), str(result.transfer_syntax[0])
            )
            for result in results
            if result.result == 0
        }
        accept = self._accept(asked, results, roles_agreed, confirms_user=confirms_user)
        return Answer(accept, contexts)

    def _accept(
        self,
        asked: A_ASSOCIATE,
        results: list[PresentationContext],
        roles: list[SCP_SCU_RoleSelectionNegotiation],
        *,
        confirms_user: bool,
    ) -> bytes:
        maximum_length = MaximumLengthNotification()
        maximum_length.maximum_length_received = self._maximum_length
        class_uid = ImplementationClassUIDNotification()
        class_uid.implementation_class_uid = cast(Any, IMPLEMENTATION_CLASS_UID)
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        answer = A_ASSOCIATE()
        answer.application_context_name = UID(APPLICATION_CONTEXT_NAME)
        answer.calling_ae_title = asked.calling_ae_title
        answer.called_ae_title = asked.called_ae_title
        answer.result, answer.result_source = 0, 1
        answer.presentation_context_definition_results_list = results
        # No asynchronous operations window and no SOP Class extended negotiation: neither is
        # answered, which declines it (PS3.7 D.3.3.3, D.3.3.5).
        answer.user_information = [maximum_length, class_uid, version, *roles]
        if confirms_user and any(
            isinstance(item, UserIdentityNegotiation) and item.positive_response_requested
            for item in asked.user_information
        ):
            accepted = UserIdentityNegotiation()
            accepted.server_response = b""
            answer.user_information.append(accepted)
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        return bytes(pdu.encode())


def _decoded(request: bytes) -> A_ASSOCIATE:
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(struct.pack(">BxI", 1, len(request)) + request)
    return pdu.to_primitive()


def _proposal(request: bytes) -> Proposal:
    if len(request) < _FIXED_BYTES:
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, "an A-ASSOCIATE-RQ is too short")
    application, abstract, maximum_length = "", [], 0
    ids: list[int] = []
    identity: UserIdentity | None = None
    for kind, start, end in _items(request, _FIXED_BYTES, len(request)):
        if kind == _APPLICATION_CONTEXT:
            application = _text(request[start:end])
        elif kind == _PRESENTATION_CONTEXT:
            ids.append(request[start] if end - start >= 4 else 0)
            abstract.append(_abstract_syntax(request, start + 4, end))
        elif kind == _USER_INFORMATION:
            for inner, at, stop in _items(request, start, end):
                if inner == _USER_IDENTITY:
                    identity = _identity(request[at:stop])
                if inner == _MAXIMUM_LENGTH and stop - at == 4:
                    maximum_length = int.from_bytes(request[at:stop], "big")
    _refuse_contexts(ids)
    return Proposal(
        protocol_version=int.from_bytes(request[:2], "big"),
        called_ae_title=_text(request[4:20]),
        calling_ae_title=_text(request[20:36]),
        application_context_name=application,
        abstract_syntax_uids=tuple(abstract),
        maximum_length=maximum_length,
        identity=identity,
    )


def known_items_only(request: bytes) -> bytes:
    """Leave out items that are not known, which are to be ignored (PS3.8 9.3.1, PS3.7 D.3.3).

    pynetdicom takes them for errors.
    """
    kept = [request[:_FIXED_BYTES]]
    for kind, start, end in _items(request, _FIXED_BYTES, len(request)):
        if kind == _USER_INFORMATION:
            body = b"".join(
                request[at - 4 : stop]
                for inner, at, stop in _items(request, start, end)
                if inner in _KNOWN_USER_ITEMS
            )
            kept.append(_ITEM.pack(_USER_INFORMATION, len(body)) + body)
        elif kind in (_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT):
            kept.append(request[start - 4 : end])
    found = b"".join(kept)
    return found if len(found) < len(request) else request


def _abstract_syntax(request: bytes, at: int, end: int) -> str:
    """Abstract syntax of a presentation context, which must have one, and a transfer syntax."""
    kinds, name = [], ""
    for kind, start, stop in _items(request, at, end):
        kinds.append(kind)
        if kind == _ABSTRACT_SYNTAX:
            name = _text(request[start:stop])
    if kinds.count(_ABSTRACT_SYNTAX) != 1 or _TRANSFER_SYNTAX not in kinds:
        raise InvalidPDU(
            AbortReason.INVALID_PARAMETER, "a presentation context lacks one of its syntaxes"
        )
    return name


def _refuse_contexts(ids: list[int]) -> None:
    """Refuse what is no list of presentation contexts (PS3.8 9.3.2.2): odd ids, each once."""
    wrong = ""
    if not ids:
        wrong = "an A-ASSOCIATE-RQ has no presentation context"
    elif not all(number % 2 for number in ids):
        wrong = "a presentation context id is even"
    elif len(set(ids)) < len(ids):
        wrong = "a presentation context id comes twice"
    if wrong:
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, wrong)


def _identity(item: bytes) -> UserIdentity:
    """Read a User Identity Negotiation sub-item (PS3.7 D.3.3.7.1)."""
    try:
        kind, wants_response, size = struct.unpack_from(">BBH", item)
        (more,) = struct.unpack_from(">H", item, 4 + size)
    except struct.error:
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, "a user identity is too short") from None
    primary, secondary = item[4 : 4 + size], item[6 + size : 6 + size + more]
    return UserIdentity(kind, primary, secondary, bool(wants_response))


def _items(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each item of a request."""
    while at + 4 <= end:
        kind, length = _ITEM.unpack_from(data, at)
        start, at = at + 4, at + 4 + length
        if at > end:
            break
        yield kind, start, at
    if at != end:
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, "a length in an A-ASSOCIATE-RQ is wrong")


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace").strip(" \0")
