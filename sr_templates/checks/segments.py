"""The segments of a Segmentation, and whether frames, pixels and descriptions fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from sr_templates.checks import voxels
from sr_templates.checks.base import Found, Subject

PIXELS: Mapping[str, Mapping[str, tuple[int | str, ...]]] = {
    "BINARY": {"BitsAllocated": (1,), "BitsStored": (1,), "HighBit": (0,)},
    "FRACTIONAL": {"BitsAllocated": (8,), "BitsStored": (8,), "HighBit": (7,)},
    "LABELMAP": {"BitsAllocated": (8, 16), "BitsStored": (8, 16), "HighBit": (7, 15)},
}
"""Values of each Segmentation Type, PS3.3 C.8.20.2."""


def segments(subject: Subject) -> Iterator[Found]:
    """Judge a Segmentation by itself."""
    seg = subject.ds
    yield from _pixel_description(seg)
    yield from _descriptions(seg)
    yield from _dimensions(seg)
    yield from _groups(seg)
    if subject.own:
        yield from _air(seg)
    frames, items = int(seg.NumberOfFrames), len(seg.PerFrameFunctionalGroupsSequence)
    if frames != items:
        sentence = f"has {items} items, NumberOfFrames says {frames}"
        yield Found("frames", "PerFrameFunctionalGroupsSequence", sentence)
    trouble = voxels.pixel_trouble(seg)
    if trouble:
        yield Found("pixels", "PixelData", trouble)
    if frames == items and not trouble:
        yield from _contents(seg)


def _pixel_description(seg: Dataset) -> Iterator[Found]:
    kind = str(seg.SegmentationType)
    if kind not in PIXELS:
        yield Found("bad_value", "SegmentationType", f"is {kind[:16]!r}")
        return
    for keyword, allowed in PIXELS[kind].items():
        if int(seg[keyword].value) not in allowed:
            sentence = (
                f"is {seg[keyword].value}, wanted {' or '.join(map(str, allowed))} for {kind}"
            )
            yield Found("photometric", keyword, sentence)
    if int(seg.SamplesPerPixel) != 1 or int(seg.PixelRepresentation) != 0:
        yield Found("photometric", "SamplesPerPixel", "is not 1, or pixels are signed")
    if kind == "FRACTIONAL":
        for keyword in ("SegmentationFractionalType", "MaximumFractionalValue"):
            if keyword not in seg:
                yield Found("missing", keyword, "is missing")


def _descriptions(seg: Dataset) -> Iterator[Found]:
    numbers = [int(item.get("SegmentNumber") or 0) for item in seg.SegmentSequence]
    label_map = voxels.is_label_map(seg)
    if not label_map and numbers != list(range(1, len(numbers) + 1)):
        yield Found("segment_number", "SegmentSequence", f"is numbered {numbers[:8]}")
    elif len(set(numbers)) != len(numbers):
        yield Found("segment_number", "SegmentSequence", "has a number twice")
    for item in seg.SegmentSequence:
        number = item.get("SegmentNumber")
        if label_map and number == 0:
            continue  # background, which is no finding
        yield from _description(f"segment {number}", item)


def _description(where: str, item: Dataset) -> Iterator[Found]:
    if item.get("SegmentAlgorithmType") != "MANUAL" and not item.get("SegmentAlgorithmName"):
        yield Found("segment_algorithm", where, "has no SegmentAlgorithmName")
    if not item.get("RecommendedDisplayCIELabValue"):
        yield Found("segment_colour", where, "has no RecommendedDisplayCIELabValue")
    for keyword in ("TrackingID", "TrackingUID"):
        if not item.get(keyword):
            yield Found("segment_tracking", where, f"has no {keyword}")
    if ("TrackingID" in item) != ("TrackingUID" in item):
        yield Found("missing", where, "has one of TrackingID and TrackingUID without the other")


def _dimensions(seg: Dataset) -> Iterator[Found]:
    uids = {str(i.get("DimensionOrganizationUID", "")) for i in seg.DimensionOrganizationSequence}
    for number, item in enumerate(seg.DimensionIndexSequence, start=1):
        if item.get("DimensionOrganizationUID", "") not in uids | {""}:
            where = f"DimensionIndexSequence[{number}]"
            yield Found("frame_index", where, "belongs to no Dimension Organization here")
    wanted = len(seg.DimensionIndexSequence)
    for number, group in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        content = group.get("FrameContentSequence")
        values = content[0].get("DimensionIndexValues") if content else None
        found = [values] if isinstance(values, int) else list(values or ())
        if len(found) != wanted or any(int(value) < 1 for value in found):
            sentence = f"DimensionIndexValues is {found}, wanted {wanted} numbers from 1"
            yield Found("frame_index", f"frame {number}", sentence)


GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PlanePositionSequence": ("ImagePositionPatient",),
}


def _groups(seg: Dataset) -> Iterator[Found]:
    """Find functional groups a frame does not have; slides have others."""
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = list(seg.PerFrameFunctionalGroupsSequence)
    if any("PlanePositionSlideSequence" in group for group in (shared, *frames)):
        return
    if not seg.get("FrameOfReferenceUID"):
        yield Found("missing", "FrameOfReferenceUID", "is missing, yet frames have a place")
    for group, keywords in GROUPS.items():
        for number, frame in enumerate(frames, start=1):
            item = (frame.get(group) or shared.get(group) or [None])[0]
            lacking = [word for word in keywords if item is None or not item.get(word)]
            if lacking:
                yield Found("frame_group", f"frame {number}", f"has no {lacking[0]}")
    for keyword in {element.keyword for frame in frames for element in frame}:
        if keyword in shared:
            yield Found("frame_group", keyword, "is given for all frames and for single ones, too")
    if seg.get("SegmentationType") != "LABELMAP":
        yield from _identified(shared, frames)


def _identified(shared: Dataset, frames: list[Dataset]) -> Iterator[Found]:
    for number, frame in enumerate(frames, start=1):
        holder = frame if "SegmentIdentificationSequence" in frame else shared
        item = (holder.get("SegmentIdentificationSequence") or [Dataset()])[0]
        if not item.get("ReferencedSegmentNumber"):
            yield Found("frame_group", f"frame {number}", "has no ReferencedSegmentNumber")


def _contents(seg: Dataset) -> Iterator[Found]:
    """Compare the segments that are described with those that have voxels."""
    described = {int(item.get("SegmentNumber") or 0) for item in seg.SegmentSequence}
    counts = voxels.voxels_by_segment(seg)
    for number in sorted(counts.keys() - described):
        sentence = f"frames refer to segment {number}, which is not described"
        yield Found("segment_undescribed", "", sentence)
    for number in sorted(described - {0}):
        if not counts.get(number):
            yield Found("segment_empty", f"segment {number}", "has no voxel")


def _air(seg: Dataset) -> Iterator[Found]:
    """Each segment's algorithm is the model that Contributing Equipment names (IHE AIR)."""
    model = contributing_model(seg)
    if model is None:
        yield Found("air", "ContributingEquipmentSequence", "names no model with a DeviceUID")
        return
    for item in seg.SegmentSequence:
        if voxels.is_label_map(seg) and item.get("SegmentNumber") == 0:
            continue  # background, which no algorithm looked for
        where = f"segment {item.get('SegmentNumber')}"
        algorithm = item.get("SegmentationAlgorithmIdentificationSequence")
        if not algorithm:
            yield Found("air", where, "has no SegmentationAlgorithmIdentificationSequence")
            continue
        for keyword, other in (
            ("AlgorithmName", "ManufacturerModelName"),
            ("AlgorithmVersion", "SoftwareVersions"),
            ("AlgorithmSource", "Manufacturer"),
        ):
            if str(algorithm[0].get(keyword, "")) != str(model.get(other, "")):
                yield Found("air", where, f"{keyword} differs from the equipment's {other}")


def contributing_model(ds: Dataset) -> Dataset | None:
    """Item of Contributing Equipment that names the model: processing equipment with a UID."""
    for item in ds.get("ContributingEquipmentSequence") or ():
        purpose = item.get("PurposeOfReferenceCodeSequence")
        if purpose and purpose[0].get("CodeValue") == "109102" and item.get("DeviceUID"):
            found: Dataset = item
            return found
    return None
