"""Where an object lies: a file, or a range of one."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TEXT = re.compile(r"(?s)(.*)#(\d+)\+(\d+)")


@dataclass(frozen=True)
class Place:
    """A file, or a range of one.

    Parameters
    ----------
    path : Path
    offset : int
    length : int or None
        None: to the end of the file.
    """

    path: Path
    offset: int = 0
    length: int | None = None

    @classmethod
    def from_text(cls, text: str) -> Place:
        """Read ``PATH`` or ``PATH#OFFSET+LENGTH``."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return cls(Path(text))
        return cls(Path(found[1]), int(found[2]), int(found[3]))

    @classmethod
    def of(cls, path: Path | Place) -> Place:
        """Take a place, or all of a file."""
        return path if isinstance(path, Place) else cls(path)

    def __str__(self) -> str:
        if self.length is None:
            return str(self.path)
        return f"{self.path}#{self.offset}+{self.length}"

    @property
    def size(self) -> int:
        """Bytes of the object."""
        if self.length is not None:
            return self.length
        return self.path.stat().st_size - self.offset

    def read(self) -> bytes:
        """Bytes of the object.

        Raises
        ------
        OSError
            The file cannot be read, or ends before the object does.
        """
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), self.size, self.offset)
            while len(data) < self.size:
                more = os.pread(file.fileno(), self.size - len(data), self.offset + len(data))
                if not more:
                    raise OSError(None, f"{self.path.name} is shorter than its objects")
                data += more
        return data

    def open(self) -> BinaryIO:
        """Open the object as a file of its own, to be closed by the caller."""
        if self.length is None and not self.offset:
            return self.path.open("rb")
        return io.BytesIO(self.read())


class OpenFile:
    """The file that was read last, kept open: objects often lie one after the other in one."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._handle = -1

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle(self, path: Path) -> int:
        """Return the descriptor of a file, for reading; valid until the next call.

        Raises
        ------
        OSError
            The file cannot be opened.
        """
        if path != self._path:
            self.close()
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._path = path
        return self._handle

    def close(self) -> None:
        """Close it."""
        if self._path is not None:
            self._path = None
            os.close(self._handle)
