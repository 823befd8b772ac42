"""Findings as a measurement report, TID 1500."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from models.base import Code, Findings, Number, Segment, Side
from sr_templates import codes, stamp
from sr_templates.base import MANUFACTURER, Maker, ObjectIdentity
from sr_templates.checks.voxels import counts_by_frame
from sr_templates.normalise import UIDS
from sr_templates.segmentation import tracking_identifier, tracking_name

DocumentClass = type[ComprehensiveSR] | type[Comprehensive3DSR]
Image = tuple[str, str, int | None]
"""SOP Class UID, SOP Instance UID, and the frame where the instance has several."""
OTHER_DIGITS = 4
"""Decimal places of numbers that a package names itself."""


def measurement_report(
    findings: Findings,
    sources: Sequence[Dataset],
    seg: Dataset | None,
    identity: ObjectIdentity,
    maker: Maker,
    comments: Sequence[str] = (),
    document: DocumentClass = ComprehensiveSR,
) -> Dataset:
    """Write findings as an SR document of TID 1500.

    One group for the study (TID 1501: presence, probability, total volume, comments), then one
    for each segment of `seg` (TID 1411). Nothing found gives the first group alone, saying
    Absent. The first group refers to the image with the largest marked area; without `seg` to
    none, which means all of the evidence.

    Parameters
    ----------
    findings : Findings
    sources : sequence of Dataset
        As `normalised` returns them; all of them are evidence.
    seg : Dataset or None
        What `segmentation` made of the same findings.
    identity : ObjectIdentity
        Must give the tracking UIDs of `seg`: the same ``uid_root`` and ``entropy``.
    maker : Maker
    comments : sequence of str
        Sentences for the reader, such as what was not done.
    document : type
        Comprehensive SR, or Comprehensive 3D SR.

    Returns
    -------
    Dataset

    References
    ----------
    DICOM PS3.16 TID 1500, 1501, 1411, 1419, 4019; PS3.3 A.35.3, A.35.13.
    """
    content = MeasurementReport(
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            codes.concept(codes.BRITISH_ENGLISH)
        ),
        observation_context=observation_context(maker),
        procedure_reported=procedure_of(findings.segments, sources[0]),
        imaging_measurements=[
            _study_group(findings, seg, identity, maker, comments),
            *segment_groups(findings, seg, identity, maker),
        ],
    )
    evidence = stamp.anonymous(sources)
    if seg is not None:
        evidence.append(identifiers(seg))
    result = document(
        evidence=evidence,
        content=content,
        is_complete=True,
        content_qualification=stamp.content_qualification(maker),
        specific_character_set="ISO_IR 192",
        coding_schemes=[codes.private_scheme()] if _has_private(findings) else None,
        **stamp.general(sources[0], identity, maker),
    )
    stamp.stamp(result, sources[0], maker)
    return result


def identifiers(ds: Dataset) -> Dataset:
    """Only what evidence needs of an instance, without its pixels."""
    light = Dataset()
    for keyword in UIDS:
        setattr(light, keyword, ds[keyword].value)
    return light


def procedure_of(segments: Sequence[Segment], source: Dataset) -> CodedConcept:
    """Procedure Reported, going by the images and what is looked for in them."""
    regions = [s.anatomic_region for s in segments if s.anatomic_region is not None]
    return codes.procedure(
        str(source.get("Modality", "")), str(source.get("BodyPartExamined") or ""), regions
    )


def observation_context(maker: Maker) -> ObservationContext:
    """Observation Context (TID 1001): no person, only the model."""
    return ObservationContext(observer_device_context=device_observer(maker))


def device_observer(maker: Maker) -> ObserverContext:
    """Device observer: the model, whose values agree with Contributing Equipment (IHE AIR)."""
    return ObserverContext(
        codes.concept(codes.DEVICE),
        DeviceObserverIdentifyingAttributes(
            uid=maker.device_uid,
            name=maker.model.title,
            manufacturer_name=MANUFACTURER,
            model_name=maker.model.family,
            serial_number=maker.station,
        ),
    )


def _study_group(
    findings: Findings,
    seg: Dataset | None,
    identity: ObjectIdentity,
    maker: Maker,
    comments: Sequence[str],
) -> MeasurementsAndQualitativeEvaluations:
    presence = codes.PRESENCES[findings.present]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking_of(identity, maker, None),
        finding_type=codes.concept(maker.model.finding),
        finding_sites=sites_of(findings.segments),
        algorithm_id=algorithm(maker),
        measurements=measurements_of(findings, None),
        qualitative_evaluations=[
            QualitativeEvaluation(codes.concept(codes.PRESENCE), codes.concept(presence)),
            *_priority(findings),
        ],
        source_images=None if seg is None else [_most_marked_image(seg)],
    )
    for text in filter(None, (stamp.caution(maker), *findings.texts, *comments)):
        group[0].ContentSequence.append(
            TextContentItem(codes.concept(codes.COMMENT), text, RelationshipTypeValues.CONTAINS)
        )
    return group


def _priority(findings: Findings) -> list[QualitativeEvaluation]:
    """Say whether the finding is over the threshold of urgency, where the model has one."""
    if findings.priority is None:
        return []
    value = codes.OVER_THRESHOLD if findings.priority else codes.NOT_OVER_THRESHOLD
    return [QualitativeEvaluation(codes.concept(codes.PRIORITY), codes.concept(value))]


def _has_private(findings: Findings) -> bool:
    """Whether a number or an evaluation of the report has a code of our own."""
    named = {number.name for number in findings.numbers if number.code is None}
    return findings.priority is not None or any(
        codes.QUANTITIES[name][0] == codes.PRIVATE_SCHEME
        for name in named & codes.QUANTITIES.keys()
    )


def _most_marked_image(seg: Dataset) -> SourceImageForMeasurementGroup:
    """Image on which most pixels are marked, all segments together; the first of equals."""
    marked: dict[Image, int] = {}
    frames = zip(seg.PerFrameFunctionalGroupsSequence, counts_by_frame(seg), strict=True)
    for group, counts in frames:
        image = source_image(group)
        marked[image] = marked.get(image, 0) + sum(counts.values())
    class_uid, instance_uid, frame = max(marked, key=lambda image: marked[image])
    return SourceImageForMeasurementGroup(
        class_uid, instance_uid, None if frame is None else [frame]
    )


def source_image(group: Dataset) -> Image:
    """Image that a frame of a segmentation was drawn on."""
    image = group.DerivationImageSequence[0].SourceImageSequence[0]
    frame = image.get("ReferencedFrameNumber")
    return (
        str(image.ReferencedSOPClassUID),
        str(image.ReferencedSOPInstanceUID),
        int(frame) if frame else None,
    )


def segment_groups(
    findings: Findings, seg: Dataset | None, identity: ObjectIdentity, maker: Maker
) -> list[VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """One group for each segment that `seg` describes."""
    if seg is None:
        return []
    references = referenced_segments(seg)
    groups = []
    for segment in findings.segments:
        reference = references.get(identity.uid(tracking_name(segment.number)))
        if reference is None:
            continue
        groups.append(
            VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=tracking_of(identity, maker, segment),
                finding_category=codes.concept(segment.category),
                finding_type=codes.concept(segment.type),
                finding_sites=sites_of([segment]),
                algorithm_id=algorithm(maker),
                measurements=measurements_of(findings, segment.number),
                referenced_segment=reference,
            )
        )
    if len(groups) != len(references):
        raise ValueError("the segmentation has segments that the findings do not have")
    return groups


def referenced_segments(seg: Dataset) -> dict[str, ReferencedSegment]:
    """Refer to each segment and the images it was drawn on, by Tracking UID.

    highdicom's ``ReferencedSegment.from_segmentation`` cannot read a segmentation of one segment.
    """
    drawn: dict[int, dict[tuple[str, str], list[int]]] = {}
    frames = zip(seg.PerFrameFunctionalGroupsSequence, counts_by_frame(seg), strict=True)
    for group, counts in frames:
        class_uid, instance_uid, frame = source_image(group)
        for number in counts:
            numbers = drawn.setdefault(number, {}).setdefault((class_uid, instance_uid), [])
            if frame is not None:
                numbers.append(frame)
    return {
        str(item.TrackingUID): ReferencedSegment(
            seg.SOPClassUID,
            seg.SOPInstanceUID,
            int(item.SegmentNumber),
            source_images=[
                SourceImageForSegmentation(class_uid, instance_uid, numbers or None)
                for (class_uid, instance_uid), numbers in drawn[int(item.SegmentNumber)].items()
            ],
        )
        for item in seg.SegmentSequence
        if "TrackingUID" in item  # not the background of a label map
    }


def tracking_of(
    identity: ObjectIdentity, maker: Maker, segment: Segment | None
) -> TrackingIdentifier:
    """Tracking Identifier and UID of a segment, or of the measurements of the whole study."""
    number = None if segment is None else segment.number
    return TrackingIdentifier(
        uid=identity.uid(tracking_name(number)),
        identifier=tracking_identifier(maker, segment),
    )


def sites_of(segments: Sequence[Segment]) -> list[FindingSite] | None:
    """Anatomic regions of segments with their sides, each once."""
    places = dict.fromkeys(
        (s.anatomic_region, s.side) for s in segments if s.anatomic_region is not None
    )
    return [_site(region, side) for region, side in places] or None


def _site(region: Code, side: Side | None) -> FindingSite:
    return FindingSite(
        codes.concept(region), laterality=codes.concept(codes.SIDES[side]) if side else None
    )


def algorithm(maker: Maker, more: Mapping[str, str] | None = None) -> AlgorithmIdentification:
    """Identify the model (TID 4019), with what pins it down and further parameters."""
    parameters = stamp.algorithm_parameters(maker) | dict(more or {})
    return AlgorithmIdentification(
        name=maker.model.family,
        version=maker.model.version,
        parameters=[f"{name}={value}" for name, value in parameters.items()],
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
        manufacturer=MANUFACTURER,
    )


def measurements_of(findings: Findings, segment: int | None) -> list[Measurement] | None:
    """Give the numbers of a segment, or of the whole study; None where the model gave none."""
    found = []
    for number in findings.numbers:
        if number.segment != segment:
            continue
        method = codes.METHODS.get(number.name)
        named = codes.concept(number.code) if number.code else codes.quantity(number.name)
        found.append(
            Measurement(
                name=named,
                value=_rounded(number),
                unit=codes.unit(number.unit),
                method=codes.concept(method) if method else None,
            )
        )
    return found or None


def _rounded(number: Number) -> float:
    """Value with the digits of its quantity; only what is 0, or a probability of 1, says so."""
    digits = codes.DIGITS.get(number.name, OTHER_DIGITS)
    step = 10.0**-digits
    value = round(number.value, digits)
    if number.value > 0.0 == value:
        return step
    if number.name == "probability" and number.value < 1.0 == value:
        return 1.0 - step
    return value
