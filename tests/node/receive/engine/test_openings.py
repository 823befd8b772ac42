"""Malformed openings: each answered as the Standard says, by whichever engine would have served it.

References
----------
DICOM PS3.8 section 9.3 (PDUs) and tables 9-21 (rejections), 9-26 (aborts).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.node.receive.engine.conversations import (
    ABORT,
    CONTEXTS,
    CT,
    EXPLICIT,
    IMPLICIT,
    RELEASE_RQ,
    Proposed,
    associate_rq,
    echo,
    echo_rq,
    item,
    p_data,
    pdu,
    pdus_of,
    pdv,
    status_of,
)
from tests.peers import RunningReceiver, running_receiver

FIND: Proposed = (9, "1.2.840.10008.5.1.4.1.2.2.1", [IMPLICIT])
Opening = Callable[[list[Proposed]], bytes]

INVALID = ("abort", 2, 6)
UNEXPECTED = ("abort", 0, 0)

OPENINGS: dict[str, tuple[Opening, object]] = {
    "another application context": (
        lambda some: associate_rq(some, application_context="1.2.3"),
        ("reject", 1, 1, 2),
    ),
    "protocol version 2": (lambda some: associate_rq(some, version=2), ("reject", 1, 2, 2)),
    "another called title": (
        lambda some: associate_rq(some, called="SOMEBODY"),
        ("reject", 1, 1, 7),
    ),
    "another calling title": (
        lambda some: associate_rq(some, calling="STRANGER"),
        ("reject", 1, 1, 3),
    ),
    "an even id": (lambda some: associate_rq([*some, (4, CT, [EXPLICIT])]), INVALID),
    "id 0": (lambda some: associate_rq([*some, (0, CT, [EXPLICIT])]), INVALID),
    "an id twice": (lambda some: associate_rq([*some, (3, CT, [EXPLICIT])]), INVALID),
    "129 contexts": (
        lambda some: associate_rq(
            [*some, *((2 * n + 1, CT, [EXPLICIT]) for n in range(5, 128)), (255, CT, [EXPLICIT])]
        ),
        INVALID,
    ),
    "no context": (lambda some: associate_rq([]), INVALID),
    "no transfer syntax": (lambda some: associate_rq([*some, (11, CT, [])]), INVALID),
    "an item cut off": (lambda some: pdu(1, associate_rq(some)[6:-3]), INVALID),
    "a short request": (lambda some: pdu(1, b"abc"), INVALID),
    "an abstract syntax that is no UID": (
        lambda some: associate_rq([*some, (11, "abc.def", [EXPLICIT])]),
        {1: 0, 3: 0, 11: 3},
    ),
    "an unknown transfer syntax": (
        lambda some: associate_rq([*some, (11, CT, ["1.2.3.4"])]),
        {1: 0, 3: 0, 11: 4},
    ),
    "an unknown SOP class": (
        lambda some: associate_rq([*some, (11, "1.2.3.4.5", [EXPLICIT])]),
        {1: 0, 3: 0, 11: 3},
    ),
    "an unknown user item": (
        lambda some: associate_rq(some, user_items=item(0x7F, b"future")),
        {1: 0, 3: 0},
    ),
    "an unknown item": (
        lambda some: pdu(1, associate_rq(some)[6:] + item(0x7F, b"future")),
        {1: 0, 3: 0},
    ),
    "data first": (lambda some: p_data(pdv(1, 3, echo_rq())), UNEXPECTED),
    "release first": (lambda some: RELEASE_RQ, UNEXPECTED),
    "an accept": (lambda some: pdu(2, associate_rq(some)[6:]), UNEXPECTED),
    "an unknown PDU": (lambda some: pdu(0x42, b"abcd"), UNEXPECTED),
    "a web browser": (lambda some: b"GET / HTTP/1.0\r\n\r\n", UNEXPECTED),
    "abort first": (lambda some: ABORT, "closed"),
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path_factory.mktemp("node")) as running:
        yield running


def answer_to(port: int, opening: bytes) -> object:
    """What an opening is answered: rejection, abort, or result by presentation context."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(opening)
        said = b""
        while not (said and len(said) >= 6 + int.from_bytes(said[2:6], "big")):
            part = connection.recv(1 << 16)
            if not part:
                return "closed"
            said += part
    kind, body = pdus_of(said)[0]
    match kind:
        case 2:
            return _results(body)
        case 3:
            return ("reject", *body[1:4])
        case 7:
            return ("abort", *body[2:4])
    return kind


def _results(body: bytes) -> dict[int, int]:
    found, at = {}, 68
    while at + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        if kind == 0x21:
            found[body[at + 4]] = body[at + 6]
        at += 4 + length
    return found


@pytest.mark.parametrize("and_find", [False, True], ids=["nothing else", "and C-FIND"])
@pytest.mark.parametrize("name", OPENINGS)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_opening_is_answered_as_the_standard_says(
    node: RunningReceiver, name: str, and_find: bool
) -> None:
    opening, wanted = OPENINGS[name]
    some = [*CONTEXTS, FIND] if and_find else list(CONTEXTS)

    found = answer_to(node.port, opening(some))

    if isinstance(wanted, dict) and and_find:
        wanted = wanted | {9: 3}
    assert found == wanted
    began = time.monotonic()
    assert _echoes(node.port)
    assert time.monotonic() - began < 2


def _echoes(port: int) -> bool:
    """Whether an honest peer gets its answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(20)
        connection.sendall(associate_rq() + echo())
        said = b""
        while len(pdus := pdus_of(said)) < 2 or len(pdus[1][1]) < 20:
            said += connection.recv(1 << 16)
    return status_of(pdus[1][1]) == 0
