"""What the disk says, in our words; and the calls that every kind of store needs."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage.base import StoreBroken, StoreFull, StoreUnavailable

MOST_PARTS = 1000
"""Parts of one write; Linux takes 1024."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Part = bytes | bytearray | memoryview


@contextlib.contextmanager
def disk_errors(act: str) -> Iterator[None]:
    """Translate what the disk says.

    Raises
    ------
    StoreFull
        There is no room.
    StoreUnavailable
        It cannot be used now.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(f"cannot {act}: no room left on the disk of the data folder") from error
        raise StoreUnavailable(f"cannot {act}: {error.strerror}") from error


def flush_failed(error: OSError) -> Exception:
    """Say what a failed flush means: full, or nobody knows what is on disk."""
    if error.errno in _NO_ROOM:
        return StoreFull("no room left on the disk of the data folder")
    return StoreBroken(f"flushing to disk failed ({error.strerror}); this process must restart")


def free_bytes(file: int | Path) -> int:
    """Room that the disk under a file or folder has for us."""
    found = os.statvfs(file)
    return found.f_bavail * found.f_frsize


def fsync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise flush_failed(error) from error
    finally:
        os.close(fd)


def write_all_at(fd: int, parts: Sequence[Part], at: int) -> int:
    """Write parts one after the other from an offset on; where they end."""
    for start in range(0, len(parts), MOST_PARTS):
        some = parts[start : start + MOST_PARTS]
        size = sum(map(len, some))
        done = os.pwritev(fd, some, at)
        if done < size:
            _write_rest(fd, some, at, done)
        at += size
    return at


def _write_rest(fd: int, parts: Sequence[Part], at: int, done: int) -> None:
    """Write what a call left out: a disk that is nearly full takes only some."""
    for part in parts:
        view = memoryview(part)[done:]
        done = max(0, done - len(part))
        at += len(part) - len(view)
        while view:
            count = os.pwrite(fd, view, at)
            view = view[count:]
            at += count
