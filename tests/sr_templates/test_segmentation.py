"""A segmentation lies where the labels lie, whoever reads it."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.base import IntendedUse, Volume
from sr_templates.base import UnfitSource
from sr_templates.check import problems
from sr_templates.frames import frames_of, parallel_frames
from sr_templates.normalise import normalised
from sr_templates.part10 import to_bytes
from sr_templates.segmentation import SegmentationType, segmentation
from tests.noise import dciodvfy, segimage2itkimage
from tests.phantoms import AXIAL, Shape, ct_series, ct_volume, oblique
from tests.shared_data import shared
from tests.sr_templates.objects import (
    MAKER,
    SEGMENTS,
    bleeds,
    case,
    findings_of,
    identity,
    maker,
    save,
)

PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
SHAPES = {
    "axial": Shape(),
    "prone": Shape(orientation=PRONE),
    "oblique sagittal": Shape(orientation=oblique(), slices=15, spacing=(2.5, 4.0, 9.0)),
    "odd number of pixels": Shape(columns=51, rows=33, spacing=(3.4, 6.5, 9.0)),
}


def points(labels: NDArray[np.uint8], world: NDArray[np.float64], number: int) -> set[tuple[float]]:
    """RAS+ millimetres of the voxels of one segment."""
    return {tuple(point) for point in np.round(world[labels == number], 1) + 0.0}


def points_read_by_highdicom(seg: Dataset, number: int) -> set[tuple[float]]:
    """RAS+ millimetres of the voxels highdicom reads."""
    read = hd.seg.segread(BytesIO(to_bytes(seg)))
    volume = read.get_volume(segment_numbers=[number], combine_segments=True)
    lps = volume.map_indices_to_reference(np.argwhere(volume.array > 0))
    return {tuple(point) for point in np.round(lps * (-1, -1, 1), 1) + 0.0}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("arrival", [1, -1], ids=["last slice first", "first slice first"])
def test_highdicom_reads_every_voxel_at_its_place(shape: Shape, arrival: int) -> None:
    made = case(shape, sources=ct_series(shape)[::arrival])

    for number, segment in enumerate((SEGMENTS[0], SEGMENTS[2]), start=1):
        read = points_read_by_highdicom(made.segmentation, number)
        assert read == points(bleeds(shape), shape.world(), segment.number)
    assert problems(made.segmentation, made.sources) == []


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_dcmqi_reads_every_voxel_at_its_place(shape: Shape, tmp_path: Path) -> None:
    made = case(shape)
    path = save(made.segmentation, tmp_path / "seg.dcm")

    assert segimage2itkimage(path, tmp_path) == []
    for number, segment in enumerate((SEGMENTS[0], SEGMENTS[2]), start=1):
        image = nib.nifti1.Nifti1Image.from_filename(tmp_path / f"{number}.nii.gz")
        voxels = np.asarray(image.dataobj) > 0
        world = nib.affines.apply_affine(image.affine, np.argwhere(voxels))
        wanted = np.array(sorted(points(bleeds(shape), shape.world(), segment.number)))
        assert int(voxels.sum()) == len(wanted)
        np.testing.assert_allclose(
            np.array(sorted(map(tuple, np.round(world, 1)))), wanted, atol=0.11
        )


def test_dcmqi_reads_codes_colours_and_tracking(tmp_path: Path) -> None:
    path = save(case().segmentation, tmp_path / "seg.dcm")

    assert segimage2itkimage(path, tmp_path) == []

    meta = json.loads((tmp_path / "meta.json").read_text())
    first, second = (attributes[0] for attributes in meta["segmentAttributes"])
    assert first["recommendedDisplayRGBValue"] == [255, 0, 0]
    assert first["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "50960005"
    assert second["SegmentLabel"] == "Subdural haemorrhage"
    assert second["TrackingUniqueIdentifier"] == identity("sr").uid("tracking-3")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_dciodvfy_finds_no_error(shape: Shape, tmp_path: Path) -> None:
    path = save(case(shape).segmentation, tmp_path / "seg.dcm")

    assert dciodvfy(path) == []


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)], ids=str)
def test_a_volume_with_flipped_axes_gives_the_same_bytes(axes: tuple[int, ...]) -> None:
    made = case()
    affine = made.volume.affine.copy()
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (made.volume.array.shape[axis] - 1)
        affine[:3, axis] *= -1
    flipped = replace(made.volume, array=np.flip(made.volume.array, axes), affine=affine)
    labels = np.flip(bleeds(Shape()), axes)
    findings = replace(made.findings, labels=labels)

    seg = segmentation(findings, flipped, made.clean, identity("seg"), MAKER)

    assert seg is not None
    assert to_bytes(seg) == to_bytes(made.segmentation)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_frames_and_pixels_are_those_highdicom_makes_itself(
    shape: Shape, kind: SegmentationType
) -> None:
    made = case(shape, kind=kind)
    frames = parallel_frames(made.clean)
    labels = bleeds(shape).transpose(2, 1, 0)
    own = hd.seg.Segmentation(
        source_images=made.clean,
        pixel_array=np.where(labels == 3, 2, labels).astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=list(made.segmentation.SegmentSequence)[kind == "LABELMAP" :],
        series_instance_uid="1.2",
        series_number=1,
        sop_instance_uid="1.2.3",
        instance_number=1,
        manufacturer="-",
        manufacturer_model_name="-",
        software_versions="-",
        device_serial_number="-",
        plane_positions=[hd.PlanePositionSequence("PATIENT", f.position.tolist()) for f in frames],
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", frames[0].orientation.tolist()),
        pixel_measures=made.segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence,
    )

    size = own.NumberOfFrames * own.Rows * own.Columns * own.BitsAllocated // 8
    assert made.segmentation.PixelData[:size] == own.PixelData[:size]
    for keyword in ("NumberOfFrames", "Rows", "Columns", "PerFrameFunctionalGroupsSequence"):
        assert made.segmentation[keyword] == own[keyword]


def test_building_twice_gives_the_same_bytes() -> None:
    first, second = case(), case(sources=ct_series()[::-1])

    assert to_bytes(first.segmentation) == to_bytes(second.segmentation)


def test_every_frame_names_the_source_at_its_place() -> None:
    made = case()
    places = {str(ds.SOPInstanceUID): ds.ImagePositionPatient for ds in made.sources}

    groups = made.segmentation.PerFrameFunctionalGroupsSequence
    for frame, group in zip(frames_of(made.segmentation), groups, strict=True):
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        place = places[reference.ReferencedSOPInstanceUID]
        np.testing.assert_allclose(frame.position, [float(v) for v in place], atol=1e-3)


def test_nothing_found_makes_no_segmentation() -> None:
    nothing = case(labels=np.zeros_like(bleeds(Shape())))

    assert nothing.seg is None


def test_a_single_voxel_is_written(tmp_path: Path) -> None:
    labels = np.zeros_like(bleeds(Shape()))
    labels[20, 31, 16] = 2

    made = case(labels=labels)

    assert made.segmentation.NumberOfFrames == 1
    assert points_read_by_highdicom(made.segmentation, 1) == points(labels, Shape().world(), 2)
    assert dciodvfy(save(made.segmentation, tmp_path / "seg.dcm")) == []


def test_times_equipment_and_warning_are_ours() -> None:
    seg = case().segmentation

    assert seg.SeriesDescription == "Haemorrhage seg (AI) - NOT FOR CLINICAL USE"
    assert seg.ContentQualification == "RESEARCH"
    assert (seg.ContentDate, seg.TimezoneOffsetFromUTC) == ("20260302", "+0100")
    assert str(seg.ContentTime).startswith("003015")
    assert seg.Manufacturer == "scorenode project"
    assert seg.DeviceSerialNumber == "node-01"
    model = [i for i in seg.ContributingEquipmentSequence if "DeviceUID" in i]
    assert [(i.ManufacturerModelName, i.DeviceUID) for i in model] == [
        ("haemorrhage-demo", MAKER.device_uid)
    ]


@pytest.mark.parametrize(
    ("intended_use", "description", "qualification"),
    [
        ("demonstration", f"{'Long words ' * 3}Long wor - NOT FOR CLINICAL USE", "RESEARCH"),
        ("research", f"{'Long words ' * 5}Long word", "RESEARCH"),
        ("clinical", f"{'Long words ' * 5}Long word", "PRODUCT"),
    ],
)
def test_a_description_fits_and_tells_the_intended_use(
    intended_use: IntendedUse, description: str, qualification: str
) -> None:
    made = case()
    long = replace(identity("seg"), series_description="Long words " * 9)

    seg = segmentation(made.findings, made.volume, made.clean, long, maker(intended_use))

    assert seg is not None
    assert (seg.SeriesDescription, seg.ContentQualification) == (description, qualification)
    assert len(seg.SeriesDescription) <= 64


def test_a_volume_on_another_grid_is_refused() -> None:
    made = case()
    affine = made.volume.affine.copy()
    affine[:3, 3] += 1.6

    with pytest.raises(UnfitSource, match="does not lie on the grid"):
        segmentation(
            made.findings, replace(made.volume, affine=affine), made.clean, identity("seg"), MAKER
        )


def test_a_volume_that_reaches_beyond_the_source_is_refused() -> None:
    made = case()

    with pytest.raises(UnfitSource, match="reaches beyond the source"):
        segmentation(made.findings, made.volume, made.clean[:9], identity("seg"), MAKER)


def test_another_frame_of_reference_is_refused() -> None:
    made = case()
    elsewhere = replace(made.volume, frame_of_reference_uid="1.2.3")

    with pytest.raises(UnfitSource, match="another Frame of Reference"):
        segmentation(made.findings, elsewhere, made.clean, identity("seg"), MAKER)


def test_a_source_without_frame_of_reference_is_refused() -> None:
    made = case()
    sources = deepcopy(made.sources)
    for ds in sources:
        del ds.FrameOfReferenceUID
    volume = replace(made.volume, frame_of_reference_uid="")

    with pytest.raises(UnfitSource, match="has no Frame of Reference UID"):
        segmentation(made.findings, volume, normalised(sources), identity("seg"), MAKER)


def test_a_missing_slice_is_refused() -> None:
    made = case()

    with pytest.raises(UnfitSource, match="mm from its place on a regular grid"):
        segmentation(
            made.findings,
            made.volume,
            [ds for ds in made.clean if ds.InstanceNumber != 7],
            identity("seg"),
            MAKER,
        )


def test_a_label_that_is_no_segment_is_refused() -> None:
    made = case()
    labels = bleeds(Shape())
    labels[0, 0, 0] = 9

    with pytest.raises(ValueError, match=r"labels hold \[9\]"):
        segmentation(
            replace(made.findings, labels=labels), made.volume, made.clean, identity("seg"), MAKER
        )


def test_a_real_enhanced_series_carries_a_segmentation(tmp_path: Path) -> None:
    path = next(iter(sorted(shared("t1_siemens_xa30_enhanced").rglob("*.dcm"))))
    source = dcmread(path)
    frames = sorted(frames_of(normalised([source])[0]), key=lambda f: float(f.position @ f.normal))
    first = frames[0]
    step = float(np.linalg.norm(frames[1].position - first.position))
    shape = Shape(
        first.columns, first.rows, len(frames),
        (first.spacing[1], first.spacing[0], step),
        tuple(first.orientation),
    )  # fmt: skip
    affine = shape.affine()
    affine[:3, 3] = first.position * (-1, -1, 1)
    volume = Volume(np.zeros((shape.columns, shape.rows, shape.slices), np.float32), affine)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[30:45, 70:80, 11:19] = 1

    seg = segmentation(
        findings_of(labels, volume), volume, normalised([source]), identity("seg"), MAKER
    )

    assert seg is not None
    assert problems(seg, [source]) == []
    assert dciodvfy(save(seg, tmp_path / "seg.dcm")) == []
    wanted = nib.affines.apply_affine(affine, np.argwhere(labels))
    assert points_read_by_highdicom(seg, 1) == {tuple(p) for p in np.round(wanted, 1) + 0.0}


def test_volume_and_phantom_agree_about_the_place_of_slices() -> None:
    sources = ct_series(Shape(orientation=AXIAL))
    volume = ct_volume(sources)
    lowest = min(sources, key=lambda ds: float(ds.ImagePositionPatient[2]))

    assert volume.source_instance_uids[0] == lowest.SOPInstanceUID
    np.testing.assert_allclose(
        volume.affine[:3, 3] * (-1, -1, 1), [float(v) for v in lowest.ImagePositionPatient]
    )
