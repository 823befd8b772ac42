"""What servers keep of what they acknowledged: ``python -m benchmarks.durability``.

Each server gets the same load over four associations, then its disk loses power, or it is killed;
afterwards every acknowledged instance is looked for in what is on the disk. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from benchmarks.acknowledged import Load, number_of, size_of
from benchmarks.ingest import machine
from benchmarks.loop_disk import LoopDisk
from benchmarks.servers import (
    ORTHANC,
    ORTHANC_FAST,
    OURS,
    OURS_FILES,
    SERVERS,
    STORESCP,
    STORESCP_DEFAULTS,
)
from storage.base import StoreUnavailable
from storage.objects import FileObjects
from tests.ports import await_port, free_port

ASSOCIATIONS = 4
WARM_UP = 12
DISK_BYTES = 1200 << 20
TABLE = Path(__file__).with_suffix(".md")

_SMALLER = {OURS: ("--ready-mib", "64")}
"""What an arena prepares must fit on the disk, and be made anew for every accident."""


def held_by_us(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Instances with a row, and what is stored for them."""
    store = FileObjects(folder / "data")
    for uid, key in _rows(folder / "node.db", "select sop_instance_uid, object_key from instance"):
        with contextlib.suppress(StoreUnavailable):
            yield number_of(uid), store.read(key)


