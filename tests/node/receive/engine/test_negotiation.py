"""A-ASSOCIATE: the same answers as pynetdicom's own acceptor, and the ones it has wrong."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.receive.engine.negotiation import Negotiator
from node.receive.engine.pdu import InvalidPDU
from node.receive.receiver import Receiver
from tests.node.receive.engine.conversations import (
    CONTEXTS,
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Proposed,
    associate_rq,
    item,
)
from tests.peers import RunningReceiver, running_receiver

MR = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
JPEG_2000 = "1.2.840.10008.1.2.4.90"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture(scope="module")
def stock(node: RunningReceiver) -> Iterator[Receiver]:
    """The same receiver with pynetdicom serving everything."""
    receiver = Receiver(node.service, node.receiver.settings, engine=False)
    receiver.start()
    yield receiver
    receiver.stop()


def answer(port: int, request: bytes) -> bytes:
    """First PDU of the answer; empty when the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.settimeout(10)
        peer.sendall(request)
        header = peer.recv(6, socket.MSG_WAITALL)
        if len(header) < 6:
            return b""
        return header + peer.recv(struct.unpack(">BxI", header)[1], socket.MSG_WAITALL)


def role(uid: str, scu: int, scp: int) -> bytes:
    return item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes([scu, scp]))


def identity(name: bytes) -> bytes:
    return item(0x58, struct.pack(">BBH", 1, 1, len(name)) + name + struct.pack(">H", 0))


MANY: list[Proposed] = [(2 * number + 1, CT, [EXPLICIT]) for number in range(128)]
ASKED: dict[str, bytes] = {
    "usual": associate_rq(),
    "several syntaxes": associate_rq([(1, CT, [JPEG_2000, IMPLICIT, EXPLICIT])]),
    "one class twice": associate_rq([(1, CT, [IMPLICIT]), (5, CT, [JPEG_2000]), (7, MR, ["1.2"])]),
    "nothing we take": associate_rq([(1, CT, ["1.2.3.4"])]),
    "private class": associate_rq([*CONTEXTS, (9, "1.3.12.2.1107.5.9.1", [IMPLICIT])]),
    "128 contexts": associate_rq(MANY),
    "async window": associate_rq(user_items=item(0x53, struct.pack(">HH", 0, 0))),
    "scp role": associate_rq(user_items=role(CT, 0, 1)),
    "both roles": associate_rq(user_items=role(CT, 1, 1)),
    "scu role": associate_rq(user_items=role(CT, 1, 0)),
    "extended": associate_rq(user_items=item(0x56, struct.pack(">H", 25) + CT.encode() + b"\1\1")),
    "common extended": associate_rq(
        user_items=item(
            0x57,
            struct.pack(">H", 25)
            + CT.encode()
            + struct.pack(">H", 17)
            + b"1.2.840.10008.4.2"
            + struct.pack(">H", 0),
        )
    ),
    "identity": associate_rq(user_items=identity(b"name")),
    "implementation version": associate_rq(user_items=item(0x55, b"OFFIS_DCMTK_367")),
    "stranger": associate_rq(calling="STRANGER"),
    "somebody else": associate_rq(called="SOMEBODY"),
    "application context": associate_rq(application_context="1.2.840.10008.3.1.1.9"),
    "version 0": associate_rq(version=0),
    "version 2": associate_rq(version=2),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_answer_is_the_bytes_pynetdicom_sends(
    node: RunningReceiver, stock: Receiver, name: str
) -> None:
    ours = answer(node.port, ASKED[name])
    assert ours == answer(stock.port, ASKED[name])
    assert ours[0] in (2, 3)


def test_a_version_among_others_is_accepted_by_its_bit(node: RunningReceiver) -> None:
    # PS3.8 table 9-11: only bit 0 is tested. pynetdicom rejects 3.
    assert answer(node.port, associate_rq(version=3))[0] == 2


@pytest.mark.parametrize(
    "request_",
    [
        associate_rq([(2, CT, [EXPLICIT])]),
        associate_rq([(1, CT, [EXPLICIT]), (1, MR, [EXPLICIT])]),
        struct.pack(">BxI", 1, len(associate_rq()) - 7) + associate_rq()[6:-1],
        struct.pack(">BxI", 1, 40) + associate_rq()[6:46],
    ],
    ids=["even id", "same id twice", "last item cut", "titles cut"],
)
def test_an_invalid_request_is_aborted(node: RunningReceiver, request_: bytes) -> None:
    assert answer(node.port, request_)[0] == 7


def negotiator(node: RunningReceiver) -> Negotiator:
    server = node.receiver._server
    assert server is not None
    return Negotiator(server.contexts, 131_072)


def test_the_answer_to_the_same_bytes_is_remembered(node: RunningReceiver) -> None:
    found = negotiator(node)
    request = associate_rq()[6:]
    proposal = found.read(request)
    assert found.read(bytes(request)) is proposal
    assert found.answer(request, proposal) is found.answer(bytes(request), proposal)
    other = associate_rq(calling="OTHER")[6:]
    assert found.answer(other, found.read(other)) is not found.answer(request, proposal)


def test_a_request_with_a_user_identity_is_never_remembered(node: RunningReceiver) -> None:
    found = negotiator(node)
    request = associate_rq(user_items=identity(b"secret"))[6:]
    proposal = found.read(request)
    assert proposal.identity
    assert found.answer(request, proposal) is not found.answer(request, proposal)
    assert found.read(request) is not proposal
    assert not found._answers
    assert not found._proposals


def test_what_is_remembered_is_bounded(node: RunningReceiver) -> None:
    found = negotiator(node)
    for number in range(1000):
        request = associate_rq(calling=f"AE{number}")[6:]
        found.answer(request, found.read(request))
    assert len(found._answers) <= 128
    assert len(found._proposals) <= 128


def test_what_is_served_elsewhere_is_not_for_the_engine(node: RunningReceiver) -> None:
    found = Negotiator([], 16_384, served_elsewhere=[FIND])

    def is_ours(*uids: str) -> bool:
        contexts = [(2 * n + 1, uid, [IMPLICIT]) for n, uid in enumerate(uids)]
        return found.is_for_engine(found.read(associate_rq(contexts)[6:]))

    assert is_ours(CT)
    assert is_ours(CT, VERIFICATION, "1.2.840.10008.1.20.1")
    assert not is_ours(CT, FIND)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.filterwarnings("ignore:The value length")
def test_mutated_requests_are_read_or_refused_and_nothing_else(node: RunningReceiver) -> None:
    random.seed(5)
    found = negotiator(node)
    for number in range(3000):
        data = bytearray(list(ASKED.values())[number % 5][6:])
        for _ in range(random.randint(1, 5)):
            data[random.randrange(60, len(data))] = random.randrange(256)
        request = bytes(data[: random.choice((len(data), random.randrange(len(data))))])
        try:
            proposal = found.read(request)
            found.is_for_engine(proposal)
            found.answer(request, proposal)
        except InvalidPDU:
            pass


def test_a_path_of_the_file_system_is_never_made_from_a_request(
    node: RunningReceiver, tmp_path: Path
) -> None:
    found = negotiator(node)
    proposal = found.read(associate_rq(calling="../../etc/pass")[6:])
    assert proposal.calling_ae_title == "../../etc/pass"
    assert list(tmp_path.iterdir()) == []
