"""The listener under strangers: silent, slow, oversized, malformed."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from node.receive.access import PeerRule
from node.receive.connection import MonotonicTimer
from node.receive.guard import GuardedHandler, GuardedServer
from node.receive.lobby import Lobby
from node.scu import CallingAE
from node.statuses import SUCCESS
from tests.node.receive.test_receiver import eventually
from tests.peers import (
    AE_TITLE,
    LOOPBACK,
    MODALITY,
    RunningReceiver,
    associated,
    ct_image,
    encoded,
    running_receiver,
    send_bytes,
)
from tests.tools import tool

pytestmark = pytest.mark.slow

STRANGER = "127.0.0.2"


@pytest.fixture(params=[True, False], ids=["engine", "pynetdicom"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningReceiver]:
    limits = {"request_seconds": 3.0, "pdu_seconds": 2.0}
    with running_receiver(tmp_path, guard=limits, engine=request.param) as running:
        yield running


def connect(node: RunningReceiver, source: str = STRANGER) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), 10, source_address=(source, 0))


def echo_works(node: RunningReceiver) -> bool:
    with associated(node.port) as assoc:
        return bool(assoc.is_established and assoc.send_c_echo().Status == SUCCESS)


def is_cut(connection: socket.socket, seconds: float = 15.0) -> bool:
    """Whether the receiver closes a connection before a deadline."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize("source", [STRANGER, "127.0.0.1"], ids=["elsewhere", "same_address"])
def test_three_hundred_silent_connections_do_not_shut_the_door(
    node: RunningReceiver, source: str
) -> None:
    before = threads()
    silent = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            silent.append(connect(node, source))
    if source == "127.0.0.1":
        time.sleep(1.1)  # only those that waited a second make room for others
    began = time.monotonic()
    assert echo_works(node)
    assert time.monotonic() - began < 5
    assert threads() - before < 100
    assert all(is_cut(connection) for connection in silent)
    for connection in silent:
        connection.close()
    eventually(lambda: threads() <= before + 2)


def test_a_dripping_request_is_cut(node: RunningReceiver) -> None:
    dripping = [connect(node) for _ in range(11)]
    for connection in dripping:
        connection.sendall(struct.pack(">BxI", 1, 200))
    cut = threading.Event()

    def drip() -> None:
        while not cut.wait(0.3):
            for connection in dripping:
                with contextlib.suppress(OSError):
                    connection.sendall(b"\0")

    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        assert echo_works(node)
        assert all(is_cut(connection) for connection in dripping)
    finally:
        cut.set()
        dripper.join()
        for connection in dripping:
            connection.close()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", [1, 4], ids=["a_associate_rq", "p_data_tf"])
def test_a_pdu_that_claims_four_gigabytes_is_cut_unread(node: RunningReceiver, kind: int) -> None:
    before = resident_bytes()
    with connect(node) as stranger:
        with contextlib.suppress(OSError):
            stranger.sendall(struct.pack(">BxI", kind, 0xFFFFFFFF))
            for _ in range(100):
                stranger.sendall(bytes(1 << 20))
        assert is_cut(stranger)
    assert resident_bytes() - before < 60 << 20
    assert echo_works(node)


