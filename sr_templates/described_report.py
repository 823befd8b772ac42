"""A measurement report, TID 1500, built from an administrator's template and a model's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.described import (
    ITEM,
    GroupLine,
    MeasurementLine,
    ReportTemplate,
    TemplateMismatch,
    TextLine,
)
from sr_templates.described_items import is_missing, mapped, measurement, text_item, texts
from sr_templates.image_library import images_referred_to
from sr_templates.outlines import Outline, is_square, outlines
from sr_templates.outputs import pick
from sr_templates.report import (
    DocumentClass,
    algorithm,
    identifiers,
    observation_context,
    procedure_of,
    referenced_segments,
)
from sr_templates.segmentation import tracking_name

NOT_OUTLINED = "Not outlined: the pixels are not square, and viewers misplace outlines on those."
Group = (
    MeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, eq=False)
class SegmentReference:
    """A segment a group is about: its item of Segment Sequence, and the reference to it.

    `outline` is what surrounds it on one image, where outlines are wanted and can be drawn.
    """

    tracking_uid: str
    tracking_id: str
    reference: ReferencedSegment
    outline: Outline | None = None


@dataclass(frozen=True, eq=False)
class Content:
    """The tree of a report, and whether all that was asked for is in it."""

    tree: MeasurementReport
    is_complete: bool


def described_report(
    template: ReportTemplate,
    data: Mapping[str, Any],
    sources: Sequence[Dataset],
    seg: Dataset | None,
    identity: ObjectIdentity,
    maker: Maker,
    comments: Sequence[str] = (),
    document: DocumentClass = ComprehensiveSR,
) -> Dataset:
    """Write a model's output as an SR document, as a template describes it.

    Parameters
    ----------
    template : ReportTemplate
    data : mapping
        The model's output, as `sr_templates.outputs.view` gives it.
    sources : sequence of Dataset
        As `normalised` returns them; all of them are evidence.
    seg : Dataset or None
        The Segmentation of the same findings; ``volume`` groups refer to its segments,
        ``planar`` groups outline them on the images.
    identity : ObjectIdentity
    maker : Maker
    comments : sequence of str
        Further sentences for the reader.
    document : type
        Comprehensive SR, or Comprehensive 3D SR.

    Returns
    -------
    Dataset

    Raises
    ------
    TemplateMismatch
        The output lacks a value, or one is out of its range.

    References
    ----------
    DICOM PS3.16 TID 1500, 1501, 1411, 1410, 1600.
    """
    outlined = any(line.kind == "planar" for line in template.groups)
    references = {} if seg is None else segment_references(seg, outlined=outlined)
    built = content(template, data, references, identity, maker, sources, comments)
    evidence = stamp.anonymous(sources)
    if seg is not None:
        evidence.append(identifiers(seg))
    result = document(
        evidence=evidence,
        content=built.tree,
        is_complete=built.is_complete,
        content_qualification=_qualification(template, maker),
        specific_character_set="ISO_IR 192",
        coding_schemes=_schemes(template),
        **stamp.general(sources[0], identity, maker),
    )
    stamp.stamp(result, sources[0], maker)
    return result


def segment_references(seg: Dataset, *, outlined: bool) -> dict[str, SegmentReference]:
    """Return references to the segments of a Segmentation, by Tracking UID.

    Parameters
    ----------
    seg : Dataset
    outlined : bool
        Whether each is to be outlined, too; none is where pixels are not square.
    """
    references = referenced_segments(seg)
    drawn = outlines(seg) if outlined and is_square(seg) else {}
    return {
        str(item.TrackingUID): SegmentReference(
            str(item.TrackingUID),
            str(item.TrackingID),
            references[str(item.TrackingUID)],
            drawn.get(int(item.SegmentNumber)),
        )
        for item in seg.SegmentSequence
        if "TrackingUID" in item
    }


def content(
    template: ReportTemplate,
    data: Mapping[str, Any],
    references: Mapping[str, SegmentReference],
    identity: ObjectIdentity,
    maker: Maker,
    sources: Sequence[Dataset],
    comments: Sequence[str] = (),
) -> Content:
    """Build the tree alone, without evidence, patient or study."""
    builder = _Builder(template, data, references, identity, maker)
    groups = list(builder.groups())
    if not groups:
        raise TemplateMismatch(
            f"the template {template.name} gives no group for this output; one of kind image and "
            "without for_each is always written"
        )
    for text in filter(None, (stamp.caution(maker), template.statement, *comments)):
        groups[0][0].ContentSequence.append(text_item(codes.COMMENT, text))
    procedure = (
        procedure_of((), sources[0])
        if template.procedure is None
        else codes.concept(template.procedure)
    )
    containers = [group[0] for group in groups]
    library = images_referred_to(containers, sources) if template.image_library else []
    tree = MeasurementReport(
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            codes.concept(codes.BRITISH_ENGLISH)
        ),
        observation_context=observation_context(maker),
        procedure_reported=procedure,
        imaging_measurements=groups,
        referenced_images=library or None,
    )
    return Content(tree, builder.is_complete)


def _qualification(template: ReportTemplate, maker: Maker) -> str:
    """Nobody makes a product of a model that is none."""
    own = stamp.content_qualification(maker)
    return own if own == "RESEARCH" else template.qualification or own


def _schemes(template: ReportTemplate) -> list[CodingSchemeIdentificationItem] | None:
    private = template.private
    if private is None:
        return None
    return [
        CodingSchemeIdentificationItem(
            private.designator,
            uid=private.uid,
            responsible_organization=private.organisation,
        )
    ]


class _Builder:
    """Builds the groups of one report."""

    def __init__(
        self,
        template: ReportTemplate,
        data: Mapping[str, Any],
        references: Mapping[str, SegmentReference],
        identity: ObjectIdentity,
        maker: Maker,
    ) -> None:
        self.template, self.data, self.references = template, data, references
        self.identity, self.maker = identity, maker
        self.is_complete = True

    def groups(self) -> Iterator[Group]:
        """Every group for every item, in the order of the template."""
        for line in self.template.groups:
            if not line.for_each:
                yield self._group(line, self.data, line.id)
                continue
            for number, item in enumerate(self._items(line), start=1):
                scope = {**self.data, ITEM: item}
                if line.kind == "image":
                    yield self._group(line, scope, f"{line.id}-{number}")
                else:
                    yield from self._segment_group(line, scope)

    def _items(self, line: GroupLine) -> list[Any]:
        found = pick(self.data, line.for_each)
        if not isinstance(found, list):
            kind = type(found).__name__
            raise TemplateMismatch(f"group {line.id}: {line.for_each} is {kind}, wanted a list")
        return found

    def _group(self, line: GroupLine, scope: Mapping[str, Any], name: str) -> Group:
        tracking = TrackingIdentifier(
            uid=self.identity.uid(f"tracking-template-{name}"),
            identifier=(line.tracking or f"{self.template.name} {line.id}")[: stamp.LONG_STRING],
        )
        parts, sentences = self._parts(line, scope)
        group = MeasurementsAndQualitativeEvaluations(tracking_identifier=tracking, **parts)
        group[0].ContentSequence.extend(sentences)
        return group

    def _segment_group(self, line: GroupLine, scope: Mapping[str, Any]) -> Iterator[Group]:
        """Give the group of a segment; one that has no voxel has none."""
        number = pick(scope, f"{ITEM}.number")
        if type(number) is not int:
            kind = type(number).__name__
            raise TemplateMismatch(f"group {line.id}: item.number is {kind}, wanted a whole number")
        known = self.references.get(self.identity.uid(tracking_name(number)))
        if known is None:
            return
        tracking = TrackingIdentifier(uid=known.tracking_uid, identifier=known.tracking_id)
        parts, sentences = self._parts(line, scope)
        parts["tracking_identifier"] = tracking
        group: Group
        if line.kind == "planar" and known.outline is not None:
            if all(item.name != codes.AREA for item in line.measurements):
                parts["measurements"] = [known.outline.area(), *(parts["measurements"] or ())]
            group = PlanarROIMeasurementsAndQualitativeEvaluations(
                referenced_region=known.outline.region(), **parts
            )
        else:
            if line.kind == "planar":
                sentences.append(text_item(codes.COMMENT, NOT_OUTLINED))
            group = VolumetricROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=known.reference, **parts
            )
        group[0].ContentSequence.extend(sentences)
        yield group

    def _parts(
        self, line: GroupLine, scope: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[TextContentItem]]:
        """Give what highdicom makes a group of, and the texts to put after it."""
        lines: tuple[MeasurementLine | TextLine, ...] = (*line.measurements, *line.texts)
        missing = [i for i in lines if is_missing(i, scope)]
        self.is_complete = self.is_complete and not missing
        measurements = [measurement(line, i, scope) for i in line.measurements if i not in missing]
        sentences = [item for i in line.texts if i not in missing for item in texts(line, i, scope)]
        sentences += [
            text_item(codes.COMMENT, f"{codes.display(i.name)}: not available.") for i in missing
        ]
        evaluations = [
            QualitativeEvaluation(
                codes.concept(item.name),
                codes.concept(mapped(line, item.value, item.map, scope)),
            )
            for item in line.evaluations
        ]
        return {
            "finding_type": codes.concept(line.finding),
            "finding_category": codes.concept(line.category) if line.category else None,
            "finding_sites": [FindingSite(codes.concept(line.site))] if line.site else None,
            "algorithm_id": self._algorithm(),
            "measurements": measurements or None,
            "qualitative_evaluations": evaluations or None,
        }, sentences

    def _algorithm(self) -> AlgorithmIdentification:
        template = self.template
        return algorithm(
            self.maker, {"template": f"{template.name} {template.version} {template.digest}"}
        )
