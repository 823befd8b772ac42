"""The arena: small objects lie one after the other in large files that are used again and again.

A file for each object makes the file system allocate blocks and commit its journal for every
flush; a segment that was written to before needs neither, and one flush serves all objects that
were written to it meanwhile. Each object is a complete Part 10 file that begins at a multiple of
4 KiB; 64 bytes before it say how long it is and what its digest is, so that a segment can be read
without the database.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.arena_segment import (
    BLOCK_BYTES,
    RECORD_BYTES,
    ZEROS,
    aligned,
    clear,
    key_of,
    overwrite,
    record,
    segment_path,
)
from storage.base import StoreFull, StoreUnavailable
from storage.disk import disk_errors, flush_failed, free_bytes, fsync_folder, write_all_at

SEGMENT_BYTES = 64 << 20
LARGEST_OBJECT = SEGMENT_BYTES // 16
FULL_ENOUGH = 0.9
"""A segment that is filled so far is not taken up again."""

_RETRY_SECONDS = 5.0

InUse = Callable[[int], int]
"""From the number of a segment to where the last object ends that a row refers to; 0: none."""


@dataclass
class _Segment:
    """One file that this process writes to, and locks."""

    number: int
    fd: int
    size: int
    end: int = 0
    pending: int = 0
    is_left: bool = False


class Slot:
    """An object on its way in: its bytes have their place, nothing is flushed yet."""

    def __init__(self, arena: Arena, segment: _Segment, offset: int, length: int) -> None:
        self.store = arena
        self.key = key_of(segment.number, offset, length)
        self.segment = segment
        self.offset = offset
        self.length = length

    def flush(self) -> None:
        """Nothing: one flush serves a whole batch, see `Arena.publish`."""

    def discard(self) -> None:
        """Forget the object; nobody was told of it."""
        self.store.release(self, kept=False)

    def settle(self, *, kept: bool) -> None:
        """Note whether a row refers to it; where nobody knows, one may."""
        self.store.release(self, kept=kept)


class Arena:
    """Writes objects into segments of one data folder; from many threads.

    A thread prepares segments ahead: new ones are filled with zeros once, those whose objects
    have all been deleted are taken again. While none is ready, `write` gives None and the caller
    writes a file instead, so that nobody waits. Several processes may share the folder: a segment
    is locked by the one that writes to it.

    Parameters
    ----------
    root : Path
        The node's data folder, on a local disk.
    in_use : callable
        Says what of a segment rows refer to.
    ready_bytes : int
        How much is kept prepared.
    segment_bytes : int
    settled_seconds : float
        How long nobody must have written to a segment before another process takes it up: longer
        than a commit can be under way at a database server after its client has died.
    durable : bool
        Whether anything is flushed; for measurements only.
    """

    def __init__(
        self,
        root: Path,
        in_use: InUse,
        *,
        ready_bytes: int = 4 * SEGMENT_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        settled_seconds: float = 0.0,
        durable: bool = True,
    ) -> None:
        self.root = root
        self._folder = root / "arena"
        self._in_use = in_use
        self._wanted = max(1, ready_bytes // segment_bytes)
        self._segment_bytes = segment_bytes
        self._settled_seconds = settled_seconds
        self._durable = durable
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ready: list[_Segment] = []
        self._held: set[int] = set()
        self._current: _Segment | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="arena", daemon=True)
        with disk_errors(f"create {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def largest_object(self) -> int:
        """Bytes of the longest object that is written here."""
        return self._segment_bytes // 16

    def start(self) -> None:
        """Start preparing segments."""
        self._thread.start()

    def await_ready(self, seconds: float) -> bool:
        """Wait until enough is prepared, for so long at most; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._wanted, seconds)

    def stop(self) -> None:
        """Stop preparing and let go of all segments. Stop the intake first."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            current, self._current = self._current, None
            for segment in (*self._ready, *([current] if current else [])):
                os.close(segment.fd)
            self._ready.clear()

    @property
    def _is_low(self) -> bool:
        return len(self._ready) <= self._wanted // 2

    # -- objects ---------------------------------------------------------------------------

    def write(
        self, parts: Sequence[bytes | bytearray | memoryview], size: int, digest: bytes
    ) -> Slot | None:
        """Write an object to its place; nothing is flushed yet.

        Parameters
        ----------
        parts : sequence of bytes-like
            The Part 10 file.
        size : int
            Bytes of all parts together.
        digest : bytes
            16 bytes, kept beside the object.

        Returns
        -------
        Slot or None
            None: it is too long, or no segment is ready; write a file.

        Raises
        ------
        StoreUnavailable
            The disk does not take it.
        """
        if size > self.largest_object:
            return None
        place = self._reserve(size)
        if place is None:
            return None
        segment, offset = place
        slot = Slot(self, segment, offset, size)
        try:
            with disk_errors("write to the arena"):
                start = offset - RECORD_BYTES
                write_all_at(segment.fd, [record(size, digest), *parts], start)
        except BaseException:
            slot.settle(kept=True)  # its place is left empty
            raise
        return slot

    def publish(self, slots: Sequence[Slot]) -> None:
        """Flush what was written: one flush for each segment (CP1).

        Raises
        ------
        StoreBroken, StoreFull
            It is not on disk.
        """
        if not self._durable:
            return
        for fd in {slot.segment.fd for slot in slots}:
            try:
                os.fdatasync(fd)
            except OSError as error:
                raise flush_failed(error) from error

    def release(self, slot: Slot, *, kept: bool) -> None:
        """Note that nobody waits for a slot any more; where it is not kept, overwrite it."""
        segment = slot.segment
        if not kept:
            overwrite(segment.fd, slot.offset, slot.length)
        with self._lock:
            segment.pending -= 1
            if not kept and segment.end == slot.offset + slot.length:
                segment.end = slot.offset - RECORD_BYTES
            if segment.is_left and not segment.pending:
                self._let_go(segment)

    def _reserve(self, size: int) -> tuple[_Segment, int] | None:
        """Find a place for an object."""
        with self._lock:
            for _ in range(2):
                segment = self._current
                if segment is not None:
                    offset = aligned(segment.end + RECORD_BYTES)
                    if offset + size <= segment.size:
                        segment.end = offset + size
                        segment.pending += 1
                        return segment, offset
                    self._leave(segment)
                self._current = self._ready.pop(0) if self._ready else None
                self._changed.notify_all()
                if self._current is None:
                    return None
        return None

    def _leave(self, segment: _Segment) -> None:
        """Write to it no more; the lock stays until its last object has its row."""
        self._current = None
        segment.is_left = True
        if not segment.pending:
            self._let_go(segment)

    def _let_go(self, segment: _Segment) -> None:
        os.close(segment.fd)
        self._held.discard(segment.number)

    # -- segments --------------------------------------------------------------------------

    def _run(self) -> None:
        """Prepare segments until stopped."""
        while True:
            with self._changed:
                if len(self._ready) >= self._wanted:
                    # Not at once: who just filled a segment will write to the disk for a while.
                    self._changed.wait_for(lambda: self._is_stopping or self._is_low)
                if self._is_stopping:
                    return
            try:
                segment = self._prepared()
            except (StoreUnavailable, StoreFull, OSError):
                segment = None  # files are written meanwhile
            with self._changed:
                if segment is not None:
                    self._ready.append(segment)
                    self._changed.notify_all()
                else:
                    self._changed.wait_for(lambda: self._is_stopping, _RETRY_SECONDS)

    def _prepared(self) -> _Segment | None:
        """Take a segment that has room, or make one."""
        numbers = sorted(int(path.stem) for path in self._folder.glob("*.seg"))
        for number in numbers:
            if number not in self._held and (segment := self._taken(number)) is not None:
                return segment
        return self._made(numbers[-1] + 1 if numbers else 1)

    def _taken(self, number: int) -> _Segment | None:
        """Lock a segment and take it if it has room; None when it has not, or another's."""
        fd = os.open(segment_path(self.root, number), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = self._in_use(number)
            if end > FULL_ENOUGH * self._segment_bytes or not self._is_settled(fd):
                os.close(fd)
                return None
            clear(fd, end, os.fstat(fd).st_size)
            self._fill(fd)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        self._held.add(number)
        return _Segment(number, fd, self._segment_bytes, end)

    def _is_settled(self, fd: int) -> bool:
        """Whether nobody can still be about to refer to what was written last."""
        found = os.fstat(fd)
        return (
            found.st_size < self._segment_bytes
            or time.time() - found.st_mtime >= self._settled_seconds
        )

    def _made(self, number: int) -> _Segment | None:
        """Make a segment and fill it with zeros."""
        path = segment_path(self.root, number)
        with disk_errors("make a segment of the arena"):
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                return None  # another process was faster
            if self._durable:
                fsync_folder(self._folder)
        return self._taken(number)

    def _fill(self, fd: int) -> None:
        """Write zeros up to the full size, so that every block is allocated and written.

        The last room of a disk is for what arrives, not for what is prepared: nothing is taken
        unless as much again stays free, and what was taken is given back if it fills up meanwhile.
        """
        size = os.fstat(fd).st_size
        with disk_errors("prepare a segment of the arena"):
            if size < self._segment_bytes and free_bytes(fd) < 2 * self._segment_bytes - size:
                raise StoreFull("too little room to prepare a segment of the arena")
            at = size // BLOCK_BYTES * BLOCK_BYTES
            try:
                while at < self._segment_bytes and not self._is_stopping:
                    at += os.pwrite(fd, ZEROS[: self._segment_bytes - at], at)
                    time.sleep(0)
            except OSError:
                os.ftruncate(fd, size)
                raise
            if at < self._segment_bytes:
                raise StoreUnavailable("stopped while a segment was prepared")
            if self._durable:
                os.fsync(fd)
