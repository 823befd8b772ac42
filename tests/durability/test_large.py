"""Large objects arrive in bounded memory: 150 MB always, 1 GB where slow tests run."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sqlite3
import struct
from collections.abc import Iterator

import pytest

from benchmarks.acknowledged import EXPLICIT_VR, answer_of, header, uid_of
from benchmarks.sender import associate_rq, connect, data_pdus, release, store_rq
from benchmarks.studies import Prepared
from storage.objects import FileObjects
from tests.durability.memory import forget_peak, peak_bytes
from tests.durability.proof import leftovers
from tests.durability.receiver_process import ReceiverProcess, Setup

pytestmark = pytest.mark.slow

ENHANCED_CT = b"1.2.840.10008.5.1.4.1.1.2.1"
MIB = 1 << 20
MOST_GROWTH = 64 * MIB
NUMBER = 7


def frames(size: int) -> Iterator[bytes]:
    """Pixels of many frames, a MiB at a time; no two the same."""
    noise = hashlib.shake_128(b"frames").digest(MIB - 8)
    for at in range(0, size, MIB):
        yield (struct.pack("<Q", at) + noise)[: size - at]


def data_set(size: int) -> Iterator[bytes]:
    """An Enhanced CT image with so many bytes of pixels."""
    yield header(NUMBER, ENHANCED_CT)
    yield struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", size)
    yield from frames(size)


def fragments(connection: socket.socket, most: int, size: int) -> None:
    """Send the data set, whose last fragment alone is marked as the last."""
    for part in data_set(size):
        for at in range(0, len(part), most - 6):
            piece = part[at : at + most - 6]
            head = struct.pack(">BxIIBB", 4, len(piece) + 6, len(piece) + 2, 1, 0)
            connection.sendall(head + piece)
    connection.sendall(struct.pack(">BxIIBB", 4, 6, 2, 1, 2))


def digest_of(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "size", [150 * 10**6, pytest.param(10**9, marks=pytest.mark.slow)], ids=["150 MB", "1 GB"]
)
def test_a_large_multi_frame_object_arrives_within_the_bound_of_memory(
    setup: Setup, size: int
) -> None:
    one = Prepared(ENHANCED_CT, uid_of(NUMBER).encode(), EXPLICIT_VR, b"")
    with ReceiverProcess(setup) as receiver:
        forget_peak(receiver.pid)
        before = peak_bytes(receiver.pid)
        connection, most = connect(receiver.port, associate_rq({1: (ENHANCED_CT, EXPLICIT_VR)}))
        connection.sendall(data_pdus(1, store_rq(one, 1), 1, most))
        fragments(connection, most, size)
        answer = answer_of(connection)
        release(connection)
        growth = peak_bytes(receiver.pid) - before

    assert answer.status == 0, answer
    assert growth < MOST_GROWTH
    assert leftovers(setup) == []
    with contextlib.closing(sqlite3.connect(setup.folder / "node.db")) as database:
        [(key,)] = database.execute("select object_key from instance").fetchall()
    held = memoryview(FileObjects(setup.folder / "data").read(key))
    length = sum(map(len, data_set(0))) + size
    assert hashlib.sha256(held[-length:]).hexdigest() == digest_of(data_set(size))
