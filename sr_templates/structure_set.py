"""Findings as an RT Structure Set, for viewers and planning systems of radiotherapy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import DSfloat

from models.base import Findings
from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.contours import MarkedSlice, in_patient, marked_slices, polygons
from sr_templates.report import source_image
from sr_templates.segmentation import tracking_name

STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management SOP Class: retired, yet the one Structure Sets refer to a study by."""
SHORT_STRING = 16


def structure_set(
    findings: Findings,
    seg: Dataset | None,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
) -> Dataset | None:
    """Write each segment as closed planar contours on the slices of the source.

    Parameters
    ----------
    findings : Findings
    seg : Dataset or None
        What `segmentation` made of them; the contours are those of its frames.
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
        Must give the tracking UIDs of `seg`.
    maker : Maker

    Returns
    -------
    Dataset or None
        None when nothing is marked.

    References
    ----------
    DICOM PS3.3 A.19, C.8.8.5, C.8.8.6, C.8.8.8.
    """
    if seg is None:
        return None
    result = _empty(sources[0], identity, maker)
    result.StructureSetLabel = "AI CONTOURS"
    result.StructureSetName = stamp.series_description(identity, maker)
    result.StructureSetDescription = stamp.caution(maker) or maker.model.title
    contours: dict[int, list[Dataset]] = {}
    for one in marked_slices(seg):
        contours.setdefault(one.segment, []).extend(_contours(one))
    described = [item for item in seg.SegmentSequence if "TrackingUID" in item]
    result.ReferencedFrameOfReferenceSequence = [_frame_of_reference(sources)]
    result.StructureSetROISequence = [_roi(item, seg, maker) for item in described]
    result.ROIContourSequence = [
        _roi_contour(int(item.SegmentNumber), contours, _color(item, findings, identity))
        for item in described
    ]
    result.RTROIObservationsSequence = [_observation(item) for item in described]
    result.ApprovalStatus = "UNAPPROVED"
    stamp.stamp(result, sources[0], maker)
    at = stamp.local(maker.at, sources[0])
    result.StructureSetDate = at.strftime("%Y%m%d")
    result.StructureSetTime = at.strftime("%H%M%S.%f")
    for keyword in ("ContentDate", "ContentTime"):
        result.pop(keyword, None)
    return result


def _empty(source: Dataset, identity: ObjectIdentity, maker: Maker) -> SOPClass:
    general = stamp.general(source, identity, maker)
    equipment = general.pop("contributing_equipment")
    for keyword in ("content_date", "content_time"):
        general.pop(keyword)
    result = SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
        **general,
    )
    result.ContributingEquipmentSequence = list(equipment)
    result.OperatorsName = ""
    result.FrameOfReferenceUID = source.FrameOfReferenceUID
    result.PositionReferenceIndicator = ""
    return result


def _contours(one: MarkedSlice) -> Iterator[Dataset]:
    class_uid, instance_uid, frame = source_image(one.group)
    for polygon in polygons(one.mask):
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = class_uid, instance_uid
        if frame is not None:
            image.ReferencedFrameNumber = frame
        contour = Dataset()
        contour.ContourImageSequence = [image]
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(polygon)
        contour.ContourData = _decimals(in_patient(polygon, one.frame))
        yield contour


def _decimals(points: NDArray[np.float64]) -> list[DSfloat]:
    """Coordinates as Decimal Strings, to a thousandth of a millimetre."""
    return [DSfloat(f"{value + 0.0:.3f}") for value in np.round(points, 3).ravel().tolist()]


def _frame_of_reference(sources: Sequence[Dataset]) -> Dataset:
    """Say which images the contours lie on."""
    series = Dataset()
    series.SeriesInstanceUID = sources[0].SeriesInstanceUID
    series.ContourImageSequence = [_instance(ds) for ds in sources]
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_COMPONENT
    study.ReferencedSOPInstanceUID = sources[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    result = Dataset()
    result.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
    result.RTReferencedStudySequence = [study]
    return result


def _instance(ds: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return item


def _roi(item: Dataset, seg: Dataset, maker: Maker) -> Dataset:
    roi = Dataset()
    roi.ROINumber = int(item.SegmentNumber)
    roi.ReferencedFrameOfReferenceUID = seg.FrameOfReferenceUID
    roi.ROIName = str(item.SegmentLabel)[: stamp.LONG_STRING]
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIGenerationDescription = f"{maker.model.family} {maker.model.version}"[
        : stamp.LONG_STRING
    ]
    return roi


def _color(item: Dataset, findings: Findings, identity: ObjectIdentity) -> tuple[int, int, int]:
    colors = {identity.uid(tracking_name(s.number)): s.color for s in findings.segments}
    return colors[str(item.TrackingUID)]


def _roi_contour(
    number: int, contours: dict[int, list[Dataset]], color: tuple[int, int, int]
) -> Dataset:
    result = Dataset()
    result.ReferencedROINumber = number
    result.ROIDisplayColor = list(color)
    result.ContourSequence = contours[number]
    for place, contour in enumerate(result.ContourSequence, start=1):
        contour.ContourNumber = place
    return result


def _observation(item: Dataset) -> Dataset:
    result = Dataset()
    result.ObservationNumber = result.ReferencedROINumber = int(item.SegmentNumber)
    result.ROIObservationLabel = str(item.SegmentLabel)[:SHORT_STRING].rstrip()
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    code = (str(kind.CodingSchemeDesignator), str(kind.CodeValue), str(kind.CodeMeaning))
    result.RTROIIdentificationCodeSequence = [codes.concept(code)]
    result.RTROIInterpretedType = ""
    result.ROIInterpreter = ""
    return result
