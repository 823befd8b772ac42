"""Headers of single-frame images, read without the rest: what a volume needs, in microseconds.

A walk over the top level of the data set that keeps some elements as they are encoded, and the
place of the pixels. What it does not understand it leaves to pydicom.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

MAX_DEPTH = 16
PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
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
UID_TAG, POSITION, NUMBER = 0x00080018, 0x00200032, 0x00200013
OWN = frozenset({UID_TAG, POSITION, NUMBER})
"""What slices of one volume have of their own: SOP Instance UID, position, Instance Number."""
Kin = tuple[tuple[int, bytes], ...]
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
    kin : tuple
        The same in heads whose elements differ in nothing but `OWN`.
    """

    elements: dict[int, bytes]
    vrs: dict[int, str]
    transfer_syntax_uid: str
    pixels: tuple[int, int]
    kin: Kin

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


class TooShort(Exception):
    """Raised when the elements go on beyond what was read."""


class NotUnderstood(Exception):
    """Raised when the elements are such that pydicom has to read them."""


def kin_of(elements: dict[int, bytes]) -> Kin:
    """Return what heads share that differ in nothing but `OWN`."""
    return tuple(sorted(item for item in elements.items() if item[0] not in OWN))


def is_identified(elements: dict[int, bytes]) -> bool:
    """Tell whether SOP Class UID and SOP Instance UID are in the data set."""
    return all(elements.get(tag, b"").strip(b"\0 ") for tag in IDENTITY)


@dataclass(frozen=True, eq=False)
class Walk:
    """A head, and where the elements of its file begin: of the meta information, of the data set.

    Pixel Data is the last one.
    """

    head: Head
    meta_marks: list[int]
    marks: list[int]


def whole_walk(data: bytes, start: int, end: int) -> Walk | None:
    """Walk the meta information, from `start` to `end`, and the data set to its pixels.

    Raises
    ------
    TooShort, NotUnderstood
    """
    meta: dict[int, bytes] = {}
    elements: dict[int, bytes] = {}
    vrs: dict[int, str] = {}
    meta_marks: list[int] = []
    marks: list[int] = []
    explicit_walk(data[:end], start, META, meta, {}, meta_marks)
    syntax = meta.get(TRANSFER_SYNTAX, b"").rstrip(b"\0 ").decode("ascii")
    if syntax == ExplicitVRLittleEndian:
        pixels = explicit_walk(data, end, WANTED, elements, vrs, marks)
    elif syntax == ImplicitVRLittleEndian:
        pixels = _implicit(data, end, elements, marks)
    else:
        return None
    if not is_identified(elements):
        for tag, fallback in IDENTITY.items():
            if not elements.get(tag, b"").strip(b"\0 "):
                elements[tag] = meta.get(fallback, b"")
                if syntax == ExplicitVRLittleEndian:
                    vrs[tag] = "UI"
    return Walk(Head(elements, vrs, syntax, pixels, kin_of(elements)), meta_marks, marks)


def explicit_walk(
    data: bytes,
    place: int,
    wanted: frozenset[int],
    values: dict[int, bytes],
    vrs: dict[int, str],
    marks: list[int],
) -> tuple[int, int]:
    """Walk to the pixels, or to the end of `data`; return where they start, and their number."""
    size, last = len(data), -1
    while place < size:
        if place + 8 > size:
            raise TooShort
        group, element, vr, length = _SHORT(data, place)
        tag = group << 16 | element
        marks.append(place)
        place += 8
        if vr in LONG_FORM:
            length = _LONG(data, place)[0]
            place += 4
        elif not vr.isalpha():
            raise NotUnderstood
        if tag <= last:
            raise NotUnderstood
        last = tag
        if tag == PIXEL_DATA:
            if vr not in (b"OW", b"OB") or length == UNDEFINED:
                raise NotUnderstood
            return place, length
        if length == UNDEFINED:
            if tag in wanted:
                raise NotUnderstood
            place = after_items(data, place, True, 0)
            continue
        if tag in wanted:
            if vr in LONG_FORM:
                raise NotUnderstood
            values[tag] = data[place : place + length]
            vrs[tag] = vr.decode("ascii")
        place += length
    if place > size or wanted is WANTED:
        raise TooShort
    return place, 0


def _implicit(
    data: bytes, place: int, values: dict[int, bytes], marks: list[int]
) -> tuple[int, int]:
    size, last = len(data), -1
    while place + 8 <= size:
        group, element, length = _PLAIN(data, place)
        tag = group << 16 | element
        marks.append(place)
        place += 8
        if tag <= last:
            raise NotUnderstood
        last = tag
        if tag == PIXEL_DATA:
            if length == UNDEFINED:
                raise NotUnderstood
            return place, length
        if length == UNDEFINED:
            if tag in WANTED:
                raise NotUnderstood
            place = after_items(data, place, False, 0)
            continue
        if tag in WANTED:
            values[tag] = data[place : place + length]
        place += length
    raise TooShort


def after_items(data: bytes, place: int, explicit: bool, depth: int) -> int:
    """Return where a sequence of undefined length ends, its delimiter included."""
    if depth > MAX_DEPTH:
        raise NotUnderstood
    while True:
        if place + 8 > len(data):
            raise TooShort
        group, element, length = _PLAIN(data, place)
        place += 8
        if (group, element) == SEQUENCE_END:
            return place
        if (group, element) != ITEM:
            raise NotUnderstood
        place = _after_item(data, place, explicit, depth) if length == UNDEFINED else place + length


def _after_item(data: bytes, place: int, explicit: bool, depth: int) -> int:
    while True:
        if place + 12 > len(data):
            raise TooShort
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
            place = after_items(data, place, explicit, depth + 1)
        else:
            place += length
