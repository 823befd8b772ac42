"""Pixel data of an instance as modality values, frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
from pipelines.steps.codestreams import size_of
from pipelines.steps.frames import Frame, frame_count, integer, number
from pipelines.steps.geometry import FloatArray
from pipelines.steps.read import damage_refused

END_MARKER = b"\xff\xd9"
ENDS_WITH_MARKER = frozenset(
    {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}
)
"""JPEG, JPEG-LS and JPEG 2000 images end with the same two bytes (EOI, EOC)."""
CT_PADDING_HU = -1000.0
"""What padding in CT becomes: air."""
CHUNK = 1 << 17
"""Pixels that are turned into modality values at once."""
INT16 = np.iinfo(np.int16)

Stored = NDArray[np.integer]


@dataclass(frozen=True)
class Scale:
    """How stored values of an instance's frames become modality values.

    Parameters
    ----------
    padding : tuple of int or None
        Lowest and highest stored value of padding.
    turned_from : int or None
        Sum of the lowest and highest stored value, where more signal is a lower value.
    is_ct : bool
    """

    padding: tuple[int, int] | None
    turned_from: int | None
    is_ct: bool


def scale_of(ds: Dataset) -> Scale:
    """Read what all frames of an instance share of their way to modality values.

    MONOCHROME1 changes nothing for CT, whose values mean HU however they are shown; elsewhere
    the stored range is turned over, so that more signal is a higher value.

    References
    ----------
    DICOM PS3.3 C.7.5.1.1.2 for padding.
    """
    is_ct = ds.get("Modality") == "CT"
    turned = ds.PhotometricInterpretation == "MONOCHROME1" and not is_ct
    return Scale(_padding(ds), sum(_stored_range(ds)) if turned else None, is_ct)


def stored_frames(ds: Dataset, indices: Sequence[int] | None = None) -> Iterator[Stored]:
    """Yield the stored values of frames, shape (rows, columns).

    Parameters
    ----------
    ds : Dataset
        With its pixels.
    indices : sequence of int or None
        Which frames, ascending from 0; None: all.

    Raises
    ------
    NotScored
        There are no pixels, their length does not fit the header, or they cannot be decoded.
    """
    name = f"Instance {ds.SOPInstanceUID}"
    with damage_refused(f"{name}: the description of its pixels"):
        refuse_odd_pixels(name, ds)
        _refuse_wrong_length(name, ds)
    wanted = range(frame_count(ds)) if indices is None else indices
    count = 0
    try:
        plugin = _plugin(ds)
        for stored in iter_pixels(ds, raw=True, indices=list(wanted), decoding_plugin=plugin):
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
    if count != len(wanted):
        raise NotScored(
            "bad_frame_count",
            f"{name} claims {frame_count(ds)} frames; {count} could be decoded.",
        )


def modality_values(
    scale: Scale, frames: Sequence[Frame], stored: FloatArray, background: FloatArray
) -> NDArray[np.float32]:
    """Turn stored values into modality units, the plain way: one formula in double precision.

    Parameters
    ----------
    scale : Scale
        What the frames share.
    frames : sequence of Frame
    stored : FloatArray
        Whole numbers, shape (frames, n).
    background : FloatArray
        What padding becomes in each frame, shape (frames,).
    """
    values = stored if scale.turned_from is None else scale.turned_from - stored
    slopes = np.array([frame.slope for frame in frames])[:, None]
    values = values * slopes + np.array([frame.intercept for frame in frames])[:, None]
    if scale.padding is not None:
        low, high = scale.padding
        values = np.where((stored >= low) & (stored <= high), background[:, None], values)
    return values.astype(np.float32)


def fill_modality_values(
    scale: Scale,
    frame: Frame,
    stored: Stored,
    out: NDArray[np.float32 | np.int16],
    extent: tuple[int, int] | None = None,
) -> tuple[int, float]:
    """Turn stored values into modality units (HU for CT), padding into background, in place.

    Parameters
    ----------
    scale : Scale
    frame : Frame
    stored : NDArray
        Shape (rows, columns).
    out : NDArray
        Of the same shape: float32, or int16 where values are whole (`are_whole`); it may be the
        memory of `stored` itself.
    extent : tuple of int or None
        What no stored value lies outside of, where that is known.

    Returns
    -------
    int
        How many pixels are padding.
    float
        What they became: air for CT, else the lowest value of the others.

    Raises
    ------
    TooWide
        int16 does not hold the values.
    """
    mask = None if scale.padding is None else _is_padding(scale.padding, stored)
    if out.dtype == np.int16:
        _fill_whole(int(frame.intercept), stored, out, mask, extent)
    else:
        _fill(scale, frame, stored, out)
    if mask is None:
        return 0, CT_PADDING_HU
    count = int(np.count_nonzero(mask))
    background = CT_PADDING_HU
    if count and not scale.is_ct:
        background = float(out[~mask].min()) if count < mask.size else 0.0
    if count:
        out[mask] = background
    return count, background


class TooWide(Exception):
    """Raised when int16 does not hold modality values."""


def are_whole(scale: Scale, frame: Frame) -> bool:
    """Tell whether the modality values are stored ones plus a whole number."""
    offset = frame.intercept
    return (
        frame.slope == 1
        and abs(offset) <= 1 << 16
        and offset == round(offset)
        and scale.turned_from is None
    )


def _fill_whole(
    offset: int,
    stored: Stored,
    out: NDArray[Any],
    mask: NDArray[np.bool_] | None,
    extent: tuple[int, int] | None,
) -> None:
    """Add in int16, which comes out right whenever the sum fits, whatever the sign of the parts."""
    lowest, highest = INT16.min - offset, INT16.max - offset
    low, high = extent or (lowest - 1, highest)
    if low < lowest or high > highest:
        kept = stored if mask is None else stored[~mask]
        if kept.size and (int(kept.min()) < lowest or int(kept.max()) > highest):
            raise TooWide
    is_plain = stored.itemsize == 2 and stored.dtype.isnative
    signed = stored.view(np.int16) if is_plain else stored.astype(np.int16)
    if offset:
        np.add(signed, np.array(offset).astype(np.int16), out=out)
    elif not np.may_share_memory(signed, out):
        np.copyto(out, signed)


def _fill(scale: Scale, frame: Frame, stored: Stored, out: NDArray[Any]) -> None:
    slope, offset = frame.slope, frame.intercept
    if scale.turned_from is not None:
        slope, offset = -slope, offset + scale.turned_from * slope
    is_plain = slope == 1 and offset == round(offset) and stored.dtype.itemsize <= 2
    rows = max(1, CHUNK // max(1, stored.shape[1]))
    for start in range(0, len(stored), rows):
        source, target = stored[start : start + rows], out[start : start + rows]
        if is_plain and abs(offset) < 1 << 16:
            np.copyto(target, source, casting="unsafe")
            if offset:
                target += np.float32(offset)
        else:
            target[:] = source.astype(np.float64) * slope + offset


def refuse_odd_pixels(name: str, ds: Dataset) -> None:
    """Refuse pixels that are not whole numbers of 8, 16 or 32 bits from the lowest bit up."""
    stored, allocated = integer(ds, "BitsStored"), integer(ds, "BitsAllocated")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise NotScored("unsupported_pixels", f"{name} stores {stored} of {allocated} bits.")
    if number(ds, "HighBit") not in (None, stored - 1):
        raise NotScored(
            "unsupported_pixels",
            f"{name} stores {stored} bits up to bit {integer(ds, 'HighBit')}.",
        )


def refuse_length(name: str, ds: Dataset, found: int) -> None:
    """Refuse uncompressed pixels of `found` bytes where the header asks for others."""
    allocated = integer(ds, "BitsAllocated")
    wanted = frame_count(ds) * integer(ds, "Rows") * integer(ds, "Columns") * allocated // 8
    if found not in (wanted, wanted + wanted % 2):
        raise NotScored(
            "wrong_pixel_length",
            f"{name} holds {found} bytes of pixels; its Rows, Columns, Bits Allocated and "
            f"Number of Frames ask for {wanted}.",
        )


def _refuse_wrong_length(name: str, ds: Dataset) -> None:
    if "PixelData" not in ds:
        raise NotScored("no_images", f"{name} holds no pixels.")
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax in ENDS_WITH_MARKER:
        _refuse_odd_codestreams(name, ds)
    if syntax is not None and not syntax.is_compressed:
        refuse_length(name, ds, len(ds.PixelData))


def _refuse_odd_codestreams(name: str, ds: Dataset) -> None:
    """Refuse frames that are cut short or of another size than the header says.

    Decoders fill what is missing and say nothing, and work for as long as a wrong size asks.
    """
    wanted = (integer(ds, "Rows"), integer(ds, "Columns"), 1)
    try:
        frames = generate_frames(ds.PixelData, number_of_frames=frame_count(ds))
        for number, frame in enumerate(frames, start=1):
            if END_MARKER not in frame[-16:]:
                raise NotScored(
                    "undecodable_pixels",
                    f"{name}: the compressed pixels of frame {number} are cut short.",
                )
            if size_of(frame) != wanted:
                raise NotScored(
                    "undecodable_pixels",
                    f"{name}: the compressed pixels of frame {number} are not of the "
                    f"{wanted[0]} rows and {wanted[1]} columns of the header.",
                )
    except (ValueError, IndexError, struct.error) as error:
        raise NotScored(
            "undecodable_pixels", f"{name}: its pixel fragments are damaged."
        ) from error


def _is_padding(padding: tuple[int, int], stored: Stored) -> NDArray[np.bool_]:
    low, high = padding
    mask: NDArray[np.bool_] = (stored == low) if low == high else (stored >= low) & (stored <= high)
    return mask


def _padding(ds: Dataset) -> tuple[int, int] | None:
    """Pixels outside the reconstructed image: Pixel Padding Value, up to its Range Limit."""
    first = _as_stored(ds, number(ds, "PixelPaddingValue"))
    if first is None:
        return None
    last = _as_stored(ds, number(ds, "PixelPaddingRangeLimit"))
    low, high = sorted((first, first if last is None else last))
    return low, high


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
    return None


def _stored_range(ds: Dataset) -> tuple[int, int]:
    bits = integer(ds, "BitsStored")
    if integer(ds, "PixelRepresentation"):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _plugin(ds: Dataset) -> str:
    """Name the decoder of a transfer syntax; pydicom would try all in turn at damaged pixels."""
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax in JPEG2000TransferSyntaxes:
        return "pylibjpeg"
    if syntax in JPEGLSTransferSyntaxes:
        return "pyjpegls"
    return "gdcm" if syntax in JPEGTransferSyntaxes else ""


def _syntax(ds: Dataset) -> str:
    syntax = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    return "no transfer syntax" if syntax is None else str(syntax.name)
