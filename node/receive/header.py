"""Reads the few elements of a data set that routing needs, whatever the data set holds.

A walk over the bytes as they were received: no pydicom objects, no recursion beyond 16 levels, no
element without a check of its length against the end. It runs for every instance before status
0x0000, in the thread that serves the peer.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from node.receive.effort import Effort, LimitReached
from node.receive.header_plan import (
    IMPLICIT_LITTLE,
    PIXEL_REPRESENTATION,
    SPECIFIC_CHARACTER_SET,
    Encoding,
    Plan,
    Wish,
    encoding_of,
    names_below,
    plan_of,
)
from node.receive.header_values import Value, decode, encodings_of, tag_text

DEEPEST = 16
MOST_ELEMENTS = 50_000
LONGEST_VALUE = 65_536

DEFLATED = "1.2.840.10008.1.2.1.99"

_UNDEFINED = 0xFFFFFFFF
_LONGEST_KNOWN = 128
_MOST_KNOWN = 256
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


class HeaderError(ValueError):
    """Raised when a data set cannot be walked to its end.

    Parameters
    ----------
    tag : int or None
        The element at which it went wrong.
    sentence : str
        What is wrong, without a value of the data set.
    """

    def __init__(self, tag: int | None, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag
        self.sentence = sentence


class StartTooShort(Exception):
    """Raised when the walk needs bytes that are not in the beginning it was given."""


@dataclass(frozen=True)
class HeaderScan:
    """Values found, by the names they were asked by.

    An absent element has no entry, an empty one (or one over 64 KiB) an empty list, a sequence
    asked for by itself the number of its items. None: the walk stopped at the limit of elements
    or of time before it came there, so that nobody knows.
    """

    values: dict[str, list[Value] | None]


def scan(
    data: bytes | bytearray | memoryview,
    transfer_syntax_uid: str,
    wanted: Collection[int | str],
    size: int | None = None,
) -> HeaderScan:
    """Walk a data set to its end and collect the wanted elements.

    Parameters
    ----------
    data : bytes-like
        The data set as received, without Part 10 header.
    transfer_syntax_uid : str
        The one negotiated. Deflated data sets are not accepted.
    wanted : collection of str or int
        Keywords, tags, ``"(gggg,eeee)"``, or paths through sequences such as
        ``"RequestAttributesSequence.ScheduledProcedureStepID"``, whose values are collected from
        all items.
    size : int or None
        Length of the data set where `data` is only its beginning: enough, when all that follows
        is the value of an element that is not wanted, such as the pixel data.

    Raises
    ------
    HeaderError
        The data set ends too early, is nested deeper than 16 levels, or is no data set.
    StartTooShort
        More than the beginning is needed.

    References
    ----------
    DICOM PS3.5 section 7, The Data Set.
    """
    if transfer_syntax_uid == DEFLATED:
        raise HeaderError(None, "a deflated data set is not accepted")
    encoding = encoding_of(transfer_syntax_uid)
    walk = _Walk(data, encoding, len(data) if size is None else size)
    return walk.run(plan_of(tuple(wanted), encoding))


@dataclass
class _Level:
    """What holds inside one data set or item."""

    encodings: tuple[str, ...] = ("iso8859",)
    signed: bool = False


class _Walk:
    """One walk over one data set."""

    def __init__(self, data: bytes | bytearray | memoryview, encoding: Encoding, size: int) -> None:
        self._data: Any = data
        self._have = len(data)
        self._end = size
        self._left = MOST_ELEMENTS
        self._effort = Effort()
        self._entered: Wish | None = None
        self._encoding = encoding
        self.values: dict[str, list[Value] | None] = {}

    def run(self, plan: Plan) -> HeaderScan:
        """Walk from the first element to the last byte."""
        try:
            self._elements(0, self._end, plan, _Level(), 0, delimited=False)
        except LimitReached:
            self._mark_unread(plan)
        except struct.error:
            if self._have == self._end:
                raise
            raise StartTooShort from None
        finally:
            self._effort.end()
        return HeaderScan(self.values)

    def _mark_unread(self, plan: Plan) -> None:
        """Say of what was not found, and of the sequence that was left, that nobody knows."""
        children = self._entered.children.values() if self._entered else ()
        half_read = {name for child in children for name in names_below(child)}
        for name in [name for wish in plan.values() for name in names_below(wish)]:
            if name in half_read or name not in self.values:
                self.values[name] = None

    def _elements(
        self, at: int, end: int, plan: Plan, level: _Level, depth: int, *, delimited: bool
    ) -> int:
        """Walk the elements of a data set or item; return where it ended."""
        data, encoding, wish_of = self._data, self._encoding, plan.get
        head, explicit = encoding.head, encoding.explicit
        vr = b""
        while at + 8 <= end:
            self._left -= 1
            if not self._left & 127:
                self._check_limits()
            if explicit:
                tag, vr, length = head(data, at)
                at += 8
                if vr not in _SHORT:
                    if tag & 0xFFFF == 0xFFFE or tag >> 16 == 0xFFFE:
                        if self._is_end(tag, at, delimited=delimited):
                            return at
                        continue
                    vr, length, at = self._uncommon(tag, vr, length, at, end)
            else:
                tag, length = head(data, at)
                at += 8
                if tag & 0xFFFF == 0xFFFE:
                    if self._is_end(tag, at, delimited=delimited):
                        return at
                    continue
            wish = wish_of(tag)
            if length == _UNDEFINED:
                self._entered = self._entered if depth else wish
                at = self._undefined(tag, vr, at, end, wish, level, depth)
                continue
            if at + length > end:
                raise self._truncated(tag)
            if wish is not None:
                raw = bytes(data[at : at + length]) if length <= _LONGEST_KNOWN else b""
                known = wish.known.get((raw, vr, level.encodings, level.signed))
                if known is not None and len(raw) == length and not depth:
                    for key in wish.names:
                        self.values[key] = known
                else:
                    self._entered = self._entered if depth else wish
                    self._take(wish, vr, at, length, level, depth)
            at += length
        return self._finish(at, end, delimited=delimited)

    def _finish(self, at: int, end: int, *, delimited: bool) -> int:
        """Check what is left: an item without length lacks its end; zeros may pad a data set."""
        if delimited:
            raise HeaderError(None, "the data set ends inside a sequence")
        if at < end and any(self._bytes(at, end)):
            raise HeaderError(None, "the data set ends inside an element")
        return end

    def _bytes(self, at: int, end: int) -> bytes:
        """Copy bytes out."""
        if end > self._have:
            raise StartTooShort
        return bytes(self._data[at:end])

    def _is_end(self, tag: int, at: int, *, delimited: bool) -> bool:
        """Whether a delimiter ends this item; one that ends nothing is overlooked."""
        if tag == self._encoding.item_end and delimited:
            return True
        length = self._encoding.u32(self._data, at - 4)[0]
        if (
            tag in (self._encoding.item_end, self._encoding.sequence_end)
            and length == 0
            and not delimited
        ):
            return False
        raise HeaderError(self._tag(tag), f"{self._name(tag)} is out of place")

    def _uncommon(
        self, tag: int, vr: bytes, length: int, at: int, end: int
    ) -> tuple[bytes, int, int]:
        """VR, length and place of the value of an element that has no 16-bit length.

        A VR that is none at all means an element in implicit form, which some scanners write in
        the midst of explicit ones; a VR from the future has a 32-bit length (PS3.5 6.2).
        """
        if vr not in _LONG:
            if not (vr.isalpha() and vr.isupper()):
                return b"", self._encoding.u32(self._data, at - 4)[0], at
            if length:
                return vr, length, at
        if at + 4 > end:
            raise self._truncated(tag)
        return vr, self._encoding.u32(self._data, at)[0], at + 4

    def _undefined(
        self, tag: int, vr: bytes, at: int, end: int, wish: Wish | None, level: _Level, depth: int
    ) -> int:
        """Walk an element without length: encapsulated pixels or a sequence."""
        if tag == self._encoding.pixels or vr in (b"OB", b"OW"):
            return self._fragments(tag, at, end)
        if vr == b"UN" or (not vr and self._encoding.explicit):
            return self._unknown(tag, at, end, wish, level, depth)
        if vr not in (b"SQ", b""):
            raise HeaderError(self._tag(tag), f"{self._name(tag)} has no length")
        return self._sequence(tag, at, end, wish, level, depth, delimited=True)

    def _unknown(
        self, tag: int, at: int, end: int, wish: Wish | None, level: _Level, depth: int
    ) -> int:
        """Walk a sequence without the VR SQ: its items are in implicit form (PS3.5 6.2.2)."""
        outer = self._encoding
        if outer.order == ">":
            wish = None
        self._encoding = IMPLICIT_LITTLE
        try:
            return self._sequence(tag, at, end, wish, level, depth, delimited=True)
        finally:
            self._encoding = outer

    def _sequence(
        self,
        tag: int,
        at: int,
        end: int,
        wish: Wish | None,
        level: _Level,
        depth: int,
        *,
        delimited: bool,
    ) -> int:
        """Walk the items of a sequence; return where it ended."""
        if depth >= DEEPEST:
            raise HeaderError(self._tag(tag), f"sequences are nested deeper than {DEEPEST} levels")
        children = wish.children if wish else {}
        items = 0
        while at + 8 <= end:
            self._left -= 1
            if not self._left & 127:
                self._check_limits()
            found, length = self._encoding.item_head(self._data, at)
            at += 8
            if found == self._encoding.sequence_end and delimited:
                self._count_items(wish, items)
                return at
            if found != self._encoding.item:
                raise HeaderError(self._tag(tag), f"{self._name(tag)} holds something but items")
            items += 1
            inner = _Level(level.encodings, level.signed)
            if length == _UNDEFINED:
                at = self._elements(at, end, children, inner, depth + 1, delimited=True)
            elif at + length > end:
                raise self._truncated(tag)
            else:
                if children:
                    self._elements(at, at + length, children, inner, depth + 1, delimited=False)
                at += length
        if delimited or at != end:
            raise self._truncated(tag)
        self._count_items(wish, items)
        return at

    def _fragments(self, tag: int, at: int, end: int) -> int:
        """Walk encapsulated pixel data by the lengths of its fragments."""
        data, head, item = self._data, self._encoding.item_head, self._encoding.item
        steps = 0
        while at + 8 <= end:
            found, length = head(data, at)
            at += 8
            if found == item and at + length <= end:
                at += length
            elif found == self._encoding.sequence_end:
                return at
            else:
                break
            steps += 1
            if not steps & 1023:
                self._effort.step()
        raise self._truncated(tag)

    def _take(self, wish: Wish, vr: bytes, at: int, length: int, level: _Level, depth: int) -> None:
        """Keep the values of a wanted element, or walk into a wanted sequence."""
        name = vr.decode("ascii", "replace") if vr and vr != b"UN" else wish.vr
        if name == "SQ":
            self._take_sequence(wish, vr, at, length, level, depth)
            return
        raw = b"" if length > LONGEST_VALUE else self._bytes(at, at + length)
        if wish.tag == SPECIFIC_CHARACTER_SET:
            level.encodings = encodings_of(raw)
        elif wish.tag == PIXEL_REPRESENTATION:
            level.signed = raw.strip(b"\0") == b"\1"
        if wish.names:
            self._keep(wish, vr, name, raw, level, depth)

    def _keep(
        self, wish: Wish, vr: bytes, name: str, raw: bytes, level: _Level, depth: int
    ) -> None:
        if name.startswith("US or SS"):
            name = "SS" if level.signed else "US"
        values = decode(raw, name, self._encoding.order, level.encodings)
        for key in wish.names:
            if depth:
                cast(list[Value], self.values.setdefault(key, [])).extend(values)
            else:
                self.values[key] = values
        sets_level = wish.tag in (SPECIFIC_CHARACTER_SET, PIXEL_REPRESENTATION)
        if not depth and len(raw) <= _LONGEST_KNOWN and not sets_level:
            if len(wish.known) >= _MOST_KNOWN:
                wish.known.clear()
            wish.known[raw, vr, level.encodings, level.signed] = values

    def _take_sequence(
        self, wish: Wish, vr: bytes, at: int, length: int, level: _Level, depth: int
    ) -> None:
        outer = self._encoding
        if vr == b"UN" and outer.order == "<":
            self._encoding = IMPLICIT_LITTLE
        try:
            tag = self._tag(wish.tag)
            self._sequence(tag, at, at + length, wish, level, depth, delimited=False)
        finally:
            self._encoding = outer

    def _count_items(self, wish: Wish | None, items: int) -> None:
        if wish is not None:
            for key in wish.names:
                self.values[key] = [float(items)] if items else []

    def _check_limits(self) -> None:
        if self._left <= 0:
            raise LimitReached
        self._effort.step()

    def _tag(self, tag: int) -> int:
        return self._encoding.tag(tag)

    def _name(self, tag: int) -> str:
        return tag_text(self._tag(tag))

    def _truncated(self, tag: int) -> HeaderError:
        sentence = f"the data set ends inside element {self._name(tag)}"
        return HeaderError(self._tag(tag), sentence)
