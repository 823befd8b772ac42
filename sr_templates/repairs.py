"""What normalising changed in a source, in a reader's words and without its values."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

from pydicom import config
from pydicom.dataset import Dataset

from sr_templates import tidy
from sr_templates.base import UNDECODABLE
from sr_templates.normalise import SERIES, TYPE_2, TYPE_3

CHARACTER_SETS = "SpecificCharacterSet"


def repairs(given: Iterable[Dataset], clean: Iterable[Dataset]) -> list[str]:
    """List what was repaired, each once.

    Parameters
    ----------
    given : iterable of Dataset
        As received.
    clean : iterable of Dataset
        What `normalised` made of them.

    Returns
    -------
    list of str
        Such as ``PatientSex: unreadable, left empty``; keywords only, no value.
    """
    copies = {str(ds.SOPInstanceUID): ds for ds in clean}
    found: dict[str, None] = {}
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ds in given:
            copy = copies.get(str(ds.get("SOPInstanceUID", "")))
            if copy is not None:
                found.update(dict.fromkeys(_of_instance(ds, copy)))
    return sorted(found)


def _of_instance(ds: Dataset, copy: Dataset) -> Iterator[str]:
    if ds.get(CHARACTER_SETS) in (None, "", []) and not _is_ascii(copy):
        yield f"{CHARACTER_SETS}: none declared, assumed"
    for keyword in (*TYPE_2, *TYPE_3, *SERIES):
        before, after = _text(ds, keyword), _text(copy, keyword)
        if keyword not in ds:
            if keyword in TYPE_2:
                yield f"{keyword}: missing, added empty"
        elif before and not after:
            yield f"{keyword}: unreadable, left empty"
        elif before.strip() != after.strip() and before.isascii():
            yield f"{keyword}: rewritten"
    if "SliceThickness" in copy and not _is_number(_text(ds, "SliceThickness")):
        what = "unreadable" if _text(ds, "SliceThickness") else "missing"
        yield f"SliceThickness: {what}, computed from positions"


def _is_number(text: str) -> bool:
    return tidy.has_numbers(text, "1")


def _text(ds: Dataset, keyword: str) -> str:
    """Value as text, also where it is none of its VR."""
    try:
        value = ds.get(keyword)
    except UNDECODABLE:
        return "unreadable"
    if value is None or value == []:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _is_ascii(copy: Dataset) -> bool:
    return all(_text(copy, keyword).isascii() for keyword in (*TYPE_2, *TYPE_3, *SERIES))
