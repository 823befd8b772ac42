"""Texts that did not survive: undeclared, replaced, or encoded twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from sr_templates.checks.attributes import TAKEN_OVER
from sr_templates.checks.base import Found
from sr_templates.checks.coded import value_of
from sr_templates.checks.walk import elements
from sr_templates.normalise import REPLACEMENT_CHARACTER, TEXTS

ACQUISITION_EQUIPMENT = "109101"
"""DCM, CID 7005."""
SUBSTITUTED = re.compile(r"\w\?\w|\?{3,}")
"""What an encoder leaves of letters its character set does not have."""


def texts(ds: Dataset) -> Iterator[Found]:
    """Find texts that were damaged before or while they were written."""
    declared = ds.get("SpecificCharacterSet") not in (None, "", "ISO_IR 6", [])
    of_source = tuple(_acquisition_equipment(ds))
    for where, element in text_elements(ds):
        text = _plain(element)
        rule = _damage(text)
        is_theirs = where in TAKEN_OVER or where.startswith(of_source)
        if rule and is_theirs and rule != "text_changed":
            rule = "text_of_source"
        if rule:
            yield Found(rule, where, _SENTENCES[rule])
        elif not declared and not text.isascii():
            yield Found("text_undeclared", where, _SENTENCES["text_undeclared"])


def _acquisition_equipment(ds: Dataset) -> Iterator[str]:
    """Name the places of the equipment the images were made with, described in their words."""
    for number, item in enumerate(ds.get("ContributingEquipmentSequence") or (), start=1):
        purposes = item.get("PurposeOfReferenceCodeSequence") or ()
        if any(value_of(purpose) == ACQUISITION_EQUIPMENT for purpose in purposes):
            yield f"ContributingEquipmentSequence[{number}]."


_SENTENCES = {
    "text_changed": "holds a replacement character: it cannot be read in its character set",
    "text_substituted": "holds question marks in place of letters",
    "text_twice_encoded": "holds UTF-8 that was encoded twice",
    "text_of_source": "holds a text that was damaged before it reached us",
    "text_undeclared": "holds more than ASCII and no Specific Character Set is declared",
}


CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")
"""What no text of ours may hold, and halves of characters."""


def unfit(text: str) -> str:
    """Say why a text that somebody typed must not go into an object; empty when it may.

    It goes on from what the text is called.
    """
    if CONTROL.search(text):
        return "holds a control character"
    rule = _damage(text)
    return _SENTENCES[rule] if rule else ""


def _damage(text: str) -> str:
    if REPLACEMENT_CHARACTER in text:
        return "text_changed"
    if "://" not in text and (
        SUBSTITUTED.search(text) or ("??" in text and not any(map(str.isalnum, text)))
    ):
        return "text_substituted"
    return "text_twice_encoded" if _is_twice_encoded(text) else ""


def _is_twice_encoded(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return False
    return True


def changes(given: Dataset, kept: Dataset) -> Iterator[Found]:
    """Find texts that are not the same after writing and reading."""
    for old, new in zip_longest(text_elements(given), text_elements(kept)):
        if old is None or new is None or old[0] != new[0]:
            where, _ = old or new
            yield Found("text_changed", where, "was lost or added in writing")
            return  # from here on one would be compared with another
        if _plain(old[1]).rstrip() != _plain(new[1]).rstrip():
            yield Found("text_changed", old[0], "was changed in writing")


def text_elements(ds: Dataset) -> Iterator[tuple[str, DataElement]]:
    """Yield every text that is not empty, with its place."""
    for where, element in elements(ds, only=TEXTS):
        if element.value not in (None, "", []):
            yield where, element


def _plain(element: DataElement) -> str:
    return "\\".join(map(str, element.value)) if element.VM > 1 else str(element.value)
