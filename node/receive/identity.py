"""Whether a received data set is the object that its C-STORE request names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.receive.header_values import Value, parse_tag
from node.statuses import DATA_SET_DOES_NOT_MATCH_SOP_CLASS, SOP_CLASS_NOT_SUPPORTED, Status

IDENTITY_KEYS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""What the header scan must always collect."""

_UID = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class StoreRequest:
    """What a C-STORE request and its presentation context say about an object.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid : str
        Affected SOP Class and Instance UID of the request.
    abstract_syntax_uid, transfer_syntax_uid : str
        What was negotiated for the presentation context it came by.
    peer : str
        Name of the peer.
    association_id : int or None
        Row of the association.
    """

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax_uid: str
    transfer_syntax_uid: str
    peer: str
    association_id: int | None = None


def is_uid(text: str) -> bool:
    """Whether a text can be a UID: digits and dots, 1 to 64; scanners do write leading zeros."""
    return _UID.fullmatch(text) is not None


def refusal_of_request(request: StoreRequest) -> Status | None:
    """Why a request cannot be served, before its data set is looked at."""
    if request.sop_class_uid != request.abstract_syntax_uid:
        return Status(
            SOP_CLASS_NOT_SUPPORTED,
            "SOP class is not the one of the presentation context",
            (parse_tag("AffectedSOPClassUID"),),
        )
    if not is_uid(request.sop_instance_uid):
        return _mismatch("AffectedSOPInstanceUID", "Affected SOP Instance UID is not a UID")
    return None


def refusal_of_identity(
    request: StoreRequest, values: Mapping[str, Sequence[Value] | None]
) -> Status | None:
    """Why a data set is not what its request names; None when it is.

    Parameters
    ----------
    request : StoreRequest
    values : mapping
        What the header scan found for `IDENTITY_KEYS`.
    """
    asked = {
        "SOPInstanceUID": request.sop_instance_uid,
        "SOPClassUID": request.sop_class_uid,
    }
    for keyword in IDENTITY_KEYS:
        found = values.get(keyword, ())
        if found is None:
            return _mismatch(keyword, f"header is too long to reach {keyword}")
        if not found or not found[0]:
            return _mismatch(keyword, f"{keyword} is missing or empty in the data set")
        if len(found) > 1 or not is_uid(str(found[0])):
            return _mismatch(keyword, f"{keyword} in the data set is not a UID")
        if found[0] != asked.get(keyword, found[0]):
            return _mismatch(keyword, f"{keyword} differs between request and data set")
    return None


def _mismatch(keyword: str, comment: str) -> Status:
    return Status(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, comment, (parse_tag(keyword),))
