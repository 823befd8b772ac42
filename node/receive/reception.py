"""One data set on its way in: digest and file as the fragments come, in bounded memory.

Nothing here raises for what a disk or a peer does: after the first failure the rest of the data
set is let through unused, and `finish` says which status to answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

import xxhash

from node.receive.header import HeaderError, HeaderScan, StartTooShort, scan
from node.receive.header_values import tag_text
from node.receive.identity import StoreRequest, refusal_of_identity, refusal_of_request
from node.statuses import (
    CANNOT_UNDERSTAND,
    DUPLICATE_SOP_INSTANCE,
    OUT_OF_RESOURCES,
    SUCCESS,
    Status,
)
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from storage.base import Acceptance, ReceivedInstance, StoreBroken, StoreFull, StoreUnavailable
from storage.intake import Intake
from storage.objects import Incoming, Spool

MOST_FRAGMENTS = 512
"""Fragments held before they are written; a hostile sender's may have one byte each."""

_HELD_OTHERWISE = "another object is held under this SOP Instance UID"

Data = bytes | bytearray | memoryview


class Reception:
    """Takes one data set in; used by one thread.

    Parameters
    ----------
    request : StoreRequest
    intake : Intake
    keys : tuple of str
        What to keep of the header.
    has_room : callable
        Whether the disk stays above its mark with so many bytes more.
    """

    def __init__(
        self,
        request: StoreRequest,
        intake: Intake,
        keys: tuple[str, ...],
        has_room: Callable[[int], bool],
    ) -> None:
        self.size = 0
        self._request = request
        self._intake = intake
        self._keys = keys
        self._has_room = has_room
        self._refusal = refusal_of_request(request)
        self._digest = xxhash.xxh3_128()
        self._held: list[Data] = []
        self._spool: Spool | None = None

    @property
    def holds_fragments(self) -> bool:
        """Whether fragments that were handed in are still needed."""
        return bool(self._held)

    def take(self, fragment: Data) -> None:
        """Take the next fragment; it must not change until it is spilled."""
        self.size += len(fragment)
        if self._refusal is not None:
            return
        self._digest.update(fragment)
        self._held.append(fragment)
        if len(self._held) >= MOST_FRAGMENTS:
            self.spill()

    def spill(self) -> None:
        """Write the fragments that are held."""
        if not self._held:
            return
        if not self._has_room(sum(map(len, self._held))):
            self._refuse(Status(OUT_OF_RESOURCES, "disk below its mark"))
            return
        try:
            self._write()
        except (StoreUnavailable, StoreBroken) as error:
            self._refuse(_status_of(error))

    def finish(self) -> tuple[Status, Acceptance | None]:
        """Make the object durable, or say why not.

        Returns
        -------
        Status
            0x0000 only when bytes, name and row are on disk.
        Acceptance or None
            What became of it; None: it is not stored.
        """
        acceptance = None
        try:
            found = None if self._refusal is not None else self._checked()
            if found is not None:
                acceptance = self._keep(found)
            if acceptance is Acceptance.REFUSED:
                acceptance = None
                self._refuse(Status(DUPLICATE_SOP_INSTANCE, _HELD_OTHERWISE))
        except HeaderError as error:
            self._refuse(_not_understood(error))
        except (StoreUnavailable, StoreBroken) as error:
            self._refuse(_status_of(error))
        finally:
            if acceptance is None:
                self.discard()
        return self._refusal or Status(SUCCESS), acceptance

    def discard(self) -> None:
        """Forget everything; harmless at any time."""
        self._held.clear()
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.discard()

    def _refuse(self, status: Status) -> None:
        self._refusal = self._refusal or status
        self.discard()

    def _checked(self) -> HeaderScan | None:
        """Header of the object, or None when it is refused for what it holds."""
        found = self._scan()
        refusal = refusal_of_identity(self._request, found.values)
        if refusal is None and not self._has_room(sum(map(len, self._held))):
            refusal = Status(OUT_OF_RESOURCES, "disk below its mark")
        if refusal is not None:
            self._refuse(refusal)
            return None
        return found

    def _scan(self) -> HeaderScan:
        """Read the header: from the first fragment where that is enough."""
        syntax = self._request.transfer_syntax_uid
        if self._spool is not None:
            self._write()
            return scan(self._spool.view(len(part10_header(self._request))), syntax, self._keys)
        first = self._held[0] if self._held else b""
        try:
            return scan(first, syntax, self._keys, self.size)
        except StartTooShort:
            return scan(b"".join(self._held), syntax, self._keys)

    def _keep(self, found: HeaderScan) -> Acceptance:
        incoming = self._slot()
        if incoming is None:
            self._write()
            incoming, self._spool = self._spool, None
        if incoming is None:
            raise AssertionError("nothing was written")
        request = self._request
        received = ReceivedInstance(
            study_instance_uid=_uid(found, "StudyInstanceUID"),
            series_instance_uid=_uid(found, "SeriesInstanceUID"),
            sop_instance_uid=request.sop_instance_uid,
            sop_class_uid=request.sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            digest=f"xxh3:{self._digest.hexdigest()}",
            size=self.size,
            peer=request.peer,
            header=found.values,
            association_id=request.association_id,
        )
        return self._intake.accept(received, incoming)

    def _slot(self) -> Incoming | None:
        """Write what is held into the arena; None where it is to be a file."""
        arena = self._intake.arena
        if arena is None or self._spool is not None:
            return None
        header = part10_header(self._request)
        slot = arena.write([header, *self._held], len(header) + self.size, self._digest.digest())
        if slot is not None:
            self._held.clear()
        return slot

    def _write(self) -> None:
        """Write what is held, after the Part 10 header where it is the first."""
        parts = self._held
        if self._spool is None:
            self._spool = self._intake.objects.spool()
            parts = [part10_header(self._request), *parts]
        self._spool.write_all(parts)
        self._held.clear()


def _uid(found: HeaderScan, keyword: str) -> str:
    """One of the UIDs that `refusal_of_identity` has seen."""
    return str((found.values[keyword] or [""])[0])


def _status_of(error: Exception) -> Status:
    full = isinstance(error, StoreFull)
    return Status(OUT_OF_RESOURCES, "no room left" if full else "store unavailable")


def _not_understood(error: HeaderError) -> Status:
    if error.tag is None:
        return Status(CANNOT_UNDERSTAND, error.sentence[:64])
    comment = f"data set cannot be read at {tag_text(error.tag)}"
    if "nested" in error.sentence:
        comment = error.sentence
    return Status(CANNOT_UNDERSTAND, comment[:64], (error.tag,))


def part10_header(request: StoreRequest) -> bytes:
    """Preamble of zeros and file meta information: our own, whatever the peer's file had.

    The same object gives the same bytes, whoever sends it.
    """
    instance = _text_element(0x0003, b"UI", request.sop_instance_uid, b"\0")
    before, after = _around_instance(request.sop_class_uid, request.transfer_syntax_uid)
    size = len(before) + len(instance) + len(after)
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, size)
    return b"".join((_PREAMBLE, length, before, instance, after))


_PREAMBLE = bytes(128) + b"DICM"


@lru_cache(maxsize=512)
def _around_instance(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    before = struct.pack("<HH2sHI2s", 2, 0x0001, b"OB", 0, 2, b"\x00\x01")
    after = (
        _text_element(0x0010, b"UI", transfer_syntax_uid, b"\0"),
        _text_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
        _text_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
    )
    return before + _text_element(0x0002, b"UI", sop_class_uid, b"\0"), b"".join(after)


def _text_element(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