def held_by_storescp(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Instances by the names of files; there is no index."""
    for path in folder.iterdir():
        with contextlib.suppress(ValueError):
            yield number_of(path.name), path.read_bytes()


def held_by_orthanc(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Instances in the index, and the files it names."""
    wanted = """select i.value, f.uuid from DicomIdentifiers i join AttachedFiles f on f.id = i.id
        where i.tagGroup = 8 and i.tagElement = 24 and f.fileType = 1"""
    for uid, name in _rows(folder / "index", wanted):
        path = folder / name[:2] / name[2:4] / name
        with contextlib.suppress(OSError):
            yield number_of(uid), path.read_bytes()


def _rows(path: Path, select: str) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute(select).fetchall()
        except sqlite3.DatabaseError:
            return []  # what cannot be read is lost


HOLDERS: dict[str, Callable[[Path], Iterable[tuple[int, bytes]]]] = {
    OURS: held_by_us,
    OURS_FILES: held_by_us,
    STORESCP: held_by_storescp,
    STORESCP_DEFAULTS: held_by_storescp,
    ORTHANC: held_by_orthanc,
    ORTHANC_FAST: held_by_orthanc,
}

_TEXT = """# What is left of what was acknowledged

`python -m benchmarks.durability --cuts {cuts} --kills {kills}`: CT images of 2, 60 and 400 KB over
{associations} associations; the accident comes 0.2 to 1.2 s after the load began. Lost: answered
with 0x0000 before it, and afterwards not in the index (where there is one), or without its file,
or with other pixels.

| server | power cuts | acknowledged | lost | cuts with loss | kills | acknowledged | lost |
| --- | --: | --: | --: | --: | --: | --: | --: |
{lines}

A power cut is `FS_IOC_SHUTDOWN` (NOLOGFLUSH) on ext4 in a file: what is only in the page cache, and
the tail of the journal, are gone. **It does not model a drive whose own cache lies about what is
flushed.** Before each load the server has stored some instances and the disk was flushed, so that
its folders and its index are not new. A server that does not flush loses what the kernel has not
written by itself: on ext4 as it comes the last 5 to 30 s, and these loads are shorter than that. A
kill leaves the page cache alone. Ours keeps objects in an arena, or each in a file (*files*).
Orthanc's defaults are its safest settings: it flushes its files (`SyncStorageArea`), but not each
commit of its index. storescp has no setting that flushes. The rates at which they acknowledge
differ, and so do the numbers of instances.

Machine: {cpu}, {cores} cores, load {load:.1f} at the end (others worked on it too), Linux {kernel},
Python {python}; {servers}.
"""


@dataclass
class Tally:
    """What became of a server's acknowledgements over many accidents."""

    accidents: int = 0
    with_loss: int = 0
    acknowledged: int = 0
    lost: int = 0

    def count(self, acknowledged: int, lost: int) -> None:
        """Add one accident."""
        self.accidents += 1
        self.with_loss += lost > 0
        self.acknowledged += acknowledged
        self.lost += lost


def accident(name: str, disk: LoopDisk, chance: random.Random, *, cut: bool) -> tuple[int, int]:
    """Let one accident happen under load; acknowledged and lost instances.

    What was stored first is flushed before the load begins, so that it is not the newness of the
    server's folders that is lost.
    """
    disk.empty()
    folder = disk.mount / "server"
    with _running(name, folder) as (process, port):
        first = Load(port, 0, 1, most=WARM_UP)
        first.start()
        first.join()
        os.sync()
        load = Load(port, WARM_UP, ASSOCIATIONS)
        load.start()
        time.sleep(chance.uniform(0.2, 1.2))
        accident_at = time.monotonic()
        if cut:
            disk.cut_power()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        load.join()
    if cut:
        disk.restart()
    whole = {number for number, file in HOLDERS[name](folder) if _is_whole(number, file)}
    acknowledged = load.acknowledged_before(accident_at)
    return len(acknowledged), sum(number not in whole for number in acknowledged)


@contextlib.contextmanager
def _running(name: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    process = subprocess.Popen(
        [*SERVERS[name].command(port, folder), *_SMALLER.get(name, ())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    try:
        try:
            await_port(port)
        except TimeoutError as error:
            raise TimeoutError(f"{name} does not start") from error
        yield process, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_whole(number: int, file: bytes) -> bool:
    """Whether a file holds the pixels that were sent; servers may write the header anew."""
    try:
        held = bytes(dcmread(BytesIO(file)).PixelData)
    except (InvalidDicomError, AttributeError, EOFError, OSError, ValueError):
        return False
    return held == hashlib.shake_128(str(number).encode()).digest(size_of(number))


def report(cuts: Mapping[str, Tally], kills: Mapping[str, Tally]) -> str:
    """Write the table."""
    facts = machine()
    return _TEXT.format(
        cuts=_count(cuts),
        kills=_count(kills),
        associations=ASSOCIATIONS,
        lines="\n".join(_line(name, cuts[name], kills[name]) for name in cuts),
        servers=_versions(facts),
        **facts,
    )


def _versions(facts: Mapping[str, object]) -> str:
    versions = facts["versions"]
    return "; ".join(map(str, versions.values())) if isinstance(versions, dict) else ""


def _count(tallies: Mapping[str, Tally]) -> int:
    return max((tally.accidents for tally in tallies.values()), default=0)


def _line(name: str, cut: Tally, kill: Tally) -> str:
    cells = (
        name, cut.accidents, cut.acknowledged, cut.lost, cut.with_loss,
        kill.accidents, kill.acknowledged, kill.lost,
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main(arguments: list[str]) -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durability")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    chosen = parser.parse_args(arguments)
    names = [name for name in HOLDERS if SERVERS[name].is_installed]
    cuts, kills = {name: Tally() for name in names}, {name: Tally() for name in names}
    chance = random.Random("durability")
    with tempfile.TemporaryDirectory() as folder, LoopDisk(Path(folder), DISK_BYTES) as disk:
        for number in range(max(chosen.cuts, chosen.kills)):
            for name in names:  # in turn, so that what else the machine does hits all alike
                if number < chosen.cuts:
                    cuts[name].count(*accident(name, disk, chance, cut=True))
                if number < chosen.kills:
                    kills[name].count(*accident(name, disk, chance, cut=False))
    text = report(cuts, kills)
    TABLE.write_text(text)
    print(text)
    return (
        1 if any(tally[name].lost for tally in (cuts, kills) for name in (OURS, OURS_FILES)) else 0
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
