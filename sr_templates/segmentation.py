"""Findings as a DICOM Segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Findings, Segment, Volume
from sr_templates import codes, stamp
from sr_templates.base import (
    Maker,
    NoFrameOfReference,
    ObjectIdentity,
    Overlap,
    UnfitSource,
)
from sr_templates.frames import LPS_FROM_RAS, Frame, grid_of, parallel_frames, steps_mm
from sr_templates.packing import Marks, fill, skeleton_pixels

SegmentationType = Literal["BINARY", "LABELMAP"]

SAME_GRID = 0.02
"""Largest difference between the grids of volume and source, in voxels and in cosines."""
SAME_PLACE = 0.25
"""How far, in pixels, a slice of the volume may lie from the frame it was made of."""


def segmentation(
    findings: Findings,
    volume: Volume,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
    kind: SegmentationType = "BINARY",
) -> Dataset | None:
    """Write labelled voxels as a Segmentation on the slices of the source.

    Segments are those that have voxels, numbered from 1 in the order of `findings.segments`; a
    segment is recognised by its Tracking UID, ``identity.uid("tracking-<number>")``.

    Parameters
    ----------
    findings : Findings
        ``labels`` of shape (columns, rows, slices).
    volume : Volume
        What was scored; ``affine`` takes indices to RAS+ millimetres.
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
    maker : Maker
    kind : str
        ``BINARY``: a frame for each segment and slice. ``LABELMAP``: one for each slice, its
        pixels the numbers of segments (Label Map Segmentation), which few viewers read yet.

    Returns
    -------
    Dataset or None
        None when no voxel is labelled.

    Raises
    ------
    NoFrameOfReference
        The source names none.
    Overlap
        Segments share voxels, and a label map is wanted.
    UnfitSource
        The volume does not lie on the source's slices.

    References
    ----------
    DICOM PS3.3 A.51, A.51.5, C.8.20.2.
    """
    segments = found_segments(findings)
    if findings.labels is None or not segments:
        return None
    if not sources[0].get("FrameOfReferenceUID"):
        raise NoFrameOfReference(
            f"series {sources[0].SeriesInstanceUID} has no Frame of Reference UID"
        )
    if volume.frame_of_reference_uid not in ("", sources[0].FrameOfReferenceUID):
        raise UnfitSource("the scored volume lies in another Frame of Reference than the source")
    frames = parallel_frames(sources)
    if kind == "LABELMAP" and findings.overlapping:
        raise Overlap("structures overlap, which a label map cannot hold")
    marks = Marks(
        _planes(findings.labels, volume, sources),
        {
            number: _planes(mask.astype(np.uint8), volume, sources).astype(np.bool_)
            for number, mask in findings.overlapping.items()
        },
    )
    result = _skeleton(marks, segments, frames, sources, identity, maker, kind)
    fill(result, marks, [segment.number for segment in segments], frames)
    stamp.stamp(result, sources[0], maker)
    result.ContentCreatorName = ""  # Type 2 (PS3.3 table 10-12), and nobody's
    # highdicom may take them from the source's tags, which tilt and unequal steps belie.
    result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = _measures(frames)
    _fix_dimension_organization(result, identity.uid("dimension-organization"))
    return result


def _skeleton(
    marks: Marks,
    segments: Sequence[Segment],
    frames: Sequence[Frame],
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
    kind: SegmentationType,
) -> Segmentation:
    """Have highdicom make everything but the pixels."""
    try:
        return Segmentation(
            source_images=stamp.anonymous(sources),
            pixel_array=skeleton_pixels(marks),
            segmentation_type=kind,
            segment_descriptions=[
                _description(segment, number, identity, maker)
                for number, segment in enumerate(segments, start=1)
            ],
            plane_positions=[
                hd.PlanePositionSequence("PATIENT", f.position.tolist()) for f in frames
            ],
            plane_orientation=hd.PlaneOrientationSequence(
                "PATIENT", frames[0].orientation.tolist()
            ),
            pixel_measures=_measures(frames),
            content_label="SEGMENTATION",
            content_description=f"{maker.model.family} {maker.model.version}"[: stamp.LONG_STRING],
            content_qualification=stamp.content_qualification(maker),
            specific_character_set="ISO_IR 192",
            **stamp.general(sources[0], identity, maker),
        )
    except KeyError as error:  # it knows the attributes of images by their SOP Class
        uid = sources[0].SOPClassUID
        raise UnfitSource(
            f"images of SOP Class {uid} can be no source of a segmentation"
        ) from error


def found_segments(findings: Findings) -> list[Segment]:
    """Segments that have voxels.

    Raises
    ------
    ValueError
        A voxel bears a number that no segment has, or labels are no whole numbers.
    """
    if findings.labels is None:
        return []
    if findings.labels.dtype.kind not in "ui":
        raise ValueError(f"labels are {findings.labels.dtype}, wanted whole numbers")
    numbers = set(_values(findings.labels)) - {0}
    numbers |= {number for number, mask in findings.overlapping.items() if mask.any()}
    strange = numbers - {segment.number for segment in findings.segments}
    if strange:
        raise ValueError(f"labels hold {sorted(strange)}, which are no segment's number")
    return [segment for segment in findings.segments if segment.number in numbers]


def _values(labels: NDArray[np.uint8]) -> list[int]:
    """Values that occur, slab by slab: sorting a whole volume takes its size several times."""
    found = [np.unique(slab) for slab in labels]
    return np.unique(np.concatenate(found)).tolist() if found else []


def tracking_name(segment: int | None) -> str:
    """Name of the Tracking UID of a segment, or of the study-level measurements."""
    return "tracking-study" if segment is None else f"tracking-{segment}"


def tracking_identifier(maker: Maker, segment: Segment | None) -> str:
    """Tracking ID a reader may see; at most 64 characters."""
    what = maker.model.finding[2] if segment is None else segment.label
    return f"{maker.model.family} {what}"[: stamp.LONG_STRING]


def _planes(
    labels: NDArray[np.uint8], volume: Volume, sources: Sequence[Dataset]
) -> NDArray[np.uint8]:
    """Labels on the source's slices, shape (slices, rows, columns); a view where they lie there."""
    if labels.shape != volume.array.shape:
        raise ValueError(f"labels have shape {labels.shape}, the volume {volume.array.shape}")
    placed = labels.transpose(2, 1, 0)
    if not _lies_on(volume, parallel_frames(sources)):
        placed = _matched(placed, volume, sources)
    return placed


