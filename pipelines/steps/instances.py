"""Instances whose pixels stay in their files until a volume takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.base import NotScored, Transient
from pipelines.steps.frames import SINGLE_FRAME, Frame, image_frames, integer, is_mosaic
from pipelines.steps.geometry import Plane
from pipelines.steps.head_reader import HeadReader, head_of
from pipelines.steps.headers import NUMBER, POSITION, UID_TAG, Head, Kin
from pipelines.steps.mosaic import mosaic_frames
from pipelines.steps.pixels import (
    Scale,
    Stored,
    refuse_length,
    refuse_odd_pixels,
    scale_of,
    stored_frames,
)
from pipelines.steps.read import damage_refused, read_instance
from storage.place import OpenFile, Place


@dataclass(frozen=True)
class Layout:
    """How the stored values of one frame lie in a file."""

    rows: int
    columns: int
    kind: np.dtype[np.integer]
    unused_bits: int

    @property
    def extent(self) -> tuple[int, int]:
        """Lowest and highest value the stored bits can say."""
        bits = self.kind.itemsize * 8 - self.unused_bits
        if self.kind.kind == "i":
            return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return 0, (1 << bits) - 1


@dataclass(frozen=True, eq=False)
class Instance:
    """The header of an instance, and where its pixels are.

    Parameters
    ----------
    own : Dataset or Head
        Holds the pixels too, where `place` is None.
    place : Place or None
        Its Part 10 file.
    span : tuple of int or None
        Offset and number of the bytes of uncompressed little-endian pixels in the object; None:
        they have to be decoded.
    like : Instance or None
        One whose header differs in nothing but `OWN`: what is true of it need not be found again.
    """

    own: Dataset | Head
    place: Place | None = None
    span: tuple[int, int] | None = None
    like: Instance | None = None

    @cached_property
    def header(self) -> Dataset:
        """Attributes of the instance."""
        return self.own.dataset() if isinstance(self.own, Head) else self.own

    @cached_property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""
        if isinstance(self.own, Head):
            return self.own.elements[UID_TAG].rstrip(b"\0 ").decode("ascii", "replace")
        return str(self.own.SOPInstanceUID)

    @cached_property
    def scale(self) -> Scale:
        """How its stored values become modality values."""
        return self.like.scale if self.like else scale_of(self.header)

    @cached_property
    def layout(self) -> Layout:
        """How the stored values of its frames lie in the file.

        Raises
        ------
        NotScored
            The pixels are none that can be read without decoding.
        """
        if self.like and self.span and self.like.span and self.like.span[1] == self.span[1]:
            return self.like.layout
        ds, name = self.header, f"Instance {self.sop_instance_uid}"
        with damage_refused(f"{name}: the description of its pixels"):
            refuse_odd_pixels(name, ds)
            refuse_length(name, ds, self.span[1] if self.span else 0)
            allocated = integer(ds, "BitsAllocated")
            sign = "i" if integer(ds, "PixelRepresentation") else "u"
            return Layout(
                integer(ds, "Rows"),
                integer(ds, "Columns"),
                np.dtype(f"<{sign}{allocated // 8}"),
                allocated - integer(ds, "BitsStored"),
            )

    def frames(self, number: int) -> list[Frame]:
        """List its images, as `frames.image_frames` does.

        Parameters
        ----------
        number : int
            Its place in the series, from 0.
        """
        if self.like is not None and isinstance(self.own, Head):
            [same] = self.like.frames(number)
            position = self._numbers(self.own, POSITION)
            order = self._numbers(self.own, NUMBER)
            if len(position) == 3 and len(order) == 1:
                plane = Plane(np.array(position), same.plane.orientation, same.plane.spacing)
                rank = (same.rank[0], int(order[0]), 0)
                return [same.next_to(self.sop_instance_uid, plane, rank, number)]
        return self._frames_of_header(number)

    def _frames_of_header(self, number: int) -> list[Frame]:
        if "_first" not in self.__dict__:
            with damage_refused(f"Instance {self.sop_instance_uid}: its header"):
                listed = mosaic_frames if is_mosaic(self.header) else image_frames
                self.__dict__["_first"] = listed(self.header, number)
        found: list[Frame] = self.__dict__["_first"]
        return found

    @staticmethod
    def _numbers(head: Head, tag: int) -> list[float]:
        try:
            found = [float(text) for text in head.elements.get(tag, b"").split(b"\\")]
        except ValueError:
            return []
        return found if all(map(isfinite, found)) else []

    def stored(
        self,
        indices: Sequence[int],
        targets: Sequence[Stored] | None = None,
        file: OpenFile | None = None,
    ) -> Iterator[Stored]:
        """Yield the stored values of frames, shape (rows, columns), valid until the next one.

        Parameters
        ----------
        indices : sequence of int
            Ascending, from 0.
        targets : sequence of NDArray or None
            Where to put them, of the shape and kind of `layout`; only where there is a `span`.
        file : OpenFile or None
            To read with.

        Raises
        ------
        NotScored
            There are no pixels, their length does not fit the header, or they cannot be decoded.
        Transient
            The file cannot be read now.
        """
        if self.place is None:
            yield from stored_frames(self.header, indices)
        elif self.span is None:
            yield from stored_frames(read_instance(self.place, deflated=True), indices)
        elif file is None:
            with OpenFile() as own:
                yield from self.stored(indices, targets, own)
        else:
            layout = self.layout
            if targets is None:
                targets = [np.empty((layout.rows, layout.columns), layout.kind)] * len(indices)
            for index, stored in zip(indices, targets, strict=True):
                start = self.span[0] + index * stored.nbytes
                _read_into(stored, file, self.place, start, self.sop_instance_uid)
                _clear(stored, layout.unused_bits)
                yield stored


def open_instance(
    source: Path | Place,
    number: int = 1,
    known: dict[Kin, Instance] | None = None,
    head: Head | None = None,
    reader: HeadReader | None = None,
    *,
    deflated: bool = False,
) -> Instance:
    """Read the header of one Part 10 file and find its pixels.

    Parameters
    ----------
    source : Path or Place
    number : int
        Its place in the series, which names it while its UID is not known.
    known : dict or None
        Instances of the series by what they share; filled here, to recognise those that are
        alike.
    head : Head or None
        What has been read of the file already.
    reader : HeadReader or None
        That of the series.
    deflated : bool
        Whether to inflate deflated data sets, whose size is not known before.

    Raises
    ------
    NotScored
        The file is not DICOM, damaged, too large, or deflated.
    Transient
        The store does not answer.
    """
    place = Place.of(source)
    try:
        head = head or (reader.head_of(place) if reader else head_of(place))
    except OSError as error:
        raise Transient(f"File {number} of the series could not be read now.") from error
    if head is None:
        return Instance(read_instance(place, number, pixels=False, deflated=deflated), place)
    like = known.get(head.kin) if known is not None else None
    instance = Instance(head, place, head.pixels, like)
    if not instance.sop_instance_uid:
        raise NotScored("no_identity", "An instance of the series has no SOP Instance UID.")
    if place.length is not None and sum(head.pixels) > place.length:
        uid = instance.sop_instance_uid
        raise NotScored("wrong_pixel_length", f"Instance {uid}: its pixels are cut short.")
    if like is not None:
        return instance
    ds = instance.header
    if ds.get("SOPClassUID") not in SINGLE_FRAME or is_mosaic(ds):
        return Instance(read_instance(place, number, pixels=False), place, head.pixels)
    if known is not None:
        known[head.kin] = instance
    return instance


def _read_into(stored: Stored, file: OpenFile, place: Place, start: int, uid: str) -> None:
    """Read the bytes of an object from `start` on into the memory of an array."""
    target = stored.view(np.uint8).reshape(-1).data
    done = 0
    while done < len(target):
        try:
            handle = file.handle(place.path)
            count = os.preadv(handle, [target[done:]], place.offset + start + done)
        except OSError as error:
            raise Transient("A file of the series could not be read now.") from error
        if not count:
            raise NotScored("wrong_pixel_length", f"Instance {uid}: its pixels are cut short.")
        done += count


def _clear(stored: NDArray[np.integer], bits: int) -> None:
    """Set the bits above Bits Stored, which mean nothing, as the value's sign has them."""
    if bits and stored.dtype.kind == "u":
        mask = (1 << (stored.itemsize * 8 - bits)) - 1
        np.bitwise_and(stored, stored.dtype.type(mask), out=stored)
    elif bits:
        np.left_shift(stored, bits, out=stored)
        np.right_shift(stored, bits, out=stored)
