"""Key Object Selections, of which rejection notes are ours."""

from __future__ import annotations

from collections.abc import Iterator

from sr_templates.checks.base import Found, Subject
from sr_templates.checks.documents import evidence_of
from sr_templates.checks.tree import children, name

REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})
"""CID 7011 of IHE's Imaging Object Change Management: why objects are rejected."""


def key_objects(subject: Subject) -> Iterator[Found]:
    """Judge a Key Object Selection."""
    ds = subject.ds
    referenced = {
        str(reference.get("ReferencedSOPInstanceUID", ""))
        for item in children(ds)
        for reference in item.ds.get("ReferencedSOPSequence") or ()
    }
    listed = evidence_of(ds)
    if not referenced:
        yield Found("selection", "ContentSequence", "refers to no object")
    for uid in sorted(referenced - listed):
        yield Found("evidence", "CurrentRequestedProcedureEvidenceSequence", f"does not list {uid}")
    for uid in sorted(listed - referenced):
        yield Found("selection", "ContentSequence", f"does not refer to {uid}, which is listed")
    if subject.own and name(ds) not in REJECTIONS:
        yield Found("title", "", "the selection is no rejection note")
