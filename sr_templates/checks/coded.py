"""Whether each code is one, and means what is written beside it."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from sr_templates.checks.attributes import TAKEN_OVER
from sr_templates.checks.base import Found, Subject
from sr_templates.code_tables import (
    RETIRED_SCHEMES,
    VERIFIABLE_SCHEMES,
    is_meaning,
    is_mixed_up,
    is_private,
    meanings_of,
)

CODE_VALUES = (0x00080100, 0x00080119, 0x00080120)
"""Code Value, Long Code Value, URN Code Value."""


def codes(subject: Subject) -> Iterator[Found]:
    """Judge every code at any depth, each distinct one once."""
    declared = {
        str(item.get("CodingSchemeDesignator", ""))
        for item in subject.ds.get("CodingSchemeIdentificationSequence") or ()
    }
    seen = set(subject.reviewed)
    for where, item in code_items(subject.ds):
        scheme, value, meaning = (
            str(item.get("CodingSchemeDesignator", "")),
            value_of(item),
            str(item.get("CodeMeaning", "")),
        )
        lacking = [
            name
            for name, text in (
                ("Code Meaning", meaning),
                ("Coding Scheme Designator", scheme or ("-" if "URNCodeValue" in item else "")),
                ("Code Value", value),
            )
            if not text
        ]
        if where.partition("[")[0] in TAKEN_OVER:
            continue  # what the images say of themselves
        if lacking:
            yield Found("code_incomplete", where, f"has no {' and no '.join(lacking)}")
        elif (scheme, value, meaning) not in seen:
            seen.add((scheme, value, meaning))
            yield from _judged(where, (scheme, value, meaning), declared)


def _judged(where: str, code: tuple[str, str, str], declared: set[str]) -> Iterator[Found]:
    scheme, value, meaning = code
    shown = f"({value}, {scheme})"
    if scheme in RETIRED_SCHEMES:
        yield Found("code_retired_scheme", where, f"holds {shown}, of a retired scheme")
    elif is_private(scheme):
        if scheme not in declared:
            yield Found(
                "code_private_undeclared", where, f"holds {shown}, of a scheme not identified"
            )
    elif scheme in VERIFIABLE_SCHEMES:
        known = meanings_of(scheme, value)
        if not known:
            yield Found("code_unknown", where, f"holds {shown}, which is in no table of PS3.16")
        elif not is_meaning(meaning, known):
            rule = _rule_of_meaning(code)
            names = " or ".join(f'"{text}"' for text in sorted(known)[:2])
            yield Found(rule, where, f'holds {shown}, which means {names}, not "{meaning[:64]}"')


def _rule_of_meaning(code: tuple[str, str, str]) -> str:
    """How bad it is that a meaning is not the table's; for units and languages it is display."""
    if is_mixed_up(*code):
        return "code_mixed_up"
    return "code_display" if code[0] in ("UCUM", "RFC5646") else "code_meaning"


def code_items(ds: Dataset, place: str = "") -> Iterator[tuple[str, Dataset]]:
    """Yield every item of a code sequence, with its place."""
    for tag, known in sorted(ds.items()):
        if known.VR not in (None, "SQ"):
            continue  # not even decoded
        element = ds[tag]
        if element.VR != "SQ":
            continue
        for number, item in enumerate(element.value or (), start=1):
            several = f"[{number}]" if len(element.value) > 1 else ""
            where = f"{place}{element.keyword or element.tag}{several}"
            if _is_code(element.keyword, item):
                yield where, item
            yield from code_items(item, f"{where}.")


def _is_code(keyword: str, item: Dataset) -> bool:
    named = keyword.endswith("CodeSequence") and len(item) > 0
    return named or any(tag in item for tag in CODE_VALUES)


def value_of(item: Dataset) -> str:
    """Code Value, Long Code Value or URN Code Value."""
    for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"):
        if item.get(keyword):
            return str(item[keyword].value)
    return ""
