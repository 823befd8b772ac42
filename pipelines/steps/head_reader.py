"""Heads of the files of a series, which are mostly alike: what is the same is not walked again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from struct import Struct, error

from pydicom.uid import ExplicitVRLittleEndian

from pipelines.steps.headers import (
    LONG_FORM,
    OWN,
    UNDEFINED,
    WANTED,
    Head,
    Kin,
    NotUnderstood,
    TooShort,
    Walk,
    after_items,
    is_identified,
    kin_of,
    whole_walk,
)
from storage.place import OpenFile, Place

HEAD_BYTES = 1 << 14
MAX_HEAD_BYTES = 1 << 20
META_START = b"DICM\2\0\0\0UL\4\0"
"""How the file meta information begins, up to its length."""
META_PLACE = 144
PATIENCE = 64
"""How far to go on where headers differ in ever more elements; each that does costs 4."""

_WORD = Struct("<H").unpack_from
_WORDS = Struct("<HH").unpack_from
_LONG = Struct("<I").unpack_from


def head_of(place: Place) -> Head | None:
    """Read the head of one Part 10 file, as a `HeadReader` does."""
    with HeadReader() as reader:
        return reader.head_of(place)


class HeadReader:
    """Reads the heads of files of which most are alike, such as those of a series.

    Elements that were the same in the files before are compared, not walked. Where one differs
    the whole header is walked, and that element expected to differ from then on.
    """

    def __init__(self) -> None:
        self._file = OpenFile()
        self._bytes = HEAD_BYTES
        self._pattern: _Pattern | None = None
        self._patience = PATIENCE

    def __enter__(self) -> HeadReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

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
        handle = self._file.handle(place.path)
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
        return None

    def _walked(self, data: bytes) -> Head | None:
        if data[128:140] != META_START:
            return None
        end = META_PLACE + _LONG(data, META_PLACE - 4)[0]
        pattern = self._pattern
        if pattern is not None:
            head = pattern.follow(data, end)
            if head is not None:
                self._patience = min(self._patience + 1, PATIENCE)
                return head
        walk = whole_walk(data, META_PLACE, end)
        if walk is not None and self._patience > 0:
            self._patience -= 4
            self._pattern = _Pattern(data, walk, pattern)
        return walk.head if walk is not None else None


class _Pattern:
    """What headers of a series have in common, and where they differ.

    Parameters
    ----------
    data : bytes
        The beginning of one file.
    walk : Walk
        Over it.
    before : _Pattern or None
        Of the files before: what differs from it may differ.
    """

    def __init__(self, data: bytes, walk: Walk, before: _Pattern | None) -> None:
        head = walk.head
        self._syntax = head.transfer_syntax_uid
        self._vrs = head.vrs
        self._pixel_bytes = head.pixels[1]
        meta: _Alike | None = None
        body: _Alike | None = None
        if before is not None and before._syntax == self._syntax:
            meta, body = before._meta, before._body
        is_explicit = self._syntax == ExplicitVRLittleEndian
        self._meta: _Alike = _Alike(data, walk.meta_marks, walk.marks[0], True, meta)
        self._body: _Alike = _Alike(data, walk.marks, head.pixels[0], is_explicit, body)
        self._constant = {
            tag: value for tag, value in head.elements.items() if tag not in self._body.differing
        }
        self._telling = tuple(sorted(self._body.differing & WANTED - OWN))
        self._kins: dict[tuple[bytes | None, ...], Kin] = {}

    def follow(self, data: bytes, end: int) -> Head | None:
        """Read a head whose data set begins at `end`; None where it differs elsewhere."""
        if self._meta.follow(data, META_PLACE, {}) != end:
            return None
        values = self._constant.copy()
        place = self._body.follow(data, end, values)
        if place < 0 or not is_identified(values):
            return None
        own = tuple([values.get(tag) for tag in self._telling])
        kin = self._kins.get(own)
        if kin is None:
            kin = self._kins[own] = kin_of(values)
        return Head(values, self._vrs, self._syntax, (place, self._pixel_bytes), kin)


class _Alike:
    """Elements one after the other, as bytes that stay and, after each, one that may differ.

    Parameters
    ----------
    data : bytes
    marks : list of int
        Where each element begins; the value of the last is left out.
    end : int
        Where what is looked at ends.
    explicit : bool
    before : _Alike or None
        Of the files before.
    """

    def __init__(
        self, data: bytes, marks: Sequence[int], end: int, explicit: bool, before: _Alike | None
    ) -> None:
        self._explicit = explicit
        ends = [*marks[1:], end][: len(marks)]
        self._raw = {
            _tag(data, start): data[start:stop] for start, stop in zip(marks, ends, strict=True)
        }
        self.differing: frozenset[int] = frozenset()
        if before is not None and list(before._raw) == list(self._raw):
            self.differing = before.differing | {
                tag for tag, raw in self._raw.items() if raw != before._raw[tag]
            }
        self._parts: list[tuple[bytes, int, bool]] = []
        self._tail = b""
        for tag, raw in self._raw.items():
            if tag not in self.differing:
                self._tail += raw
                continue
            is_short = explicit and raw[4:6] not in LONG_FORM
            stays = 6 if is_short else 8 if explicit else 4
            self._parts.append((self._tail + raw[:stays], tag, not is_short))
            self._tail = b""

    def follow(self, data: bytes, place: int, values: dict[int, bytes]) -> int:
        """Collect what is wanted of the elements that differ; return where the last one ends.

        -1 where anything else differs.
        """
        for run, tag, is_long in self._parts:
            if not data.startswith(run, place):
                return -1
            place += len(run)
            if is_long:
                length = _LONG(data, place)[0]
                place += 4
            else:
                length = _WORD(data, place)[0]
                place += 2
            if tag in WANTED:
                if length == UNDEFINED:
                    return -1
                values[tag] = data[place : place + length]
            place = (
                after_items(data, place, self._explicit, 0)
                if length == UNDEFINED
                else place + length
            )
        return place + len(self._tail) if data.startswith(self._tail, place) else -1


def _tag(data: bytes, place: int) -> int:
    group, element = _WORDS(data, place)
    return int(group) << 16 | int(element)
