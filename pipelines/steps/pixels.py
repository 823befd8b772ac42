"""Pixel data of an instance as modality values, frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from pipelines.base import NotScored
from pipelines.steps.frames import Frame, frame_count, integer, number
from pipelines.steps.read import damage_refused

END_MARKER = b"\xff\xd9"
ENDS_WITH_MARKER = frozenset(
    {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}
)
"""JPEG, JPEG-LS and JPEG 2000 images end with the same two bytes (EOI, EOC)."""
CT_PADDING_HU = -1000.0
"""What padding in CT becomes: air."""


def stored_frames(ds: Dataset) -> Iterator[NDArray[np.integer]]:
    """Yield the stored values of each frame, shape (rows, columns).

    Raises
    ------
    NotScored
        There are no pixels, their length does not fit the header, or they cannot be decoded.
    """
    name = f"Instance {ds.SOPInstanceUID}"
    with damage_refused(f"{name}: the description of its pixels"):
        _refuse_wrong_length(name, ds)
    count = 0
    try:
        for stored in iter_pixels(ds, raw=True):
            count += 1
            yield stored
    except (NotScored, MemoryError):
        raise
    except Exception as error:  # decoders raise what damaged pixels provoke
        raise NotScored(
            "undecodable_pixels",
            f"{name}: its pixels could not be decoded ({_syntax(ds)}, frame {count + 1}, "
            f"{type(error).__name__}).",
        ) from error
    if count != frame_count(ds):
        raise NotScored(
            "bad_frame_count",
            f"{name} claims {frame_count(ds)} frames; {count} could be decoded.",
        )


def padding_mask(ds: Dataset, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels outside the reconstructed image: Pixel Padding Value, up to its Range Limit.

    References
    ----------
    DICOM PS3.3 C.7.5.1.1.2.
    """
    first = _as_stored(ds, number(ds, "PixelPaddingValue"))
    if first is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    last = _as_stored(ds, number(ds, "PixelPaddingRangeLimit"))
    low, high = sorted((first, first if last is None else last))
    mask: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return mask


def modality_values(ds: Dataset, frame: Frame, stored: NDArray[np.integer]) -> NDArray[np.float32]:
    """Turn stored values into modality units (HU for CT), padding into background.

    MONOCHROME1 changes nothing for CT, whose values mean HU however they are shown; elsewhere
    the stored range is turned over, so that more signal is a higher value.

    Parameters
    ----------
    ds : Dataset
    frame : Frame
    stored : NDArray
        Shape (rows, columns).
    """
    is_ct = ds.get("Modality") == "CT"
    values = stored.astype(np.float64)
    if ds.PhotometricInterpretation == "MONOCHROME1" and not is_ct:
        values = sum(_stored_range(ds)) - values
    values = values * frame.slope + frame.intercept
    padding = padding_mask(ds, stored)
    if padding.any():
        values[padding] = CT_PADDING_HU if is_ct else values[~padding].min(initial=values.max())
    return values.astype(np.float32)


def _refuse_wrong_length(name: str, ds: Dataset) -> None:
    if "PixelData" not in ds:
        raise NotScored("no_images", f"{name} holds no pixels.")
    stored, allocated = integer(ds, "BitsStored"), integer(ds, "BitsAllocated")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise NotScored("unsupported_pixels", f"{name} stores {stored} of {allocated} bits.")
    if number(ds, "HighBit") not in (None, stored - 1):
        raise NotScored(
            "unsupported_pixels",
            f"{name} stores {stored} bits up to bit {integer(ds, 'HighBit')}.",
        )
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax in ENDS_WITH_MARKER:
        _refuse_cut_short(name, ds)
    if syntax is None or syntax.is_compressed:
        return
    wanted = frame_count(ds) * integer(ds, "Rows") * integer(ds, "Columns") * allocated // 8
    found = len(ds.PixelData)
    if found not in (wanted, wanted + wanted % 2):
        raise NotScored(
            "wrong_pixel_length",
            f"{name} holds {found} bytes of pixels; its Rows, Columns, Bits Allocated and "
            f"Number of Frames ask for {wanted}.",
        )


def _refuse_cut_short(name: str, ds: Dataset) -> None:
    """Refuse frames without an end marker: decoders fill what is missing and say nothing."""
    frames = generate_frames(ds.PixelData, number_of_frames=frame_count(ds))
    try:
        cut = [k for k, frame in enumerate(frames) if END_MARKER not in frame[-16:]]
    except (ValueError, IndexError, struct.error) as error:
        raise NotScored(
            "undecodable_pixels", f"{name}: its pixel fragments are damaged."
        ) from error
    if cut:
        raise NotScored(
            "undecodable_pixels",
            f"{name}: the compressed pixels of frame {cut[0] + 1} are cut short.",
        )


def _as_stored(ds: Dataset, value: float | None) -> int | None:
    """Put a padding value, which often has the wrong sign, into the images' representation."""
    if value is None:
        return None
    low, high = _stored_range(ds)
    span = high - low + 1
    found = int(value)
    if low <= found <= high:
        return found
    wide = 1 << integer(ds, "BitsAllocated")
    for other in (found - wide, found + wide, found - span, found + span):
        if low <= other <= high:
            return other
    return found


def _stored_range(ds: Dataset) -> tuple[int, int]:
    bits = integer(ds, "BitsStored")
    if integer(ds, "PixelRepresentation"):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _syntax(ds: Dataset) -> str:
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    return "no transfer syntax" if syntax is None else str(syntax.name)
