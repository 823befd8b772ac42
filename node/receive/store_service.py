"""Takes one received object: checks it, makes it durable, says which status to answer.

Knows nothing of how the object came over the network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog

from node.receive.identity import IDENTITY_KEYS, StoreRequest
from node.receive.reception import Reception
from node.statuses import Status
from storage.base import Acceptance
from storage.intake import Intake

log = structlog.get_logger()

RESUME_SHARE = 50
"""One part in so many of the disk must be free above the mark before objects are taken again."""

FreeMark = Callable[[int], int]
"""From the bytes of a disk to the bytes that must stay free on it."""


class StoreService:
    """Decides and stores; one call per object, from many threads.

    Parameters
    ----------
    intake : Intake
        Started.
    header_keys : callable
        Names what to keep of each header; asked for every object, so that new rules count at once.
    free_mark : callable
        Bytes that must stay free, from the bytes of the disk.
    """

    def __init__(
        self,
        intake: Intake,
        header_keys: Callable[[], Collection[str]],
        free_mark: FreeMark = lambda total: total // 20,
    ) -> None:
        self._intake = intake
        self._header_keys = header_keys
        self._free_mark = free_mark
        self._is_low = False
        self._wanted: tuple[Collection[str], tuple[str, ...]] = ((), IDENTITY_KEYS)

    def has_room(self, size: int = 0) -> bool:
        """Whether the disk stays above its mark with so many bytes more.

        Once it is below, it must be `RESUME_SHARE` above before anything is taken again: nobody is
        let in only to be refused.
        """
        try:
            free, total = self._intake.objects.free_bytes()
        except OSError:
            return False
        mark = self._free_mark(total)
        enough = mark + total // RESUME_SHARE if self._is_low else mark
        if self._is_low != (free < enough):
            self._is_low = free < enough
            log.warning("disk.low" if self._is_low else "disk.recovered", free_bytes=free)
        return not self._is_low and free - size >= mark

    def store(
        self, request: StoreRequest, data: bytes | bytearray | memoryview
    ) -> tuple[Status, Acceptance | None]:
        """Make one object durable, or say why not.

        Parameters
        ----------
        request : StoreRequest
        data : bytes-like
            The data set, unchanged as received.

        Returns
        -------
        Status
            0x0000 only when bytes, name and row are on disk.
        Acceptance or None
            What became of it; None: it is not stored.
        """
        reception = self.reception(request)
        reception.take(data)
        return reception.finish()

    def reception(self, request: StoreRequest) -> Reception:
        """Begin to take in one object, fragment by fragment."""
        return Reception(request, self._intake, self._keys(), self.has_room)

    def _keys(self) -> tuple[str, ...]:
        """Names to scan for; the same tuple as long as the rules are the same."""
        asked = self._header_keys()
        known, keys = self._wanted
        if asked is not known:
            keys = (*IDENTITY_KEYS, *sorted(set(asked) - set(IDENTITY_KEYS)))
            self._wanted = asked, keys
        return keys
