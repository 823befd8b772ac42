"""Heads of the files of a series, which are mostly alike: what is the same is not walked again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from struct import Struct, error

from pydicom.uid import ExplicitVRLittleEndian

from pipelines.steps.headers import (
    IDENTITY,
    LONG_FORM,
    OWN,
    TRANSFER_SYNTAX,
    UNDEFINED,
    WANTED,
    Head,
    Kin,
    NotUnderstood,
    TooShort,
    after_items,
    explicit_walk,
    identified,
    kin_of,
    whole_walk,
)
from storage.place import Place

HEAD_BYTES = 1 << 14
MAX_HEAD_BYTES = 1 << 20
META_LENGTH = b"\2\0\0\0UL\4\0"
META_START = 144
META = frozenset({TRANSFER_SYNTAX, *IDENTITY.values()})
PATIENCE = 64
"""How far to go on where headers differ in ever other elements; each that does costs 4."""

_WORD = Struct("<H").unpack_from
_WORDS = Struct("<HH").unpack_from
_LONG = Struct("<I").unpack_from


def head_of(place: Place) -> Head | None:
    """Read the head of one Part 10 file, as a `HeadReader` does."""
    return HeadReader().head_of(place)


class HeadReader:
    """Reads the heads of files of which most are alike, such as those of a series.

    Elements that were the same in the files before are compared, not walked. Where one differs
    the whole header is walked, and that element expected to differ from then on.
    """

    def __init__(self) -> None:
        self._bytes = HEAD_BYTES
        self._pattern: _Pattern | None = None
        self._patience = PATIENCE

    def head_of(self, place: Place) -> Head | None:
        """Read the head of a Part 10 file; None where pydicom has to.

        Only single files of uncompressed little-endian pixels are read here, whose elements
        before the pixels fit into `MAX_HEAD_BYTES`. A SOP Instance UID or SOP Class UID that is
        empty in the data set is taken from the file meta information.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        handle = os.open(place.path, os.O_RDONLY)
        try:
            for limit in (self._bytes, MAX_HEAD_BYTES):
                length = limit if place.length is None else min(limit, place.length)
                data = os.pread(handle, length, place.offset)
                try:
                    head = self._walked(data)
                except TooShort:
                    if len(data) < limit:
                        return None
                    continue
                if head is not None:
                    self._bytes = max(self._bytes, min(head.pixels[0] + 4096, MAX_HEAD_BYTES))
                return head
        except (error, UnicodeDecodeError, NotUnderstood):
            return None
        finally:
            os.close(handle)
        return None

    def _walked(self, data: bytes) -> Head | None:
        if data[128:132] != b"DICM" or data[132:140] != META_LENGTH:
            return None
        end = META_START + _LONG(data, 140)[0]
        meta: dict[int, bytes] = {}
        explicit_walk(data[:end], META_START, META, meta, {}, [])
        syntax = meta.get(TRANSFER_SYNTAX, b"").rstrip(b"\0 ").decode("ascii")
        pattern = self._pattern
        if pattern is not None and pattern.transfer_syntax_uid == syntax:
            head = pattern.follow(data, end, meta)
            if head is not None:
                self._patience = min(self._patience + 1, PATIENCE)
                return head
        head, marks = whole_walk(data, end, syntax, meta)
        if head is not None and self._patience > 0:
            self._patience -= 4
            self._pattern = _Pattern(data, marks, head, pattern)
        return head


class _Pattern:
    """What headers of a series have in common, and where they differ.

    Parameters
    ----------
    data : bytes
        The beginning of one file.
    marks : list of int
        Where each of its elements begins, Pixel Data the last.
    head : Head
        Of that file.
    before : _Pattern or None
        Of the files before: what differs from it may differ.
    """

    def __init__(
        self, data: bytes, marks: Sequence[int], head: Head, before: _Pattern | None
    ) -> None:
        self.transfer_syntax_uid = head.transfer_syntax_uid
        self._vrs = head.vrs
        self._is_explicit = self.transfer_syntax_uid == ExplicitVRLittleEndian
        ends = [*marks[1:], head.pixels[0]]
        self._elements = {
            _tag(data, start): data[start:end] for start, end in zip(marks, ends, strict=True)
        }
        self._differing: frozenset[int] = frozenset()
        if before is not None and list(before._elements) == list(self._elements):
            self._differing = before._differing | {
                tag for tag, raw in self._elements.items() if raw != before._elements[tag]
            }
        self._constant = {t: v for t, v in head.elements.items() if t not in self._differing}
        self._telling = tuple(sorted(self._differing & WANTED - OWN))
        self._kins: dict[tuple[bytes | None, ...], Kin] = {}
        self._pixel_bytes = head.pixels[1]
        self._parts, self._tail = self._cut()

    def _cut(self) -> tuple[list[tuple[bytes, int, bool]], bytes]:
        """Cut into bytes that stay and, after each, an element that may differ.

        Returns
        -------
        list of tuple
            What stays, tag and VR of what follows included; its tag; whether its length has four
            bytes, not two.
        bytes
            What stays at the end.
        """
        parts, run = [], b""
        for tag, raw in self._elements.items():
            if tag not in self._differing:
                run += raw
            elif self._is_explicit and raw[4:6] not in LONG_FORM:
                parts.append((run + raw[:6], tag, False))
                run = b""
            else:
                parts.append((run + raw[: 8 if self._is_explicit else 4], tag, True))
                run = b""
        return parts, run

    def follow(self, data: bytes, place: int, meta: dict[int, bytes]) -> Head | None:
        """Read a head from `place`, where its data set begins; None where it differs elsewhere."""
        values = self._constant.copy()
        for run, tag, is_long in self._parts:
            if not data.startswith(run, place):
                return None
            place += len(run)
            length = (_LONG if is_long else _WORD)(data, place)[0]
            place += 4 if is_long else 2
            if tag in WANTED:
                values[tag] = data[place : place + length]
            if length == UNDEFINED:
                if tag in WANTED:
                    return None
                place = after_items(data, place, self._is_explicit, 0)
            else:
                place += length
        if not data.startswith(self._tail, place):
            return None
        own = tuple([values.get(tag) for tag in self._telling])
        pixels = (place + len(self._tail), self._pixel_bytes)
        if not all(values.get(tag, b"").strip(b"\0 ") for tag in IDENTITY):
            return identified(values, self._vrs, self.transfer_syntax_uid, pixels, meta)
        kin = self._kins.get(own)
        if kin is None:
            kin = self._kins[own] = kin_of(values)
        return Head(values, self._vrs, self.transfer_syntax_uid, pixels, kin)


def _tag(data: bytes, place: int) -> int:
    group, element = _WORDS(data, place)
    return int(group) << 16 | int(element)
