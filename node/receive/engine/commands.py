"""DIMSE command sets: Implicit VR Little Endian, group 0000, a handful of elements.

References
----------
DICOM PS3.7 section 6.3 (structure), 9.3 (C-STORE, C-ECHO), annex E (command dictionary).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from node.statuses import Status

LARGEST_COMMAND = 16_384
"""Bytes of a command set; a C-STORE request has about 200."""

NO_DATA_SET = 0x0101
_RESPONSE = 0x8000

_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_OFFENDING_ELEMENT = 0x0901
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001

_HEAD = struct.Struct("<HHI")
_US = struct.Struct("<H")


class CommandField(IntEnum):
    """Commands we know by name."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


_REQUESTS = frozenset(
    # C-STORE, C-GET, C-FIND, C-MOVE, C-ECHO; N-EVENT-REPORT, N-GET, N-SET, N-ACTION, N-CREATE,
    # N-DELETE; C-CANCEL
    (0x01, 0x10, 0x20, 0x21, 0x30, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0xFFF)
)


class InvalidCommand(ValueError):
    """Raised when a command set is no request that could be answered."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request.

    Parameters
    ----------
    field : int
        Command Field (0000,0100).
    message_id : int
    has_data_set : bool
    sop_class_uid, sop_instance_uid : bytes
        Affected (or requested) SOP Class and Instance UID, as received.
    """

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: bytes
    sop_instance_uid: bytes


def decode(data: bytes | bytearray) -> Command:
    """Read a command set.

    Raises
    ------
    InvalidCommand
        It is no request, or it is not encoded as the Standard says.
    """
    elements = _elements(data)
    field = _number(elements, _COMMAND_FIELD)
    if field not in _REQUESTS:
        raise InvalidCommand(f"command field {field:#06x} is no request")
    message_id = 0 if field == CommandField.C_CANCEL_RQ else _number(elements, _MESSAGE_ID)
    classes = elements.get(_AFFECTED_SOP_CLASS_UID) or elements.get(_REQUESTED_SOP_CLASS_UID)
    uids = elements.get(_AFFECTED_SOP_INSTANCE_UID) or elements.get(_REQUESTED_SOP_INSTANCE_UID)
    return Command(
        field=field,
        message_id=message_id,
        has_data_set=_number(elements, _COMMAND_DATA_SET_TYPE) != NO_DATA_SET,
        sop_class_uid=classes or b"",
        sop_instance_uid=uids or b"",
    )


def _elements(data: bytes | bytearray) -> dict[int, bytes]:
    """Values by element number; the last of two with the same number counts."""
    elements = {}
    at, end = 0, len(data)
    unpack = _HEAD.unpack_from
    while at + 8 <= end:
        group, element, length = unpack(data, at)
        at += 8
        if group or at + length > end:
            break
        elements[element] = bytes(data[at : at + length])
        at += length
    else:
        if at == end:
            return elements
    raise InvalidCommand("a command set is not encoded as PS3.7 6.3 says")


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise InvalidCommand(f"a command set lacks (0000,{element:04x}), or it is no number")
    number: int = _US.unpack(value)[0]
    return number


def text(uid: bytes) -> str:
    """Read a UID; bytes that are not ASCII cannot be part of one and stay visible as such."""
    return uid.rstrip(b"\0 ").decode("ascii", "replace")


def response(command: Command, status: Status) -> bytes:
    """Encode the response to a request.

    Parameters
    ----------
    command : Command
    status : Status
        With comment and offending elements, which are sent where there are any.
    """
    is_normalized = 0x100 <= command.field < CommandField.C_CANCEL_RQ
    parts = [
        _element(_AFFECTED_SOP_CLASS_UID, command.sop_class_uid) if command.sop_class_uid else b"",
        _short(_COMMAND_FIELD, command.field | _RESPONSE),
        _short(_MESSAGE_ID_BEING_RESPONDED_TO, command.message_id),
        _short(_COMMAND_DATA_SET_TYPE, NO_DATA_SET),
        _short(_STATUS, status.code),
    ]
    if status.offending:
        tags = (struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in status.offending)
        parts.append(_element(_OFFENDING_ELEMENT, b"".join(tags)))
    if status.comment:
        parts.append(_element(_ERROR_COMMENT, status.comment.encode("ascii", "replace"), b" "))
    if command.sop_instance_uid and (command.field == CommandField.C_STORE_RQ or is_normalized):
        parts.append(_element(_AFFECTED_SOP_INSTANCE_UID, command.sop_instance_uid))
    body = b"".join(parts)
    return _HEAD.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def _element(element: int, value: bytes, padding: bytes = b"\0") -> bytes:
    value += padding * (len(value) % 2)
    return _HEAD.pack(0, element, len(value)) + value


def _short(element: int, value: int) -> bytes:
    return _HEAD.pack(0, element, 2) + _US.pack(value)
