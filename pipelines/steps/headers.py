"""Headers of single-frame images, read without the rest: what a volume needs, in microseconds.

A walk over the top level of the data set that keeps some elements as they are encoded, and the
place of the pixels. What it does not understand it leaves to pydicom.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from struct import Struct, error

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from storage.place import Place

HEAD_BYTES = 1 << 14
MAX_HEAD_BYTES = 1 << 20
MAX_DEPTH = 16
PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
META_LENGTH = b"\2\0\0\0UL\4\0"
META_START = 144
TRANSFER_SYNTAX = 0x00020010
IDENTITY = {0x00080016: 0x00020002, 0x00080018: 0x00020003}
"""SOP Class UID and SOP Instance UID, and where the file meta information has them."""
META = frozenset({TRANSFER_SYNTAX, *IDENTITY.values()})
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
LONG_FORM = frozenset(
    {b"OB", b"OW", b"OD", b"OF", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "TemporalPositionIdentifier",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "TriggerTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "SpacingBetweenSlices",
    "ConcatenationUID",
)
WANTED = frozenset(int(Tag(keyword)) for keyword in KEYWORDS)
_SHORT = Struct("<HH2sH").unpack_from
_PLAIN = Struct("<HHI").unpack_from
_LONG = Struct("<I").unpack_from


@dataclass(frozen=True, eq=False)
class Head:
    """Top-level elements of one file, as encoded.

    Parameters
    ----------
    elements : dict
        Values of the attributes in `WANTED` that are there, by tag.
    vrs : dict
        Their Value Representations; empty for Implicit VR.
    transfer_syntax_uid : str
    pixels : tuple of int
        Offset of the first byte of Pixel Data in the object, and their number.
    """

    elements: dict[int, bytes]
    vrs: dict[int, str]
    transfer_syntax_uid: str
    pixels: tuple[int, int]

    def dataset(self, only: frozenset[int] = WANTED) -> Dataset:
        """Make a data set of them, whose values are decoded when they are looked at."""
        is_implicit = self.transfer_syntax_uid == ImplicitVRLittleEndian
        ds = Dataset(
            {
                BaseTag(tag): RawDataElement(
                    BaseTag(tag), self.vrs.get(tag), len(value), value, 0, is_implicit, True
                )
                for tag, value in self.elements.items()
                if tag in only
            }
        )
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = UID(self.transfer_syntax_uid)
        return ds


def head_of(place: Place) -> Head | None:
    """Read the head of a Part 10 file; None where pydicom has to.

    Only single files of uncompressed little-endian pixels are read here, whose elements before
    the pixels fit into `MAX_HEAD_BYTES`. A SOP Instance UID or SOP Class UID that is empty in
    the data set is taken from the file meta information.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    handle = os.open(place.path, os.O_RDONLY)
    try:
        for limit in (HEAD_BYTES, MAX_HEAD_BYTES):
            length = limit if place.length is None else min(limit, place.length)
            data = os.pread(handle, length, place.offset)
            try:
                return _walk(data)
            except _Short:
                if len(data) < limit:
                    return None
    except (error, UnicodeDecodeError, _Odd):
        return None
    finally:
        os.close(handle)
    return None


class _Short(Exception):
    """Raised when the elements go on beyond what was read."""


class _Odd(Exception):
    """Raised when the elements are such that pydicom has to read them."""


def _walk(data: bytes) -> Head | None:
    if data[128:132] != b"DICM" or data[132:140] != META_LENGTH:
        return None
    end = META_START + _LONG(data, 140)[0]
    meta: dict[int, bytes] = {}
    _explicit(data[:end], META_START, META, meta, {})
    syntax = meta.get(TRANSFER_SYNTAX, b"").rstrip(b"\0 ").decode("ascii")
    elements: dict[int, bytes] = {}
    vrs: dict[int, str] = {}
    if syntax == ExplicitVRLittleEndian:
        place = _explicit(data, end, WANTED, elements, vrs)
    elif syntax == ImplicitVRLittleEndian:
        place = _implicit(data, end, elements)
    else:
        return None
    for tag, fallback in IDENTITY.items():
        if not elements.get(tag, b"").strip(b"\0 "):
            elements[tag], vrs[tag] = meta.get(fallback, b""), "UI"
    if syntax == ImplicitVRLittleEndian:
        vrs.clear()
    return Head(elements, vrs, syntax, place)


def _explicit(
    data: bytes,
    place: int,
    wanted: frozenset[int],
    values: dict[int, bytes],
    vrs: dict[int, str],
) -> tuple[int, int]:
    """Walk to the pixels, or to the end of `data`; return where they start, and their number."""
    size, last = len(data), -1
    while place < size:
        if place + 8 > size:
            raise _Short
        group, element, vr, length = _SHORT(data, place)
        tag = group << 16 | element
        place += 8
        if vr in LONG_FORM:
            length = _LONG(data, place)[0]
            place += 4
        elif not vr.isalpha():
            raise _Odd
        if tag <= last:
            raise _Odd
        last = tag
        if tag == PIXEL_DATA:
            if vr not in (b"OW", b"OB") or length == UNDEFINED:
                raise _Odd
            return place, length
        if length == UNDEFINED:
            if tag in wanted:
                raise _Odd
            place = _after_items(data, place, True, 0)
            continue
        if tag in wanted:
            if vr in LONG_FORM:
                raise _Odd
            values[tag] = data[place : place + length]
            vrs[tag] = vr.decode("ascii")
        place += length
    if place > size or wanted is WANTED:
        raise _Short
    return place, 0


def _implicit(data: bytes, place: int, values: dict[int, bytes]) -> tuple[int, int]:
    size, last = len(data), -1
    while place + 8 <= size:
        group, element, length = _PLAIN(data, place)
        tag = group << 16 | element
        place += 8
        if tag <= last:
            raise _Odd
        last = tag
        if tag == PIXEL_DATA:
            if length == UNDEFINED:
                raise _Odd
            return place, length
        if length == UNDEFINED:
            if tag in WANTED:
                raise _Odd
            place = _after_items(data, place, False, 0)
            continue
        if tag in WANTED:
            values[tag] = data[place : place + length]
        place += length
    raise _Short


def _after_items(data: bytes, place: int, explicit: bool, depth: int) -> int:
    """Return where a sequence of undefined length ends, its delimiter included."""
    if depth > MAX_DEPTH:
        raise _Odd
    while True:
        if place + 8 > len(data):
            raise _Short
        group, element, length = _PLAIN(data, place)
        place += 8
        if (group, element) == SEQUENCE_END:
            return place
        if (group, element) != ITEM:
            raise _Odd
        place = _after_item(data, place, explicit, depth) if length == UNDEFINED else place + length


def _after_item(data: bytes, place: int, explicit: bool, depth: int) -> int:
    while True:
        if place + 12 > len(data):
            raise _Short
        group, element, length = _PLAIN(data, place)
        place += 8
        if (group, element) == ITEM_END:
            return place
        if explicit:
            vr, length = _SHORT(data, place - 8)[2:]
            if vr in LONG_FORM:
                length = _LONG(data, place)[0]
                place += 4
        if length == UNDEFINED:
            place = _after_items(data, place, explicit, depth + 1)
        else:
            place += length
