"""Findings as outlines on images (TID 1410), which viewers draw that show no SEG of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    ComprehensiveSR,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
)
from pydicom.dataset import Dataset

from models.base import Findings, Segment
from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.contours import MarkedSlice, marked_slices, polygons
from sr_templates.frames import frames_of
from sr_templates.report import (
    algorithm,
    measurements_of,
    observation_context,
    procedure_of,
    sites_of,
    source_image,
    tracking_of,
)
from sr_templates.segmentation import tracking_name

SQUARE = 0.01
"""How much the sides of a pixel may differ, as a share."""
CENTRE = 0.5
"""Coordinates of an image begin at the corner of the first pixel, PS3.3 C.18.6.1.2."""


def outline_report(
    findings: Findings,
    seg: Dataset | None,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
) -> Dataset | None:
    """Write an outline of each segment on the slice where it is largest, TID 1500 and 1410.

    Parameters
    ----------
    findings : Findings
    seg : Dataset or None
        What `segmentation` made of them; not referred to, so that a viewer needs nothing else.
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
        Must give the tracking UIDs of `seg`.
    maker : Maker

    Returns
    -------
    Dataset or None
        None when nothing is marked, as every group of this report has an outline; and where
        pixels are not square: a widely used viewer then draws outlines in another place
        (cornerstone3D issue 2758).

    References
    ----------
    DICOM PS3.16 TID 1500, 1410; PS3.3 C.18.6.
    """
    if seg is None or not _is_square(seg):
        return None
    largest = _largest(seg)
    groups = [
        _group(findings, segment, largest[number], identity, maker)
        for segment, number in _described(findings, seg, identity)
    ]
    for text in filter(None, (stamp.caution(maker),)):
        groups[0][0].ContentSequence.append(
            TextContentItem(codes.concept(codes.COMMENT), text, RelationshipTypeValues.CONTAINS)
        )
    content = MeasurementReport(
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            codes.concept(codes.BRITISH_ENGLISH)
        ),
        observation_context=observation_context(maker),
        procedure_reported=procedure_of(findings.segments, sources[0]),
        imaging_measurements=groups,
    )
    result = ComprehensiveSR(
        evidence=stamp.anonymous(sources),
        content=content,
        is_complete=True,
        content_qualification=stamp.content_qualification(maker),
        specific_character_set="ISO_IR 192",
        **stamp.general(sources[0], identity, maker),
    )
    stamp.stamp(result, sources[0], maker)
    return result


def _is_square(seg: Dataset) -> bool:
    down, across = next(frames_of(seg)).spacing
    return bool(abs(down / across - 1.0) <= SQUARE)


def _largest(seg: Dataset) -> dict[int, MarkedSlice]:
    """Slice on which each segment has most pixels; the first of equals."""
    found: dict[int, MarkedSlice] = {}
    for one in marked_slices(seg):
        best = found.get(one.segment)
        if best is None or np.count_nonzero(one.mask) > np.count_nonzero(best.mask):
            found[one.segment] = one
    return found


def _described(
    findings: Findings, seg: Dataset, identity: ObjectIdentity
) -> list[tuple[Segment, int]]:
    """Segments that the Segmentation describes, with the numbers they have there."""
    numbers = {str(i.get("TrackingUID")): int(i.SegmentNumber) for i in seg.SegmentSequence}
    uids = ((s, identity.uid(tracking_name(s.number))) for s in findings.segments)
    return [(segment, numbers[uid]) for segment, uid in uids if uid in numbers]


def _group(
    findings: Findings,
    segment: Segment,
    largest: MarkedSlice,
    identity: ObjectIdentity,
    maker: Maker,
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    class_uid, instance_uid, frame = source_image(largest.group)
    image = SourceImageForRegion(class_uid, instance_uid, None if frame is None else [frame])
    outline = polygons(largest.mask)[0] + CENTRE
    area = np.count_nonzero(largest.mask) * float(np.prod(largest.frame.spacing))
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking_of(identity, maker, segment),
        referenced_region=ImageRegion("POLYLINE", np.concatenate([outline, outline[:1]]), image),
        finding_category=codes.concept(segment.category),
        finding_type=codes.concept(segment.type),
        finding_sites=sites_of([segment]),
        algorithm_id=algorithm(maker),
        measurements=[
            Measurement(codes.concept(codes.AREA), round(area, 1), codes.concept(codes.MM2)),
            *(measurements_of(findings, segment.number) or ()),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(codes.concept(codes.PRESENCE), codes.concept(codes.PRESENT))
        ],
    )
