"""A measurement report in sentences, for viewers and information systems that show text only."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    EnhancedSR,
    LanguageOfContentItemAndDescendants,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage

from models.base import Code
from sr_templates import codes, stamp
from sr_templates.base import FOR_RESEARCH_USE, NOT_FOR_CLINICAL_USE, Maker, ObjectIdentity
from sr_templates.checks.measurements import (
    ALGORITHM_NAME,
    CATEGORY,
    FINDING,
    SITE,
    TRACKING_ID,
    groups_of,
)
from sr_templates.checks.tree import children, name
from sr_templates.report import observation_context, procedure_of

TOLD = ("CODE", "NUM", "TEXT")
"""Value Types of a Measurement Group that are told, in this order."""
CAUTIONS = frozenset({NOT_FOR_CLINICAL_USE, FOR_RESEARCH_USE})
DIMENSIONLESS = frozenset({"1", "{score}", "{ratio}"})
CONTAINS = RelationshipTypeValues.CONTAINS


def text_report(
    report: Dataset, sources: Sequence[Dataset], identity: ObjectIdentity, maker: Maker
) -> Dataset:
    """Write what a measurement report says as a Basic Text SR document of TID 2000.

    Parameters
    ----------
    report : Dataset
        Of TID 1500, of this node. It is not referred to.
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
    maker : Maker

    Returns
    -------
    Dataset

    References
    ----------
    DICOM PS3.16 TID 2000; PS3.3 A.35.1.
    """
    root = ContainerContentItem(codes.concept(codes.DIAGNOSTIC_REPORT), template_id="2000")
    content = ContentSequence(is_root=False)
    content.extend(LanguageOfContentItemAndDescendants(codes.concept(codes.BRITISH_ENGLISH)))
    content.extend(observation_context(maker))
    content.append(
        CodeContentItem(
            codes.concept(codes.PROCEDURE_REPORTED),
            procedure_of((), sources[0]),
            RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    content.append(_section(codes.FINDINGS, codes.FINDING, _findings(report)))
    content.append(_section(codes.CONCLUSIONS, codes.CONCLUSION, _remarks(report, maker)))
    root.ContentSequence = content
    result = EnhancedSR(
        evidence=stamp.anonymous(sources),
        content=root,
        is_complete=str(report.CompletionFlag) == "COMPLETE",
        content_qualification=stamp.content_qualification(maker),
        specific_character_set="ISO_IR 192",
        **stamp.general(sources[0], identity, maker),
    )
    # highdicom has no class for it: Enhanced SR with texts only is a Basic Text SR.
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    stamp.stamp(result, sources[0], maker)
    return result


def sentences(report: Dataset, maker: Maker) -> list[str]:
    """Tell a measurement report in lines: one for each of its groups, then remarks."""
    return [*_findings(report), *_remarks(report, maker)]


def _findings(report: Dataset) -> list[str]:
    return [_finding(group.ds) for group in groups_of(report)]


def _remarks(report: Dataset, maker: Maker) -> list[str]:
    about = (stamp.caution(maker), f"{maker.model.title}, version {maker.model.version}.")
    return [*_comments(report), *filter(None, about)]


def _finding(group: Dataset) -> str:
    """Tell a Measurement Group in one line, which begins with what it is about."""
    items = [item.ds for item in children(group)]
    texts = {name(i): str(i.TextValue) for i in items if i.get("ValueType") == "TEXT"}
    what = texts.get(TRACKING_ID, "").removeprefix(texts.get(ALGORITHM_NAME, "")).strip()
    told = [
        i
        for kind in TOLD
        for i in items
        if i.get("ValueType") == kind
        and i.RelationshipType == "CONTAINS"
        and name(i) not in (FINDING, CATEGORY, codes.COMMENT[1])
    ]
    values = [f"{_what(i)}: {_value(i)}" for i in told]
    subject = codes.display(("", "", what[:1].upper() + what[1:]))
    return f"{subject}. {'; '.join(values)}." if values else f"{subject}."


def _what(item: Dataset) -> str:
    """Say what a value is of: its name and, where it has one of its own, its place in the body."""
    places = [_place(site.ds) for site in children(item) if name(site.ds) == SITE]
    return ", ".join([_meaning(item, "ConceptNameCodeSequence"), *places])


def _place(site: Dataset) -> str:
    """Name a finding site after its side."""
    sides = [_meaning(i.ds, "ConceptCodeSequence") for i in children(site)]
    return " ".join([*sides, _meaning(site, "ConceptCodeSequence")]).lower()


def _comments(report: Dataset) -> list[str]:
    """Sentences of the report's groups, each once; the caution comes from the model."""
    found = [
        str(item.ds.TextValue)
        for group in groups_of(report)
        for item in children(group.ds)
        if name(item.ds) == codes.COMMENT[1]
    ]
    return [text for text in dict.fromkeys(found) if text not in CAUTIONS]


def _section(heading: Code, what: Code, lines: Sequence[str]) -> ContainerContentItem:
    section = ContainerContentItem(codes.concept(heading), relationship_type=CONTAINS)
    items: list[ContentItem] = [
        TextContentItem(codes.concept(what), line, CONTAINS) for line in lines
    ]
    section.ContentSequence = ContentSequence(items, is_root=False)
    return section


def _value(item: Dataset) -> str:
    if item.ValueType == "TEXT":
        return str(item.TextValue).rstrip(".")
    if item.ValueType == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return "not available"
    unit = str(measured[0].MeasurementUnitsCodeSequence[0].CodeValue)
    return f"{measured[0].NumericValue} {'' if unit in DIMENSIONLESS else unit}".rstrip()


def _meaning(item: Dataset, keyword: str) -> str:
    code = item[keyword].value[0]
    return codes.display(
        (str(code.CodingSchemeDesignator), str(code.get("CodeValue", "")), str(code.CodeMeaning))
    )
