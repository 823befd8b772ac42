"""A receiver in a process of its own, and an honest peer that never rests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import generate_uid

from tests.node.receive.engine.conversations import (
    RELEASE_RQ,
    associate_rq,
    echo,
    elements_of,
    status_of,
    store,
)
from tests.peers import ct_image, encoded
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
CALLED, HONEST = "ANY", "HONEST"
PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    resident_mb: float
    threads: int
    descriptors: int


@dataclass
class Child:
    """The receiver's process; to a stranger only its port is known."""

    process: subprocess.Popen[bytes] | None
    port: int
    folder: Path = Path()
    address: str = "127.0.0.1"

    def usage(self) -> Usage:
        """Ask the kernel."""
        assert self.process is not None
        proc = Path(f"/proc/{self.process.pid}")
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        return Usage(
            resident_mb=int(status["VmRSS"].split()[0]) / 1024,
            threads=int(status["Threads"]),
            descriptors=len(list((proc / "fd").iterdir())),
        )

    def files(self) -> set[str]:
        """Every file of the data folder but those of the database and the arena."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and path.suffix not in (".seg", ".db") and ".db-" not in path.name
        }

    def connect(self) -> socket.socket:
        """Connect to it."""
        return socket.create_connection(("127.0.0.1", self.port), 20, (self.address, 0))

    def associate(self, calling: str) -> socket.socket:
        """Open an association."""
        connection = self.connect()
        connection.sendall(associate_rq(calling=calling, called=CALLED, maximum_length=0))
        kind, _ = read_pdu(connection)
        assert kind == 2, kind
        return connection


@contextmanager
def running_child(folder: Path) -> Iterator[Child]:
    """Run a receiver, durable, with peers told by network."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ours", str(port), str(folder / "node")],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    child = Child(process, port, folder / "node")
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                child.connect().close()
                break
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        yield child
    finally:
        process.terminate()
        process.wait(30)


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Read one PDU; type 0 when the peer closed."""
    head = _exactly(connection, 6)
    if len(head) < 6:
        return 0, b""
    return head[0], _exactly(connection, int.from_bytes(head[2:], "big"))


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            break
        found += part
    return found


@dataclass
class Honest:
    """A modality that opens an association, echoes, stores and releases, again and again.

    It asks for little, so that it shows what the receiver does to it and not how busy an attacker
    on the same two cores is.
    """

    child: Child
    echo_seconds: list[float] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Work until stopped."""
        while not self._stopping.is_set():
            try:
                self._associate()
            except (OSError, AssertionError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    def _associate(self) -> None:
        with self.child.associate(HONEST) as connection:
            for number in range(20):
                if self._stopping.wait(PAUSE_SECONDS):
                    break
                began = time.monotonic()
                connection.sendall(echo(number + 1))
                _, body = read_pdu(connection)
                assert status_of(body) == 0
                self.echo_seconds.append(time.monotonic() - began)
                uid = generate_uid()
                connection.sendall(store(str(uid), encoded(ct_image(SOPInstanceUID=uid))))
                _, body = read_pdu(connection)
                assert elements_of(body[6:])[0x0900] == 0
                self.stored.append(str(uid))
            connection.sendall(RELEASE_RQ)
            read_pdu(connection)

    @property
    def slowest_of_hundred(self) -> float:
        """99th percentile of the seconds that an echo took."""
        return sorted(self.echo_seconds)[int(len(self.echo_seconds) * 0.99)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Work inside the block."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(60)


def rate(child: Child, seconds: float) -> float:
    """Objects a second that an honest peer stores when nobody disturbs it."""
    honest = Honest(child)
    with honest.at_work():
        time.sleep(seconds)
    assert not honest.failures
    return len(honest.stored) / seconds
