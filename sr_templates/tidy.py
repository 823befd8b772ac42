"""Values of source headers brought to what their VR allows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from math import isfinite
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.valuerep import format_number_as_ds

CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
MOST = {"LO": 64, "SH": 16}
"""Most characters of short texts."""
DECIMAL_STRING = 16
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def code_string(value: Any) -> Any:
    """Return a Code String in upper case; empty where that does not make it one."""
    if isinstance(value, (list, MultiValue)):
        texts = [str(item).strip().upper() for item in value]
        return texts if all(CODE_STRING.fullmatch(text) for text in texts if text) else ""
    text = str(value).strip().upper()
    return text if CODE_STRING.fullmatch(text) else ""


def short_text(value: str | list[str], vr: str) -> str | list[str]:
    """Return a text without control characters, no longer than its VR allows."""
    if isinstance(value, list):
        return [str(short_text(item, vr)) for item in value]
    return CONTROL.sub(" ", value)[: MOST.get(vr)].rstrip() if vr in MOST else value


def decimal_string(value: Any) -> Any:
    """Return a number, or several, with no more characters than a Decimal String has."""
    if isinstance(value, (list, MultiValue)):
        return [decimal_string(item) for item in value]
    if len(getattr(value, "original_string", "") or "") <= DECIMAL_STRING:
        return deepcopy(value)
    return format_number_as_ds(float(value))


def has_numbers(value: Any, multiplicity: str) -> bool:
    """Whether a value is finite numbers, as many as its VM (``1``, ``3``, ``1-n``) says."""
    numbers = list(value) if isinstance(value, (list, MultiValue)) else [value]
    if multiplicity.isdigit() and len(numbers) != int(multiplicity):
        return False
    try:
        return all(isfinite(float(number)) for number in numbers)
    except (TypeError, ValueError, OverflowError):
        return False


def codes(items: Iterable[Dataset]) -> Sequence | None:
    """Return the items that have value, scheme and meaning; None where none has."""
    whole = [deepcopy(item) for item in items if all(item.get(keyword) for keyword in CODE)]
    return Sequence(whole) if whole else None
