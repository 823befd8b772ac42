"""Attributes a rule may name, and how their values compare: by VR, with units.

The key of a condition is kept in one form everywhere: ``Modality``,
``RequestAttributesSequence.RequestedProcedureDescription``, ``(0029,1010)`` or
``(0029,1010 "SIEMENS CSA HEADER")`` (an element ``10`` in the block that creator reserved).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Literal, assert_never

from pydicom import datadict
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary

from node.config.problems import did_you_mean

Kind = Literal["text", "number", "age", "date", "time", "datetime", "uid", "private", "bytes"]
Value = str | float
"""What a header scan hands over for one value of an attribute."""

_KIND_OF_VR: dict[str, Kind] = {
    **dict.fromkeys(("DS", "IS", "FL", "FD", "SS", "US", "SL", "UL", "SV", "UV"), "number"),
    **dict.fromkeys(("OB", "OW", "OD", "OF", "OL", "OV", "UN", "SQ"), "bytes"),
    "AS": "age",
    "DA": "date",
    "TM": "time",
    "DT": "datetime",
    "UI": "uid",
}
UNIT_OF_KEYWORD = {
    **dict.fromkeys(
        ("SliceThickness", "SpacingBetweenSlices", "PixelSpacing", "ImagerPixelSpacing",
         "SliceLocation", "ReconstructionDiameter", "DataCollectionDiameter", "TableHeight"),
        "mm",
    ),
    **dict.fromkeys(("RepetitionTime", "EchoTime", "InversionTime", "ExposureTime"), "ms"),
    **dict.fromkeys(("FlipAngle", "GantryDetectorTilt"), "deg"),
    "KVP": "kV",
    "XRayTubeCurrent": "mA",
    "MagneticFieldStrength": "T",
    "PatientWeight": "kg",
    "PatientSize": "m",
}  # fmt: skip

_DAYS = {"y": 365.25, "m": 365.25 / 12, "w": 7.0, "d": 1.0}
_TAG = re.compile(r'\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})(?: "([^"\\]{1,64})")?\)')
_PRIVATE_BLOCKS = range(0x10, 0x18)
"""Where a named private creator is looked for; scanners use the first few."""
_NUMBER = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?) ?([A-Za-z]*)")


@dataclass(frozen=True)
class Wanted:
    """A value of a rule: as written, and as compared."""

    text: str = field(compare=False)
    value: Value


@cache
def _keywords() -> frozenset[str]:
    return frozenset(entry[4] for entry in DicomDictionary.values() if entry[4])


def attribute(written: str) -> str:
    """Bring the key of a condition into its one form.

    Raises
    ------
    ValueError
        It names no attribute that a rule can compare.
    """
    if written.startswith("("):
        return _tag(written)
    *sequences, last = written.split(".")
    for name in sequences:
        if _vr(_keyword(name)) != "SQ":
            raise ValueError(f"{name} is not a sequence, so nothing can follow its dot.")
    _keyword(last)
    if kind_of(written) == "bytes":
        raise ValueError(_incomparable(last))
    return written


def _incomparable(name: str) -> str:
    if _vr(name) == "SQ":
        return f"{name} is a sequence. Name an attribute in it: {name}.Keyword."
    return f"{name} holds bytes, which a rule cannot compare."


def _keyword(name: str) -> str:
    if datadict.tag_for_keyword(name) is None:
        raise ValueError(
            f"'{name[:64]}' is not a DICOM keyword.{did_you_mean(name[:64], _keywords())}"
        )
    return name


def _tag(written: str) -> str:
    match = _TAG.fullmatch(written)
    if match is None:
        raise ValueError(
            f"'{written[:80]}' is not a tag. Write (0029,1010) or (0029,1010 \"CREATOR\"), "
            "within braces between single quotes."
        )
    group, element = int(match[1], 16), int(match[2], 16)
    if group % 2 == 0:
        keyword = datadict.keyword_for_tag((group << 16) | element)
        if not keyword or match[3]:
            raise ValueError(f"{written} is not an attribute of the DICOM dictionary.")
        return attribute(keyword)
    if element < 0x1000 and match[3] is None and not 0x10 <= element <= 0xFF:
        raise ValueError(f"{written} is not a private attribute.")
    creator = f' "{match[3].strip()}"' if match[3] else ""
    return f"({group:04x},{element:04x}{creator})"


@cache
def scan_keys(key: str) -> tuple[str, ...]:
    """Names to ask a header scan for; several where a private block may lie anywhere."""
    match = _TAG.fullmatch(key)
    if match is None or match[3] is None:
        return (key,)
    group, low = match[1], int(match[2], 16) & 0xFF
    return tuple(
        name
        for block in _PRIVATE_BLOCKS
        for name in (f"({group},{block:04x})", f"({group},{block:02x}{low:02x})")
    )


def values_of(key: str, header: Mapping[str, Sequence[Value] | None]) -> Sequence[Value] | None:
    """Values of the attribute in what a header scan returned; None when it is not there."""
    match = _TAG.fullmatch(key)
    if match is None or match[3] is None:
        return header.get(key)
    names = iter(scan_keys(key))
    for creator, element in zip(names, names, strict=True):
        found = header.get(creator)
        if found and folded(str(found[0])) == folded(match[3]):
            return header.get(element)
    return None


@cache
def _vr(keyword: str) -> str:
    tag = datadict.tag_for_keyword(keyword)
    return datadict.dictionary_VR(tag) if tag is not None else "UN"


@cache
def kind_of(key: str) -> Kind:
    """Say how the values of an attribute compare."""
    if key.startswith("("):
        return "private"
    vrs = _vr(key.rpartition(".")[2]).split(" or ")
    kinds = {_KIND_OF_VR.get(vr, "text") for vr in vrs}
    return kinds.pop() if len(kinds) == 1 else "number" if "number" in kinds else "bytes"


def vr_of(key: str) -> str:
    """Value Representation, for messages."""
    return "private" if key.startswith("(") else _vr(key.rpartition(".")[2])


def has_several_values(key: str) -> bool:
    """Whether the dictionary asks for two values or more."""
    if key.startswith("("):
        return False
    tag = datadict.tag_for_keyword(key.rpartition(".")[2])
    least = datadict.dictionary_VM(tag).split("-")[0] if tag is not None else "1"
    return least.isdigit() and int(least) > 1


def wanted(key: str, written: str) -> Wanted:
    """Read a value of a rule as the attribute's VR asks.

    Raises
    ------
    ValueError
        The value or its unit does not fit the attribute.
    """
    kind = kind_of(key)
    match kind:
        case "number":
            return Wanted(written, _wanted_number(key, written))
        case "age":
            return Wanted(written, _wanted_age(written))
        case "uid":
            return Wanted(written, _wanted_uid(written))
        case "date" | "time" | "datetime":
            found = _moment(kind, written)
            if found is None:
                raise ValueError(f"'{written}' is not a {kind}. Write {_EXAMPLES[kind]}.")
            return Wanted(written, found)
        case "text" | "private" | "bytes":
            return Wanted(written, folded(written))
        case _:
            assert_never(kind)


def wanted_bound(key: str, written: str) -> Wanted:
    """Read the value of ``min`` or ``max``; ValueError where the attribute has no order."""
    match kind_of(key):
        case "private":
            return Wanted(written, _wanted_number(key, written))
        case "text" | "uid" | "bytes":
            raise ValueError(f"{key} is text (VR {vr_of(key)}), which has no min or max.")
        case _:
            return wanted(key, written)


_EXAMPLES = {
    "date": "2026-01-31",
    "time": "'08:30'",
    "datetime": "'2026-01-31 08:30'",
}


def _wanted_number(key: str, written: str) -> float:
    match = _NUMBER.fullmatch(written)
    if match is None:
        raise ValueError(f"'{written}' is not a number, and {key} holds numbers.")
    unit = UNIT_OF_KEYWORD.get(key.rpartition(".")[2], "")
    if match[2] and match[2] != unit:
        wants = f"is in {unit}" if unit else "has no unit"
        raise ValueError(f"The unit of '{written}' does not fit: {key} {wants}.")
    return float(match[1])


def _wanted_age(written: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}) ?([ymwdYMWD]?)", written)
    if match is None:
        raise ValueError(f"'{written}' is not an age. Write 18y, 6m, 3w or 90d.")
    if not match[2]:
        raise ValueError(f"The age {written} needs a unit. Write {written}y for years.")
    return int(match[1]) * _DAYS[match[2].lower()]


@cache
def _uid_of_keyword() -> dict[str, str]:
    return {entry[4]: uid for uid, entry in UID_dictionary.items() if entry[4]}


def _wanted_uid(written: str) -> str:
    if re.fullmatch(r"[0-9.]{1,64}", written):
        return written
    known = _uid_of_keyword()
    if written not in known:
        raise ValueError(
            f"'{written[:64]}' is neither a UID nor the keyword of one."
            f"{did_you_mean(written[:64], known)}"
        )
    return known[written]


def _moment(kind: Literal["date", "time", "datetime"], written: str) -> str | None:
    """Return a date or time as digits that sort, or None when it is not one."""
    digits = re.sub(r"(?<=[0-9])[-:. T](?=[0-9])", "", written.strip())
    forms: dict[str, dict[int, str]] = {
        "date": {8: "%Y%m%d"},
        "time": {2: "%H", 4: "%H%M", 6: "%H%M%S"},
        "datetime": {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"},
    }
    longest = max(forms[kind])
    digits = re.split(r"[-+&]", digits)[0][:longest]
    form = forms[kind].get(len(digits))
    try:
        if form is None or not digits.isdigit():
            return None
        datetime.strptime(digits, form)  # noqa: DTZ007 only whether it is one
    except ValueError:
        return None
    return digits.ljust(longest, "0")


def folded(written: str) -> str:
    """Text as equality sees it: trimmed, whatever the case and the way an umlaut is written."""
    text = composed(written.strip(" \0"))
    return "\\".join(part.strip() for part in text.split("\\")).casefold()


def composed(text: str) -> str:
    """Give text with one character for a letter and its accent, not two as some systems write."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def comparable(key: str, found: Value) -> Value | None:
    """Read a value found in a header as the attribute's VR asks; None when it is not one."""
    kind = kind_of(key)
    match kind:
        case "number":
            return as_number(found)
        case "age":
            match = re.fullmatch(r"([0-9]{3})([DWMY])", str(found).strip())
            return int(match[1]) * _DAYS[match[2].lower()] if match else None
        case "date" | "time" | "datetime":
            return _moment(kind, str(found))
        case "uid":
            return str(found).strip(" \0")
        case "text" | "private" | "bytes":
            return folded(str(found))
        case _:
            assert_never(kind)


def as_number(found: Value) -> float | None:
    """Return a number, or None when it is not a finite one."""
    try:
        number = float(found)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
