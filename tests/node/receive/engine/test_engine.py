"""The engine over sockets: what senders bring is stored, and what strangers bring is not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from node.receive.engine import listener
from node.receive.engine.pdu import COMMAND, LAST
from node.receive.engine.read_buffer import BUFFER_BYTES, BufferPool, ReadBuffer
from node.statuses import (
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
)
from storage import tables
from tests.node.receive.engine.conversations import (
    ABORT,
    CT,
    RELEASE_RQ,
    VERIFICATION,
    associate_rq,
    command,
    echo,
    echo_rq,
    element,
    other_rq,
    p_data,
    pdv,
    status_of,
    store,
    store_rq,
    us,
)
from tests.node.receive.test_receiver import (
    assert_all_stored_unchanged,
    copied,
    eventually,
    instances,
    small_disk,
)
from tests.peers import (
    AE_TITLE,
    MODALITY,
    RunningReceiver,
    associated,
    ct_image,
    digest_of,
    encoded,
    running_receiver,
    send_bytes,
)
from tests.ports import free_port
from tests.shared_data import shared
from tests.tools import tool

__all__ = ["small_disk"]

LARGE = 157 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningReceiver]:
    with running_receiver(tmp_path, guard={"request_seconds": 3.0}) as running:
        yield running


class Peer:
    """A requestor that says exactly the bytes a test wants."""

    def __init__(self, node: RunningReceiver, request: bytes | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", node.port), 10)
        self.socket.settimeout(10)
        self.say(associate_rq() if request is None else request)

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> tuple[int, bytes]:
        """The next PDU; type 0 when the connection is closed."""
        try:
            header = self.socket.recv(6, socket.MSG_WAITALL)
            if len(header) < 6:
                return 0, b""
            kind, length = struct.unpack(">BxI", header)
            return kind, self.socket.recv(length, socket.MSG_WAITALL)
        except ConnectionError:
            return 0, b""

    def status(self) -> int:
        """Status of the next response."""
        kind, body = self.hear()
        assert kind == 4, kind
        return status_of(body)


@contextmanager
def peer_of(node: RunningReceiver, request: bytes | None = None) -> Iterator[Peer]:
    peer = Peer(node, request)
    try:
        assert peer.hear()[0] == 2
        yield peer
    finally:
        peer.socket.close()


def image() -> tuple[str, bytes]:
    """UID and bytes of a small object."""
    ds = ct_image()
    return str(ds.SOPInstanceUID), encoded(ds)


# -- conversations ---------------------------------------------------------------------------


def test_a_whole_conversation_byte_by_byte_is_served(node: RunningReceiver) -> None:
    uid, data = image()
    with peer_of(node) as peer:
        for byte in echo() + store(uid, data, fragment=40) + RELEASE_RQ:
            peer.say(bytes([byte]))
        assert peer.status() == SUCCESS
        assert peer.status() == SUCCESS
        assert peer.hear() == (6, bytes(4))
    assert [row.digest for row in instances(node)] == [digest_of(data)]
    eventually(lambda: node.named("association.released"))


def test_a_command_and_its_data_set_may_share_a_pdu_in_any_number_of_pieces(
    node: RunningReceiver,
) -> None:
    uid, data = image()
    request = store_rq(uid)
    with peer_of(node) as peer:
        peer.say(
            p_data(
                pdv(3, COMMAND, request[:30]),
                pdv(3, COMMAND | LAST, request[30:]),
                pdv(3, 0, data[:1]),
                pdv(3, 0, b""),
                pdv(3, 0, data[1:100]),
                pdv(3, LAST, data[100:]),
            )
        )
        assert peer.status() == SUCCESS
    assert len(instances(node)) == 1


def test_objects_that_come_without_waiting_for_answers_are_all_stored(
    node: RunningReceiver,
) -> None:
    images = [image() for _ in range(20)]
    with peer_of(node) as peer:
        peer.say(b"".join(store(uid, data) for uid, data in images))
        assert [peer.status() for _ in images] == [SUCCESS] * 20
    assert {row.sop_instance_uid for row in instances(node)} == {uid for uid, _ in images}


def test_data_that_comes_before_the_answer_to_the_request_is_served(
    node: RunningReceiver,
) -> None:
    uid, data = image()
    peer = Peer(node, associate_rq() + store(uid, data))
    assert peer.hear()[0] == 2
    assert peer.status() == SUCCESS
    peer.socket.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (other_rq(0x0020), UNRECOGNIZED_OPERATION),
        (other_rq(0x0130), UNRECOGNIZED_OPERATION),
        (echo_rq(sop_class=VERIFICATION), SOP_CLASS_NOT_SUPPORTED),
        (store_rq("1.2.3", data_set=0x0101), CANNOT_UNDERSTAND),
    ],
    ids=["find", "action", "echo on a storage context", "store without data"],
)
def test_what_is_not_served_is_answered_with_its_status(
    node: RunningReceiver, request_: bytes, status: int
) -> None:
    with peer_of(node) as peer:
        peer.say(p_data(pdv(3, COMMAND | LAST, request_)))
        assert peer.status() == status
        peer.say(echo())
        assert peer.status() == SUCCESS


def test_the_data_set_of_a_request_that_is_not_served_is_let_through(
    node: RunningReceiver,
) -> None:
    with peer_of(node) as peer:
        peer.say(p_data(pdv(3, COMMAND | LAST, other_rq(0x0020, data_set=1))))
        peer.say(p_data(pdv(3, 0, b"a"), pdv(3, LAST, b"b")))
        assert peer.status() == UNRECOGNIZED_OPERATION
        peer.say(echo())
        assert peer.status() == SUCCESS


def test_a_cancel_is_not_answered(node: RunningReceiver) -> None:
    cancel = command(
        element(0x0100, us(0x0FFF)), element(0x0120, us(7)), element(0x0800, us(0x0101))
    )
    with peer_of(node) as peer:
        peer.say(p_data(pdv(3, COMMAND | LAST, cancel)) + echo(message_id=9))
        kind, body = peer.hear()
    assert (kind, struct.pack("<H", 9) in body) == (4, True)


@pytest.mark.parametrize(
    "nonsense",
    [
        p_data(pdv(5, COMMAND | LAST, echo_rq())),
        p_data(pdv(3, 0, b"data without a command")),
        p_data(pdv(3, COMMAND | LAST, b"no command")),
        p_data(pdv(3, COMMAND | LAST, store_rq("1.2.3")), pdv(1, LAST, b"x")),
        b"\x04\0\0\0\0\0",
        b"\x09\0\0\0\0\0",
        associate_rq(),
    ],
    ids=["context", "data", "command", "other context", "empty", "type 9", "second request"],
)
def test_what_breaks_the_protocol_is_aborted_and_the_receiver_goes_on(
    node: RunningReceiver, nonsense: bytes
) -> None:
    with peer_of(node) as peer:
        peer.say(nonsense)
        assert peer.hear()[0] == 7
    eventually(lambda: node.receiver.associations == 0)
    eventually(lambda: len(node.named("association.aborted")) == 1)
    assert node.incoming() == []
    with peer_of(node) as peer:
        peer.say(echo())
        assert peer.status() == SUCCESS


def test_the_log_says_what_broke_the_protocol(node: RunningReceiver) -> None:
    with capture_logs() as lines, peer_of(node) as peer:
        peer.say(p_data(pdv(3, 0, b"data without a command")))
        assert peer.hear()[0] == 7
    [line] = [line for line in lines if line["event"] == "message.refused"]
    assert line["sentence"] == "a data set came without a command"


def test_an_aborted_peer_that_does_not_close_is_closed(node: RunningReceiver) -> None:
    with peer_of(node) as peer:
        peer.say(p_data(pdv(3, 0, b"data without a command")))
        assert peer.hear()[0] == 7
        assert peer.hear()[0] == 0


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_a_sender_that_is_gone_in_the_midst_of_a_large_object_leaves_nothing(
    node: RunningReceiver, how: str
) -> None:
    ds = ct_image(PixelData=bytes(3 << 20))
    sent = store(str(ds.SOPInstanceUID), encoded(ds))
    pieces = store(str(ds.SOPInstanceUID), encoded(ds)[: 2 << 20])
    with peer_of(node) as peer:
        if how == "abort":
            begun = pieces[: pieces.rindex(b"\x04\x00\x00\x00")]
            peer.say(begun)
            eventually(node.incoming)
            peer.say(ABORT)
        else:
            peer.say(sent[: 2 << 20])
            eventually(node.incoming)
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    eventually(lambda: node.named("association.aborted"))
    assert node.incoming() == node.stored_paths() == []


def test_a_sender_that_does_not_read_its_answers_is_cut(tmp_path: Path) -> None:
    with running_receiver(tmp_path, guard={"pdu_seconds": 1.0}) as node:
        with peer_of(node) as peer:
            peer.socket.settimeout(20)
            with pytest.raises(OSError, match=r"reset|pipe"):
                peer.say(echo() * 200_000)
        eventually(lambda: node.receiver.associations == 0)


def test_who_proposes_more_than_we_support_is_served_by_the_engine(
    node: RunningReceiver,
) -> None:
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    ds = ct_image()
    contexts = [(CTImageStorage, [ExplicitVRLittleEndian]), (find, [ExplicitVRLittleEndian])]
    with associated(node.port, contexts) as assoc:  # type: ignore[arg-type]
        assert not node.receiver._server.live  # type: ignore[union-attr]
        assert [str(one.abstract_syntax) for one in assoc.rejected_contexts] == [find]
        assert assoc.send_c_echo().Status == SUCCESS
        assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == SUCCESS
        assert node.receiver.associations == 1
    eventually(lambda: len(node.named("association.released")) == 1)
    assert len(instances(node)) == 1


# -- many, idle, large -----------------------------------------------------------------------


def count_of_associations(node: RunningReceiver) -> int:
    with node.database.snapshot() as tx:
        count: int = tx.execute(sa.select(sa.func.count(tables.Association.id))).scalar_one()
        return count


def test_idle_associations_hold_no_buffer_and_cost_no_time(tmp_path: Path) -> None:
    with running_receiver(tmp_path, max_associations=300) as node, ExitStack() as stack:
        for rule in node.receiver.settings.peers:
            object.__setattr__(rule, "max_associations", 300)
        for _ in range(256):
            peer = stack.enter_context(peer_of(node))
            peer.say(echo())
            assert peer.status() == SUCCESS
        assert node.receiver.associations == 256
        eventually(lambda: count_of_associations(node) == 256)
        before = time.process_time()
        time.sleep(2)
        assert time.process_time() - before < 0.02
        held = node.receiver._listeners[0]._engine.buffers._in_use
        assert held == 0


def test_threads_go_when_the_associations_have_gone(node: RunningReceiver) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(40):
            if node.receiver.associations < 30:
                stack.enter_context(peer_of(node))
        assert threading.active_count() > before
    eventually(lambda: threading.active_count() <= before)
    assert before >= listener.KEPT_THREADS


RECEIVE_ALONE = """
import sys, threading
from pathlib import Path
from tests.peers import running_receiver
with running_receiver(Path(sys.argv[1])) as node:
    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(node.port, peak(), flush=True)
    sys.stdin.readline()
    print(peak(), *(p for p in node.stored_paths()), flush=True)
