"""Whether an object belongs to the study its images belong to, under UIDs of its own."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from sr_templates.checks.base import SEGMENTATIONS, Found, Subject
from sr_templates.normalise import TYPE_2, TYPE_3


def belonging(subject: Subject) -> Iterator[Found]:
    """Compare an object with its images, or at least with what it says of them."""
    ds = subject.ds
    series = {
        str(item.get("SeriesInstanceUID", "")) for item in ds.get("ReferencedSeriesSequence") or ()
    }
    series |= {str(source.SeriesInstanceUID) for source in subject.sources}
    if str(ds.get("SeriesInstanceUID", "-")) in series:
        yield Found("uid_of_source", "SeriesInstanceUID", "is the source's, wanted a new one")
    if not subject.sources:
        return
    for keyword in ("StudyInstanceUID", *TYPE_2, *(TYPE_3 if subject.own else ())):
        if plain(ds, keyword) != plain(subject.sources[0], keyword):
            yield Found("differs_from_source", keyword, "differs from the source's")
    if str(ds.get("SOPInstanceUID", "")) in {str(s.SOPInstanceUID) for s in subject.sources}:
        yield Found("uid_of_source", "SOPInstanceUID", "is a source's, wanted a new one")
    if subject.sop_class_uid in SEGMENTATIONS:
        keyword = "FrameOfReferenceUID"
        if plain(ds, keyword) != plain(subject.sources[0], keyword):
            yield Found("differs_from_source", keyword, "differs from the source's")


def plain(ds: Dataset, keyword: str) -> str:
    """Value as text without padding; empty where there is none."""
    value = ds.get(keyword)
    return "" if value is None else str(value).rstrip(" \0^=")
