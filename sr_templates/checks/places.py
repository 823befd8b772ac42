"""Whether each frame of a Segmentation lies where the image lies that it was drawn on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sr_templates.checks.base import Found, Subject
from sr_templates.frames import Frame, frames_of

SAME_PLACE_MM = 0.01
SAME_COSINE = 1e-4
SAME_SPACING_MM = 1e-4


def places(subject: Subject) -> Iterator[Found]:
    """Judge places and references of frames."""
    yield from _listed(subject)
    if not subject.images:
        return
    known = [frame for ds in subject.images for frame in frames_of(ds)]
    frames = list(frames_of(subject.ds))
    if subject.own:
        yield from _on_sources(frames, known)
    yield from _references(subject, frames, known)


def _on_sources(frames: Sequence[Frame], known: Sequence[Frame]) -> Iterator[Found]:
    positions = np.array([frame.position for frame in known])
    for frame in frames:
        near = np.abs(positions - frame.position).max(axis=1) <= SAME_PLACE_MM
        if not any(_same_plane(frame, known[place]) for place in np.flatnonzero(near).tolist()):
            where = f"frame {frame.frame_number}"
            yield Found("frame_place", where, "lies where no source frame lies")


def _same_plane(frame: Frame, source: Frame) -> bool:
    return (
        (frame.rows, frame.columns) == (source.rows, source.columns)
        and _near(frame.orientation, source.orientation, SAME_COSINE)
        and _near(frame.spacing, source.spacing, SAME_SPACING_MM)
    )


def _same_place(frame: Frame, source: Frame) -> bool:
    return _same_plane(frame, source) and _near(frame.position, source.position, SAME_PLACE_MM)


def _near(one: NDArray[np.float64], other: NDArray[np.float64], limit: float) -> bool:
    return bool(np.abs(one - other).max() <= limit)


def _listed(subject: Subject) -> Iterator[Found]:
    """Every frame names a source, and Referenced Series lists what frames name."""
    seg = subject.ds
    listed = {
        str(item.get("ReferencedSOPInstanceUID", ""))
        for series in seg.get("ReferencedSeriesSequence") or ()
        for item in series.get("ReferencedInstanceSequence") or ()
    }
    unlisted: set[str] = set()
    for number, references in enumerate(_references_of_frames(seg), start=1):
        if not references:
            yield Found("frame_source", f"frame {number}", "names no source image")
        unlisted |= {uid for uid, _ in references} - listed
    for uid in sorted(unlisted):
        sentence = f"does not list {uid}, which a frame names"
        yield Found("reference_unlisted", "ReferencedSeriesSequence", sentence)


def _references_of_frames(seg: Dataset) -> list[list[tuple[str, int | None]]]:
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    common = list(_source_references(shared))
    return [[*_source_references(group), *common] for group in seg.PerFrameFunctionalGroupsSequence]


def _source_references(group: Dataset) -> Iterator[tuple[str, int | None]]:
    for derivation in group.get("DerivationImageSequence") or ():
        for item in derivation.get("SourceImageSequence") or ():
            numbers = item.get("ReferencedFrameNumber")
            uid = str(item.get("ReferencedSOPInstanceUID", ""))
            if numbers is None or isinstance(numbers, (int, str)):
                yield uid, None if numbers is None else int(numbers)
            else:
                yield from ((uid, int(number)) for number in numbers)


def _references(
    subject: Subject, frames: Sequence[Frame], sources: Sequence[Frame]
) -> Iterator[Found]:
    """Every source a frame names is one we know, in the frame's place."""
    known = {(frame.sop_instance_uid, frame.frame_number): frame for frame in sources}
    promised = _promises_place(subject.ds)
    for frame, references in zip(frames, _references_of_frames(subject.ds), strict=False):
        where = f"frame {frame.frame_number}"
        for uid, number in references:
            source = known.get((uid, number)) or known.get((uid, None))
            if source is None:
                sentence = f"names {uid}, which is no source"
                yield Found("frame_source_foreign", where, sentence)
            elif not _same_place(frame, source):
                rule = "frame_place_promised" if promised else "frame_source_foreign"
                yield Found(rule, where, f"names {uid}, which lies elsewhere")


def _promises_place(seg: Dataset) -> bool:
    """Whether a Segmentation says that its pixels lie on those of the images."""
    said = {
        str(item.get("SpatialLocationsPreserved", ""))
        for group in seg.PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence") or ()
        for item in derivation.get("SourceImageSequence") or ()
    }
    return said == {"YES"}
