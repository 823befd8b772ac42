"""Attributes an object must have, and values their VR allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from sr_templates.checks.base import (
    CAPTURES,
    DOCUMENTS,
    ENCAPSULATED,
    KEY_OBJECTS,
    SEGMENTATIONS,
    STRUCTURE_SETS,
    Found,
    Subject,
)
from sr_templates.checks.walk import elements
from sr_templates.normalise import TYPE_2, TYPE_3

COMMON_1 = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
IMAGE_1 = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
EQUIPMENT_1 = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
SEG_1 = (
    *IMAGE_1,
    *EQUIPMENT_1,
    "SeriesNumber",
    "InstanceNumber",
    "ContentDate",
    "ContentTime",
    "ImageType",
    "LossyImageCompression",
    "SegmentationType",
    "SegmentSequence",
    "ContentLabel",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
)
SEG_2 = ("ContentDescription",)
SEGMENT_1 = (
    "SegmentNumber",
    "SegmentLabel",
    "SegmentAlgorithmType",
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
)
SR_1 = (
    "SeriesNumber",
    "InstanceNumber",
    "ContentDate",
    "ContentTime",
    "CompletionFlag",
    "VerificationFlag",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContinuityOfContent",
    "ContentSequence",
)
SR_2 = (
    "Manufacturer",
    "PerformedProcedureCodeSequence",
    "ReferencedPerformedProcedureStepSequence",
)
CAPTURE_1 = (*IMAGE_1, "ConversionType", "PixelData")
CAPTURE_2 = ("SeriesNumber", "InstanceNumber")
STRUCTURES_1 = ("StructureSetLabel", "StructureSetROISequence", "ROIContourSequence")
STRUCTURES_2 = (
    "SeriesNumber",
    "OperatorsName",
    "StructureSetDate",
    "StructureSetTime",
    "RTROIObservationsSequence",
)
ENCAPSULATED_1 = (
    "SeriesNumber",
    "InstanceNumber",
    "ConversionType",
    "BurnedInAnnotation",
    "MIMETypeOfEncapsulatedDocument",
    "EncapsulatedDocument",
)
ENCAPSULATED_2 = (
    "ContentDate",
    "ContentTime",
    "AcquisitionDateTime",
    "DocumentTitle",
    "ConceptNameCodeSequence",
)
KEY_OBJECT_1 = (
    "SeriesNumber",
    "InstanceNumber",
    "ContentDate",
    "ContentTime",
    "CurrentRequestedProcedureEvidenceSequence",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentSequence",
)
KEY_OBJECT_2 = ("ReferencedPerformedProcedureStepSequence",)
REQUIRED = (
    (SEGMENTATIONS, SEG_1, SEG_2),
    (DOCUMENTS, SR_1, SR_2),
    (CAPTURES, CAPTURE_1, CAPTURE_2),
    (STRUCTURE_SETS, STRUCTURES_1, STRUCTURES_2),
    (ENCAPSULATED, ENCAPSULATED_1, ENCAPSULATED_2),
    (KEY_OBJECTS, KEY_OBJECT_1, KEY_OBJECT_2),
)
"""Attributes of Type 1 and of Type 2 that each class has beyond those of all."""
MODALITIES = {
    "SEG": SEGMENTATIONS,
    "SR": DOCUMENTS,
    "RTSTRUCT": STRUCTURE_SETS,
    "KO": KEY_OBJECTS,
}
TAKEN_OVER = frozenset((*TYPE_2, *TYPE_3))
"""Attributes whose values come from the images as they are."""
CONSTRAINED = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR"}
)
"""VRs whose values have a form or a length, PS3.5 6.2."""


def attributes(subject: Subject) -> Iterator[Found]:
    """Find what is missing, empty, or no value of its VR."""
    yield from _required(subject.ds, COMMON_1, TYPE_2)
    for classes, type_1, type_2 in REQUIRED:
        if subject.sop_class_uid in classes:
            yield from _required(subject.ds, type_1, type_2)
    for number, item in enumerate(subject.ds.get("SegmentSequence") or (), start=1):
        yield from _required(item, SEGMENT_1, (), f"segment {item.get('SegmentNumber', number)}")
    yield from _modality(subject)
    yield from values(subject.ds)


def _required(
    ds: Dataset, type_1: Iterable[str], type_2: Iterable[str], place: str = ""
) -> Iterator[Found]:
    for keyword in (*type_1, *type_2):
        where = f"{place}, {keyword}" if place else keyword
        if keyword not in ds:
            yield Found("missing", where, "is missing")
        elif keyword in type_1 and _is_empty(ds[keyword].value):
            yield Found("missing", where, "is empty")


def _is_empty(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _modality(subject: Subject) -> Iterator[Found]:
    found = str(subject.ds.get("Modality", ""))
    for modality, classes in MODALITIES.items():
        if found and (subject.sop_class_uid in classes) != (found == modality):
            wanted = modality if subject.sop_class_uid in classes else f"one other than {modality}"
            yield Found("modality", "Modality", f"is {found[:16]!r}, wanted {wanted}")


def values(ds: Dataset) -> Iterator[Found]:
    """Find values that their VR does not allow, at any depth."""
    for where, element in elements(ds, only=CONSTRAINED):
        if not _is_allowed(element):
            rule = "bad_value_taken_over" if where in TAKEN_OVER else "bad_value"
            yield Found(rule, where, f"holds a value that {element.VR} does not allow")


def _is_allowed(element: DataElement) -> bool:
    value = element.value
    if _is_empty(value):
        return True
    several = element.VM > 1
    try:
        for item in value if several else (value,):
            written = getattr(item, "original_string", None)
            text = written if isinstance(written, str) else str(item)
            validate_value(element.VR, text.rstrip(" \0"), config.RAISE)
    except ValueError:
        return False
    return True