def _lies_on(volume: Volume, frames: Sequence[Frame]) -> bool:
    """Tell whether each slice of a volume is the frame in the same place, voxel by voxel."""
    first = frames[0]
    if volume.array.shape != (first.columns, first.rows, len(frames)):
        return False
    across = volume.affine[:3, :2] * (first.columns - 1, first.rows - 1)
    wanted = np.stack(
        [first.orientation[:3] * first.spacing[1], first.orientation[3:] * first.spacing[0]], axis=1
    ) * (first.columns - 1, first.rows - 1)
    lps = np.diag(LPS_FROM_RAS)[:3]
    off = np.abs(volume.origins * lps - np.stack([frame.position for frame in frames])).max()
    turned = np.abs(across * lps[:, None] - wanted).max()
    return bool(max(off, turned) <= SAME_PLACE * float(first.spacing.min()))


def _matched(
    slices_first: NDArray[np.uint8], volume: Volume, sources: Sequence[Dataset]
) -> NDArray[np.uint8]:
    """Labels of a regular volume with turned axes, brought onto the source's regular grid."""
    grid = grid_of(sources)
    uid = volume.frame_of_reference_uid or None
    affine = LPS_FROM_RAS @ volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    placed = hd.Volume(np.ascontiguousarray(slices_first), affine, "PATIENT", uid)
    geometry = hd.VolumeGeometry(grid.affine, grid.shape, "PATIENT", uid)
    try:
        matched = placed.match_geometry(geometry, tol=SAME_GRID)
    except (RuntimeError, ValueError) as error:
        raise UnfitSource("the scored volume does not lie on the grid of the source") from error
    if np.count_nonzero(matched.array) != np.count_nonzero(slices_first):
        raise UnfitSource("the scored volume reaches beyond the source")
    return np.asarray(matched.array, np.uint8)


def _measures(frames: Sequence[Frame]) -> hd.PixelMeasuresSequence:
    steps = steps_mm(frames) if len(frames) > 1 else np.ones(1)
    step = float(np.median(steps))
    even = float(np.ptp(steps)) <= max(0.05, 0.02 * step)
    return hd.PixelMeasuresSequence(
        pixel_spacing=frames[0].spacing.tolist(),
        slice_thickness=step,
        spacing_between_slices=float(steps.mean()) if even else None,
    )


def _description(
    segment: Segment, number: int, identity: ObjectIdentity, maker: Maker
) -> SegmentDescription:
    region = segment.anatomic_region
    made = SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=codes.concept(segment.category),
        segmented_property_type=codes.concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=stamp.algorithm_identification(maker),
        tracking_uid=identity.uid(tracking_name(segment.number)),
        tracking_id=tracking_identifier(maker, segment),
        anatomic_regions=[codes.concept(region)] if region else None,
        display_color=CIELabColor.from_rgb(*segment.color),
    )
    if segment.side is not None:
        _set_side(made, codes.concept(codes.SIDES[segment.side]))
    return made


def _set_side(description: SegmentDescription, side: CodedConcept) -> None:
    """Say the side where the Standard has it: with the region, else with the type of segment."""
    regions = description.get("AnatomicRegionSequence")
    if regions:
        regions[0].AnatomicRegionModifierSequence = [side]
        return
    kind = description.SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence = [side]


def _fix_dimension_organization(result: Dataset, uid: str) -> None:
    """Replace highdicom's random UID by ours."""
    result.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in result.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid
