"""A destination that is a folder: each object becomes a file, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from node.scu import OutgoingObject, SendOutcome
from storage.base import Delivery


class FolderCall:
    """Puts objects into a folder as ``<SOP Instance UID>.dcm``.

    A file appears under its name when its bytes are on disk. One that is there already with the
    same bytes counts as sent; with other bytes it is left alone.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def failure(self) -> SendOutcome | None:
        """Why nothing can be put there now."""
        if self._folder.is_dir():
            return None
        return SendOutcome("retry", None, f"the folder {self._folder} is not there")

    def store(self, file: OutgoingObject) -> SendOutcome:
        """Put one object there."""
        if (failure := self.failure) is not None:
            return failure
        target = self._path(file.sop_instance_uid)
        part = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            digest = file.sha256 or _digest(file.path)
            if target.exists():
                return self._there_already(target, digest)
            with file.path.open("rb") as source, part.open("xb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            part.rename(target)
            self._sync()
        except OSError as error:
            part.unlink(missing_ok=True)
            sentence = f"{file.sop_instance_uid} cannot be put into {self._folder}"
            return SendOutcome("retry", None, f"{sentence} ({error.strerror})")
        return SendOutcome("sent", None, "")

    def _there_already(self, target: Path, digest: str) -> SendOutcome:
        if _digest(target) == digest:
            return SendOutcome("sent", None, "it was there already")
        return SendOutcome("refused", None, f"{target} is there already, with other bytes")

    def holds(self, item: Delivery) -> bool | None:
        """Whether an object is there with the bytes that were sent; None: it cannot be read."""
        try:
            return _digest(self._path(item.sop_instance_uid)) == item.sha256
        except FileNotFoundError:
            return False
        except OSError:
            return None

    def ping(self) -> SendOutcome:
        """Say whether the folder is there."""
        return self.failure or SendOutcome("sent", None, "")

    def end(self) -> None:
        """Nothing is open."""

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}.dcm"

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
