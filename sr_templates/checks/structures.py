"""RT Structure Sets: contours that lie on the images they name, one set for each region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from pydicom.dataset import Dataset

from sr_templates.checks.base import Found, Subject
from sr_templates.frames import Frame, frames_of

OFF_PLANE_MM = 0.01
"""Coordinates are written to a thousandth of a millimetre."""
GEOMETRIES = frozenset({"POINT", "OPEN_PLANAR", "OPEN_NONPLANAR", "CLOSED_PLANAR"})


def structures(subject: Subject) -> Iterator[Found]:
    """Judge a Structure Set."""
    ds = subject.ds
    numbers = [int(roi.ROINumber) for roi in ds.StructureSetROISequence]
    yield from _regions(ds, numbers)
    yield from _frames_of_reference(subject)
    listed = images_of_contours(ds)
    frames = _frames(subject)
    for item in ds.ROIContourSequence:
        number = int(item.ReferencedROINumber)
        if not item.get("ContourSequence"):
            yield Found("contour", f"ROI {number}", "has no contour")
        for place, contour in enumerate(item.get("ContourSequence") or (), start=1):
            where = f"ROI {number}, contour {place}"
            yield from _contour(where, contour, listed, frames if subject.own else {})


def _regions(ds: Dataset, numbers: list[int]) -> Iterator[Found]:
    """Every region has one name, one set of contours and one observation."""
    if len(set(numbers)) != len(numbers):
        yield Found("region", "StructureSetROISequence", "has a number twice")
    for roi in ds.StructureSetROISequence:
        if not roi.get("ROIName"):
            yield Found("region", f"ROI {roi.ROINumber}", "has no ROIName")
    for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
        referred = [int(item.ReferencedROINumber) for item in ds.get(keyword) or ()]
        for number in sorted(set(referred) - set(numbers)):
            yield Found("region", keyword, f"refers to ROI {number}, which is not there")
        if keyword == "ROIContourSequence":
            for number in sorted(set(numbers) - set(referred)):
                yield Found("region", keyword, f"has no contours of ROI {number}")


def _frames_of_reference(subject: Subject) -> Iterator[Found]:
    ds = subject.ds
    named = {str(i.FrameOfReferenceUID) for i in ds.get("ReferencedFrameOfReferenceSequence") or ()}
    for roi in ds.StructureSetROISequence:
        if str(roi.get("ReferencedFrameOfReferenceUID", "")) not in named:
            sentence = "lies in a Frame of Reference that the object does not name"
            yield Found("region", f"ROI {roi.ROINumber}", sentence)
    if subject.sources and named != {str(subject.sources[0].get("FrameOfReferenceUID", ""))}:
        yield Found(
            "differs_from_source", "ReferencedFrameOfReferenceSequence", "differs from the source's"
        )


def images_of_contours(ds: Dataset) -> set[str]:
    """SOP Instance UIDs of the images a Structure Set says it lies on."""
    return {
        str(image.get("ReferencedSOPInstanceUID", ""))
        for frame in ds.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
        for image in series.get("ContourImageSequence") or ()
    }


def _frames(subject: Subject) -> Mapping[tuple[str, int | None], Frame]:
    frames = (frame for ds in subject.images for frame in frames_of(ds))
    return {(frame.sop_instance_uid, frame.frame_number): frame for frame in frames}


def _contour(
    where: str,
    contour: Dataset,
    listed: set[str],
    frames: Mapping[tuple[str, int | None], Frame],
) -> Iterator[Found]:
    if contour.get("ContourGeometricType") not in GEOMETRIES:
        yield Found("bad_value", f"{where}, ContourGeometricType", "is no Defined Term")
    points = np.array([float(value) for value in contour.get("ContourData") or ()])
    count = int(contour.get("NumberOfContourPoints") or 0)
    if len(points) != 3 * count or not count:
        sentence = f"has {len(points)} coordinates, NumberOfContourPoints says {count}"
        yield Found("contour", where, sentence)
        return
    for image in contour.get("ContourImageSequence") or ():
        uid, number = str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber")
        if uid not in listed:
            yield Found("reference_unlisted", where, f"names {uid}, which the object does not list")
        frame = frames.get((uid, None if number is None else int(number)))
        if frames and frame is None:
            yield Found("frame_source_foreign", where, f"names {uid}, which is no source")
        elif frame is not None and not _lies_in(points.reshape(-1, 3), frame):
            yield Found("contour", where, f"does not lie on the image {uid}")


def _lies_in(points: np.ndarray, frame: Frame) -> bool:
    """Whether points lie in the plane of a frame, and within its pixels."""
    away = points - frame.position
    columns = away @ frame.orientation[:3] / frame.spacing[1]
    rows = away @ frame.orientation[3:] / frame.spacing[0]
    inside = (columns >= -1.0) & (columns <= frame.columns)
    inside &= (rows >= -1.0) & (rows <= frame.rows)
    return bool(inside.all() and np.abs(away @ frame.normal).max() <= OFF_PLANE_MM)
