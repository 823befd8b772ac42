"""Mutated PDUs, conversations and data sets, the same for the same seed.

Each driver returns how many it tried; whatever breaks a promise raises.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress

from pydicom.uid import generate_uid

from node.receive.access import AssociationRequest, PeerRule
from node.receive.admission import Session
from node.receive.engine import pdu
from node.receive.engine.messages import MessageError
from node.receive.engine.negotiation import Context
from node.receive.engine.provider import Provider
from node.receive.engine.read_buffer import ReadBuffer
from node.receive.engine.upper_layer import Arrived, Limits, ReleaseAsked, Requested, UpperLayer
from node.receive.header import HeaderError, StartTooShort, scan
from node.receive.identity import StoreRequest
from node.statuses import Status
from storage.base import Acceptance
from tests.attacks.node import CALLED, Child
from tests.attacks.strangers import mutation
from tests.node.receive.engine.conversations import (
    ABORT,
    CT,
    EXPLICIT,
    IMPLICIT,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    associate_rq,
    echo,
    other_rq,
    p_data,
    pdv,
    store,
)
from tests.peers import ct_image, encoded

KEYS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
UID = str(generate_uid(entropy_srcs=["fuzz"]))
DATA_SET = encoded(ct_image(SOPInstanceUID=UID))
ANSWER_BYTES = 4096
"""Most that one PDU may be answered with."""
SLOWEST_SECONDS = 5.0


class _Forgetting:
    """Takes a data set in and keeps nothing; stands where the disk would be."""

    holds_fragments = False

    def __init__(self) -> None:
        self.size = 0

    def take(self, fragment: memoryview) -> None:
        self.size += len(fragment)

    def spill(self) -> None: ...

    def discard(self) -> None: ...

    def finish(self) -> tuple[Status, Acceptance | None]:
        return Status(0), Acceptance.STORED


class _Host:
    """A node without network and disk."""

    def reception(self, request: StoreRequest) -> _Forgetting:
        return _Forgetting()

    def answered(self, *_: object) -> None: ...


def fuzz_pdus(count: int, seed: int) -> int:
    """Feed mutated streams to the upper layer and its services, without sockets."""
    chance = random.Random(seed)
    parts = [
        echo(),
        store(UID, DATA_SET, 200),
        p_data(pdv(1, 3, b"\0" * 12), pdv(3, 0, b"x")),
        p_data(pdv(3, 3, other_rq(0x20))),
        RELEASE_RQ,
        RELEASE_RP,
        ABORT,
        pdu.a_associate_rj(1, 1, 1),
        associate_rq(),
    ]
    tried = 0
    while tried < count:
        stream = b"".join(
            mutation(part, chance) if chance.random() < 0.5 else part
            for part in chance.choices(parts, k=chance.randrange(1, 12))
        )
        if chance.random() < 0.8:
            stream = associate_rq() + stream
        tried += _conversation(stream, chance)
    return tried


def _conversation(stream: bytes, chance: random.Random) -> int:
    """Feed one stream, in pieces; how many PDUs came of it."""
    layer = UpperLayer(Limits(), 0.0)
    buffer = ReadBuffer(1 << 18)
    session = Session(PeerRule("fuzz", ("*",)), AssociationRequest("127.0.0.1", "A", "B", ""))
    contexts = {1: Context(VERIFICATION, IMPLICIT), 3: Context(CT, EXPLICIT)}
    provider = Provider(_Host(), session, contexts, 16_384, 1 << 20)  # type: ignore[arg-type]
    count = at = 0
    while at < len(stream) and not layer.is_over:
        piece = stream[at : at + chance.choice((1, 7, 100, 20_000))]
        at += len(piece)
        buffer.put(piece)
        while not layer.is_over and (found := layer.process(buffer, 0.0)) is not None:
            count += 1
            try:
                if isinstance(found, Requested):
                    layer.accept(b"accepted")
                elif isinstance(found, ReleaseAsked):
                    layer.answer_release(0.0)
                elif isinstance(found, Arrived) and layer.is_established:
                    for answer in provider.take(found.values, 0.0):
                        layer.send(answer)
            except MessageError as error:
                layer.abort(0.0, error.source, error.reason)
            assert len(layer.take_output()) <= ANSWER_BYTES
        if buffer.is_empty:
            buffer.clear()
        else:
            buffer.make_room()
        layer.take_output()
    if not layer.is_over:
        layer.closed(1.0)
    assert layer.is_over
    return max(count, 1)


def fuzz_data_sets(count: int, seed: int) -> int:
    """Walk mutated data sets; nothing but the designed errors, in time."""
    chance = random.Random(seed)
    syntaxes = (EXPLICIT, EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2")
    for _ in range(count):
        data = mutation(DATA_SET, chance)
        began = time.monotonic()
        with suppress(HeaderError, StartTooShort):
            scan(data, chance.choice(syntaxes), KEYS)
        assert time.monotonic() - began < SLOWEST_SECONDS
    return count


def fuzz_conversations(child: Child, count: int, seed: int) -> int:
    """Hold mutated conversations over sockets with a running receiver."""
    chance = random.Random(seed)
    whole = associate_rq(calling="FUZZ", called=CALLED) + echo() + store(UID, DATA_SET)
    for _ in range(count):
        with suppress(OSError), child.connect() as connection:
            connection.settimeout(0.01)
            connection.sendall(mutation(whole, chance))
            connection.recv(1 << 16)
    return count
