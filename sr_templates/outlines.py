"""Findings as outlines on images (TID 1410), which viewers draw that show no SEG of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Findings, Segment
from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.contours import MarkedSlice, marked_slices, polygons
from sr_templates.frames import frames_of
from sr_templates.report import (
    Image,
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


@dataclass(frozen=True, eq=False)
class Outline:
    """What surrounds a segment on the slice where it is largest.

    Parameters
    ----------
    points : NDArray[np.float64]
        Shape (points, 2): column and row as an image counts them, the last point the first.
    image : tuple
        SOP Class UID, SOP Instance UID and, of a multi-frame image, the frame.
    area_mm2 : float
        Of all that the segment marks on that slice.
    """

    points: NDArray[np.float64]
    image: Image
    area_mm2: float

    def region(self) -> ImageRegion:
        """Content item of the outline, selected from its image."""
        class_uid, instance_uid, frame = self.image
        image = SourceImageForRegion(class_uid, instance_uid, None if frame is None else [frame])
        return ImageRegion("POLYLINE", self.points, image)

    def area(self) -> Measurement:
        """Content item of the area."""
        value = round(self.area_mm2, 1)
        return Measurement(codes.concept(codes.AREA), value, codes.concept(codes.MM2))


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
    if seg is None or not is_square(seg):
        return None
    outlined = outlines(seg)
    groups = [
        _group(findings, segment, outlined[number], identity, maker)
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


def is_square(seg: Dataset) -> bool:
    """Whether viewers draw outlines in their place: the sides of a pixel are equal."""
    down, across = next(frames_of(seg)).spacing
    return bool(abs(down / across - 1.0) <= SQUARE)


def outlines(seg: Dataset) -> dict[int, Outline]:
    """Outline of the largest part of each segment on its largest slice, by Segment Number."""
    return {number: _outline(one) for number, one in _largest(seg).items()}


def _outline(one: MarkedSlice) -> Outline:
    ring = polygons(one.mask)[0] + CENTRE
    area = np.count_nonzero(one.mask) * float(np.prod(one.frame.spacing))
    return Outline(np.concatenate([ring, ring[:1]]), source_image(one.group), area)


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
    outline: Outline,
    identity: ObjectIdentity,
    maker: Maker,
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking_of(identity, maker, segment),
        referenced_region=outline.region(),
        finding_category=codes.concept(segment.category),
        finding_type=codes.concept(segment.type),
        finding_sites=sites_of([segment]),
        algorithm_id=algorithm(maker),
        measurements=[outline.area(), *(measurements_of(findings, segment.number) or ())],
        qualitative_evaluations=[
            QualitativeEvaluation(codes.concept(codes.PRESENCE), codes.concept(codes.PRESENT))
        ],
    )
