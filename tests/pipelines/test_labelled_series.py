"""DICOM series with SEG objects become labelled volumes: the right voxels, no patient data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from models.labelled_cases import BadData, find_cases, read_case
from pipelines.labelled_series import has_segmentations, write_labelled
from tests.phantoms import Shape, ball, ct_series, oblique

SHAPE = Shape(columns=23, rows=29, slices=11, spacing=(3.0, 2.5, 6.0), orientation=oblique())
NAMES = ("Bright ball", "Dark ball")


def ignore(done: float, what: str) -> None:
    """Progress nobody looks at."""


def balls() -> list[NDArray[np.bool_]]:
    """Two masks, (columns, rows, slices)."""
    return [ball(SHAPE, (0.0, 12.0 * side, 8.0 * side), (9.0, 8.0, 11.0)) for side in (-1, 1)]


def segmentation(images: list[Dataset], masks: dict[str, NDArray[np.bool_]]) -> hd.seg.Segmentation:
    """Write masks as highdicom does."""
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Brain,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    frames = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    return hd.seg.Segmentation(
        source_images=images[::-1],
        pixel_array=frames.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    )


def write_study(folder: Path, *labelled: dict[str, NDArray[np.bool_]]) -> list[Dataset]:
    """Write a series, not in order, and a SEG for each set of masks."""
    folder.mkdir()
    images = ct_series(SHAPE, ball(SHAPE, (0, 0, 0), (30, 30, 30)) * np.float32(40))
    for number, ds in enumerate(reversed(images)):
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    for number, masks in enumerate(labelled):
        segmentation(images, masks).save_as(folder / f"seg{number}.dcm")
    return images


@pytest.mark.parametrize("apart", [False, True], ids=["one SEG", "a SEG each"])
def test_the_labels_lie_where_the_seg_says(tmp_path: Path, apart: bool) -> None:
    masks = dict(zip(("dark ball", "BRIGHT BALL"), reversed(balls()), strict=True))
    sets: list[Any] = [{key: value} for key, value in masks.items()] if apart else [masks]
    images = write_study(tmp_path / "dicom", *sets)

    write_labelled(tmp_path / "dicom", tmp_path / "files", NAMES, ignore)

    found = find_cases(tmp_path / "files", 3)
    volume, labels = read_case(found.cases[0], found.values)
    assert volume.array.shape == (SHAPE.columns, SHAPE.rows, SHAPE.slices)
    for number, mask in enumerate(balls(), start=1):
        here = np.argwhere(labels == number)
        wanted = np.argwhere(mask)
        assert len(here) == len(wanted) > 20
        where = here @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        true = wanted @ SHAPE.affine()[:3, :3].T + SHAPE.affine()[:3, 3]
        assert np.allclose(
            where[np.lexsort(where.round(2).T)], true[np.lexsort(true.round(2).T)], atol=0.01
        )
    assert found.cases[0].patient not in ("", images[0].PatientID)
    table = (tmp_path / "files" / "cases.csv").read_text()
    assert images[0].PatientID not in table
    assert str(images[0].PatientName) not in table


def test_a_folder_without_seg_is_told_apart(tmp_path: Path) -> None:
    write_study(tmp_path / "with", {"Bright ball": balls()[0]})
    write_study(tmp_path / "without")

    assert has_segmentations(tmp_path / "with")
    assert not has_segmentations(tmp_path / "without")
    assert not has_segmentations(tmp_path / "nowhere")


def test_one_structure_needs_no_name(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom", {"something": balls()[0]})

    write_labelled(tmp_path / "dicom", tmp_path / "files", ("Bright ball",), ignore)

    assert len(find_cases(tmp_path / "files", 2).cases) == 1


def test_everything_wrong_with_the_objects_is_told(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom", {"strange": balls()[0]})
    lost = write_study(tmp_path / "lost", {"Bright ball": balls()[0]})
    for path in (tmp_path / "lost").glob("[0-9]*.dcm"):
        path.unlink()
    (tmp_path / "lost" / "seg0.dcm").rename(tmp_path / "dicom" / "seg1.dcm")

    with pytest.raises(BadData) as refused:
        write_labelled(tmp_path / "dicom", tmp_path / "files", NAMES, ignore)

    assert any("is none of the recipe: Bright ball, Dark ball" in m for m in refused.value.mistakes)
    assert str(lost[0].PatientName) not in str(refused.value)


def other_size(ds: Dataset) -> None:
    ds.Rows, ds.Columns = ds.Columns, ds.Rows


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda ds: delattr(ds, "SegmentSequence"), "seg0.dcm is no whole SEG"),
        (lambda ds: delattr(ds, "PixelData"), "seg0.dcm is no whole SEG"),
        (lambda ds: delattr(ds, "SharedFunctionalGroupsSequence"), "seg0.dcm is no whole SEG"),
        (lambda ds: delattr(ds.SegmentSequence[0], "SegmentLabel"), "seg0.dcm is no whole SEG"),
        (other_size, "the frames of seg0.dcm have another size than the images"),
    ],
    ids=["segments", "pixels", "shared", "label", "size"],
)
def test_a_broken_seg_is_told(
    tmp_path: Path, spoil: Callable[[Dataset], None], wanted: str
) -> None:
    write_study(tmp_path / "dicom", {"Bright ball": balls()[0]})
    path = tmp_path / "dicom" / "seg0.dcm"
    ds = dcmread(path)
    spoil(ds)
    ds.save_as(path)

    with pytest.raises(BadData, match=wanted):
        write_labelled(tmp_path / "dicom", tmp_path / "files", NAMES, ignore)


def test_a_seg_without_uid_and_reference_is_told(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom", {"Bright ball": balls()[0]})
    path = tmp_path / "dicom" / "seg0.dcm"
    ds = dcmread(path)
    del ds.SOPInstanceUID, ds.ReferencedSeriesSequence
    ds.save_as(path)

    with pytest.raises(BadData, match=r"SEG seg0\.dcm refers to 0 series"):
        write_labelled(tmp_path / "dicom", tmp_path / "files", NAMES, ignore)


def test_segments_that_overlap_are_refused(tmp_path: Path) -> None:
    mask = balls()[0]
    write_study(tmp_path / "dicom", {"Bright ball": mask}, {"Dark ball": mask})

    with pytest.raises(BadData, match="overlaps another"):
        write_labelled(tmp_path / "dicom", tmp_path / "files", NAMES, ignore)