"""


def test_a_large_object_never_lies_in_memory(tmp_path: Path) -> None:
    ds = ct_image(Rows=65_000, Columns=1)
    head = encoded(ds)[:-44]
    assert head.endswith(encoded(ds)[-60:-44])
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, LARGE)
    digest = hashlib.sha256()
    child = subprocess.Popen(
        [os.sys.executable, "-c", RECEIVE_ALONE, str(tmp_path)],  # type: ignore[attr-defined]
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        words: list[str] = []
        while len(words) != 2 or not words[0].isdigit():
            words = child.stdout.readline().split()
        port, before = map(int, words)
        with socket.create_connection(("127.0.0.1", port)) as sender:
            sender.sendall(associate_rq())
            sender.recv(6, socket.MSG_WAITALL)
            sender.recv(4096)
            sender.sendall(p_data(pdv(3, COMMAND | LAST, store_rq(str(ds.SOPInstanceUID)))))
            part = os.urandom(131_066 - len(head) - len(pixels))
            first = head + pixels + part
            sender.sendall(p_data(pdv(3, 0, first)))
            digest.update(first)
            left = LARGE - len(part)
            block = os.urandom(131_066)
            while left:
                part = block[:left]
                left -= len(part)
                sender.sendall(p_data(pdv(3, 0 if left else LAST, part)))
                digest.update(part)
            sender.settimeout(60)
            answer = sender.recv(4096)
        assert status_of(answer[6:]) == SUCCESS
        child.stdin.write("\n")
        child.stdin.flush()
        words = []
        while not words or not words[0].isdigit():
            words = child.stdout.readline().split()
        assert (int(words[0]) - before) < 40 << 10
        with Path(words[1]).open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
            file.seek(132 + 12 - 4)
            length = struct.unpack("<I", file.read(4))[0]
            file.seek(132 + 12 + length)
            assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
        assert content.digest_size == 32


def test_a_large_object_on_a_full_disk_is_let_through_and_refused(
    tmp_path: Path, small_disk: Path
) -> None:
    with running_receiver(tmp_path, objects=small_disk / "data") as node:
        node.service._free_mark = lambda total: -(1 << 60)
        ds = ct_image(PixelData=bytes(20 << 20))
        with peer_of(node, associate_rq(maximum_length=0)) as peer:
            peer.say(store(str(ds.SOPInstanceUID), encoded(ds), fragment=131_000))
            assert peer.status() == OUT_OF_RESOURCES
            assert node.incoming() == []
            uid, data = image()
            peer.say(store(uid, data))
            assert peer.status() == SUCCESS


# -- senders ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "series", ["ct_head_ge_tilted", "ct_head_phantom_philips_study", "t1_siemens_xa30_enhanced"]
)
def test_what_dcmsend_sends_is_stored_unchanged(
    node: RunningReceiver, tmp_path: Path, series: str
) -> None:
    folder = copied(shared(series), tmp_path / "sent", most=12)
    options = ["-aet", MODALITY, "-aec", AE_TITLE, "--no-uid-checks", "+sd", "+r"]
    run = subprocess.run(
        [tool("dcmsend"), *options, "127.0.0.1", str(node.port), str(folder)],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    if series != "t1_siemens_xa30_enhanced":  # DCMTK rewrites the lengths of its sequences
        assert_all_stored_unchanged(node, folder)
    assert len(instances(node)) == len(list(folder.iterdir()))


def orthanc_rest(port: int, path: str, data: bytes | None = None) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_orthanc_sends_is_stored_unchanged(node: RunningReceiver, tmp_path: Path) -> None:
    orthanc = shutil.which("Orthanc", path="/usr/bin:/usr/sbin:/usr/local/bin")
    if orthanc is None:
        if os.environ.get("CI"):
            pytest.fail("Orthanc is not installed")
        pytest.skip("Orthanc is not installed")
    folder = copied(shared("ct_head_ge_tilted"), tmp_path / "sent", most=6)
    http = free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "HttpPort": http,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": MODALITY,
        "DicomModalities": {"node": [AE_TITLE, "127.0.0.1", node.port]},
        "Plugins": [],
    }
    config = tmp_path / "orthanc.json"
    config.write_text(json.dumps(settings))
    server = subprocess.Popen([orthanc, str(config)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: is_up(http), 30)
        ids = [
            json.loads(orthanc_rest(http, "/instances", path.read_bytes()))["ID"]
            for path in sorted(folder.iterdir())
        ]
        assert orthanc_rest(http, "/modalities/node/echo", b"{}") is not None
        answer = json.loads(orthanc_rest(http, "/modalities/node/store", json.dumps(ids).encode()))
        assert answer["FailedInstancesCount"] == 0
    finally:
        server.terminate()
        server.wait(20)
    assert assert_all_stored_unchanged(node, folder) == 6


def is_up(port: int) -> bool:
    try:
        return bool(orthanc_rest(port, "/system"))
    except OSError:
        return False


# -- parts -----------------------------------------------------------------------------------


def test_buffers_are_used_again_and_small_when_many_are_in_use() -> None:
    pool = BufferPool(most=2)
    first, second, third = pool.take(), pool.take(), pool.take()
    assert [b.size for b in (first, second, third)] == [BUFFER_BYTES, BUFFER_BYTES, 1 << 18]
    first.put(b"left over")
    for buffer in (first, second, third):
        pool.give_back(buffer)
    assert pool.take() is second
    assert pool.take() is first
    assert first.is_empty


def test_a_buffer_moves_what_is_left_to_its_front() -> None:
    buffer = ReadBuffer(64)
    buffer.put(b"\x05\0\0\0\0\x04abcd" + b"\x06\0\0\0\0\x04xy")
    body = buffer.take_pdu(4)
    assert body is not None
    assert bytes(body) == b"abcd"
    assert buffer.missing == 2
    assert buffer.take_pdu(4) is None
    buffer.make_room()
    assert len(buffer.window()) == 64 - 8
    buffer.put(b"zz")
    body = buffer.take_pdu(4)
    assert body is not None
    assert bytes(body) == b"xyzz"
    assert buffer.is_empty


def test_uids_are_never_taken_for_names_of_files(node: RunningReceiver) -> None:
    uid = "../../../../tmp/x"
    with peer_of(node) as peer:
        peer.say(store(uid, image()[1]))
        assert peer.status() == 0xA900
    assert node.incoming() == node.stored_paths() == []
    assert CTImageStorage == CT
    assert Verification == VERIFICATION
    assert generate_uid()
