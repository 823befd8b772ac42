"""Encapsulated PDFs: that there is a whole document in them, and of whom it speaks."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from sr_templates.checks.base import Found, Subject

MIME_TYPE = "application/pdf"
BEGINNING, END = b"%PDF-", b"%%EOF"
TAIL = 1024
"""Within so many bytes of its end a PDF says that it ends (ISO 32000)."""


def encapsulated(subject: Subject) -> Iterator[Found]:
    """Judge an Encapsulated PDF."""
    ds = subject.ds
    if ds.MIMETypeOfEncapsulatedDocument != MIME_TYPE:
        yield Found("bad_value", "MIMETypeOfEncapsulatedDocument", f"is not {MIME_TYPE}")
    document = bytes(ds.EncapsulatedDocument)
    length = int(ds.get("EncapsulatedDocumentLength") or len(document))
    if not 0 <= len(document) - length <= 1:
        sentence = f"has {len(document)} bytes, EncapsulatedDocumentLength says {length}"
        yield Found("document", "EncapsulatedDocument", sentence)
    document = document[:length]
    if not document.startswith(BEGINNING) or END not in document[-TAIL:]:
        yield Found("document", "EncapsulatedDocument", "is no whole PDF")
    if subject.own and ds.get("BurnedInAnnotation") != "NO":
        sentence = "does not say that the document is free of patient data"
        yield Found("burned_in", "BurnedInAnnotation", sentence)
    named = images_of_document(ds)
    wanted = {str(source.SOPInstanceUID) for source in subject.images}
    if subject.own and (not named or (wanted and named != wanted)):
        yield Found("evidence", "SourceInstanceSequence", "does not list the images it is about")


def images_of_document(ds: Dataset) -> set[str]:
    """SOP Instance UIDs of the images an Encapsulated PDF says it is about."""
    return {
        str(item.get("ReferencedSOPInstanceUID", ""))
        for item in ds.get("SourceInstanceSequence") or ()
    }