def associate_rq(body: bytes = b"") -> bytes:
    """An A-ASSOCIATE-RQ for Verification, as bytes."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    context = bytes([1, 0, 0, 0]) + item(0x30, b"1.2.840.10008.1.1")
    context += item(0x40, b"1.2.840.10008.1.2")
    content = struct.pack(">HH", 1, 0) + AE_TITLE.ljust(16).encode() + MODALITY.ljust(16).encode()
    content += bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context)
    content += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")) + body
    return struct.pack(">BxI", 1, len(content)) + content


def received(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    header = connection.recv(6, socket.MSG_WAITALL)
    return header + connection.recv(struct.unpack(">BxI", header)[1], socket.MSG_WAITALL)


def test_a_data_pdu_larger_than_agreed_is_cut(node: RunningReceiver) -> None:
    with connect(node, "127.0.0.1") as peer:
        peer.sendall(associate_rq())
        assert received(peer)[0] == 2
        peer.sendall(struct.pack(">BxI", 4, 131_073) + bytes(1000))
        assert is_cut(peer)
    eventually(lambda: node.receiver.associations == 0)
    assert echo_works(node)


def test_a_pdu_that_stalls_is_cut_at_its_deadline(node: RunningReceiver) -> None:
    with connect(node, "127.0.0.1") as peer:
        peer.sendall(associate_rq())
        assert received(peer)[0] == 2
        peer.sendall(struct.pack(">BxI", 4, 1000) + bytes(10))
        assert is_cut(peer)
    eventually(lambda: node.receiver.associations == 0)


def test_another_application_context_is_rejected(node: RunningReceiver) -> None:
    request = associate_rq().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9")
    with connect(node, "127.0.0.1") as peer:
        peer.sendall(request)
        answer = received(peer)
    assert answer[0] == 3
    assert tuple(answer[7:10]) == (1, 1, 2)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\0" * 64,
        b"\x05\0\0\0\0\x04",
    ],
    ids=["http", "tls", "zeros", "release_first"],
)
def test_what_is_no_dicom_is_cut(node: RunningReceiver, start: bytes) -> None:
    with connect(node) as stranger:
        stranger.sendall(start)
        assert is_cut(stranger)
    assert echo_works(node)


def test_mutated_conversations_leave_the_receiver_as_it_was(node: RunningReceiver) -> None:
    random.seed(7)
    before = threads()
    for number in range(150):
        data = bytearray(associate_rq(random.randbytes(random.choice((0, 0, 20)))))
        data += struct.pack(">BxI", 4, 60) + random.randbytes(60)
        for _ in range(random.randint(1, 6)):
            data[random.randrange(6 if number % 2 else 0, len(data))] = random.randrange(256)
        with connect(node, "127.0.0.1") as peer, contextlib.suppress(OSError):
            peer.sendall(data)
            if number % 3 == 0:
                peer.settimeout(0.2)
                peer.recv(4096)
    assert echo_works(node)
    eventually(lambda: node.receiver.associations == 0, 30)
    eventually(lambda: threads() <= before + 2, 30)


def test_an_even_context_id_does_not_leave_a_thread_behind(node: RunningReceiver) -> None:
    before = threads()
    request = associate_rq().replace(b"\x01\0\0\0\x30", b"\x02\0\0\0\x30", 1)
    with connect(node, "127.0.0.1") as peer:
        peer.sendall(request)
        assert is_cut(peer)
    eventually(lambda: threads() <= before)
    assert echo_works(node)


def test_an_object_larger_than_allowed_aborts_its_association(tmp_path: Path) -> None:
    with running_receiver(tmp_path, guard={"largest_instance_bytes": 200_000}) as node:
        ds = ct_image(PixelData=bytes(400_000))
        with associated(node.port) as assoc:
            assert "Status" not in send_bytes(assoc, encoded(ds), ds.SOPInstanceUID)
        assert node.stored_paths() == node.incoming() == []
        eventually(lambda: node.named("association.aborted"))
        small = ct_image()
        with associated(node.port) as assoc:
            assert send_bytes(assoc, encoded(small), small.SOPInstanceUID).Status == SUCCESS


def test_an_address_that_is_not_listed_is_cut_without_a_word(tmp_path: Path) -> None:
    peer = PeerRule("one", (MODALITY,), (type(LOOPBACK)("127.0.0.1/32"),))
    with running_receiver(tmp_path, peers=(peer,)) as node:
        with connect(node) as stranger:
            with contextlib.suppress(OSError):
                stranger.sendall(associate_rq())
            assert is_cut(stranger)
        eventually(lambda: node.named("connection.refused"))
        assert node.named("connection.refused")[0] == {
            "address": STRANGER,
            "reason": "address_not_listed",
        }
        assert echo_works(node)


def test_an_association_has_a_longest_time(tmp_path: Path) -> None:
    with running_receiver(tmp_path, guard={"longest_association_seconds": 0.5}) as node:
        with associated(node.port) as assoc:
            assert assoc.send_c_echo().Status == SUCCESS
            eventually(lambda: assoc.is_aborted)
        assert echo_works(node)


def test_an_idle_association_is_aborted(tmp_path: Path) -> None:
    with running_receiver(tmp_path, idle_seconds=1.0) as node:
        with associated(node.port):
            eventually(lambda: node.named("association.aborted"))
        assert node.receiver.associations == 0


# -- TLS -------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "both.pem"
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-keyout", str(path), "-out", str(tmp_path / "c.pem")]
    command = [str(tool("openssl")), "req", *kind, *files]
    subprocess.run(command, capture_output=True, check=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "c.pem").read_bytes())
    return path


def test_a_silent_connection_does_not_stop_the_tls_handshakes_of_others(
    node: RunningReceiver, certificate: Path
) -> None:
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    theirs = ssl.create_default_context(cafile=str(certificate))
    theirs.check_hostname = False
    ae = AE(AE_TITLE)
    ae.add_supported_context(Verification)
    server = ae.make_server(
        ("127.0.0.1", 0),
        ssl_context=ours,
        server_class=GuardedServer,
        request_handler=GuardedHandler,
        settings=node.receiver._guard,
        on_refused=lambda address, reason: None,
        on_end=lambda assoc: None,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_address[1])):
            client = CallingAE(MODALITY)
            client.acse_timeout = client.connection_timeout = 10
            client.add_requested_context(Verification)
            began = time.monotonic()
            assoc = client.associate(
                "127.0.0.1", server.server_address[1], tls_args=(theirs, "localhost")
            )
            assert assoc.is_established
            assert assoc.send_c_echo().Status == SUCCESS
            assoc.release()
            assert time.monotonic() - began < 5
    finally:
        server.shutdown()
        thread.join()


# -- parts -----------------------------------------------------------------------------------


def test_the_lobby_lets_the_one_go_that_waited_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    lobby = Lobby(per_address=2, total=4)
    guests = [socket.socketpair() for _ in range(6)]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert lobby.enter(guests[0][0], "a")
    assert lobby.enter(guests[1][0], "a")
    monkeypatch.setattr(time, "monotonic", lambda: now + 2)
    assert lobby.enter(guests[2][0], "a")
    guests[0][1].settimeout(5)
    assert guests[0][1].recv(1) == b""
    assert lobby.enter(guests[3][0], "b")
    lobby.leave(guests[3][0])
    for pair in guests:
        for end in pair:
            end.close()


def test_a_full_lobby_drops_one_of_the_most_crowded_address_for_a_newcomer_of_another() -> None:
    lobby = Lobby(per_address=3, total=4)
    guests = [socket.socketpair() for _ in range(6)]
    for pair, address in zip(guests, "aaab", strict=False):
        assert lobby.enter(pair[0], address)

    assert lobby.enter(guests[4][0], "c"), "nobody waited long, but one address has most"

    guests[0][1].settimeout(5)
    assert guests[0][1].recv(1) == b""
    assert not lobby.enter(guests[5][0], "a")
    for pair in guests:
        for end in pair:
            end.close()


def test_the_timer_runs_without_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = MonotonicTimer(5)
    assert timer.remaining == 5
    timer.start()
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert 0 < timer.remaining <= 5
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + 6)
    assert timer.expired
    timer.stop()
    assert timer.remaining < 0
    assert MonotonicTimer(None).remaining == 1
