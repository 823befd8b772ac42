"""Asks a peer what it holds (C-FIND), and has it sent (C-MOVE, C-GET).

References
----------
DICOM PS3.4 Annex C, Query/Retrieve Service Class; Study Root information model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import StoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.receive.guard import keep_pynetdicom_quiet
from node.receive.storage_scp import TRANSFER_SYNTAXES
from node.scu import CallingAE, Destination

log = structlog.get_logger(__name__)

MOST_ANSWERS = 10_000
PENDING = (0xFF00, 0xFF01)
STUDY_KEYS = (
    "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyDescription", "AccessionNumber", "ModalitiesInStudy", "NumberOfStudyRelatedSeries",
)  # fmt: skip
SERIES_KEYS = (
    "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription",
    "SeriesDate", "BodyPartExamined", "ProtocolName", "NumberOfSeriesRelatedInstances",
)  # fmt: skip
KEYS = {
    "STUDY": STUDY_KEYS,
    "SERIES": SERIES_KEYS,
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}
RETRIEVED_CLASSES = tuple(str(cx.abstract_syntax) for cx in StoragePresentationContexts)
"""For C-GET: some peers (Orthanc) send nothing of a study that holds a class not asked for."""

Header = Mapping[str, list[str | float]]


class QueryFailed(Exception):
    """Raised when a peer does not answer as it should; the sentence holds no patient data."""


@dataclass(frozen=True)
class Counted:
    """Sub-operations of a retrieval, as the peer counted them."""

    completed: int
    failed: int
    warned: int

    @property
    def is_complete(self) -> bool:
        """Whether every instance came."""
        return self.failed == 0 and self.completed + self.warned > 0


def find(peer: Destination, level: str, keys: Mapping[str, str]) -> list[Header]:
    """Ask for studies or series.

    Parameters
    ----------
    peer : Destination
    level : str
        ``STUDY``, ``SERIES`` or ``IMAGE``.
    keys : mapping
        Keyword to the value to match; ranges and wildcards as in PS3.4 C.2.2.2.

    Returns
    -------
    list of mapping
        Keyword to its values, as a header scan gives them.

    Raises
    ------
    QueryFailed
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword in KEYS[level]:
        setattr(identifier, keyword, "")
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    if any(not value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    found: list[Header] = []
    with _associated(peer, StudyRootQueryRetrieveInformationModelFind) as association:
        model = StudyRootQueryRetrieveInformationModelFind
        for status, answer in association.send_c_find(identifier, model):
            if _pending(peer, status, "C-FIND") and answer is not None:
                found.append(_header(answer))
            if len(found) > MOST_ANSWERS:
                raise QueryFailed(f"{peer} answers C-FIND with more than {MOST_ANSWERS} matches.")
    return found


def count_instances(peer: Destination, study_uid: str, series_uid: str) -> int:
    """Count the instances of a series, for peers that do not say their number.

    Raises
    ------
    QueryFailed
    """
    keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
    found = find(peer, "IMAGE", keys)
    return len({str(uid[0]) for header in found if (uid := header.get("SOPInstanceUID"))})


def move(peer: Destination, study_uid: str, series_uid: str = "", to: str = "") -> Counted:
    """Have a peer send a study or a series to us, or to another AE title.

    Raises
    ------
    QueryFailed
        It does not, or not to that AE title: it must know our address.
    """
    identifier = _retrieved(study_uid, series_uid)
    model = StudyRootQueryRetrieveInformationModelMove
    with _associated(peer, model) as association:
        answers = association.send_c_move(identifier, to or peer.own_ae_title, model)
        return _count(peer, answers, "C-MOVE")


def get(
    peer: Destination, study_uid: str, series_uid: str, store: Callable[[evt.Event], int]
) -> Counted:
    """Have a peer send a study or a series in this very association.

    Parameters
    ----------
    store : callable
        Keeps one object and returns a DIMSE status; called in the association's thread.

    Raises
    ------
    QueryFailed
    """
    identifier = _retrieved(study_uid, series_uid)
    model = StudyRootQueryRetrieveInformationModelGet
    with _associated(peer, model, store) as association:
        return _count(peer, association.send_c_get(identifier, model), "C-GET")


def _retrieved(study_uid: str, series_uid: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES" if series_uid else "STUDY"
    identifier.StudyInstanceUID = study_uid
    if series_uid:
        identifier.SeriesInstanceUID = series_uid
    return identifier


def _count(peer: Destination, answers: Iterator[tuple[Dataset, Any]], what: str) -> Counted:
    """Count sub-operations; a success need not say how many there were (PS3.4 C.4.2.1.7)."""
    last, all_of_them = Dataset(), 0
    for answer, _ in answers:
        last = answer
        if "Status" not in answer:
            raise QueryFailed(f"{peer} did not answer {what}.")
        all_of_them = max(all_of_them, sum(_suboperations(answer)))
    status = int(last.get("Status", 0xC000))
    completed, failed, warned, _ = _suboperations(last)
    if status == 0xA801:
        raise QueryFailed(f"{peer} does not know the AE title {peer.own_ae_title} to send to.")
    if status not in (0x0000, 0xB000):
        raise QueryFailed(f"{peer} answered {what} with 0x{status:04X}.")
    if status == 0x0000 and "NumberOfCompletedSuboperations" not in last:
        completed = all_of_them
    return Counted(completed, failed, warned)


def _suboperations(answer: Dataset) -> tuple[int, int, int, int]:
    """Completed, failed, warned and remaining ones; 0 where the answer does not say."""
    completed, failed, warned, remaining = (
        int(answer.get(f"NumberOf{kind}Suboperations", 0) or 0)
        for kind in ("Completed", "Failed", "Warning", "Remaining")
    )
    return completed, failed, warned, remaining


def _pending(peer: Destination, status: Dataset, what: str) -> bool:
    if "Status" not in status:
        raise QueryFailed(f"{peer} did not answer {what}.")
    if status.Status in PENDING:
        return True
    if status.Status != 0x0000:
        raise QueryFailed(f"{peer} answered {what} with 0x{status.Status:04X}.")
    return False


@contextmanager
def _associated(
    peer: Destination, model: str, store: Callable[[evt.Event], int] | None = None
) -> Iterator[Association]:
    keep_pynetdicom_quiet()
    ae = CallingAE(ae_title=peer.own_ae_title)
    ae.connection_timeout = peer.connect_seconds
    ae.acse_timeout = peer.associate_seconds
    ae.dimse_timeout = peer.response_seconds
    ae.network_timeout = peer.response_seconds + 30.0
    ae.pdu_seconds = peer.response_seconds
    ae.add_requested_context(model)
    roles: list[Any] = []
    for uid in RETRIEVED_CLASSES if store is not None else ():
        ae.add_requested_context(uid, list(TRANSFER_SYNTAXES))
        roles.append(build_role(uid, scp_role=True))
    handlers: list[Any] = [(evt.EVT_C_STORE, store)] if store is not None else []
    try:
        association = ae.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            ext_neg=roles,
            evt_handlers=handlers,
            tls_args=(peer.tls, peer.host) if peer.tls else None,
        )
    except OSError as error:
        raise QueryFailed(f"{peer} cannot be found by its host name.") from error
    if not association.is_established:
        raise QueryFailed(f"{peer} cannot be reached, or rejects us.")
    if not any(cx.abstract_syntax == model for cx in association.accepted_contexts):
        association.release()
        raise QueryFailed(f"{peer} does not offer this service of Query/Retrieve.")
    try:
        yield association
    except RuntimeError as error:
        raise QueryFailed(f"{peer} ended the association.") from error
    finally:
        if association.is_established:
            association.release()


def _header(answer: Dataset) -> Header:
    found: dict[str, list[str | float]] = {}
    for element in answer:
        if element.VR == "SQ" or not element.keyword or element.is_empty:
            continue
        values = element.value if element.VM > 1 else [element.value]
        found[element.keyword] = [
            float(v) if element.VR in ("IS", "DS", "US") else str(v) for v in values
        ]
    return found
