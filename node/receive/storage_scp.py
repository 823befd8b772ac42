"""What pynetdicom is told to accept, and its events, answered by `Associations`."""

from __future__ import annotations

import ssl
import time
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE, UserIdentityNegotiation
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.receive.access import NO_REASON_GIVEN, AssociationRequest, Rejection, UserIdentity
from node.receive.admission import Session
from node.receive.associations import Associations
from node.receive.guard import GuardedAssociation
from node.receive.identity import StoreRequest
from node.receive.tls import certificate_of
from node.statuses import OUT_OF_RESOURCES, Status
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

log = structlog.get_logger(__name__)

TRANSFER_SYNTAXES = [
    # In order of preference, where a peer offers several in one presentation context.
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEG2000,
]
"""What we store. Deflated is left out: a few bytes of it can be gigabytes."""


def application_entity(
    ae_title: str, max_pdu_bytes: int, *, request_seconds: float, idle_seconds: float
) -> AE:
    """Make the AE that supports Verification and every Storage SOP Class.

    Parameters
    ----------
    ae_title : str
        Our own.
    max_pdu_bytes : int
        Longest P-DATA-TF PDU we take.
    request_seconds, idle_seconds : float
        Within which a request must have come; after which a silent association is aborted.
    """
    ae = AE(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = max_pdu_bytes
    ae.acse_timeout = request_seconds
    ae.network_timeout = idle_seconds
    # We count by ourselves: pynetdicom would count those that wait or are rejected, too.
    ae.maximum_associations = 1 << 30
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(cast(str, context.abstract_syntax), TRANSFER_SYNTAXES)
    return ae


def association_request(assoc: GuardedAssociation) -> AssociationRequest:
    """Read who asks for an association, and whom."""
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    connection = assoc.dul.socket.socket if assoc.dul.socket is not None else None
    return AssociationRequest(
        address=assoc.requestor.address,
        calling_ae_title=str(primitive.calling_ae_title).strip(),
        called_ae_title=str(primitive.called_ae_title).strip(),
        application_context_name=str(primitive.application_context_name),
        is_tls=isinstance(connection, ssl.SSLSocket),
        certificate=None if connection is None else certificate_of(connection),
        identity=_identity(primitive),
    )


def _identity(primitive: A_ASSOCIATE) -> UserIdentity | None:
    for item in primitive.user_information:
        if isinstance(item, UserIdentityNegotiation):
            return UserIdentity(
                kind=item.user_identity_type or 0,
                primary=item.primary_field or b"",
                secondary=item.secondary_field or b"",
                wants_response=bool(item.positive_response_requested),
            )
    return None


def store_request(event: evt.Event, session: Session) -> StoreRequest:
    """Read what a C-STORE request names."""
    request = cast(Any, event.request)
    return StoreRequest(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        abstract_syntax_uid=str(event.context.abstract_syntax),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        peer=session.peer.name,
        association_id=session.id,
    )


def store_response(status: Status) -> Dataset:
    """Build what pynetdicom is to answer."""
    response = Dataset()
    response.Status = status.code
    if status.comment:
        response.ErrorComment = status.comment
    if status.offending:
        response.OffendingElement = list(status.offending)
    return response


class StorageSCP:
    """Answers what pynetdicom is asked.

    Parameters
    ----------
    host : Associations
    """

    def __init__(self, host: Associations) -> None:
        self._host = host

    def handlers(self) -> list[Any]:
        """Events of pynetdicom, each with who answers it."""
        return [(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_C_STORE, self._on_c_store)]

    def on_end(self, assoc: GuardedAssociation) -> None:
        """Note that an association ended."""
        session: Session | None = assoc.session
        if session is not None:
            self._host.left(session, released=assoc.is_released)

    def _on_requested(self, event: evt.Event) -> None:
        """Admit or reject; whatever goes wrong here rejects."""
        assoc = cast(GuardedAssociation, event.assoc)
        try:
            verdict = self._host.admit(association_request(assoc))
        except Exception as error:  # noqa: BLE001 - a DIMSE handler: nobody gets in by a mistake
            log.error("association.failed", error=type(error).__name__)
            verdict = NO_REASON_GIVEN
        if isinstance(verdict, Rejection):
            assoc.acse.send_reject(verdict.result, verdict.source, verdict.diagnostic)
            assoc.is_rejected = True
            assoc.kill()
        else:
            assoc.session = verdict

    def _on_c_store(self, event: evt.Event) -> Dataset:
        """Answer one C-STORE request."""
        session: Session = cast(GuardedAssociation, event.assoc).session
        request = store_request(event, session)
        began = time.monotonic()
        size, acceptance = 0, None
        try:
            with cast(Any, event.request).DataSet.getbuffer() as data:
                size = len(data)
                status, acceptance = self._host.service.store(request, data)
        except Exception as error:  # noqa: BLE001 - a DIMSE handler: the sender must hear something
            log.error("instance.failed", error=type(error).__name__)
            status = Status(OUT_OF_RESOURCES, "internal error")
        self._host.answered(session, request, status, acceptance, size, time.monotonic() - began)
        return store_response(status)
