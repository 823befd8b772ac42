"""Bytes of PDUs: their heads, what a P-DATA-TF holds, and the short ones that we send.

References
----------
DICOM PS3.8 section 9.3, DICOM Upper Layer Protocol for TCP/IP Data Unit Structure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

HEADER_BYTES = 6
PDV_HEADER_BYTES = 6

COMMAND = 0b01
"""Message control header: the fragment is of a command set, not of a data set."""
LAST = 0b10
"""Message control header: the fragment is the last of its command or data set."""

_HEADER = struct.Struct(">BxI")
_PDV = struct.Struct(">IBB")

PresentationDataValue = tuple[int, int, memoryview]
"""Presentation context id, message control header, fragment."""


class PDUType(IntEnum):
    """Types of PDUs."""

    A_ASSOCIATE_RQ = 1
    A_ASSOCIATE_AC = 2
    A_ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    A_RELEASE_RQ = 5
    A_RELEASE_RP = 6
    A_ABORT = 7


class AbortSource(IntEnum):
    """Who aborts (PS3.8 table 9-26)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class InvalidPDU(ValueError):
    """Raised when the bytes of a PDU are not what the Standard says.

    Parameters
    ----------
    reason : AbortReason
        What the peer is told.
    sentence : str
        What is wrong.
    """

    def __init__(self, reason: AbortReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def header_of(data: bytes | bytearray | memoryview, at: int = 0) -> tuple[int, int]:
    """Type and length of the PDU that begins at an offset."""
    kind, length = _HEADER.unpack_from(data, at)
    return kind, length


def header(kind: PDUType, length: int) -> bytes:
    """Encode the header of a PDU."""
    return _HEADER.pack(kind, length)


def presentation_data_values(body: memoryview) -> list[PresentationDataValue]:
    """Take a P-DATA-TF apart.

    Parameters
    ----------
    body : memoryview
        The PDU without its header; the fragments are views of it.

    Raises
    ------
    InvalidPDU
        A length leads beyond the end, or there is no value at all.
    """
    values = []
    at, end = 0, len(body)
    unpack = _PDV.unpack_from
    while at + PDV_HEADER_BYTES <= end:
        length, context_id, control = unpack(body, at)
        start, at = at + PDV_HEADER_BYTES, at + 4 + length
        if length < 2 or at > end:
            break
        values.append((context_id, control, body[start:at]))
    if at != end or not values:
        raise InvalidPDU(AbortReason.INVALID_PARAMETER, "a length in a P-DATA-TF is wrong")
    return values


def p_data(context_id: int, message: bytes, most: int = 0) -> bytes:
    """P-DATA-TF PDUs with a whole command set.

    Parameters
    ----------
    context_id : int
    message : bytes
    most : int
        Longest PDU that the peer takes, without its header; 0: any.
    """
    step = max(most - PDV_HEADER_BYTES, 2) if most else len(message)
    return b"".join(_p_data_parts(context_id, message, step))


def _p_data_parts(context_id: int, message: bytes, step: int) -> Iterator[bytes]:
    for at in range(0, len(message), step):
        part = message[at : at + step]
        control = COMMAND | (LAST if at + step >= len(message) else 0)
        yield _HEADER.pack(PDUType.P_DATA_TF, len(part) + PDV_HEADER_BYTES)
        yield _PDV.pack(len(part) + 2, context_id, control)
        yield part


def a_abort(source: int, reason: int = AbortReason.NOT_SPECIFIED) -> bytes:
    """Encode an A-ABORT."""
    return _HEADER.pack(PDUType.A_ABORT, 4) + bytes((0, 0, source, reason))


def a_associate_rj(result: int, source: int, reason: int) -> bytes:
    """Encode an A-ASSOCIATE-RJ."""
    return _HEADER.pack(PDUType.A_ASSOCIATE_RJ, 4) + bytes((0, result, source, reason))


A_RELEASE_RQ = _HEADER.pack(PDUType.A_RELEASE_RQ, 4) + bytes(4)
A_RELEASE_RP = _HEADER.pack(PDUType.A_RELEASE_RP, 4) + bytes(4)
