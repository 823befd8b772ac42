"""What strangers do: each a function of the receiver that ends by itself within seconds.

``python -m tests.attacks.strangers NAME PORT`` does it from a process of its own.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress

from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from node.receive.engine.pdu import COMMAND, LAST
from tests.attacks.node import CALLED, Child, read_pdu
from tests.node.receive.engine.conversations import (
    associate_rq,
    echo,
    p_data,
    pdu,
    pdv,
    status_of,
    store,
    store_rq,
)
from tests.peers import ct_image, encoded

STRANGER = "STRANGER"
DEFLATED = str(DeflatedExplicitVRLittleEndian)
SECONDS = 4.0
Attack = Callable[[Child], None]


def request() -> bytes:
    """An A-ASSOCIATE-RQ as it should be."""
    return associate_rq(calling=STRANGER, called=CALLED)


def silent(child: Child) -> None:
    """300 connections that say nothing."""
    with ExitStack() as stack:
        for _ in range(300):
            with suppress(OSError):
                stack.enter_context(child.connect())
        time.sleep(SECONDS)


def dripping(child: Child) -> None:
    """50 connections that say a byte at a time."""
    with ExitStack() as stack:
        some = [stack.enter_context(child.connect()) for _ in range(50)]
        for byte in request()[:40]:
            for connection in some:
                with suppress(OSError):
                    connection.sendall(bytes([byte]))
            time.sleep(SECONDS / 40)


def half_open(child: Child) -> None:
    """40 associations whose peer will say nothing more and does not leave."""
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(child.connect())
            connection.sendall(request())
            connection.shutdown(socket.SHUT_WR)
        time.sleep(SECONDS)


def endless(start: bytes, associated: bool) -> Attack:
    """200 MB behind a PDU that says it has 4 GiB."""

    def attack(child: Child) -> None:
        block = bytes(1 << 16)
        with child.connect() as connection, suppress(OSError):
            if associated:
                connection.sendall(request())
                read_pdu(connection)
            connection.sendall(start)
            for _ in range(3200):
                connection.sendall(block)

    return attack


def large_request(child: Child) -> None:
    """A-ASSOCIATE-RQs of 8 MiB."""
    for _ in range(10):
        with child.connect() as connection, suppress(OSError):
            connection.sendall(struct.pack(">BxI", 1, 8 << 20))
            for _ in range(128):
                connection.sendall(bytes(1 << 16))


def lying_lengths(child: Child) -> None:
    """PDVs longer and shorter than they say."""
    for length in (0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF):
        with child.associate(STRANGER) as connection:
            connection.sendall(pdu(4, struct.pack(">IBB", length, 3, COMMAND | LAST) + b"xxxx"))
            assert read_pdu(connection)[0] == 7, f"PDV length {length:#x}"


def come_and_go(child: Child) -> None:
    """1000 probes of a load balancer."""
    for _ in range(1000):
        child.connect().close()
        time.sleep(0.002)


def resets(child: Child) -> None:
    """300 connections that are reset, in all states."""
    uid = str(generate_uid())
    data = encoded(ct_image(SOPInstanceUID=uid))
    whole = request() + store(uid, data)
    for number in range(300):
        with child.connect() as connection, suppress(OSError):
            connection.sendall(whole[: number * 7 % len(whole)])
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        time.sleep(0.005)


def never_reading(child: Child) -> None:
    """Asks and does not listen."""
    with child.associate(STRANGER) as connection, suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1.0)
        many = b"".join(echo(number) for number in range(1, 2001))
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            connection.sendall(many)


def mutated(child: Child) -> None:
    """600 conversations with bytes changed, lost and doubled."""
    chance = random.Random(2026)
    uid = str(generate_uid())
    whole = request() + echo() + store(uid, encoded(ct_image(SOPInstanceUID=uid)))
    for _ in range(600):
        changed = mutation(whole, chance)
        with child.connect() as connection, suppress(OSError):
            connection.settimeout(0.05)
            connection.sendall(changed)
            connection.recv(1 << 16)


def mutation(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, a range lost or doubled, the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place : place + chance.randrange(1, 40)]
            case 2:
                changed[place:place] = changed[place : place + chance.randrange(1, 40)]
            case _:
                changed[place : place + 4] = struct.pack(">I", chance.choice(_LENGTHS))
        if not changed:
            return b""
    return bytes(
        changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.2 else changed
    )


_LENGTHS = (0, 1, 5, 6, 0x7FFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def hostile_data_sets(child: Child) -> None:
    """Data sets made to hang, fill or crash who reads them; none is answered with success."""
    uid = str(generate_uid())
    good = encoded(ct_image(SOPInstanceUID=uid))
    at = good.index(b"\x28\x00\x10\x00")
    head, tail = good[:at], good[at:]
    sequence = struct.pack("<HH2sHI", 0x0020, 0x9116, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    private = struct.pack("<HH2sHI", 0x0021, 0x1010, b"OB", 0, 0xFFFFFFF0)
    cases = {
        "500 levels": head + (sequence + item) * 500,
        "4 GiB": head + private + b"0123456789",
        "truncated": good[:-7],
        "noise": random.Random(7).randbytes(100_000),
        "path": good.replace(uid.encode(), b"../" * (len(uid) // 3) + b"." * (len(uid) % 3)),
        "nul": good.replace(uid.encode(), uid[:-3].encode() + b"\0\0\0"),
        "tail only": tail,
    }
    for name, data in cases.items():
        with child.associate(STRANGER) as connection:
            connection.sendall(store(uid, data))
            kind, body = read_pdu(connection)
            assert kind == 7 or status_of(body) != 0, name


def many_elements(child: Child) -> None:
    """300 000 tiny elements, 200 000 empty items: more than is looked at.

    That is no reason to lose the object: whoever reads all of it does so elsewhere.
    """
    uid = str(generate_uid())
    good = encoded(ct_image(SOPInstanceUID=uid))
    at = good.index(b"\x28\x00\x10\x00")
    tiny = b"".join(
        struct.pack("<HH2sH2s", 0x0021, 0x1000 + n % 0xEF00, b"SH", 2, b"x ") for n in range(60_000)
    )
    sequence = struct.pack("<HH2sHI", 0x0020, 0x9116, b"SQ", 0, 0xFFFFFFFF)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    for many in (tiny * 5, sequence + items + end):
        with child.associate(STRANGER) as connection:
            connection.sendall(store(uid, good[:at] + many + good[at:]))
            kind, body = read_pdu(connection)
            assert kind == 4
            assert status_of(body) in (0, 0xC000)


def odd_requests(child: Child) -> None:
    """C-STORE requests with UIDs that are none."""
    for uid in ("../../../../etc/passwd", "1.2.3\0", "1.2.3\x1b[31m", "", "9" * 65, "1..2"):
        with child.associate(STRANGER) as connection:
            connection.sendall(p_data(pdv(3, COMMAND | LAST, store_rq(uid))))
            connection.sendall(p_data(pdv(3, LAST, encoded(ct_image()))))
            kind, body = read_pdu(connection)
            assert kind == 7 or status_of(body) != 0, uid


def deflated(child: Child) -> None:
    """500 MiB that fit into 500 KiB: that transfer syntax is not accepted."""
    uid = str(generate_uid())
    bomb = zlib.compress(bytes(500 << 20), 9, -15)
    proposals: tuple[tuple[str, ...], ...] = ((DEFLATED,), (DEFLATED, ExplicitVRLittleEndian))
    for syntaxes in proposals:
        with child.connect() as connection:
            proposed = [(5, CTImageStorage, syntaxes)]
            connection.sendall(associate_rq(proposed, calling=STRANGER, called=CALLED))
            kind, body = read_pdu(connection)
            assert kind == 2
            accepted = body[body.index(b"\x21\0", 68) + 6] == 0
            assert accepted == (ExplicitVRLittleEndian in syntaxes)
            assert not accepted or DEFLATED.encode() not in body
            connection.sendall(p_data(pdv(5, COMMAND | LAST, store_rq(uid))))
            with suppress(OSError):
                for at in range(0, len(bomb), 16_000):
                    last = LAST if at + 16_000 >= len(bomb) else 0
                    connection.sendall(p_data(pdv(5, last, bomb[at : at + 16_000])))
                kind, body = read_pdu(connection)
                assert kind in (0, 7) or status_of(body) != 0, syntaxes


ATTACKS: dict[str, Attack] = {
    "silent": silent,
    "dripping": dripping,
    "half open": half_open,
    "4 GiB request": endless(struct.pack(">BxI", 1, 0xFFFFFFFF), associated=False),
    "4 GiB data": endless(struct.pack(">BxI", 4, 0xFFFFFFFF), associated=True),
    "large request": large_request,
    "lying lengths": lying_lengths,
    "come and go": come_and_go,
    "resets": resets,
    "never reading": never_reading,
    "mutated": mutated,
    "hostile data sets": hostile_data_sets,
    "many elements": many_elements,
    "odd requests": odd_requests,
    "deflated": deflated,
}
MAY_STORE = {"mutated", "many elements"}
"""Some of what these send is as it should be; of what the others send nothing may be kept."""


if __name__ == "__main__":
    # On another machine in life: here it gets only what nobody else wants of this one.
    os.nice(10)
    ATTACKS[sys.argv[1]](Child(None, int(sys.argv[2]), address="127.0.0.9"))
