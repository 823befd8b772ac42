"""SR documents by themselves: content items, relationships, evidence, flags."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sr_templates.checks.base import SEGMENTATIONS, Found, Subject
from sr_templates.checks.relationships import is_allowed
from sr_templates.checks.tree import Item, children, items

VALUES = {
    "TEXT": "TextValue",
    "CODE": "ConceptCodeSequence",
    "UIDREF": "UID",
    "DATE": "Date",
    "TIME": "Time",
    "DATETIME": "DateTime",
    "PNAME": "PersonName",
    "IMAGE": "ReferencedSOPSequence",
    "COMPOSITE": "ReferencedSOPSequence",
    "WAVEFORM": "ReferencedSOPSequence",
    "SCOORD": "GraphicType",
    "SCOORD3D": "GraphicType",
    "TCOORD": "TemporalRangeType",
    "CONTAINER": "ContinuityOfContent",
}
"""Attribute that holds the value of each Value Type, PS3.3 C.17.3."""
NAMED = frozenset({"TEXT", "CODE", "NUM", "UIDREF", "DATE", "TIME", "DATETIME", "PNAME"})
"""Value Types that must have a Concept Name."""
EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
FLAGS = {
    "CompletionFlag": ("PARTIAL", "COMPLETE"),
    "VerificationFlag": ("UNVERIFIED", "VERIFIED"),
    "PreliminaryFlag": ("PRELIMINARY", "FINAL"),
}


def documents(subject: Subject) -> Iterator[Found]:
    """Judge an SR document whatever its template."""
    ds = subject.ds
    for keyword, allowed in FLAGS.items():
        if keyword in ds and ds.get(keyword) not in (*allowed, "", None):
            yield Found("bad_value", keyword, f"is neither {' nor '.join(allowed)}")
    if ds.get("VerificationFlag") == "VERIFIED" and not ds.get("VerifyingObserverSequence"):
        yield Found("verified", "VerifyingObserverSequence", "is missing in a verified document")
    if ds.get("ValueType") != "CONTAINER":
        yield Found("item", "ValueType", "is not CONTAINER at the root")
    found = list(items(ds))
    for item in found:
        yield from _item(item)
        yield from _relationship(item, subject.sop_class_uid)
    yield from _outlines(subject, found)
    yield from _evidence(subject, found)


def _item(item: Item) -> Iterator[Found]:
    kind = str(item.ds.get("ValueType", ""))
    if not kind and "ReferencedContentItemIdentifier" in item.ds:
        return
    if kind == "NUM":
        yield from _number(item)
    elif kind not in VALUES:
        yield Found("item", item.where, f"has the unknown Value Type {kind[:16]!r}")
    elif item.ds.get(VALUES[kind]) in (None, "", []):
        yield Found("item", item.where, f"has no {VALUES[kind]}")
    if kind in NAMED | {"NUM"} and not item.ds.get("ConceptNameCodeSequence"):
        yield Found("item", item.where, "has no ConceptNameCodeSequence")
    if kind in ("SCOORD", "SCOORD3D"):
        yield from _coordinates(item, 2 if kind == "SCOORD" else 3)
    for reference in item.ds.get("ReferencedSOPSequence") or ():
        if not reference.get("ReferencedSOPClassUID") or not reference.get(
            "ReferencedSOPInstanceUID"
        ):
            yield Found("item", item.where, "refers to an instance without its UIDs")


def _number(item: Item) -> Iterator[Found]:
    if "MeasuredValueSequence" not in item.ds:
        yield Found("item", item.where, "has no MeasuredValueSequence")
        return
    for measured in item.ds.MeasuredValueSequence or ():
        if measured.get("NumericValue") in (None, ""):
            yield Found("item", item.where, "has no NumericValue")
        if not measured.get("MeasurementUnitsCodeSequence"):
            yield Found("item", item.where, "has no unit (MeasurementUnitsCodeSequence)")


def _coordinates(item: Item, dimensions: int) -> Iterator[Found]:
    data = item.ds.get("GraphicData")
    values = 1 if isinstance(data, float) else len(data or ())
    if not values or values % dimensions:
        sentence = f"GraphicData has {values} values, wanted {dimensions} for each point"
        yield Found("item", item.where, sentence)


def _outlines(subject: Subject, found: list[Item]) -> Iterator[Found]:
    """Coordinates are those of an image, and lie on it."""
    sizes = {str(ds.SOPInstanceUID): (ds.Columns, ds.Rows) for ds in subject.images if "Rows" in ds}
    for item in found:
        if item.ds.get("ValueType") != "SCOORD":
            continue
        images = [
            child.ds
            for child in children(item.ds)
            if child.ds.get("RelationshipType") == "SELECTED FROM"
        ]
        if not images:
            yield Found("item", item.where, "is selected from no image")
        points = np.array(item.ds.get("GraphicData") or (), float).reshape(-1)
        for reference in (one for ds in images for one in ds.get("ReferencedSOPSequence") or ()):
            uid = str(reference.get("ReferencedSOPInstanceUID", ""))
            size = np.array(sizes.get(uid, (np.inf, np.inf)), float)
            if len(points) % 2 == 0 and not _inside(points.reshape(-1, 2), size):
                yield Found("contour", item.where, f"reaches beyond the image {uid}")


def _inside(points: NDArray[np.float64], size: NDArray[np.float64]) -> bool:
    """Whether columns and rows, which begin at a corner of the image, are on it."""
    return bool(((points >= 0.0) & (points <= size)).all())


def _relationship(item: Item, sop_class_uid: str) -> Iterator[Found]:
    relationship = str(item.ds.get("RelationshipType", ""))
    if not relationship:
        yield Found("relationship", item.where, "has no RelationshipType")
        return
    if "ReferencedContentItemIdentifier" in item.ds:
        return
    parent, kind = str(item.parent.get("ValueType", "")), str(item.ds.get("ValueType", ""))
    if not is_allowed(sop_class_uid, parent, relationship, kind):
        sentence = f"{parent} {relationship[:24]} {kind} is no relationship of this IOD"
        yield Found("relationship", item.where, sentence)


def _evidence(subject: Subject, found: list[Item]) -> Iterator[Found]:
    ds = subject.ds
    listed = evidence_of(ds)
    referenced = {
        str(reference.get("ReferencedSOPInstanceUID", ""))
        for item in found
        for reference in item.ds.get("ReferencedSOPSequence") or ()
    }
    made_from = (*subject.images, *([subject.seg] if subject.seg is not None else []))
    wanted = {str(source.SOPInstanceUID) for source in made_from} if subject.images else set()
    if subject.own and not listed:
        yield Found("evidence", EVIDENCE[0], "lists nothing that the document was made from")
    if wanted - listed and subject.own:
        sentence = f"{len(wanted - listed)} of {len(wanted)} instances are missing in the evidence"
        yield Found("evidence", "", sentence)
    for uid in sorted(referenced - listed):
        yield Found("evidence", EVIDENCE[0], f"does not list {uid}, which the document refers to")
    is_known = subject.seg is not None or not _lists_a_segmentation(ds)
    if wanted and subject.own and is_known:
        for uid in sorted(listed - wanted):
            yield Found("evidence_foreign", EVIDENCE[0], f"lists {uid}, which is no source")


def _lists_a_segmentation(ds: Dataset) -> bool:
    """Whether a document was made from a Segmentation, whether or not it refers to segments."""
    return any(item.get("ReferencedSOPClassUID") in SEGMENTATIONS for item in _listed(ds))


def evidence_of(ds: Dataset) -> set[str]:
    """SOP Instance UIDs that the evidence sequences list."""
    return {str(item.get("ReferencedSOPInstanceUID", "")) for item in _listed(ds)}


def _listed(ds: Dataset) -> Iterator[Dataset]:
    for keyword in EVIDENCE:
        for study in ds.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                yield from series.get("ReferencedSOPSequence") or ()
