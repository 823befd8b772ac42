"""Words of a conversation, as bytes: PDUs that a requestor sends."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from node.receive.engine.pdu import COMMAND, LAST
from tests.peers import AE_TITLE, MODALITY

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"

Proposed = tuple[int, str, Sequence[str]]
"""Presentation context id, abstract syntax, transfer syntaxes."""

CONTEXTS: list[Proposed] = [(1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT])]


def item(kind: int, content: bytes) -> bytes:
    """An item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU."""
    return struct.pack(">BxI", kind, len(body)) + body


def associate_rq(
    contexts: Iterable[Proposed] = tuple(CONTEXTS),
    *,
    calling: str = MODALITY,
    called: str = AE_TITLE,
    version: int = 1,
    application_context: str = "1.2.840.10008.3.1.1.1",
    user_items: bytes = b"",
    maximum_length: int = 16_384,
) -> bytes:
    """An A-ASSOCIATE-RQ."""
    body = struct.pack(">HH", version, 0)
    body += called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, application_context.encode())
    for number, abstract, syntaxes in contexts:
        inner = bytes([number, 0, 0, 0]) + item(0x30, abstract.encode())
        inner += b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, inner)
    user = item(0x51, struct.pack(">I", maximum_length)) + item(0x52, b"1.2.3.4") + user_items
    return pdu(1, body + item(0x50, user))


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    """A presentation data value."""
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def p_data(*values: bytes) -> bytes:
    """A P-DATA-TF."""
    return pdu(4, b"".join(values))


def element(number: int, value: bytes) -> bytes:
    """An element of a command set."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def us(value: int) -> bytes:
    """A number of a command set."""
    return struct.pack("<H", value)


def command(*elements: bytes) -> bytes:
    """A command set with its group length."""
    body = b"".join(elements)
    return element(0, struct.pack("<I", len(body))) + body


def echo_rq(message_id: int = 1, sop_class: str = VERIFICATION) -> bytes:
    """A C-ECHO request."""
    return command(
        element(0x0002, sop_class.encode()),
        element(0x0100, us(0x0030)),
        element(0x0110, us(message_id)),
        element(0x0800, us(0x0101)),
    )


def store_rq(instance: str, sop_class: str = CT, message_id: int = 1, data_set: int = 1) -> bytes:
    """A C-STORE request."""
    return command(
        element(0x0002, sop_class.encode()),
        element(0x0100, us(0x0001)),
        element(0x0110, us(message_id)),
        element(0x0700, us(0)),
        element(0x0800, us(data_set)),
        element(0x1000, instance.encode()),
    )


def other_rq(field: int, data_set: int = 0x0101) -> bytes:
    """Some other request."""
    return command(
        element(0x0002, CT.encode()),
        element(0x0100, us(field)),
        element(0x0110, us(7)),
        element(0x0800, us(data_set)),
    )


def echo(message_id: int = 1) -> bytes:
    """A whole C-ECHO request, as one PDU."""
    return p_data(pdv(1, COMMAND | LAST, echo_rq(message_id)))


def store(instance: str, data: bytes, fragment: int = 16_000, context_id: int = 3) -> bytes:
    """A whole C-STORE request, each fragment in a PDU of its own."""
    parts = [data[at : at + fragment] for at in range(0, len(data), fragment)]
    pdus = [p_data(pdv(context_id, COMMAND | LAST, store_rq(instance)))]
    for number, part in enumerate(parts):
        last = LAST if number == len(parts) - 1 else 0
        pdus.append(p_data(pdv(context_id, last, part)))
    return b"".join(pdus)


RELEASE_RQ = pdu(5, bytes(4))
RELEASE_RP = pdu(6, bytes(4))
ABORT = pdu(7, bytes(4))


def pdus_of(data: bytes) -> list[tuple[int, bytes]]:
    """Take what was answered apart: type and body of each PDU."""
    found = []
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from(">BxI", data, at)
        found.append((kind, data[at + 6 : at + 6 + length]))
        at += 6 + length
    return found


def status_of(body: bytes) -> int:
    """Status of the response in a P-DATA-TF."""
    return elements_of(body[6:])[0x0900]


def elements_of(data: bytes) -> dict[int, int]:
    """Numbers of a command set by element."""
    found = {}
    at = 0
    while at < len(data):
        _, number, length = struct.unpack_from("<HHI", data, at)
        if length == 2:
            found[number] = struct.unpack_from("<H", data, at + 8)[0]
        at += 8 + length
    return found
