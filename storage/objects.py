"""The object store: write-once files whose names never come from a peer's text."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from storage.arena_segment import is_arena_key, range_of, segment_path
from storage.base import StoreUnavailable
from storage.disk import disk_errors, flush_failed, fsync_folder, write_all_at
from storage.owner import is_dead, owner_of_this_process
from storage.place import Place

_FOREIGN_SPOOL_SECONDS = 86400.0
_OWNER_PARTS = 6
_COMPARED_BYTES = 1 << 20


def object_key(folder: str, *parts: str) -> str:
    """Name of an object: ``<folder>/<2 hex>/<sha256 of the parts>.dcm``."""
    digest = hashlib.sha256("|".join(parts).encode()).hexdigest()
    return f"{folder}/{digest[:2]}/{digest}.dcm"


def fresh_key() -> str:
    """Name of an object that is received: nothing of it comes from the peer.

    A file belongs to one row only: deleting one never takes another's bytes away.
    """
    name = uuid.uuid4().hex
    return f"objects/{name[:2]}/{name}.dcm"


class Spool:
    """A file on its way in, under ``incoming/`` on the same file system.

    Raises
    ------
    StoreFull
        From any write, when there is no room.
    StoreBroken
        From `flush`, when the disk failed.
    """

    def __init__(self, store: FileObjects, path: Path, key: str, *, durable: bool = True) -> None:
        self.store = store
        self.key = key
        self.path = path
        self._durable = durable
        self._size = 0
        with disk_errors("create a file in incoming"):
            self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def write_all(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append, in one call of the system where that does."""
        with disk_errors("write to incoming"):
            self._size = write_all_at(self._fd, parts, self._size)

    def view(self, start: int = 0) -> memoryview:
        """Look at what was written, from an offset on, without reading it into memory."""
        with disk_errors("read from incoming"):
            return memoryview(mmap.mmap(self._fd, 0, prot=mmap.PROT_READ))[start:]

    def flush(self) -> None:
        """Put the bytes on disk (not yet the name) and close the file."""
        try:
            if self._durable:
                os.fdatasync(self._fd)
        except OSError as error:
            self.discard()
            raise flush_failed(error) from error
        os.close(self._fd)
        self._fd = -1

    def discard(self) -> None:
        """Forget the file, unless it has its name; harmless at any time."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            self.path.unlink()

    def settle(self, *, kept: bool) -> None:
        """Note whether a row refers to it; where nobody knows, one may."""
        if not kept:
            self.store.remove(self.key)


class Incoming(Protocol):
    """An object on its way in: a `Spool`, or a slot of an arena."""

    @property
    def key(self) -> str:
        """Its name in the store."""

    @property
    def store(self) -> Any:
        """What publishes it, many at a time."""

    def flush(self) -> None:
        """Put its bytes on disk, where that is not done for many at once."""

    def discard(self) -> None:
        """Forget it; nobody was told of it."""

    def settle(self, *, kept: bool) -> None:
        """Note whether a row refers to it."""


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
        with disk_errors(f"create folders under {root}"):
            for folder in (self.incoming, root / "objects", root / "results", root / "work"):
                folder.mkdir(parents=True, exist_ok=True)
        owner_of_this_process()  # read now: out of descriptors, it could not be
        self._known: set[Path] = set()
        self._make_folders(root / "objects")

    def spool(self, key: str = "") -> Spool:
        """Start a new file, for an object of this name or of a fresh one."""
        owner = owner_of_this_process().replace("/", "+")
        path = self.incoming / f"{owner}+{uuid.uuid4().hex}.part"
        return Spool(self, path, key or fresh_key(), durable=self._durable)

    def place(self, key: str) -> Place:
        """Where an object lies."""
        if is_arena_key(key):
            segment, offset, length = range_of(key)
            return Place(segment_path(self.root, segment), offset, length)
        return Place(self.root / key)

    def path(self, key: str) -> Path:
        """File of an object that has one of its own, as results have."""
        return self.root / key

    def publish(self, spools: Sequence[Spool]) -> None:
        """Give flushed spools their names, and flush the names: one fsync per folder.

        When this returns the bytes and the names are durable (CP1).
        """
        folders = set()
        with disk_errors("name an object"):
            for spool in spools:
                target = self.path(spool.key)
                self._make_folder(target.parent)
                spool.path.rename(target)
                folders.add(target.parent)
        with disk_errors("flush a folder"):
            for folder in folders if self._durable else ():
                fsync_folder(folder)

    def put(self, key: str, data: bytes) -> None:
        """Store one object durably."""
        spool = self.spool(key)
        try:
            spool.write_all([data])
            spool.flush()
            self.publish([spool])
        except BaseException:
            spool.discard()
            raise

    def read(self, key: str) -> bytes:
        """Bytes of an object."""
        try:
            return self.place(key).read()
        except OSError as error:
            raise StoreUnavailable(f"object {key} cannot be read ({error.strerror})") from error

    def same_data(self, one: str | Place, other: str, size: int) -> bool | None:
        """Whether two objects, given by key or place, end in the same data set of so many bytes.

        Returns
        -------
        bool or None
            None: `other` cannot be read, so that nobody can tell.

        Raises
        ------
        StoreUnavailable
            The first cannot be read.
        """
        try:
            with (one if isinstance(one, Place) else self.place(one)).open() as first:
                first.seek(-size, os.SEEK_END)
                try:
                    with self.place(other).open() as second:
                        return _rest_is_same(first, second, size)
                except OSError:
                    return None
        except OSError as error:
            raise StoreUnavailable(f"an object cannot be read ({error.strerror})") from error

    def remove(self, key: str) -> None:
        """Delete a file; harmless when it is gone already, or cannot be deleted now.

        An object of an arena is overwritten by `storage.arena_segment.purge`.
        """
        if not is_arena_key(key):
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
        with disk_errors(f"create folders under {parent}"):
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


def _rest_is_same(one: IO[bytes], two: IO[bytes], size: int) -> bool:
    two.seek(-size, os.SEEK_END)
    while block := one.read(_COMPARED_BYTES):
        if block != two.read(_COMPARED_BYTES):
            return False
    return True
