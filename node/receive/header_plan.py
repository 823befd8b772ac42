"""What a walk over a data set looks for, tag by tag, and how the data set is encoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from node.receive.header_values import Value, parse_tag, tag_text, vr_of

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

PIXEL_DATA = 0x7FE00010
SPECIFIC_CHARACTER_SET = 0x00080005
PIXEL_REPRESENTATION = 0x00280103
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


@dataclass
class Wish:
    """What to do at one tag."""

    tag: int
    names: list[str] = field(default_factory=list)
    children: dict[int, Wish] = field(default_factory=dict)
    known: dict[tuple[object, ...], list[Value]] = field(default_factory=dict)
    """Short values that were decoded before: most are the same in all instances of a series."""

    @property
    def vr(self) -> str:
        """VR of the data dictionary."""
        return vr_of(self.tag)


Plan = dict[int, Wish]


class Encoding:
    """How elements are written: the readers of their heads, and delimiters as they then read."""

    def __init__(self, order: str, *, explicit: bool) -> None:
        self.order = order
        self.explicit = explicit
        self.head = struct.Struct(order + ("I2sH" if explicit else "II")).unpack_from
        self.item_head = struct.Struct(order + "II").unpack_from
        self.u32 = struct.Struct(order + "I").unpack_from
        self.item, self.item_end, self.sequence_end, self.pixels = (
            self.tag(tag) for tag in (ITEM, ITEM_END, SEQUENCE_END, PIXEL_DATA)
        )

    def tag(self, tag: int) -> int:
        """Turn a tag into the number its four bytes read as, and back.

        Tags are two 16-bit numbers: as one little-endian 32-bit number they read swapped.
        """
        return tag if self.order == ">" else (tag & 0xFFFF) << 16 | tag >> 16


IMPLICIT_LITTLE = Encoding("<", explicit=False)
_EXPLICIT_LITTLE = Encoding("<", explicit=True)
_EXPLICIT_BIG = Encoding(">", explicit=True)


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Tell how elements are written in a transfer syntax; in most, Explicit VR Little Endian."""
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return IMPLICIT_LITTLE
    return _EXPLICIT_BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else _EXPLICIT_LITTLE


@lru_cache(maxsize=64)
def plan_of(wanted: tuple[int | str, ...], encoding: Encoding) -> Plan:
    """Turn names into a tree of tags; every level also looks at its character set."""
    root: Plan = {}
    for name in wanted:
        path = name.split(".") if isinstance(name, str) else [name]
        level = root
        for part in path:
            tag = parse_tag(part)
            wish = level.setdefault(encoding.tag(tag), Wish(tag))
            _add(level, SPECIFIC_CHARACTER_SET, encoding)
            _add(level, PIXEL_REPRESENTATION, encoding)
            level = wish.children
        wish.names.append(name if isinstance(name, str) else tag_text(name))
    return root


def names_below(wish: Wish) -> Iterator[str]:
    """Names asked for at one tag and below it."""
    yield from wish.names
    for child in wish.children.values():
        yield from names_below(child)


def _add(plan: Plan, tag: int, encoding: Encoding) -> None:
    plan.setdefault(encoding.tag(tag), Wish(tag))
