"""Where the receiver's time goes, stage by stage: ``python -m benchmarks.stages [--durable]``.

One thread stores generated instances without a network, so that every stage is timed alone; the
table is of medians, which a busy machine disturbs least. Stages that hold others are indented
above them.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.ours import never_flush
from benchmarks.studies import Prepared, generated, prepared
from node.receive import reception
from node.receive.identity import StoreRequest
from node.receive.store_service import StoreService
from node.routing import header_keys
from storage.arena import Arena
from storage.arena_rows import in_use
from storage.database import Database, Transaction
from storage.intake import Intake
from storage.intake_rows import IntakeRows
from storage.migrate import migrate
from storage.objects import FileObjects
from storage.prepared import Prepared as PreparedStatement

PDU_BYTES = 131_072
WARM_UP = 20
STAGES: tuple[tuple[Any, str, str], ...] = (
    (reception.Reception, "take", "digest of one fragment"),
    (reception.Reception, "finish", "all after the last fragment"),
    (reception, "scan", "  header walk"),
    (StoreService, "has_room", "  room on the disk"),
    (Arena, "write", "  copy into the arena"),
    (Intake, "accept", "  making it durable"),
    (Arena, "publish", "    flush of the bytes"),
    (IntakeRows, "record", "    rows, in one transaction"),
    (PreparedStatement, "_bound", "      values for one statement"),
    (Transaction, "driver_sql", "      one statement"),
)


@contextmanager
def timed() -> Iterator[dict[str, list[float]]]:
    """Time every call of the stages inside the block; seconds by the words of the stage."""
    found: dict[str, list[float]] = defaultdict(list)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in STAGES]
    for owner, name, words in STAGES:
        setattr(owner, name, _timing(getattr(owner, name), found[words]))
    try:
        yield found
    finally:
        for owner, name, call in before:
            setattr(owner, name, call)


def _timing(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    @functools.wraps(call)
    def timing(*arguments: Any, **values: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **values)
        finally:
            seconds.append(time.perf_counter() - began)

    return timing


@contextmanager
def started(folder: Path, *, durable: bool) -> Iterator[StoreService]:
    """Run what stores, with an arena that is ready."""
    database = Database(f"sqlite:///{folder / 'node.db'}")
    if not durable:
        sa.event.listen(database.engine, "connect", never_flush)
    migrate(database)
    objects = FileObjects(folder / "data", durable=durable)
    arena = Arena(objects.root, in_use(database), ready_bytes=256 << 20, durable=durable)
    intake = Intake(database, objects, _broken, arena)
    keys = header_keys(())
    arena.start()
    arena.await_ready(60)
    intake.start()
    try:
        yield StoreService(intake, lambda: keys)
    finally:
        intake.stop()
        arena.stop()
        database.close()


def _broken(error: Exception) -> None:
    raise error


def store(service: StoreService, instance: Prepared) -> None:
    """Store one instance as it comes from a peer."""
    sop_class = instance.sop_class_uid.decode()
    request = StoreRequest(
        sop_class,
        instance.sop_instance_uid.decode(),
        sop_class,
        instance.transfer_syntax_uid.decode(),
        "peer",
    )
    receiving = service.reception(request)
    data = memoryview(instance.data)
    for at in range(0, len(data), PDU_BYTES):
        receiving.take(data[at : at + PDU_BYTES])
    status, _ = receiving.finish()
    if status.code:
        raise RuntimeError(f"an instance was answered {status.code:#06x}")


def table(load: str, count: int, folder: Path, *, durable: bool) -> Iterator[str]:
    """Time one load and make the lines of its table."""
    instances = list(prepared(generated(folder / "sent", load, count + WARM_UP)))
    with started(folder, durable=durable) as service:
        for instance in instances[:WARM_UP]:
            store(service, instance)
        with timed() as found:
            for instance in instances[WARM_UP:]:
                store(service, instance)
    yield f"### {load}, {'durable' if durable else 'not durable'}"
    yield ""
    yield "| stage | median us | calls per instance |"
    yield "| --- | ---: | ---: |"
    for _, _, words in STAGES:
        seconds = found[words]
        median = 1e6 * statistics.median(seconds) if seconds else 0.0
        shown = words.replace("  ", "&nbsp; ")
        yield f"| {shown} | {median:.0f} | {len(seconds) / count:.1f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages")
    parser.add_argument("--durable", action="store_true", help="flush before each response")
    parser.add_argument("--count", type=int, default=280)
    parser.add_argument("--folder", type=Path, help="where to write; deleted at the end")
    chosen = parser.parse_args()
    for name in ("ct", "tiny"):
        with tempfile.TemporaryDirectory(prefix="stages-", dir=chosen.folder) as place:
            print(*table(name, chosen.count, Path(place), durable=chosen.durable), "", sep="\n")
