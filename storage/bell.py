"""Bells: processes of one host that share a data folder wake each other without polling.

A ring says only "look again". One that is lost costs a moment until the next look by the clock:
nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

FOLDER = "bells"
COORDINATOR, TASKS = "coordinator", "tasks"
"""Names of bells: an association ended; a task was committed."""


class Rings:
    """Counts rings in one process, so that one that came before somebody waited is not missed."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()

    def listen(self) -> None:
        """Be ready for rings."""

    def ring(self) -> None:
        """Wake who waits. Never raises."""
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def wait_after(self, count: int, seconds: float) -> int:
        """Wait until there were more rings than `count`, at most so long; how many there were."""
        with self._changed:
            self._changed.wait_for(lambda: self.count != count, seconds)
            return self.count

    def close(self) -> None:
        """Hear no more."""


class Bell(Rings):
    """Rings that reach every process of this host which listens under the same name.

    Where there are no such sockets (another system than Linux, a folder that cannot be written),
    rings stay in this process.

    Parameters
    ----------
    root : Path
        The data folder; sockets lie in ``bells/``, and who may write there may ring.
    name : str
    """

    def __init__(self, root: Path, name: str) -> None:
        super().__init__()
        self._root = root
        self._prefix = f"{name}.{socket.gethostname().replace('.', '-')[:64]}."
        self._file = self._prefix + secrets.token_hex(4)
        self._socket: socket.socket | None = None

    def listen(self) -> None:
        """Hear other processes from now on, in a thread."""
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _named_briefly(self._root / FOLDER) as folder:
                heard.bind(f"{folder}/{self._file}")
        except OSError:
            heard.close()
            return
        self._socket = heard
        threading.Thread(target=self._hear, args=(heard,), name="bell", daemon=True).start()

    def ring(self) -> None:
        """Wake who waits, here and in other processes. Never raises."""
        super().ring()
        with (
            contextlib.suppress(OSError),
            _named_briefly(self._root / FOLDER) as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out,
        ):
            out.setblocking(False)
            for file in Path(folder).glob(self._prefix + "*"):
                if file.name != self._file:
                    _send(out, file)

    def close(self) -> None:
        """Hear no more, and leave no socket."""
        if self._socket is not None:
            heard, self._socket = self._socket, None
            with contextlib.suppress(OSError):
                (self._root / FOLDER / self._file).unlink()
                heard.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it

    def _hear(self, heard: socket.socket) -> None:
        with heard, contextlib.suppress(OSError):
            while self._socket is heard:
                heard.recv(1)
                super().ring()


def _send(out: socket.socket, address: Path) -> None:
    """Ring one bell; that of a process which died is removed."""
    try:
        out.sendto(b"!", str(address))
    except ConnectionRefusedError:
        address.unlink(missing_ok=True)
    except OSError:
        pass  # it has rings enough to wake up, or is just leaving: the others are rung all the same


@contextlib.contextmanager
def _named_briefly(folder: Path) -> Iterator[str]:
    """Name a folder so that an address in it fits: a socket's has room for 107 bytes."""
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
