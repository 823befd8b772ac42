"""A dataset as the bytes of a DICOM file."""

from __future__ import annotations

import warnings
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from sr_templates.normalise import TEXTS

_LARGE_PIXELS = 1 << 20
LONG_VALUE = "The value length"
"""How pydicom's warning of an overlong value begins: the source's own value is kept as it came,
since a PACS matches by it."""


class Unwritable(ValueError):
    """Raised when a dataset cannot be written without losing something."""


def to_bytes(ds: Dataset) -> bytes:
    """Write a dataset in the DICOM File Format.

    Parameters
    ----------
    ds : Dataset
        A complete SOP Instance; it is left as it is.

    Returns
    -------
    bytes
        The same bytes whenever it is called with an equal dataset.

    Raises
    ------
    Unwritable
        A text does not fit its Specific Character Set, or pydicom warns of anything else.

    References
    ----------
    DICOM PS3.10 7.1.
    """
    return _buffer(ds).getvalue()


def to_file(ds: Dataset, path: Path) -> None:
    """Write a dataset as `to_bytes` does, a large one without another copy of it in memory."""
    with path.open("wb") as file:
        _write(ds, file)


def reread(ds: Dataset) -> Dataset:
    """Read a dataset back from the bytes it is written as.

    Of a large object the pixels, which are written as they are, are those of `ds`, and frames
    share the functional groups that are equal, so that it takes little memory beside it.

    Raises
    ------
    Unwritable
        As `to_bytes`.
    """
    pixels = ds.get("PixelData")
    if not _is_large(pixels):
        return dcmread(_buffer(ds))
    shell = _shallow(ds)
    shell.pop("PixelData")
    found = dcmread(_buffer(shell))
    found["PixelData"] = ds["PixelData"]
    _share_groups(found)
    return found


def _buffer(ds: Dataset) -> BytesIO:
    """Give the bytes of a file, to be read from their beginning."""
    buffer = BytesIO()
    _write(ds, buffer)
    buffer.seek(0)
    return buffer


def _share_groups(ds: Dataset) -> None:
    """Let frames share what was read from the same bytes: the place and sources of a slice."""
    known: dict[tuple[int, bytes], DataElement] = {}
    for frame in ds.get("PerFrameFunctionalGroupsSequence") or ():
        for tag, raw in list(frame.items()):
            if isinstance(raw, RawDataElement) and raw.VR == "SQ" and raw.value:
                frame._dict[tag] = known.setdefault((tag, raw.value), frame[tag])


def _shallow(ds: Dataset) -> Dataset:
    shell = copy(ds)
    shell._dict = dict(ds._dict)  # pydicom's copy shares its elements
    return shell


def _write(ds: Dataset, target: BinaryIO) -> None:
    _refuse_undeclared_text(ds)
    shell = _shallow(ds)
    shell.preamble = b"\0" * 128
    _stream_pixels(shell)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=LONG_VALUE)
        try:
            shell.file_meta = _file_meta(ds)
            dcmwrite(target, shell, enforce_file_format=True)
        except (Warning, ValueError, TypeError, AttributeError, UnicodeError) as error:
            # The message of a foreign error may hold patient data, so only its kind is told.
            raise Unwritable(
                f"instance {ds.get('SOPInstanceUID')} cannot be written without loss in Specific "
                f"Character Set {ds.get('SpecificCharacterSet', 'ISO_IR 6')} "
                f"({type(error).__name__})"
            ) from None


def _stream_pixels(shell: Dataset) -> None:
    """Have pydicom write pixels piece by piece; it would make another copy of them."""
    pixels = shell.get("PixelData")
    if _is_large(pixels):
        shell["PixelData"] = DataElement("PixelData", shell["PixelData"].VR, BytesIO(pixels))


def _is_large(pixels: object) -> bool:
    """Whether pixels should not be copied; those of an odd length are, to be padded."""
    return isinstance(pixels, bytes) and len(pixels) > _LARGE_PIXELS and len(pixels) % 2 == 0


def _refuse_undeclared_text(ds: Dataset) -> None:
    """Without a declared character set text is ASCII; pydicom would write it as Latin-1."""
    if ds.get("SpecificCharacterSet") not in (None, "", "ISO_IR 6"):
        return
    for element in ds.iterall():
        if element.VR in TEXTS and not str(element.value).isascii():
            raise Unwritable(
                f"instance {ds.get('SOPInstanceUID')} cannot be written without loss: "
                f"{element.keyword} holds more than ASCII and no Specific Character Set is declared"
            )


def _file_meta(ds: Dataset) -> FileMetaDataset:
    given = getattr(ds, "file_meta", None)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = given.TransferSyntaxUID if given else ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta
