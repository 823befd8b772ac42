from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.base import Volume
from pipelines.steps.nifti import difference, load_nifti, save_nifti, write_nifti
from pipelines.steps.read import read_series
from pipelines.steps.volume import volume_from_series
from tests.phantoms import Shape, ct_series, oblique
from tests.shared_data import shared


@pytest.mark.parametrize(
    "parts",
    [
        ("ct_head_phantom_philips_study", "dicom", "S2010"),
        ("t1_siemens_xa30_enhanced", "dicom"),
        ("mr_study_with_hippocampus_crop", "dicom", "11-T1post-18670"),
        ("reference_conversions", "hitachi_anatomical_001"),
    ],
    ids=["Philips CT", "Siemens enhanced MR", "Siemens MR", "Hitachi"],
)
def test_the_file_of_dicom2nifti_is_kept_where_it_is_right(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    datasets = read_series(sorted(shared(*parts).iterdir()))
    volume = volume_from_series(datasets)

    kept = write_nifti([volume], lambda: datasets, tmp_path / "image.nii.gz")

    assert kept == "dicom2nifti"
    assert difference(volume, *load_nifti(tmp_path / "image.nii.gz")) == ""
    assert np.array_equal(volume_from_series(datasets).array, volume.array)


def test_ours_is_written_and_the_reason_told_where_dicom2nifti_fails(tmp_path: Path) -> None:
    datasets = ct_series(Shape(orientation=oblique()))
    volume = volume_from_series(datasets)

    kept = write_nifti([volume], lambda: datasets[:2], tmp_path / "image.nii.gz")

    assert (
        kept == "scorenode: dicom2nifti ended in ConversionValidationError TOO_FEW_SLICES/LOCALIZER"
    )
    assert difference(volume, *load_nifti(tmp_path / "image.nii.gz")) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["image.nii.gz"]


def test_ours_is_written_where_dicom2nifti_leaves_padding_in(tmp_path: Path) -> None:
    datasets = ct_series()
    for ds in datasets:
        stored = np.frombuffer(ds.PixelData, np.int16).copy()
        stored[:99] = -2000
        ds.PixelData = stored.tobytes()
        ds.add_new("PixelPaddingValue", "SS", -2000)
    volume = volume_from_series(datasets)

    kept = write_nifti([volume], lambda: datasets, tmp_path / "image.nii.gz")

    assert kept == "scorenode: dicom2nifti was not used, its voxels differ from the modality values"
    assert difference(volume, *load_nifti(tmp_path / "image.nii.gz")) == ""


@pytest.mark.parametrize("axis", range(3))
def test_a_mirrored_or_shifted_conversion_is_told_from_ours(axis: int) -> None:
    volume = volume_from_series(ct_series())
    moved = volume.affine.copy()
    moved[axis, 3] += 0.5

    assert "0.50 mm off" in difference(volume, volume.array, moved)
    assert "voxels differ" in difference(volume, np.flip(volume.array, axis), volume.affine)


def test_a_conversion_with_turned_axes_is_the_same_as_ours() -> None:
    volume = volume_from_series(ct_series())
    turn = np.array([[0, 0, -1, 52], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)

    turned = np.flip(volume.array, 0).transpose(1, 2, 0)

    assert difference(volume, turned, volume.affine @ turn) == ""


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_what_is_written_is_read_back_and_written_again_with_the_same_bytes(
    dtype: str, tmp_path: Path
) -> None:
    array = np.random.default_rng(1).uniform(0, 200, (5, 6, 7)).astype(dtype)
    affine = Shape(orientation=oblique()).affine()

    save_nifti(array, affine, tmp_path / "one.nii.gz")
    save_nifti(array, affine, tmp_path / "two.nii.gz")

    found, grid = load_nifti(tmp_path / "one.nii.gz")
    assert np.array_equal(found, array)
    assert difference(Volume(array.astype(np.float32), affine), found, grid) == ""
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
