"""Whether a result may leave: the defects no public validator sees, found before it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from sr_templates.base import UnfitSource
from sr_templates.frames import Frame, frames_of
from sr_templates.normalise import REPLACEMENT_CHARACTER, TEXTS, TYPE_2, TYPE_3, normalised
from sr_templates.part10 import Unwritable, to_bytes

SAME_PLACE_MM = 0.01
SAME_COSINE = 1e-4
SAME_VOLUME_ML = 0.1
MODALITIES = {
    SegmentationStorage: ("SEG",),
    ComprehensiveSRStorage: ("SR",),
    SecondaryCaptureImageStorage: ("CT", "MR", "OT"),
}
TRACKING_ID, TRACKING_UID, FINDING = "112039", "112040", "121071"
LANGUAGE, OBSERVER_UID, PROCEDURE = "121049", "121012", "121058"
VOLUME, GROUP = "118565006", "125007"


def problems(result: Dataset, sources: Iterable[Dataset], seg: Dataset | None = None) -> list[str]:
    """Say what is wrong with a result, one sentence each; an empty list lets it leave.

    The result is written and read back first, so that what is judged is what would be sent.

    Parameters
    ----------
    result : Dataset
        Segmentation, Comprehensive SR or Secondary Capture Image.
    sources : iterable of Dataset
        What it was made from, normalised or as received.
    seg : Dataset or None
        The Segmentation an SR refers to.

    Returns
    -------
    list of str
        Without patient data: a differing attribute is named, not shown.
    """
    try:
        ordered = normalised(sources)
        written = dcmread(BytesIO(to_bytes(result)))
    except (UnfitSource, Unwritable) as error:
        return [str(error)]
    found = [
        *_identity(written, ordered),
        *_texts(result, written),
    ]
    match str(written.SOPClassUID):
        case x if x == SegmentationStorage:
            found += _guarded(_segmentation, written, ordered)
        case x if x == ComprehensiveSRStorage:
            found += _guarded(lambda w, o: _report(w, o, seg), written, ordered)
        case x if x == SecondaryCaptureImageStorage:
            found += _capture(written)
        case x:
            found.append(f"SOP Class {x} is none that this node makes")
    return found


def _guarded(
    check: Callable[[Dataset, Sequence[Dataset]], Iterator[str]],
    written: Dataset,
    sources: Sequence[Dataset],
) -> list[str]:
    """Run a check; an attribute it cannot do without is a problem, not a crash."""
    found: list[str] = []
    try:
        found.extend(check(written, sources))
    except (AttributeError, KeyError, IndexError) as error:
        found.append(f"an attribute is missing ({str(error)[:80]})")
    except UnfitSource as error:
        found.append(str(error))
    except ValueError:
        found.append("the number of frames does not fit the pixel data")
    return found


def _identity(written: Dataset, sources: Sequence[Dataset]) -> Iterator[str]:
    source = sources[0]
    for keyword in ("StudyInstanceUID", *TYPE_2):
        if keyword not in written:
            yield f"{keyword} is missing"
    for keyword in ("StudyInstanceUID", *TYPE_2, *TYPE_3):
        if _plain(written, keyword) != _plain(source, keyword):
            yield f"{keyword} differs from the source's"
    if str(written.get("SeriesInstanceUID", "")) in {str(ds.SeriesInstanceUID) for ds in sources}:
        yield "SeriesInstanceUID is the source's, wanted a new one"
    if str(written.SOPInstanceUID) in {str(ds.SOPInstanceUID) for ds in sources}:
        yield "SOPInstanceUID is a source's, wanted a new one"
    if written.get("Modality") not in MODALITIES.get(written.SOPClassUID, (written.Modality,)):
        yield f"Modality is {written.get('Modality')!r}"


def _plain(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    return "" if value is None else str(value)


def _texts(result: Dataset, written: Dataset) -> Iterator[str]:
    """Texts must be the same after writing, and none may hold the replacement character."""
    given, kept = list(_text_elements(result)), list(_text_elements(written))
    if len(given) != len(kept):
        yield "texts were lost in writing"
    for before, after in zip(given, kept, strict=False):
        if str(before.value).rstrip() != str(after.value).rstrip():
            yield f"{after.keyword} was changed in writing"
        if REPLACEMENT_CHARACTER in str(after.value):
            yield f"{after.keyword} holds a replacement character"


def _text_elements(ds: Dataset) -> Iterator[DataElement]:
    for element in ds.iterall():
        if element.VR in TEXTS and element.value not in (None, "", []):
            yield element


def _segmentation(written: Dataset, sources: Sequence[Dataset]) -> Iterator[str]:
    if _plain(written, "FrameOfReferenceUID") != _plain(sources[0], "FrameOfReferenceUID"):
        yield "FrameOfReferenceUID differs from the source's"
    yield from _frame_places(written, sources)
    yield from _frame_references(written, sources)
    yield from _segments(written)


def _frame_places(written: Dataset, sources: Sequence[Dataset]) -> Iterator[str]:
    known = [frame for ds in sources for frame in frames_of(ds)]
    for frame in frames_of(written):
        if not any(_same_place(frame, source) for source in known):
            yield f"frame {frame.frame_number} lies where no source frame lies"


def _same_place(frame: Frame, source: Frame) -> bool:
    return (
        (frame.rows, frame.columns) == (source.rows, source.columns)
        and np.allclose(frame.position, source.position, rtol=0, atol=SAME_PLACE_MM)
        and np.allclose(frame.orientation, source.orientation, rtol=0, atol=SAME_COSINE)
        and np.allclose(frame.spacing, source.spacing, rtol=0, atol=SAME_COSINE)
    )


def _frame_references(written: Dataset, sources: Sequence[Dataset]) -> Iterator[str]:
    """Every frame names the source frame at its place, and the series lists it."""
    known = {(f.sop_instance_uid, f.frame_number): f for ds in sources for f in frames_of(ds)}
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for series in written.get("ReferencedSeriesSequence") or ()
        for item in series.ReferencedInstanceSequence
    }
    groups = written.PerFrameFunctionalGroupsSequence
    for frame, group in zip(frames_of(written), groups, strict=True):
        references = list(_source_references(group))
        if not references:
            yield f"frame {frame.frame_number} names no source image"
        for uid, number in references:
            source = known.get((uid, number))
            if source is None:
                yield f"frame {frame.frame_number} names {uid}, which is no source"
            elif not _same_place(frame, source):
                yield f"frame {frame.frame_number} names {uid}, which lies elsewhere"
            if uid not in listed:
                yield f"{uid} is missing in ReferencedSeriesSequence"


def _source_references(group: Dataset) -> Iterator[tuple[str, int | None]]:
    for derivation in group.get("DerivationImageSequence") or ():
        for item in derivation.get("SourceImageSequence") or ():
            number = item.get("ReferencedFrameNumber")
            yield str(item.ReferencedSOPInstanceUID), None if number is None else int(number)


def _segments(written: Dataset) -> Iterator[str]:
    voxels = voxels_by_segment(written)
    for item in written.SegmentSequence:
        number = int(item.SegmentNumber)
        if not voxels.pop(number, 0):
            yield f"segment {number} has no voxel"
        for keyword in ("RecommendedDisplayCIELabValue", "TrackingUID", "TrackingID"):
            if not item.get(keyword):
                yield f"segment {number} has no {keyword}"
    for number in voxels:
        yield f"frames refer to segment {number}, which is not described"


def voxels_by_segment(seg: Dataset) -> dict[int, int]:
    """Count the voxels of each segment of a BINARY Segmentation that was read from bytes."""
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    counts: dict[int, int] = {}
    for pixels, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        counts[number] = counts.get(number, 0) + int(np.count_nonzero(pixels))
    return counts


def _voxel_ml(seg: Dataset) -> float:
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    row_mm, column_mm = (float(value) for value in measures.PixelSpacing)
    return row_mm * column_mm * float(measures.SpacingBetweenSlices) / 1000.0


def _report(written: Dataset, sources: Sequence[Dataset], seg: Dataset | None) -> Iterator[str]:
    yield from _evidence(written, sources, seg)
    if _root_code(written) != "126000":
        yield "the document is no Imaging Measurement Report"
    names = [_root_code(item) for item in written.ContentSequence]
    for code, what in (
        (LANGUAGE, "language"),
        (OBSERVER_UID, "Device Observer UID"),
        (PROCEDURE, "Procedure reported"),
    ):
        if code not in names:
            yield f"the report has no {what}"
    groups = [item for item in _items(written) if _root_code(item) == GROUP]
    if not groups:
        yield "the report has no Measurement Group"
    for number, group in enumerate(groups, start=1):
        yield from _group(number, group)
    if seg is not None:
        yield from _volumes(groups, dcmread(BytesIO(to_bytes(seg))))


def _group(number: int, group: Dataset) -> Iterator[str]:
    names = {_root_code(item) for item in group.ContentSequence}
    for code, what in (
        (TRACKING_ID, "Tracking Identifier"),
        (TRACKING_UID, "Tracking Unique Identifier"),
        (FINDING, "Finding"),
    ):
        if code not in names:
            yield f"Measurement Group {number} has no {what}"


def _items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence") or ():
        yield item
        yield from _items(item)


def _root_code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _evidence(written: Dataset, sources: Sequence[Dataset], seg: Dataset | None) -> Iterator[str]:
    listed = {
        str(item.ReferencedSOPInstanceUID)
        for keyword in (
            "CurrentRequestedProcedureEvidenceSequence",
            "PertinentOtherEvidenceSequence",
        )
        for study in written.get(keyword) or ()
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    wanted = {str(ds.SOPInstanceUID) for ds in (*sources, *([seg] if seg is not None else []))}
    referenced = {
        str(reference.ReferencedSOPInstanceUID)
        for item in _items(written)
        for reference in item.get("ReferencedSOPSequence") or ()
    }
    if wanted - listed:
        yield f"{len(wanted - listed)} of {len(wanted)} instances are missing in the evidence"
    for uid in sorted(listed - wanted):
        yield f"the evidence lists {uid}, which is no source"
    for uid in sorted(referenced - listed):
        yield f"the report refers to {uid}, which is not in the evidence"


def _volumes(groups: Sequence[Dataset], seg: Dataset) -> Iterator[str]:
    """Each segment has its group, under its own Tracking UID, with the volume of its voxels."""
    voxels, ml = voxels_by_segment(seg), _voxel_ml(seg)
    tracking = {int(i.SegmentNumber): str(i.get("TrackingUID", "")) for i in seg.SegmentSequence}
    reported: set[int] = set()
    for group in groups:
        number = _segment_number(group, str(seg.SOPInstanceUID))
        if number is None:
            yield from _different(_volume(group), sum(voxels.values()) * ml, "the study")
            continue
        reported.add(number)
        if number not in tracking:
            yield f"the report refers to segment {number}, which the segmentation does not have"
            continue
        if _tracking_uid(group) != tracking[number]:
            yield f"the Tracking UID of segment {number} differs from the segmentation's"
        yield from _different(_volume(group), voxels.get(number, 0) * ml, f"segment {number}")
    for number in sorted(tracking.keys() - reported):
        yield f"the report has no Measurement Group for segment {number}"


def _different(reported: float | None, counted: float, what: str) -> Iterator[str]:
    if reported is not None and abs(reported - counted) > SAME_VOLUME_ML:
        yield f"the report gives {what} {reported:.2f} ml, its voxels make {counted:.2f} ml"


def _segment_number(group: Dataset, seg_uid: str) -> int | None:
    for item in group.ContentSequence:
        for reference in item.get("ReferencedSOPSequence") or ():
            numbers = reference.get("ReferencedSegmentNumber")
            if numbers is not None and str(reference.ReferencedSOPInstanceUID) == seg_uid:
                return int(numbers)
    return None


def _tracking_uid(group: Dataset) -> str:
    uids = [i.UID for i in group.ContentSequence if _root_code(i) == TRACKING_UID]
    return str(uids[0]) if uids else ""


def _volume(group: Dataset) -> float | None:
    for item in group.ContentSequence:
        if _root_code(item) == VOLUME and item.get("MeasuredValueSequence"):
            return float(item.MeasuredValueSequence[0].NumericValue)
    return None


def _capture(written: Dataset) -> Iterator[str]:
    wanted = written.Rows * written.Columns * written.SamplesPerPixel
    if len(written.PixelData) != wanted + wanted % 2:
        yield f"PixelData has {len(written.PixelData)} bytes, wanted {wanted}"
    if written.get("BurnedInAnnotation") != "NO":
        yield "BurnedInAnnotation does not say that the pixels are free of patient data"
