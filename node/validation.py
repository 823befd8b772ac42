"""Files judged as results are judged before they leave: ours, and those of others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from sr_templates.base import UNDECODABLE, UnfitSource
from sr_templates.check import examine, is_own
from sr_templates.checks.base import (
    CHECKED,
    LABEL_MAP,
    SEGMENTATIONS,
    Defect,
    Found,
    Subject,
    judged,
)
from sr_templates.checks.documents import evidence_of
from sr_templates.checks.encapsulated import images_of_document
from sr_templates.checks.structures import images_of_contours
from sr_templates.normalise import normalised


@dataclass(frozen=True)
class Judged:
    """What was found in one file.

    Parameters
    ----------
    file : Path
    kind : str
        Name of its SOP Class.
    own : bool
        Whether it was judged as one of ours.
    images : int
        Images it was compared with.
    segmentation : bool
        Whether a report was compared with the Segmentation it refers to.
    defects : tuple of Defect
    """

    file: Path
    kind: str
    own: bool = False
    images: int = 0
    segmentation: bool = False
    defects: tuple[Defect, ...] = ()

    @property
    def verdict(self) -> str:
        """``error``, ``warning`` or ``good``."""
        severities = {defect.severity for defect in self.defects}
        return "error" if "error" in severities else "warning" if severities else "good"


@dataclass(frozen=True, eq=False)
class _Files:
    """Headers of the files that were given."""

    results: Mapping[Path, Dataset]
    images: Mapping[str, Dataset]
    segmentations: Mapping[str, Path]
    unreadable: Sequence[Judged] = field(default_factory=tuple)


def validate(paths: Iterable[Path], *, strict: bool = False) -> list[Judged]:
    """Judge every object of a class that we make among files.

    The images among them are what results are compared with, and the Segmentations what
    reports are compared with.

    Parameters
    ----------
    paths : iterable of Path
        Files and folders; in folders, what is not DICOM is passed over.
    strict : bool
        Judge everything by the rules for results of this node.

    Returns
    -------
    list of Judged
        In the order of the files; images have none.
    """
    files = _read(paths)
    judged_files = [_survived(path, ds, files, strict) for path, ds in files.results.items()]
    return sorted([*judged_files, *files.unreadable], key=lambda item: str(item.file))


def _read(paths: Iterable[Path]) -> _Files:
    results: dict[Path, Dataset] = {}
    images: dict[str, Dataset] = {}
    segmentations: dict[str, Path] = {}
    unreadable: list[Judged] = []
    for path, named in _all_files(paths):
        ds = _dataset(path, pixels=False)
        if ds is None or "SOPClassUID" not in ds:
            if named:
                unreadable.append(_unreadable(path))
        elif ds.SOPClassUID not in CHECKED:
            images[str(ds.get("SOPInstanceUID", path))] = ds
        else:
            results[path] = ds
            if ds.SOPClassUID in SEGMENTATIONS:
                segmentations[str(ds.get("SOPInstanceUID", ""))] = path
    return _Files(results, images, segmentations, unreadable)


def _all_files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield every file, and whether it was named rather than found in a folder."""
    for path in paths:
        if path.is_dir():
            yield from ((inner, False) for inner in sorted(path.rglob("*")) if inner.is_file())
        else:
            yield path, True


def _dataset(path: Path, *, pixels: bool) -> Dataset | None:
    try:
        return dcmread(path, stop_before_pixels=not pixels)
    except (InvalidDicomError, *UNDECODABLE):
        return None


def _unreadable(path: Path) -> Judged:
    found = judged(Found("unreadable", "", "the file cannot be read as DICOM"), own=True)
    return Judged(path, "", defects=(found,) if found else ())


def _survived(path: Path, header: Dataset, files: _Files, strict: bool) -> Judged:
    try:
        return _judge(path, header, files, strict)
    except UNDECODABLE:
        return _unreadable(path)


def _judge(path: Path, header: Dataset, files: _Files, strict: bool) -> Judged:
    ds = _dataset(path, pixels=True)
    if ds is None:
        return _unreadable(path)
    own = strict or is_own(ds)
    kind = _kind(UID(str(header.SOPClassUID)))
    wanted = _references(ds)
    given = [files.images[uid] for uid in wanted if uid in files.images]
    given = given if wanted else _of_study(ds, files)
    with config.disable_value_validation():
        sources, defects = _normalised(given, own)
    seg = _segmentation(wanted, files)
    subject = Subject(ds, sources, seg, own, _is_complete(wanted, given, files))
    found = (*defects, *examine(subject))
    return Judged(path, kind, own, len(sources), seg is not None, found)


def _kind(sop_class_uid: UID) -> str:
    if sop_class_uid == LABEL_MAP:
        return "Label Map Segmentation Storage"
    return sop_class_uid.name


def _references(ds: Dataset) -> list[str]:
    """SOP Instance UIDs an object says it was made from, each once."""
    referenced = (
        str(item.get("ReferencedSOPInstanceUID", ""))
        for series in ds.get("ReferencedSeriesSequence") or ()
        for item in series.get("ReferencedInstanceSequence") or ()
    )
    further = evidence_of(ds) | images_of_contours(ds) | images_of_document(ds)
    return list(dict.fromkeys([*referenced, *sorted(further)]))


def _of_study(ds: Dataset, files: _Files) -> list[Dataset]:
    """Images for objects that do not say which: those of the study, or the only series given."""
    images = [image for image in files.images.values() if "Rows" in image]
    study = ds.get("StudyInstanceUID")
    same = [image for image in images if image.get("StudyInstanceUID") == study]
    series = {image.get("SeriesInstanceUID") for image in images}
    return same or (images if len(series) == 1 else [])


def _is_complete(wanted: Sequence[str], given: Sequence[Dataset], files: _Files) -> bool:
    """Whether all images an object refers to are there; its segmentations count apart."""
    there = {str(image.get("SOPInstanceUID", "")) for image in given}
    return bool(wanted) and all(uid in there or uid in files.segmentations for uid in wanted)


def _normalised(
    given: Sequence[Dataset], own: bool
) -> tuple[tuple[Dataset, ...], tuple[Defect, ...]]:
    """Clean copies of the images, or why there are none."""
    if not given:
        return (), ()
    try:
        return tuple(normalised(given)), ()
    except UnfitSource as error:
        found = judged(
            Found("unfit_source", "", f"the images cannot be compared: {error}"), own=own
        )
        return (), (found,) if found else ()


def _segmentation(wanted: Sequence[str], files: _Files) -> Dataset | None:
    for uid in wanted:
        if uid in files.segmentations:
            return _dataset(files.segmentations[uid], pixels=True)
    return None
