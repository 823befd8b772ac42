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
from collections.abc import Iterator, Mapping
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
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from node.receive.access import APPLICATION_CONTEXT_NAME
from node.receive.engine.pdu import AbortReason, InvalidPDU
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

VERIFICATION = "1.2.840.10008.1.1"
_STANDARD = "1.2.840.10008."
_STORAGE = "1.2.840.10008.5.1.4.1.1."

_FIXED_BYTES = 68
_ITEM = struct.Struct(">BxH")
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX = 0x30
_MAXIMUM_LENGTH, _USER_IDENTITY = 0x51, 0x58

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
    has_user_identity : bool
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context_name: str
    abstract_syntax_uids: tuple[str, ...]
    maximum_length: int
    has_user_identity: bool


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
    """

    def __init__(self, supported: list[PresentationContext], maximum_length: int) -> None:
        self._supported = supported
        self._maximum_length = maximum_length
        self._storage = frozenset(str(context.abstract_syntax) for context in supported)
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
        """Whether nothing but Storage and Verification is proposed (and private SOP classes)."""
        return bool(proposal.abstract_syntax_uids) and all(
            uid in self._storage or uid.startswith(_STORAGE) or not uid.startswith(_STANDARD)
            for uid in proposal.abstract_syntax_uids
        )

    def answer(self, request: bytes, proposal: Proposal) -> Answer:
        """Negotiate presentation contexts and roles.

        Raises
        ------
        InvalidPDU
            pynetdicom cannot make sense of the request.
        """
        found = self._answers.get(request)
        if found is None:
            try:
                found = self._negotiate(request)
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
        if proposal.has_user_identity or len(request) > _LONGEST_REMEMBERED:
            return
        if len(memory) >= _MOST_REMEMBERED:
            memory.clear()
        memory[request] = found

    def _negotiate(self, request: bytes) -> Answer:
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
        return Answer(self._accept(asked, results, roles_agreed), contexts)

    def _accept(
        self,
        asked: A_ASSOCIATE,
        results: list[PresentationContext],
        roles: list[SCP_SCU_RoleSelectionNegotiation],
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
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        return bytes(pdu.encode())


def _decoded(request: bytes) -> A_ASSOCIATE:
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(struct.pack(">BxI", 1, len(request)) + request)
    asked = pdu.to_primitive()
    ids = [context.context_id for context in asked.presentation_context_definition_list]
    if len(set(ids)) < len(ids):
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, "a presentation context id comes twice")
    return asked


def _proposal(request: bytes) -> Proposal:
    if len(request) < _FIXED_BYTES:
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, "an A-ASSOCIATE-RQ is too short")
    application, abstract, maximum_length, has_identity = "", [], 0, False
    for kind, start, end in _items(request, _FIXED_BYTES, len(request)):
        if kind == _APPLICATION_CONTEXT:
            application = _text(request[start:end])
        elif kind == _PRESENTATION_CONTEXT:
            abstract += [
                _text(request[at:stop])
                for inner, at, stop in _items(request, start + 4, end)
                if inner == _ABSTRACT_SYNTAX
            ]
        elif kind == _USER_INFORMATION:
            for inner, at, stop in _items(request, start, end):
                has_identity |= inner == _USER_IDENTITY
                if inner == _MAXIMUM_LENGTH and stop - at == 4:
                    maximum_length = int.from_bytes(request[at:stop], "big")
    return Proposal(
        protocol_version=int.from_bytes(request[:2], "big"),
        called_ae_title=_text(request[4:20]),
        calling_ae_title=_text(request[20:36]),
        application_context_name=application,
        abstract_syntax_uids=tuple(abstract),
        maximum_length=maximum_length,
        has_user_identity=has_identity,
    )


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
