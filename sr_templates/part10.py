"""A dataset as the bytes of a DICOM file."""

from __future__ import annotations

import warnings
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataelem import DataElement
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
    buffer = BytesIO()
    _write(ds, buffer)
    return buffer.getvalue()


def to_file(ds: Dataset, path: Path) -> None:
    """Write a dataset as `to_bytes` does, a large one without another copy of it in memory."""
    with path.open("wb") as file:
        _write(ds, file)


def _write(ds: Dataset, target: BinaryIO) -> None:
    _refuse_undeclared_text(ds)
    shell = copy(ds)
    shell._dict = dict(ds._dict)  # pydicom's copy shares its elements
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
    if isinstance(pixels, bytes) and len(pixels) > _LARGE_PIXELS:
        shell["PixelData"] = DataElement("PixelData", shell["PixelData"].VR, BytesIO(pixels))


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
