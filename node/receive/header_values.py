"""What the bytes of one element mean: text, numbers, and the names they are asked by."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from pydicom import charset
from pydicom.datadict import dictionary_VR, tag_for_keyword

Value = str | float

_PADDING = " \0"
_DELIMITERS = {ord("\\"), ord("^"), ord("="), ord("\n"), ord("\r"), ord("\t"), ord("\f")}
_KANJI = re.compile(rb"(\x1b\$(?:B|\(D)[^\x1b]*)")
"""From the escape sequence of ISO-IR 87 or 159 to the next one."""
_SINGLE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
_MULTIPLE_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "PN", "SH", "TM", "UC", "UI"})
_NUMBER_TEXT = frozenset({"DS", "IS"})
_CODES = {
    "US": "H",
    "SS": "h",
    "UL": "I",
    "SL": "i",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
}


def tag_text(tag: int) -> str:
    """Write a tag as the Standard does, ``(0010,0020)``."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def parse_tag(name: int | str) -> int:
    """Find the tag of a keyword, a tag in parentheses, or a tag.

    Raises
    ------
    ValueError
        There is no such keyword.
    """
    if isinstance(name, int):
        return name
    if name.startswith("("):
        group, _, element = name.strip("()").partition(",")
        return int(group, 16) << 16 | int(element, 16)
    tag = tag_for_keyword(name)
    if tag is None:
        raise ValueError(f"{name!r} is no keyword of the DICOM data dictionary")
    return tag


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """VR of the data dictionary, for data sets that do not say; ``UN`` where it has none."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


@lru_cache(maxsize=256)
def encodings_of(specific_character_set: bytes) -> tuple[str, ...]:
    """Python codecs of a Specific Character Set; unknown terms count as the default repertoire.

    pydicom's own conversion warns, and a warning is not for a thread that serves a peer.
    """
    terms = specific_character_set.decode("ascii", "replace").split("\\")
    known = charset.python_encoding
    codecs = [known.get(term.strip(_PADDING), charset.default_encoding) for term in terms]
    alone = [term.strip(_PADDING) in charset.STAND_ALONE_ENCODINGS for term in terms]
    if alone[0]:
        return (codecs[0],)
    return tuple(codec for codec, single in zip(codecs, alone, strict=True) if not single)


def decode(raw: bytes, vr: str, order: str, encodings: Sequence[str]) -> list[Value]:
    """Values of one element.

    Parameters
    ----------
    raw : bytes
        The value field.
    vr : str
        Value Representation.
    order : str
        ``<`` or ``>``, as in `struct`.
    encodings : sequence of str
        Python codecs of the Specific Character Set in force.

    Returns
    -------
    list of str or float
        Text without padding; IS, DS and binary numbers as float, or as text where they are no
        finite number; AT as ``(gggg,eeee)``. Empty for an empty value and for a value that is
        neither text nor number.
    """
    if not raw:
        return []
    if vr in _NUMBER_TEXT:
        return _numbers(raw)
    if vr in _MULTIPLE_TEXT:
        return _texts(raw, encodings)
    if vr in _CODES:
        return _binary(raw, order + _CODES[vr])
    if vr in _SINGLE_TEXT:
        text = _text(raw, encodings).rstrip(_PADDING)
        return [text] if text else []
    if vr == "AT":
        return _tags(raw, order)
    return _texts(raw, encodings) if vr == "UN" and _is_printable(raw) else []


def _text(raw: bytes, encodings: Sequence[str]) -> str:
    if b"\x1b" in raw:
        return _code_extensions(raw, encodings)
    if raw.isascii():
        return raw.decode("ascii")
    return raw.decode(encodings[0], "replace")


def _code_extensions(raw: bytes, encodings: Sequence[str]) -> str:
    """Decode text that switches its character set with escape sequences (PS3.5 6.1.2.5)."""
    first, *rest = raw.split(b"\x1b")
    parts = [first.decode(encodings[0], "replace")]
    parts += [_escaped(b"\x1b" + part, encodings) for part in rest]
    return "".join(parts)


def _escaped(part: bytes, encodings: Sequence[str]) -> str:
    length = 4 if part.startswith((b"\x1b$(", b"\x1b$)")) else 3
    codec = charset.CODES_TO_ENCODINGS.get(part[:length], encodings[0])
    if codec in charset.handled_encodings:
        return part.decode(codec, "replace")
    body = part[length:]
    reset = next((at for at, byte in enumerate(body) if byte in _DELIMITERS), len(body))
    return body[:reset].decode(codec, "replace") + body[reset:].decode(encodings[0], "replace")


def _texts(raw: bytes, encodings: Sequence[str]) -> list[Value]:
    if raw.isascii() and b"\x1b" not in raw:
        text = raw.decode("ascii")
        if "\\" not in text:
            text = text.strip(_PADDING)
            return [text] if text else []
        values = text.split("\\")
    else:
        values = [_text(part, encodings) for part in _split(raw, encodings)]
    stripped: list[Value] = [value.strip(_PADDING) for value in values]
    return stripped if any(stripped) else []


def _split(raw: bytes, encodings: Sequence[str]) -> list[bytes]:
    """Split at backslashes; in GB18030, GBK and kanji that byte may be half of a character."""
    codec = encodings[0]
    if codec in ("GB18030", "GBK"):
        return [part.encode(codec) for part in raw.decode(codec, "replace").split("\\")]
    parts = [b""]
    for place, piece in enumerate(_KANJI.split(raw)):
        first, *others = [piece] if place % 2 else piece.split(b"\\")
        parts[-1] += first
        parts += others
    return parts


def _numbers(raw: bytes) -> list[Value]:
    values = [_number(text) for text in raw.decode("latin-1").split("\\")]
    return values if any(value != "" for value in values) else []


def _number(text: str) -> Value:
    text = text.strip(_PADDING)
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


@lru_cache(maxsize=1024)
def _unpacker(form: str) -> Callable[[bytes], tuple[float, ...]]:
    return struct.Struct(form).unpack


def _binary(raw: bytes, form: str) -> list[Value]:
    size = struct.calcsize(form)
    count = min(len(raw) // size, 4096)
    found = _unpacker(f"{form[0]}{count}{form[1]}")(raw[: count * size])
    return [float(value) if math.isfinite(value) else str(value) for value in found]


def _tags(raw: bytes, order: str) -> list[Value]:
    pairs = struct.iter_unpack(order + "HH", raw[: len(raw) // 4 * 4])
    return [f"({group:04x},{element:04x})" for group, element in pairs]


def _is_printable(raw: bytes) -> bool:
    """Whether an unknown value reads as plain text."""
    return raw.isascii() and raw.rstrip(b" \0").decode("ascii").isprintable()
