"""Our receiver alone, as `scorenode serve` runs it: ``python -m benchmarks.ours PORT FOLDER``.

With ``--not-durable`` nothing is flushed to disk before the response: for comparison with
programs that never flush.
"""

from __future__ import annotations

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
from node.receive.receiver import Receiver, ReceiverSettings
from node.receive.store_service import StoreService
from node.routing import header_keys
from storage.database import Database
from storage.intake import Intake
from storage.migrate import migrate
from storage.objects import FileObjects


def main(port: int, folder: Path, *, durable: bool) -> None:
    """Receive until told to stop."""
    folder.mkdir(parents=True, exist_ok=True)
    log_setup.configure(sys.stderr, "info")
    database = Database(f"sqlite:///{folder / 'node.db'}")
    if not durable:
        sa.event.listen(database.engine, "connect", _never_flush)
    migrate(database)
    intake = Intake(database, FileObjects(folder / "data", durable=durable), _broken)
    keys = header_keys(())
    rows = AssociationRows(database)
    peers = (PeerRule("anybody", ("*",), (ip_network("127.0.0.0/8"),), 64),)
    settings = ReceiverSettings(CALLED.decode(), peers, "127.0.0.1", port)
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
    database.close()


def _never_flush(connection: object, _record: object) -> None:
    connection.execute("pragma synchronous=OFF")  # type: ignore[attr-defined]


def _broken(error: Exception) -> None:
    structlog.get_logger().error("disk.failed", error=type(error).__name__)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), durable="--not-durable" not in sys.argv)
