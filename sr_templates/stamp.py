"""What all our objects have in common: who made them, when, and for whom they are meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any

from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from pydicom import config
from pydicom.dataset import Dataset

from sr_templates import codes
from sr_templates.base import (
    FOR_RESEARCH_USE,
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
    NOT_FOR_CLINICAL_USE,
    Maker,
    ObjectIdentity,
)
from sr_templates.normalise import TYPE_2, TYPE_3, UTF8

LONG_STRING = 64
"""Most characters of a Long String (LO)."""
IN_GENERAL_SERIES = ("SEG", "OT")
"""Modalities of ours whose series are described by the General Series Module (PS3.3 C.7.3.1); those
of documents and structure sets have no Body Part Examined."""
WARNING = NOT_FOR_CLINICAL_USE.partition(" - ")[0]


def series_description(identity: ObjectIdentity, maker: Maker) -> str:
    """Series Description of at most 64 characters; a demonstration model's says what it is."""
    text = identity.series_description.replace("\\", "/").strip()
    if maker.model.intended_use != "demonstration" or WARNING in text:
        return text[:LONG_STRING]
    room = LONG_STRING - len(WARNING) - len(" - ")
    return f"{text[:room].rstrip()} - {WARNING}"


def caution(maker: Maker) -> str:
    """Sentence a reader must see with every result; empty for a model in clinical use."""
    match maker.model.intended_use:
        case "demonstration":
            return NOT_FOR_CLINICAL_USE
        case "research":
            return FOR_RESEARCH_USE
        case "clinical":
            return ""


def content_qualification(maker: Maker) -> str:
    """Content Qualification, PS3.3 C.8.13.2.1.1.7."""
    return "PRODUCT" if maker.model.intended_use == "clinical" else "RESEARCH"


def algorithm_parameters(maker: Maker) -> dict[str, str]:
    """Return what pins the model down, as parameters of the algorithm."""
    return {
        "manifest-sha256": maker.model.sha256,
        "weights-sha256": maker.model.weights_sha256,
        "intended-use": maker.model.intended_use,
        **maker.model.parameters,
    }


def algorithm_identification(maker: Maker) -> AlgorithmIdentificationSequence:
    """Algorithm Identification, PS3.3 table 10-19; the SR's TID 4019 holds the same values."""
    return AlgorithmIdentificationSequence(
        name=maker.model.family,
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
        version=maker.model.version,
        source=MANUFACTURER,
        parameters=algorithm_parameters(maker),
    )


def contributing_model(maker: Maker, at: datetime) -> ContributingEquipment:
    """Contributing Equipment item of the model, as IHE AIR 6.5.3.1 wants it."""
    item = ContributingEquipment(
        MANUFACTURER,
        codes.concept(codes.PROCESSING_EQUIPMENT),
        manufacturer_model_name=maker.model.family,
        software_versions=maker.model.version,
        contribution_datetime=_datetime(at),
        contribution_description=maker.model.title,
    )
    item.DeviceUID = maker.device_uid
    return item


def general(source: Dataset, identity: ObjectIdentity, maker: Maker) -> dict[str, Any]:
    """Arguments every highdicom constructor takes: series, equipment, times, character set."""
    at = local(maker.at, source)
    return {
        "series_instance_uid": identity.series_instance_uid,
        "series_number": identity.series_number,
        "sop_instance_uid": identity.sop_instance_uid,
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER_MODEL_NAME,
        "software_versions": [
            maker.software_version,
            f"{maker.model.family} {maker.model.version}",
        ],
        "device_serial_number": maker.station,
        "series_description": series_description(identity, maker),
        "series_date": at.date(),
        "series_time": at.time(),
        "content_date": at.date(),
        "content_time": at.time(),
        "contributing_equipment": [contributing_model(maker, at)],
    }


def local(at: datetime, source: Dataset) -> datetime:
    """Return the moment in the time zone the source says it uses, else as it is."""
    if at.tzinfo is None:
        raise ValueError("Maker.at has no time zone")
    offset = str(source.get("TimezoneOffsetFromUTC") or "")
    if len(offset) != 5 or not offset[1:].isdigit():
        return at
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    zone = timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
    return at.astimezone(zone)


def anonymous(sources: Sequence[Dataset]) -> list[Dataset]:
    """Return copies without patient data: highdicom and pydicom print values they doubt.

    `stamp` puts the patient back into the finished object.
    """
    copies = [deepcopy(ds) for ds in sources]  # a shallow copy would share its elements
    for ds in copies:
        for keyword in TYPE_2:
            setattr(ds, keyword, "")
        for keyword in TYPE_3:
            ds.pop(keyword, None)
    return copies


def stamp(result: Dataset, source: Dataset, maker: Maker) -> None:
    """Finish an object highdicom built: the patient, and our time for every clock's.

    Parameters
    ----------
    result : Dataset
        Changed in place.
    source : Dataset
        A normalised source instance.
    maker : Maker
    """
    at = local(maker.at, source)
    date, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")
    result.SpecificCharacterSet = UTF8
    with config.disable_value_validation():  # an overlong value is kept: a PACS matches by it
        for keyword in (*TYPE_2, *TYPE_3):
            if keyword in source:
                value = source[keyword].value
                result.pop(keyword, None)  # an element keeps the validation it was made with
                setattr(result, keyword, str(value) if source[keyword].VR == "PN" else value)
    for keyword in ("InstanceCreation", "Content", "Series"):
        setattr(result, f"{keyword}Date", date)
        setattr(result, f"{keyword}Time", time)
    if "TimezoneOffsetFromUTC" in source:
        result.TimezoneOffsetFromUTC = source.TimezoneOffsetFromUTC
    if source.get("BodyPartExamined") and result.Modality in IN_GENERAL_SERIES:
        result.BodyPartExamined = source.BodyPartExamined
    for item in result.ContributingEquipmentSequence:
        if item.get("ManufacturerModelName") == "highdicom":
            item.ContributionDateTime = _datetime(at)


def replaces(document: Dataset, earlier: Sequence[Dataset]) -> None:
    """Say in an SR document which documents it replaces (Predecessor Documents Sequence).

    Parameters
    ----------
    document : Dataset
        Changed in place.
    earlier : sequence of Dataset
        UIDs of instance, class, series and study of each; none: nothing is said.

    References
    ----------
    DICOM PS3.3 C.17.2.3.
    """
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for ds in earlier:
        item = Dataset()
        item.ReferencedSOPClassUID = ds.SOPClassUID
        item.ReferencedSOPInstanceUID = ds.SOPInstanceUID
        series = studies.setdefault(str(ds.StudyInstanceUID), {})
        series.setdefault(str(ds.SeriesInstanceUID), []).append(item)
    if studies:
        document.PredecessorDocumentsSequence = [
            _hierarchy(uid, by_series) for uid, by_series in studies.items()
        ]


def _hierarchy(study_uid: str, by_series: Mapping[str, list[Dataset]]) -> Dataset:
    result = Dataset()
    result.StudyInstanceUID = study_uid
    result.ReferencedSeriesSequence = []
    for uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = instances
        result.ReferencedSeriesSequence.append(series)
    return result


def _datetime(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S.%f%z")
