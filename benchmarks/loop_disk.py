"""A disk whose power can be cut: ext4 in a file, shut down in mid-air by an ioctl; root only.

`FS_IOC_SHUTDOWN` with NOLOGFLUSH stops the file system at once: what is only in the page cache, and
the part of the journal that is not on disk yet, are gone. It does not model a drive that says
"flushed" and lies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_FS_IOC_SHUTDOWN = 0x8004587D
_NOLOGFLUSH = 2
_UNMOUNT_SECONDS = 20.0


class NoLoopDisk(Exception):
    """Raised when this machine does not let us make one."""


class LoopDisk:
    """An ext4 file system of its own; a context manager.

    Parameters
    ----------
    folder : Path
        Where the image and the mount point go.
    size_bytes : int
    """

    def __init__(self, folder: Path, size_bytes: int = 400 << 20) -> None:
        self.mount = folder / "disk"
        self._image = folder / "disk.img"
        self._size = size_bytes
        self._device = ""

    def __enter__(self) -> Self:
        """Make it and mount it.

        Raises
        ------
        NoLoopDisk
            Not root, or no loop devices, or no such file system here.
        """
        if os.geteuid() != 0:
            raise NoLoopDisk("only root can mount a file system")
        self.mount.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._size)
        try:
            _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
            self._device = _run("losetup", "-f", "--show", str(self._image))
            _run("mount", self._device, str(self.mount))
        except (OSError, subprocess.CalledProcessError) as error:
            self._detach()
            raise NoLoopDisk(f"no file system can be made in a file here: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unmount it and delete the image."""
        self._unmount()
        self._detach()

    def cut_power(self) -> None:
        """Stop the file system; what is not on disk by now never will be."""
        fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(fd)

    def restart(self) -> None:
        """Mount again what is on disk. Whoever had files open must be gone."""
        self._unmount()
        _run("mount", self._device, str(self.mount))

    def used_share(self) -> float:
        """How full it is, 0 to 1."""
        found = os.statvfs(self.mount)
        return 1.0 - found.f_bavail / found.f_blocks

    def empty(self) -> None:
        """Delete everything on it."""
        for path in self.mount.iterdir():
            if path.is_file():
                path.unlink()
            elif path.name != "lost+found":
                shutil.rmtree(path)

    def _unmount(self) -> None:
        """Unmount; a process that was just killed may hold it for a moment."""
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while True:
            try:
                _run("umount", str(self.mount))
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _detach(self) -> None:
        if self._device:
            _run("losetup", "-d", self._device)
            self._device = ""
        self._image.unlink(missing_ok=True)


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin"},
    )
    return done.stdout.strip()
