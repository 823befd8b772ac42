"""Our receiver alone, as `scorenode serve` runs it: ``python -m benchmarks.ours PORT FOLDER``.

With ``--not-durable`` nothing is flushed to disk before the response: for comparison with
programs that never flush. ``--store arena`` (default) or ``files`` says how objects are kept.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from ipaddress import ip_network
from pathlib import Path

import sqlalchemy as sa
import structlog

from benchmarks.sender import CALLED
from node import log as log_setup
from node.receive.access import PeerRule
from node.receive.association_rows import AssociationRows
from node.receive.receiver import Receiver
from node.receive.settings import ReceiverSettings, TLSSettings
from node.receive.store_service import StoreService
from node.receive.tls import TLSFiles
from node.routing import header_keys
from storage.arena import Arena
from storage.arena_rows import in_use
from storage.database import Database
from storage.intake import Intake
from storage.migrate import migrate
from storage.objects import FileObjects

READY_MIB = 512


def main(
    port: int,
    folder: Path,
    store: str,
    ready_mib: int,
    *,
    durable: bool,
    tls: TLSFiles | None = None,
) -> None:
    """Receive until told to stop; only over TLS where there are files for it."""
    folder.mkdir(parents=True, exist_ok=True)
    log_setup.configure(sys.stderr, "info")
    database = Database(f"sqlite:///{folder / 'node.db'}")
    if not durable:
        sa.event.listen(database.engine, "connect", never_flush)
    migrate(database)
    objects = FileObjects(folder / "data", durable=durable)
    arena = None
    if store == "arena":
        # As a node is that has run for a while: its segments have been written to before.
        arena = Arena(objects.root, in_use(database), ready_bytes=ready_mib << 20, durable=durable)
        arena.start()
        arena.await_ready(60)
    intake = Intake(database, objects, _broken, arena)
    keys = header_keys(())
    rows = AssociationRows(database)
    here = (ip_network("127.0.0.0/8"),)
    peers = (PeerRule("anybody", ("*",), here, 512, needs_certificate=False),)
    settings = ReceiverSettings(
        CALLED.decode(),
        peers,
        "127.0.0.1",
        port,
        max_associations=512,
        is_plain=tls is None,
        tls=TLSSettings(tls, "127.0.0.1", port) if tls else None,
    )
    receiver = Receiver(StoreService(intake, lambda: keys), settings, rows)
    intake.start()
    rows.start()
    receiver.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    stopping.wait()
    receiver.stop()
    rows.stop()
    intake.stop()
    if arena is not None:
        arena.stop()
    database.close()


def _tls_files(certificate: Path, key: Path) -> TLSFiles:
    return TLSFiles(certificate, key, authorities=certificate)


def never_flush(connection: object, _record: object) -> None:
    """Let SQLite leave flushing to the system."""
    connection.execute("pragma synchronous=OFF")  # type: ignore[attr-defined]


def _broken(error: Exception) -> None:
    structlog.get_logger().error("disk.failed", error=type(error).__name__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ours")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--not-durable", action="store_true")
    parser.add_argument("--store", choices=("arena", "files"), default="arena")
    parser.add_argument("--ready-mib", type=int, default=READY_MIB)
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERTIFICATE", "KEY"))
    chosen = parser.parse_args()
    main(
        chosen.port,
        chosen.folder,
        chosen.store,
        chosen.ready_mib,
        durable=not chosen.not_durable,
        tls=_tls_files(*chosen.tls) if chosen.tls else None,
    )
