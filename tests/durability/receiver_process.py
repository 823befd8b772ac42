"""A receiver in a process of its own, to be killed: ``receiver_process FOLDER [STORE]``.

It is put together as `scorenode serve` does it: SQLite with full flushing, leftovers swept at the
start, and an end of its own when the disk fails.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.sender import CALLED
from node import log as log_setup
from node.processes import die_of_disk
from node.receive.access import PeerRule
from node.receive.association_rows import AssociationRows
from node.receive.receiver import Receiver
from node.receive.settings import ReceiverSettings
from node.receive.store_service import StoreService
from node.routing import header_keys
from storage.arena import Arena
from storage.arena_rows import in_use
from storage.database import Database
from storage.intake import Intake
from storage.migrate import migrate
from storage.objects import FileObjects

STORES = ("files", "arena")
"""Ways to keep objects: each in a file, or small ones in an arena."""

READY_BYTES = 32 << 20
"""What an arena keeps prepared: little, so that segments are prepared and left under the load."""

ANYBODY = (PeerRule("anybody", ("*",), (ip_network("127.0.0.0/8"),), 64),)

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])
_START_SECONDS = 60.0


def chosen_stores() -> tuple[str, ...]:
    """Ways to keep objects that are to be tried: ``SCORENODE_STORE``, else all."""
    chosen = os.environ.get("SCORENODE_STORE")
    return (chosen,) if chosen else STORES


def times(variable: str, default: int) -> int:
    """How often an accident happens to each store; the variable says how often to all."""
    return -(-int(os.environ.get(variable, default)) // len(chosen_stores()))


@dataclass(frozen=True)
class Setup:
    """What a receiver is started with.

    Parameters
    ----------
    folder : Path
        The database and the objects.
    store : str
        One of `STORES`.
    free_bytes : int
        What must stay free on the disk.
    peers : tuple of PeerRule
    max_associations : int
    """

    folder: Path
    store: str
    free_bytes: int = 0
    peers: tuple[PeerRule, ...] = ANYBODY
    max_associations: int = 64


def serve(setup: Setup, ready: Connection | None, port: int = 0) -> None:
    """Receive until told to stop; says port and swept leftovers once it listens."""
    log_setup.configure(sys.stderr, "error")
    setup.folder.mkdir(parents=True, exist_ok=True)
    database = Database(f"sqlite:///{setup.folder / 'node.db'}")
    migrate(database)
    objects = FileObjects(setup.folder / "data")
    swept = objects.sweep_incoming()
    arena = None
    if setup.store == "arena":
        arena = Arena(objects.root, in_use(database), ready_bytes=READY_BYTES)
        arena.start()
        arena.await_ready(_START_SECONDS)
    intake = Intake(database, objects, die_of_disk, arena)
    keys = header_keys(())
    service = StoreService(intake, lambda: keys, lambda total: setup.free_bytes)
    rows = AssociationRows(database)
    settings = ReceiverSettings(
        CALLED.decode(), setup.peers, "127.0.0.1", port, setup.max_associations
    )
    receiver = Receiver(service, settings, rows)
    intake.start()
    rows.start()
    receiver.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    if ready is not None:
        ready.send((receiver.port, swept))
    stopping.wait()
    receiver.stop()
    rows.stop()
    intake.stop()
    if arena is not None:
        arena.stop()
    database.close()


class ReceiverProcess:
    """A receiver that runs in a process of its own; killed at the end where it still runs.

    It is forked from a process that has everything imported, so that it listens within a moment.

    Parameters
    ----------
    setup : Setup
    """

    def __init__(self, setup: Setup) -> None:
        here, there = multiprocessing.Pipe(duplex=False)
        self._process = _SERVER.Process(target=serve, args=(setup, there))
        self._process.start()
        there.close()
        if not here.poll(_START_SECONDS):
            self.kill()
            raise TimeoutError("the receiver did not start")
        self.port, self.swept = here.recv()
        here.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        if self._process.pid is None:
            raise AssertionError("it was started")
        return self._process.pid

    def kill(self) -> None:
        """Kill it and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Let it end by itself."""
        self._process.terminate()
        self._process.join()

    def exit_status(self, seconds: float) -> int | None:
        """Wait for its end, for so long at most; None: it goes on."""
        self._process.join(seconds)
        return self._process.exitcode

    def __enter__(self) -> ReceiverProcess:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        words = sys.argv[1:]
        serve(Setup(Path(words[0]), words[1] if len(words) > 1 else "files"), None, 11112)
