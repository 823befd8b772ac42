from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.base import Volume
from pipelines.steps.nifti import (
    difference,
    load_nifti,
    save_nifti,
    save_straightened,
    write_nifti,
)
from pipelines.steps.nifti_header import nifti_header
from pipelines.steps.read import read_series
from pipelines.steps.straighten import straightened
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


@pytest.mark.parametrize("turn", [(0, 0, 0), (90, 0, 180), (180, 0, 0), (10, -40, 25)])
@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_header_says_what_nibabel_would_have_it_say(
    turn: tuple[int, int, int], points: int, mirrored: bool
) -> None:
    affine = np.eye(4)
    axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    affine[:3, :3] = axes * (0.5, 0.7, -3.0 if mirrored else 3.0)
    affine[:3, 3] = (-12.25, 40.5, 7.0)
    shape = (5, 6, 7) if points == 1 else (5, 6, 7, points)

    raw = nifti_header(shape, np.dtype("<i2"), affine)

    found = nib.Nifti1Header(raw[:348])
    assert raw[348:] == b"\0" * 4
    assert found.get_data_shape() == shape
    assert found.get_data_dtype() == np.int16
    assert found.get_xyzt_units() == ("mm", "unknown" if points == 1 else "sec")
    assert float(found["vox_offset"]) == 352
    assert found.get_slope_inter() == (1, 0)
    for place, code in (found.get_qform(coded=True), found.get_sform(coded=True)):
        assert int(code) == 1
        assert np.allclose(place, affine, atol=1e-5)


def test_the_qform_of_a_sheared_grid_is_off() -> None:
    affine = np.diag([0.5, 0.7, 3.0, 1.0])
    affine[1, 2] = 0.9

    found = nib.Nifti1Header(nifti_header((2, 2, 2), np.dtype("<f4"), affine)[:348])

    assert found.get_qform(coded=True) == (None, 0)
    assert np.allclose(found.get_sform(), affine)


def test_a_volume_is_straightened_in_the_file_as_it_is_in_memory(tmp_path: Path) -> None:
    series = ct_series()
    for ds in series:
        place = [float(value) for value in ds.ImagePositionPatient]
        ds.ImagePositionPatient = [place[0], place[1] - 0.3 * place[2], place[2]]
    volume = volume_from_series(series)
    straight = straightened(volume)

    save_straightened([volume], tmp_path / "one.nii")
    save_straightened([volume, volume], tmp_path / "two.nii.gz")

    array, affine = load_nifti(tmp_path / "one.nii")
    assert straight is not volume
    assert np.array_equal(array, straight.array)
    assert np.allclose(affine, straight.affine, atol=1e-4)
    assert np.array_equal(load_nifti(tmp_path / "two.nii.gz")[0][..., 1], array)
