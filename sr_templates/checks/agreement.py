"""Whether a report says of each segment what the Segmentation shows."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from sr_templates.base import UnfitSource
from sr_templates.checks.base import Found, Subject
from sr_templates.checks.coded import value_of
from sr_templates.checks.measurements import TRACKING_UID, groups_of
from sr_templates.checks.tree import children, code, name
from sr_templates.checks.voxels import ml_by_segment
from sr_templates.frames import parallel_frames

VOLUME, METHOD, SUM_OF_VOXELS = "118565006", "370129005", "126030"
SAME_VOLUME_ML = 0.1
ML = {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 1e-3, "dm3": 1e3, "l": 1e3, "L": 1e3}
"""Millilitres in the units a volume is given in (UCUM)."""


def agreement(subject: Subject) -> Iterator[Found]:
    """Compare the Measurement Groups of a report with the segments they refer to."""
    seg = subject.seg
    if seg is None:
        return
    tracking = {
        int(i.SegmentNumber): str(i.get("TrackingUID", ""))
        for i in seg.SegmentSequence
        if int(i.SegmentNumber)  # 0 is the background of a label map
    }
    by_uid = {uid: number for number, uid in tracking.items() if uid}
    ml = _volumes(subject, seg)
    reported: set[int] = set()
    for item in groups_of(subject.ds):
        number = _segment_number(item.ds, str(seg.SOPInstanceUID))
        if number is None and _is_outlined(item.ds):  # on an image: its UID tells what it is of
            number = by_uid.get(_tracking_uid(item.ds))
        if number is None:
            yield from _different(item.ds, _sum(ml) if subject.own else None, "the study")
            continue
        reported.add(number)
        if number not in tracking:
            sentence = (
                f"the report refers to segment {number}, which the segmentation does not have"
            )
            yield Found("segment_absent", "", sentence)
            continue
        if tracking[number] and _tracking_uid(item.ds) != tracking[number]:
            sentence = f"the Tracking UID of segment {number} differs from the segmentation's"
            yield Found("tracking_differs", "", sentence)
        counted = None if ml is None else ml.get(number, 0.0)
        yield from _different(item.ds, counted, f"segment {number}")
    for number in sorted(tracking.keys() - reported):
        sentence = f"the report has no Measurement Group for segment {number}"
        yield Found("segment_unreported", "", sentence)


def _volumes(subject: Subject, seg: Dataset) -> dict[int, float] | None:
    """Volumes by segment; None where the slices' distances are not known."""
    if not subject.images:
        return None
    try:
        if len(parallel_frames(subject.images)) == 1:
            return None
        return ml_by_segment(seg, subject.images)
    except UnfitSource:
        return None


def _sum(ml: dict[int, float] | None) -> float | None:
    return None if ml is None else sum(ml.values())


def _different(group: Dataset, counted: float | None, what: str) -> Iterator[Found]:
    reported = _volume(group)
    if counted is None or reported is None or abs(reported - counted) <= SAME_VOLUME_ML:
        return
    sentence = f"the report gives {what} {reported:.2f} ml, its voxels make {counted:.2f} ml"
    yield Found("volume_differs", "", sentence)


def _segment_number(group: Dataset, seg_uid: str) -> int | None:
    for item in group.get("ContentSequence") or ():
        for reference in item.get("ReferencedSOPSequence") or ():
            number = reference.get("ReferencedSegmentNumber")
            if isinstance(number, int) and str(reference.ReferencedSOPInstanceUID) == seg_uid:
                return number
    return None


def _is_outlined(group: Dataset) -> bool:
    return any(item.ds.get("ValueType") == "SCOORD" for item in children(group))


def _tracking_uid(group: Dataset) -> str:
    uids = [i.ds.get("UID", "") for i in children(group) if name(i.ds) == TRACKING_UID]
    return str(uids[0]) if uids else ""


def _is_counted(item: Dataset) -> bool:
    """Whether a volume is a count of voxels, not something finer measured another way."""
    methods = [code(one) for one in item.get("ContentSequence") or () if name(one) == METHOD]
    return methods in ([], [SUM_OF_VOXELS])


def _volume(group: Dataset) -> float | None:
    for item in group.get("ContentSequence") or ():
        measured = item.get("MeasuredValueSequence")
        if name(item) != VOLUME or not measured or not _is_counted(item):
            continue
        units = measured[0].get("MeasurementUnitsCodeSequence")
        factor = ML.get(value_of(units[0])) if units else None
        value = measured[0].get("NumericValue")
        if factor is not None and value not in (None, ""):
            return float(value) * factor
    return None
