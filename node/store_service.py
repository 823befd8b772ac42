"""Takes one received object: checks it, makes it durable, says which status to answer.

Knows nothing of how the object came over the network.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection

from node.header import HeaderError, HeaderScan, scan
from node.header_values import tag_text
from node.identity import (
    IDENTITY_KEYS,
    StoreRequest,
    refusal_of_identity,
    refusal_of_request,
)
from node.statuses import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, SUCCESS, Status
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from storage.base import Acceptance, ReceivedInstance, StoreBroken, StoreFull, StoreUnavailable
from storage.intake import Intake

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
        self._wanted: tuple[Collection[str], tuple[str, ...]] = ((), IDENTITY_KEYS)

    def has_room(self, size: int = 0) -> bool:
        """Whether the disk stays above its mark with so many bytes more."""
        try:
            free, total = self._intake.objects.free_bytes()
        except OSError:
            return False
        return free - size >= self._free_mark(total)

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
        refusal = refusal_of_request(request)
        if refusal is not None:
            return refusal, None
        try:
            found = scan(data, request.transfer_syntax_uid, self._keys())
        except HeaderError as error:
            return _not_understood(error), None
        refusal = refusal_of_identity(request, found.values)
        if refusal is not None:
            return refusal, None
        if not self.has_room(len(data)):
            return Status(OUT_OF_RESOURCES, "disk below its mark"), None
        return self._keep(request, data, found)

    def _keep(
        self, request: StoreRequest, data: bytes | bytearray | memoryview, found: HeaderScan
    ) -> tuple[Status, Acceptance | None]:
        try:
            acceptance = self._accept(request, data, found)
        except StoreFull:
            return Status(OUT_OF_RESOURCES, "no room left"), None
        except (StoreUnavailable, StoreBroken):
            return Status(OUT_OF_RESOURCES, "store unavailable"), None
        return Status(SUCCESS), acceptance

    def _accept(
        self, request: StoreRequest, data: bytes | bytearray | memoryview, found: HeaderScan
    ) -> Acceptance:
        received = ReceivedInstance(
            study_instance_uid=str(found.values["StudyInstanceUID"][0]),
            series_instance_uid=str(found.values["SeriesInstanceUID"][0]),
            sop_instance_uid=request.sop_instance_uid,
            sop_class_uid=request.sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            peer=request.peer,
            header=found.values,
            association_id=request.association_id,
        )
        spool = self._intake.objects.spool()
        try:
            spool.write(part10_header(request))
            spool.write(data)
        except BaseException:
            spool.discard()
            raise
        return self._intake.accept(received, spool)

    def _keys(self) -> tuple[str, ...]:
        """Names to scan for; the same tuple as long as the rules are the same."""
        asked = self._header_keys()
        known, keys = self._wanted
        if asked != known:
            keys = (*IDENTITY_KEYS, *sorted(set(asked) - set(IDENTITY_KEYS)))
            self._wanted = asked, keys
        return keys


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
    elements = b"".join(
        (
            struct.pack("<HH2sHI2s", 2, 0x0001, b"OB", 0, 2, b"\x00\x01"),
            _text_element(0x0002, b"UI", request.sop_class_uid, b"\0"),
            _text_element(0x0003, b"UI", request.sop_instance_uid, b"\0"),
            _text_element(0x0010, b"UI", request.transfer_syntax_uid, b"\0"),
            _text_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _text_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
        )
    )
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(elements))
    return bytes(128) + b"DICM" + length + elements


def _text_element(element: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
