"""A file of the arena: names of the objects in it, the record before each, and overwriting.

Each object begins at a multiple of 4 KiB; 64 bytes before it say how long it is and what its digest
is, so that a segment can be read without the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from storage.disk import disk_errors

BLOCK_BYTES = 4096
RECORD_BYTES = 64

_RECORD = struct.Struct("<8sQ16s")
_CHECK = struct.Struct("<I")
_MAGIC = b"SCNARENA"
ZEROS = bytes(1 << 20)


def key_of(segment: int, offset: int, length: int) -> str:
    """Name of an object; names of a segment sort by offset."""
    return f"arena/{segment:06d}/{offset:012d}+{length}.dcm"


def is_arena_key(key: str) -> bool:
    """Whether a key names an object of an arena."""
    return key.startswith("arena/")


def range_of(key: str) -> tuple[int, int, int]:
    """Segment, offset and length of the object that a key names."""
    _, segment, name = key.split("/")
    offset, _, length = name.removesuffix(".dcm").partition("+")
    return int(segment), int(offset), int(length)


def segment_path(root: Path, segment: int) -> Path:
    """File of a segment under the node's data folder."""
    return root / "arena" / f"{segment:06d}.seg"


def record(size: int, digest: bytes) -> bytes:
    """Encode what stands before an object."""
    body = _RECORD.pack(_MAGIC, size, digest)
    return (body + _CHECK.pack(zlib.crc32(body))).ljust(RECORD_BYTES, b"\0")


def records(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Walk a segment: offset, length and digest of each object that has a valid record.

    Some of them may never have been acknowledged: only the database knows.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = BLOCK_BYTES
        while offset < size:
            file.seek(offset - RECORD_BYTES)
            found = file.read(RECORD_BYTES)
            body = found[: _RECORD.size]
            magic, length, digest = _RECORD.unpack(body)
            check = _CHECK.unpack_from(found, _RECORD.size)[0]
            if magic == _MAGIC and check == zlib.crc32(body) and offset + length <= size:
                yield offset, length, digest
                offset = aligned(offset + length + RECORD_BYTES)
            else:
                offset += BLOCK_BYTES


def overwrite(fd: int, offset: int, length: int) -> None:
    """Put zeros where an object and its record were; harmless when that fails now."""
    at, end = offset - RECORD_BYTES, offset + length
    with contextlib.suppress(OSError):
        while at < end:
            at += os.pwrite(fd, ZEROS[: end - at], at)


def purge(root: Path, segment: int, ranges_of: Callable[[int], list[tuple[int, int]]]) -> bool:
    """Overwrite all of a segment that no row refers to any more.

    Parameters
    ----------
    root : Path
        The node's data folder.
    segment : int
    ranges_of : callable
        From the segment to offset and length of each object that rows refer to; asked once the
        segment is locked, so that nothing can be written to it meanwhile.

    Returns
    -------
    bool
        False when a process writes to the segment now: try again later.
    """
    try:
        fd = os.open(segment_path(root, segment), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        at = 0
        for offset, length in sorted(ranges_of(segment)):
            clear(fd, at, offset - RECORD_BYTES)
            at = offset + length
        clear(fd, at, os.fstat(fd).st_size)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def clear(fd: int, at: int, end: int) -> None:
    """Put zeros where there are none yet."""
    with disk_errors("overwrite deleted objects"):
        while at < end:
            size = min(len(ZEROS), end - at)
            if os.pread(fd, size, at) != ZEROS[:size]:
                os.pwrite(fd, ZEROS[:size], at)
            at += size


def aligned(offset: int) -> int:
    """Where the next block begins."""
    return -(-offset // BLOCK_BYTES) * BLOCK_BYTES
