"""Which codes there are: the tables of PS3.16 that pydicom brings, and a reviewed list of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from pydicom.sr._concepts_dict import concepts

RETIRED_SCHEMES: Final = frozenset({"SRT", "SNM3", "99SDM"})
"""SNOMED-RT style identifiers, PS3.16 section 8.1.1; SCT took their place."""
VERIFIABLE_SCHEMES: Final = frozenset({"DCM", "SCT", "LN", "UCUM", "RFC5646"})
"""Schemes of which our own objects may use listed codes only."""
PRIVATE = "99"
"""How the designator of a private scheme begins, PS3.16 section 8.2."""


@dataclass(frozen=True)
class LocalCode:
    """A code outside pydicom's tables that was looked up by a person.

    `source` says where, `reviewed` when (ISO 8601).
    """

    scheme: str
    value: str
    meaning: str
    source: str
    reviewed: str


TERMINOLOGY_SERVER = "FHIR value set of intracranial haemorrhages, expanded by its server"
MR_RATE = "code mapping of the MR-RATE data set"
LOINC = "LOINC, in two public data dictionaries that agree"
DCMTK_AND_HIGHDICOM = "PS3.16 TID 1602 and 1604, as DCMTK 3.6.7 and highdicom 0.28 write them"
SNOMED = "SNOMED CT, in two public mappings that agree"

LOCAL_CODES: Final = (
    LocalCode("UCUM", "ml", "milliliter", "UCUM, liter (l) with prefix milli", "2026-11-28"),
    LocalCode("UCUM", "{score}", "score", "UCUM, annotations in curly braces", "2026-11-28"),
    LocalCode("UCUM", "{ratio}", "ratio", "UCUM, annotations in curly braces", "2026-11-28"),
    LocalCode("RFC5646", "en-GB", "English (United Kingdom)", "RFC 5646; CID 5000", "2026-11-28"),
    LocalCode("RFC5646", "en-US", "English (United States)", "RFC 5646; CID 5000", "2026-11-28"),
    LocalCode(
        "SCT",
        "21454007",
        "Subarachnoid intracranial hemorrhage",
        TERMINOLOGY_SERVER,
        "2026-11-28",
    ),
    LocalCode("SCT", "274100004", "Cerebral hemorrhage", TERMINOLOGY_SERVER, "2026-11-28"),
    LocalCode("SCT", "35486000", "Subdural intracranial hemorrhage", MR_RATE, "2026-11-28"),
    LocalCode("SCT", "386805003", "Mild cognitive disorder", SNOMED, "2026-11-28"),
    LocalCode("SCT", "26929004", "Alzheimer's disease", SNOMED, "2026-11-28"),
    LocalCode("SCT", "447316007", "Mini-mental state examination score", SNOMED, "2026-11-28"),
    LocalCode("LN", "72106-8", "Total score [MMSE]", LOINC, "2026-11-28"),
    LocalCode("LN", "72172-0", "Total score [MoCA]", LOINC, "2026-11-28"),
    LocalCode("UCUM", "{pixels}", "Pixels", DCMTK_AND_HIGHDICOM, "2026-11-28"),
    LocalCode("UCUM", "{-1:1}", "{-1:1}", DCMTK_AND_HIGHDICOM, "2026-11-28"),
    LocalCode("SCT", "276214006", "Finding category", "PS3.16 TID 1411, row 3b", "2026-11-28"),
)
"""Grows by review only; where no trustworthy source is found, a private code is used."""


FORMER_PAIRS: Final = frozenset({("SCT", "123037004", "anatomical structure")})
"""Pairs that earlier editions of PS3.16 had (CID 7150), folded; not wrong, only old."""


@cache
def tables() -> Mapping[tuple[str, str], frozenset[str]]:
    """Meanings of every known code, by scheme and value; one code can have several."""
    found: dict[tuple[str, str], set[str]] = {}
    everything: Mapping[str, Mapping[str, Any]] = concepts
    for scheme, by_keyword in everything.items():
        for by_value in by_keyword.values():
            for value, (meaning, _) in by_value.items():
                found.setdefault((scheme, value), set()).add(meaning)
    for code in LOCAL_CODES:
        found.setdefault((code.scheme, code.value), set()).add(code.meaning)
    return {key: frozenset(meanings) for key, meanings in found.items()}


@cache
def _values_by_meaning() -> Mapping[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for (scheme, value), meanings in tables().items():
        for meaning in meanings:
            found.setdefault((scheme, _folded(meaning)), set()).add(value)
    return {key: frozenset(values) for key, values in found.items()}


def _folded(meaning: str) -> str:
    return meaning.partition(" (")[0].casefold().strip()


def meanings_of(scheme: str, value: str) -> frozenset[str]:
    """Meanings a code has in the tables; empty when it is in none."""
    return tables().get((scheme, value), frozenset())


def is_meaning(meaning: str, known: Iterable[str]) -> bool:
    """Whether a meaning is one of several, whatever its case and semantic tag."""
    return _folded(meaning) in {_folded(text) for text in known}


def values_meaning(scheme: str, meaning: str) -> tuple[str, ...]:
    """Values whose meaning this is, whatever its case and semantic tag."""
    return tuple(sorted(_values_by_meaning().get((scheme, _folded(meaning)), ())))


def is_mixed_up(scheme: str, value: str, meaning: str) -> bool:
    """Whether a meaning is that of other codes of the scheme and not of this one."""
    values = values_meaning(scheme, meaning)
    former = (scheme, value, _folded(meaning)) in FORMER_PAIRS
    return bool(values) and value not in values and not former


def is_private(scheme: str) -> bool:
    """Whether a Coding Scheme Designator is private."""
    return scheme.startswith(PRIVATE) and scheme not in RETIRED_SCHEMES


def schemes() -> frozenset[str]:
    """Designators of the schemes of which there are tables."""
    return frozenset(scheme for scheme, _ in tables())


def advice(scheme: str, value: str, meaning: str) -> str:
    """Say what the tables have in place of a code they do not have; empty when nothing is near."""
    values = values_meaning(scheme, meaning)
    if values:
        return f'"{meaning}" is {scheme} {" or ".join(values[:3])}'
    near = get_close_matches(value, [v for s, v in tables() if s == scheme], 1, 0.75)
    if near and len(value) < 8 and scheme == "UCUM":
        return f'near it is UCUM {near[0]}, "{min(meanings_of("UCUM", near[0]))}"'
    return ""
