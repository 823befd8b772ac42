"""A file that keeps room: given up when the disk is full, so that what must be written still can.

Objects are refused long before (`node.disk.refuse_free`); but results, rows, logs and other
programs may fill the rest, and then nothing could be committed or even deleted any more.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from storage.base import StoreUnavailable

LARGEST_SHARE = 50
"""At most one part in so many of a disk."""

_GIVEN_UP_BELOW = 4
"""Given up when less than one part in so many of it is free besides."""


class Ballast:
    """One file of a fixed size in the data folder; any number of processes may look after it.

    Parameters
    ----------
    folder : Path
        The data folder.
    size_bytes : int
        0: no ballast. A small disk gets a smaller one.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._path = folder / "ballast"
        self._folder = folder
        self._wanted = size_bytes

    @property
    def held_bytes(self) -> int:
        """How much room it keeps now."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    @property
    def missing_bytes(self) -> int:
        """How much room it would still take: free space that is not free for objects."""
        try:
            return max(0, self._size(self._total()) - self.held_bytes)
        except OSError:
            return 0

    def tend(self) -> int:
        """Give it up where the disk is full, or make it again where there is room.

        Returns
        -------
        int
            By how many bytes it grew; negative: it was given up.

        Raises
        ------
        StoreUnavailable
            The disk cannot be used.
        """
        try:
            free, size, held = self._free(), self._size(self._total()), self.held_bytes
            if held and (free < held // _GIVEN_UP_BELOW or held != size):
                return -self.release()
            if not held and size and free >= 2 * size:
                return self._make(size)
        except OSError as error:
            raise StoreUnavailable(f"the ballast cannot be kept ({error.strerror})") from error
        return 0

    def release(self) -> int:
        """Give its room to whoever needs it; how much that is."""
        held = self.held_bytes
        try:
            self._path.unlink()
        except OSError:
            return 0
        return held

    def _make(self, size: int) -> int:
        """Allocate it, on disk before it has its name."""
        draft = self._path.with_name("ballast.new")
        draft.unlink(missing_ok=True)  # of a process that died over it
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
            draft.rename(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        finally:
            os.close(fd)
        return size

    def _size(self, total: int) -> int:
        return min(self._wanted, total // LARGEST_SHARE)

    def _free(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _total(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_blocks * found.f_frsize
