"""The object store: write-once files whose names never come from a peer's text."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from storage.base import StoreBroken, StoreFull, StoreUnavailable
from storage.owner import is_dead, owner_of_this_process

_MOST_PARTS = 1000
"""Parts of one write; Linux takes 1024."""
_FOREIGN_SPOOL_SECONDS = 86400.0
_OWNER_PARTS = 6
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def object_key(folder: str, *parts: str) -> str:
    """Name of an object: ``<folder>/<2 hex>/<sha256 of the parts>.dcm``."""
    digest = hashlib.sha256("|".join(parts).encode()).hexdigest()
    return f"{folder}/{digest[:2]}/{digest}.dcm"


class Spool:
    """A file on its way in, under ``incoming/`` on the same file system.

    Raises
    ------
    StoreFull
        From any write, when there is no room.
    StoreBroken
        From `flush`, when the disk failed.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        with _disk_errors("create a file in incoming"):
            self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append."""
        view = memoryview(data)
        with _disk_errors("write to incoming"):
            while view:
                view = view[os.write(self._fd, view) :]

    def write_all(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append several, in one call of the system where that does."""
        with _disk_errors("write to incoming"):
            missing = sum(map(len, parts)) - os.writev(self._fd, parts[:_MOST_PARTS])
        if missing:
            done = os.lseek(self._fd, 0, os.SEEK_CUR)
            self._write_rest(parts, missing, done)

    def _write_rest(
        self, parts: Sequence[bytes | bytearray | memoryview], missing: int, done: int
    ) -> None:
        """Append the last bytes of parts of which the first were written."""
        at = done + missing
        for part in reversed(parts):
            at -= len(part)
        for part in parts:
            if at + len(part) > done:
                self.write(memoryview(part)[max(0, done - at) :])
            at += len(part)

    def view(self, start: int = 0) -> memoryview:
        """Look at what was written, from an offset on, without reading it into memory."""
        with _disk_errors("read from incoming"):
            return memoryview(mmap.mmap(self._fd, 0, prot=mmap.PROT_READ))[start:]

    def flush(self) -> None:
        """Put the bytes on disk (not yet the name) and close the file."""
        try:
            if self._durable:
                os.fdatasync(self._fd)
        except OSError as error:
            self.discard()
            raise _flush_failed(error) from error
        os.close(self._fd)
        self._fd = -1

    def discard(self) -> None:
        """Forget the file; harmless at any time."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            self.path.unlink()


class FileObjects:
    """Objects as files under one folder: ``incoming/`` (spools), ``objects/``, ``results/``.

    Parameters
    ----------
    root : Path
        The node's data folder.
    durable : bool
        Whether anything is flushed to disk. Without it a power cut loses acknowledged objects:
        for measurements only.
    """

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable
        self.incoming = root / "incoming"
        with _disk_errors(f"create folders under {root}"):
            for folder in (self.incoming, root / "objects", root / "results", root / "work"):
                folder.mkdir(parents=True, exist_ok=True)
        self._known: set[Path] = set()
        self._make_folders(root / "objects")

    def spool(self) -> Spool:
        """Start a new file."""
        owner = owner_of_this_process().replace("/", "+")
        path = self.incoming / f"{owner}+{uuid.uuid4().hex}.part"
        return Spool(path, durable=self._durable)

    def path(self, key: str) -> Path:
        """Where an object lies."""
        return self.root / key

    def publish(self, spools: Iterable[tuple[Spool, str]]) -> None:
        """Give flushed spools their names, and flush the names: one fsync per folder.

        When this returns the bytes and the names are durable (CP1).
        """
        folders = set()
        with _disk_errors("name an object"):
            for spool, key in spools:
                target = self.path(key)
                self._make_folder(target.parent)
                spool.path.rename(target)
                folders.add(target.parent)
        with _disk_errors("flush a folder"):
            for folder in folders if self._durable else ():
                fsync_folder(folder)

    def put(self, key: str, data: bytes) -> None:
        """Store one object durably."""
        spool = self.spool()
        try:
            spool.write(data)
            spool.flush()
            self.publish([(spool, key)])
        except BaseException:
            spool.discard()
            raise

    def read(self, key: str) -> bytes:
        """Bytes of an object."""
        try:
            return self.path(key).read_bytes()
        except OSError as error:
            raise StoreUnavailable(f"object {key} cannot be read ({error.strerror})") from error

    def remove(self, key: str) -> None:
        """Delete an object; harmless when it is gone already, or cannot be deleted now."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    def keys_older_than(self, seconds: float) -> Iterator[list[str]]:
        """List the keys of all objects and results of some age, a folder at a time."""
        for folder in sorted([*self.root.glob("objects/*"), *self.root.glob("results/*")]):
            keys = []
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > seconds:
                        keys.append(str(path.relative_to(self.root)))
            yield keys

    def sweep_incoming(self) -> int:
        """Delete spools of processes that are gone; nothing of them was ever acknowledged.

        Spools of another host, which cannot be judged from here, go when they are a day old.

        Returns
        -------
        int
            How many files were deleted.
        """
        swept = 0
        for path in self.incoming.iterdir():
            owner = path.name.replace("+", "/")
            with contextlib.suppress(FileNotFoundError):
                old = time.time() - path.stat().st_mtime > _FOREIGN_SPOOL_SECONDS
                if not (old or (owner.count("/") >= _OWNER_PARTS and is_dead(owner))):
                    continue
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                swept += 1
        return swept

    def free_bytes(self) -> tuple[int, int]:
        """Free and total bytes of the file system."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _make_folders(self, parent: Path) -> None:
        """Make all folders that keys can lead to, with one flush for all."""
        folders = [parent / f"{number:02x}" for number in range(256)]
        missing = [folder for folder in folders if not folder.is_dir()]
        with _disk_errors(f"create folders under {parent}"):
            for folder in missing:
                folder.mkdir(exist_ok=True)
        if missing:
            fsync_folder(parent)
        self._known.update(folders)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known:
            return
        folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(folder.parent)
        self._known.add(folder)


def fsync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise _flush_failed(error) from error
    finally:
        os.close(fd)


def _flush_failed(error: OSError) -> Exception:
    if error.errno in _NO_ROOM:
        return StoreFull("no room left on the disk of the data folder")
    return StoreBroken(f"flushing to disk failed ({error.strerror}); this process must restart")


@contextlib.contextmanager
def _disk_errors(act: str) -> Iterator[None]:
    """Translate what the disk says."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(f"cannot {act}: no room left on the disk of the data folder") from error
        raise StoreUnavailable(f"cannot {act}: {error.strerror}") from error
