"""DIMSE statuses by name, with what they mean to a receiver and to a sender.

References
----------
DICOM PS3.4 table B.2-1 (C-STORE), PS3.7 annex C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_CLASS = 0x0118
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
COERCION_OF_DATA_ELEMENTS = 0xB000
ELEMENTS_DISCARDED = 0xB006
DATA_SET_DOES_NOT_MATCH_WARNING = 0xB007
CANNOT_UNDERSTAND = 0xC000

LONGEST_COMMENT = 64

Kind = Literal["sent", "retry", "refused"]


@dataclass(frozen=True)
class Status:
    """What a C-STORE request is answered.

    Parameters
    ----------
    code : int
        Status (0000,0900).
    comment : str
        Error Comment (0000,0902), at most 64 characters, without patient data.
    offending : tuple of int
        Offending Element (0000,0901).
    """

    code: int
    comment: str = ""
    offending: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.comment) > LONGEST_COMMENT:
            raise ValueError(f"error comment of {len(self.comment)} characters: {self.comment!r}")


def kind_of(status: int) -> Kind:
    """Tell a sender what a status means for its object.

    Parameters
    ----------
    status : int
        What the peer answered.

    Returns
    -------
    {"sent", "retry", "refused"}
        ``sent``: the peer holds the object (success, a warning, or it had it already).
        ``retry``: the peer cannot take it now. ``refused``: it will not take this object until
        somebody changes something.
    """
    if status in (SUCCESS, DUPLICATE_SOP_INSTANCE) or is_warning(status):
        return "sent"
    if status & 0xFF00 == OUT_OF_RESOURCES:
        return "retry"
    return "refused"


def is_warning(status: int) -> bool:
    """Whether the peer stored the object and has something to remark."""
    return status & 0xF000 == COERCION_OF_DATA_ELEMENTS or status in (0x0001, 0x0107, 0x0116)


def meaning_of(status: int) -> str:
    """Say a C-STORE status in words."""
    if status in _MEANINGS:
        return _MEANINGS[status]
    match status & 0xF000, status & 0xFF00:
        case _, 0xA700:
            return "out of resources"
        case _, 0xA900:
            return "data set does not match SOP class"
        case 0xB000, _:
            return "stored with a warning"
        case 0xC000, _:
            return "cannot understand"
    return "a status the Standard does not define for C-STORE"


_MEANINGS = {
    SUCCESS: "success",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "stored, attribute list error",
    0x0110: "processing failure",
    DUPLICATE_SOP_INSTANCE: "the destination holds this object already",
    0x0116: "stored, attribute value out of range",
    0x0117: "invalid SOP instance",
    NO_SUCH_SOP_CLASS: "no such SOP class",
    SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    NOT_AUTHORIZED: "not authorized",
    0x0210: "duplicate invocation",
    UNRECOGNIZED_OPERATION: "unrecognized operation",
    0x0212: "mistyped argument",
    COERCION_OF_DATA_ELEMENTS: "stored, data elements were coerced",
    ELEMENTS_DISCARDED: "stored, elements were discarded",
    DATA_SET_DOES_NOT_MATCH_WARNING: "stored, data set does not match SOP class",
}
