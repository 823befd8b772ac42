"""Findings as a DICOM Segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Findings, Segment, Volume
from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity, UnfitSource
from sr_templates.frames import LPS_FROM_RAS, Grid, grid_of

SAME_GRID = 0.02
"""Largest difference between the grids of volume and source, in voxels and in cosines."""


def segmentation(
    findings: Findings,
    volume: Volume,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
) -> Dataset | None:
    """Write labelled voxels as a BINARY Segmentation on the grid of the source.

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

    Returns
    -------
    Dataset or None
        None when no voxel is labelled.

    Raises
    ------
    UnfitSource
        The source has no Frame of Reference or no regular grid, or the volume lies on another.

    References
    ----------
    DICOM PS3.3 A.51, C.8.20.2.
    """
    segments = found_segments(findings)
    if findings.labels is None or not segments:
        return None
    if not sources[0].get("FrameOfReferenceUID"):
        raise UnfitSource(f"series {sources[0].SeriesInstanceUID} has no Frame of Reference UID")
    if volume.frame_of_reference_uid not in ("", sources[0].FrameOfReferenceUID):
        raise UnfitSource("the scored volume lies in another Frame of Reference than the source")
    grid = grid_of(sources)
    masks = _masks(findings.labels, volume, grid, segments)
    general = stamp.general(sources[0], identity, maker)
    result = Segmentation(
        source_images=stamp.anonymous(sources),
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(segment, number, identity, maker)
            for number, segment in enumerate(segments, start=1)
        ],
        plane_positions=[
            hd.PlanePositionSequence("PATIENT", f.position.tolist()) for f in grid.frames
        ],
        plane_orientation=hd.PlaneOrientationSequence(
            "PATIENT", grid.frames[0].orientation.tolist()
        ),
        pixel_measures=_measures(grid),
        content_label="SEGMENTATION",
        content_description=f"{maker.model.family} {maker.model.version}"[: stamp.LONG_STRING],
        content_qualification=stamp.content_qualification(maker),
        specific_character_set="ISO_IR 192",
        **general,
    )
    stamp.stamp(result, sources[0], maker)
    _fix_dimension_organization(result, identity.uid("dimension-organization"))
    return result


def found_segments(findings: Findings) -> list[Segment]:
    """Segments that have voxels.

    Raises
    ------
    ValueError
        A voxel bears a number that no segment has.
    """
    if findings.labels is None:
        return []
    numbers = set(np.unique(findings.labels).tolist()) - {0}
    strange = numbers - {segment.number for segment in findings.segments}
    if strange:
        raise ValueError(f"labels hold {sorted(strange)}, which are no segment's number")
    return [segment for segment in findings.segments if segment.number in numbers]


def tracking_name(segment: int | None) -> str:
    """Name of the Tracking UID of a segment, or of the study-level measurements."""
    return "tracking-study" if segment is None else f"tracking-{segment}"


def tracking_identifier(maker: Maker, segment: Segment | None) -> str:
    """Tracking ID a reader may see; at most 64 characters."""
    what = maker.model.finding[2] if segment is None else segment.label
    return f"{maker.model.family} {what}"[: stamp.LONG_STRING]


def _masks(
    labels: NDArray[np.uint8], volume: Volume, grid: Grid, segments: Sequence[Segment]
) -> NDArray[np.uint8]:
    """Labels brought onto the source grid by geometry, (slices, rows, columns), renumbered."""
    if labels.shape != volume.array.shape:
        raise ValueError(f"labels have shape {labels.shape}, the volume {volume.array.shape}")
    uid = volume.frame_of_reference_uid or None
    slices_first = LPS_FROM_RAS @ volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    placed = hd.Volume(
        np.ascontiguousarray(labels.transpose(2, 1, 0)), slices_first, "PATIENT", uid
    )
    geometry = hd.VolumeGeometry(grid.affine, grid.shape, "PATIENT", uid)
    try:
        matched = placed.match_geometry(geometry, tol=SAME_GRID)
    except RuntimeError as error:
        raise UnfitSource("the scored volume does not lie on the grid of the source") from error
    if np.count_nonzero(matched.array) != np.count_nonzero(labels):
        raise UnfitSource("the scored volume reaches beyond the source")
    renumber = np.zeros(256, np.uint8)
    for number, segment in enumerate(segments, start=1):
        renumber[segment.number] = number
    return np.asarray(renumber[matched.array], np.uint8)


def _measures(grid: Grid) -> hd.PixelMeasuresSequence:
    return hd.PixelMeasuresSequence(
        pixel_spacing=grid.frames[0].spacing.tolist(),
        slice_thickness=grid.step_mm,
        spacing_between_slices=grid.step_mm,
    )


def _description(
    segment: Segment, number: int, identity: ObjectIdentity, maker: Maker
) -> SegmentDescription:
    region = segment.anatomic_region
    return SegmentDescription(
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


def _fix_dimension_organization(result: Dataset, uid: str) -> None:
    """Replace highdicom's random UID by ours."""
    result.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in result.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid
