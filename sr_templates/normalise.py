"""Source datasets as they ought to be: one character set, nothing missing or unreadable."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any

import numpy as np
from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import PersonName

from sr_templates import tidy
from sr_templates.base import UNDECODABLE, UnfitSource

UTF8 = "ISO_IR 192"
REPLACEMENT_CHARACTER = "�"

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
"""Patient and General Study attributes a result must have, be they empty."""
TYPE_3 = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)
"""Patient and study attributes a result takes over where the source has them."""
KEPT = frozenset((*TYPE_2, *TYPE_3))
"""Texts that stay as they came, however long: a PACS matches by them."""
SERIES = (
    "Modality",
    "SeriesNumber",
    "SeriesDate",
    "SeriesTime",
    "SeriesDescription",
    "Laterality",
    "BodyPartExamined",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "TimezoneOffsetFromUTC",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "StationName",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "InstanceNumber",
    "ImageType",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
IMAGE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)
GROUPS = ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
"""Functional groups of a multi-frame source that a result needs."""

PATTERNS = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "DT": re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "UI": re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*"),
}
TIMEZONE = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
NUMBERS = frozenset({"DS", "IS", "US"})
TEXTS = frozenset({"LO", "SH", "PN", "ST", "LT", "UT", "UC"})
SAME_IN_ALL = {
    "StudyInstanceUID": "studies",
    "FrameOfReferenceUID": "Frames of Reference",
    "PatientID": "patients",
}


class CleanSources(list[Dataset]):
    """What `normalised` gave; giving it that again costs nothing."""


def normalised(
    sources: Iterable[Dataset], *, assumed_character_set: str = "ISO_IR 100"
) -> CleanSources:
    """Return clean copies of source datasets, fit to build results from.

    The copies hold only what a result takes over or refers to, in ISO_IR 192, ordered by Series
    Instance UID, Instance Number and SOP Instance UID whatever the order they came in. Type 2
    attributes that are missing, and dates and codes that cannot be read, are empty. Applying
    it twice changes nothing, and costs nothing.

    Parameters
    ----------
    sources : iterable of Dataset
        Instances of one study and one Frame of Reference; they are left as they are.
    assumed_character_set : str
        Defined Term for text outside ASCII in datasets that declare no character set. Text that
        is valid UTF-8 is taken as such.

    Returns
    -------
    CleanSources

    Raises
    ------
    UnfitSource
        What was found cannot be repaired, and the sentence says what and where.

    References
    ----------
    DICOM PS3.3 C.7.1.1, C.7.2.1, C.12.1.1.2; PS3.5 6.1.2.
    """
    if isinstance(sources, CleanSources):
        return sources
    given = list(sources)
    if not given:
        raise UnfitSource("there is no source instance to build a result from")
    # What pydicom would warn of, with the value in its text, is judged here.
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copies = _distinct([(_clean(ds, assumed_character_set), ds) for ds in given])
    for keyword, plural in SAME_IN_ALL.items():
        _refuse_mixture(copies, keyword, plural)
    copies.sort(key=_order)
    _unify_orientation(copies)
    _fill_slice_thickness(copies)
    return CleanSources(copies)


def _order(ds: Dataset) -> tuple[str, int, str]:
    return str(ds.SeriesInstanceUID), int(ds.get("InstanceNumber") or 0), str(ds.SOPInstanceUID)


def _clean(ds: Dataset, assumed: str) -> Dataset:
    copy = Dataset()
    copy.SpecificCharacterSet = UTF8
    for keyword in UIDS:
        setattr(copy, keyword, _uid(ds, keyword))
    for keyword in TYPE_2:
        setattr(copy, keyword, _value(ds, keyword, assumed) or "")
    for keyword in (*TYPE_3, *SERIES, *IMAGE):
        value = _value(ds, keyword, assumed)
        if value not in (None, ""):
            _set(copy, keyword, value)
    if "FrameOfReferenceUID" in copy:
        copy.FrameOfReferenceUID = _uid(ds, "FrameOfReferenceUID")
        copy.PositionReferenceIndicator = copy.get("PositionReferenceIndicator", "")
    if "PerFrameFunctionalGroupsSequence" in ds:
        _copy_functional_groups(ds, copy)
    return copy


def _set(copy: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute unless its value is none of its VR, such as a number with a letter in it."""
    try:
        setattr(copy, keyword, value)
    except (ValueError, TypeError, OverflowError):
        copy.pop(keyword, None)


def _uid(ds: Dataset, keyword: str) -> UID:
    value, own = str(ds.get(keyword) or ""), str(ds.get("SOPInstanceUID") or "")
    where = f"instance {own if _is_uid(own) else '(no valid SOP Instance UID)'}"
    if not value:
        raise UnfitSource(f"{where} has no {keyword}")
    if not _is_uid(value):
        raise UnfitSource(f"{where} has a {keyword} that is not a valid UID")
    return UID(value)


def _is_uid(value: str) -> bool:
    return len(value) <= 64 and PATTERNS["UI"].fullmatch(value) is not None


def _value(ds: Dataset, keyword: str, assumed: str) -> Any:
    """Value of an attribute, None where it is missing or cannot be read."""
    if keyword not in ds:
        return None
    raw = ds.get_item(keyword)  # reading the value forgets how it was encoded
    encoded = raw.value if isinstance(raw, RawDataElement) else b""
    try:
        value = ds[keyword].value
    except UNDECODABLE:
        return None
    if value is None:
        return None
    vr = dictionary_VR(keyword)
    if keyword == "TimezoneOffsetFromUTC":
        return text if TIMEZONE.fullmatch(text := str(value).strip()) else ""
    if vr in TEXTS:
        found = _text(ds, keyword, value, encoded or b"", assumed)
        return found if keyword in KEPT else tidy.short_text(found, vr)
    if keyword == "PatientSex":
        return sex if (sex := str(value).strip().upper()) in ("M", "F", "O") else ""
    if vr == "DA":
        return _date(str(value))
    if vr in PATTERNS:
        return text if PATTERNS[vr].fullmatch(text := str(value).strip()) else ""
    if vr in NUMBERS and not tidy.has_numbers(value, dictionary_VM(keyword)):
        return None
    return _tidied(value, vr)


def _tidied(value: Any, vr: str) -> Any:
    match vr:
        case "CS":
            return tidy.code_string(value)
        case "DS":
            return tidy.decimal_string(value)
        case "SQ":
            return tidy.codes(value)
    return deepcopy(value)


def _date(value: str) -> str:
    text = value.strip().replace(".", "")  # 1950.01.01 is how ACR-NEMA wrote it
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - only asked whether there is such a day
    except ValueError:
        return ""
    return text if PATTERNS["DA"].fullmatch(text) else ""


def _text(ds: Dataset, keyword: str, value: Any, encoded: bytes, assumed: str) -> str | list[str]:
    """Text as plain str; a PersonName would keep its first bytes and be decoded again."""
    several = not isinstance(value, (str, PersonName))
    texts = [str(item) for item in value] if several else [str(value)]
    if any(REPLACEMENT_CHARACTER in text for text in texts) and encoded:
        texts = _guessed(encoded, assumed).split("\\") if several else [_guessed(encoded, assumed)]
    elif not _declares_character_set(ds):
        texts = [_guessed_again(text, assumed) for text in texts]
    if any(REPLACEMENT_CHARACTER in text for text in texts):
        if keyword in TYPE_2:
            raise UnfitSource(
                f"{keyword} of instance {ds.get('SOPInstanceUID')} cannot be read in its Specific "
                f"Character Set {ds.get('SpecificCharacterSet')}"
            )
        return ""
    texts = [text.rstrip("\0 ") for text in texts]
    return texts if several else texts[0]


def _guessed_again(text: str, assumed: str) -> str:
    """Text that was decoded as Latin-1 for want of a declared character set."""
    if text.isascii() or any(ord(character) > 255 for character in text):
        return text
    return _guessed(text.encode("latin-1"), assumed)


def _declares_character_set(ds: Dataset) -> bool:
    return ds.get("SpecificCharacterSet") not in (None, "", "ISO_IR 6", [])


def _guessed(encoded: bytes, assumed: str) -> str:
    try:
        return encoded.decode("utf-8")
    except UnicodeDecodeError:
        return encoded.decode(python_encoding[assumed], "replace")


def _copy_functional_groups(ds: Dataset, copy: Dataset) -> None:
    """Keep geometry only; what all frames share moves to the Shared Functional Groups."""
    shared = (
        ds.SharedFunctionalGroupsSequence[0] if ds.get("SharedFunctionalGroupsSequence") else {}
    )
    frames = ds.PerFrameFunctionalGroupsSequence
    copy.SharedFunctionalGroupsSequence = [Dataset()]
    copy.PerFrameFunctionalGroupsSequence = [Dataset() for _ in frames]
    for group in GROUPS:
        if group in shared:
            setattr(copy.SharedFunctionalGroupsSequence[0], group, deepcopy(shared[group].value))
        elif all(group in frame for frame in frames):
            values = [deepcopy(frame[group].value) for frame in frames]
            if group != "PlanePositionSequence" and all(value == values[0] for value in values):
                setattr(copy.SharedFunctionalGroupsSequence[0], group, values[0])
                continue
            for item, value in zip(copy.PerFrameFunctionalGroupsSequence, values, strict=True):
                setattr(item, group, value)


def _distinct(pairs: Sequence[tuple[Dataset, Dataset]]) -> list[Dataset]:
    """Drop instances that came twice; refuse two contents under one UID."""
    seen: dict[str, tuple[Dataset, Dataset]] = {}
    for copy, original in pairs:
        first = seen.setdefault(copy.SOPInstanceUID, (copy, original))
        same = first[0] == copy and first[1].get("PixelData") == original.get("PixelData")
        if not same:
            raise UnfitSource(f"there are two different instances {copy.SOPInstanceUID}")
    return [copy for copy, _ in seen.values()]


def _refuse_mixture(copies: Sequence[Dataset], keyword: str, plural: str) -> None:
    values = {str(ds.get(keyword, "")) for ds in copies}
    if len(values) > 1:
        raise UnfitSource(
            f"the instances of series {copies[0].SeriesInstanceUID} belong to {len(values)} "
            f"different {plural}, wanted one"
        )


def _unify_orientation(copies: Sequence[Dataset]) -> None:
    """Give all slices the first one's cosines and spacing where they differ in rounding only."""
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        holders = [ds for ds in copies if keyword in ds]
        for ds in holders:
            if np.allclose(
                _floats(ds[keyword].value), _floats(holders[0][keyword].value), atol=1e-4
            ):
                setattr(ds, keyword, deepcopy(holders[0][keyword].value))


def _floats(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values]


def _fill_slice_thickness(copies: Sequence[Dataset]) -> None:
    lacking = [ds for ds in copies if "ImagePositionPatient" in ds and "SliceThickness" not in ds]
    if not lacking:
        return
    positions = np.array([_floats(ds.ImagePositionPatient) for ds in copies if "Rows" in ds])
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    thickness = float(gaps[gaps > 1e-3].min()) if (gaps > 1e-3).any() else 1.0
    for ds in lacking:
        ds.SliceThickness = round(float(ds.get("SpacingBetweenSlices", thickness)), 4)
