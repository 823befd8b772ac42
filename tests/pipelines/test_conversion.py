"""A folder becomes NIfTI and JSON, and nothing in it is lost without a word."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MediaStorageDirectoryStorage
from typer.testing import CliRunner

from benchmarks.true_centres import best_agreement, source_images
from node.cli.main import app
from pipelines.base import Misconfigured
from pipelines.conversion import Options, SeriesConversion, convert_folder
from pipelines.steps.nifti import load_nifti
from tests.phantoms import Shape, ct_series, oblique
from tests.shared_data import shared

OURS = Options(with_dicom2nifti=False, compressed=False)


def quiet(fraction: float, note: str) -> None:
    assert 0 <= fraction <= 1
    assert note


def convert(folder: Path, out: Path, options: Options = OURS) -> list[SeriesConversion]:
    found = convert_folder(folder, out, quiet, options)
    for item in found:
        assert item.images_used + len(item.unused) == item.images
        assert bool(item.volumes) != bool(item.sentence)
    return found


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, ds in enumerate(ct_series(Shape(orientation=oblique()))):
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    "parts",
    [
        ("ct_body_jpeg2000_with_seg", "dicom"),
        ("ct_head_phantom_philips_study", "dicom", "S2010"),
        ("mr_multiecho_phantom_siemens", "dicom"),
        ("mr_study_with_hippocampus_crop", "dicom", "11_HCropVolume"),
        ("odd_and_broken", "dicom2nifti_sliceorientation"),
        ("odd_and_broken", "dicom2nifti_gantrytilting"),
        ("reference_conversions", "ge_dti_001"),
        ("reference_conversions", "philips_enhanced_anatomical_001"),
        ("seg_and_sr_by_others", "dcmqi_ct_3slice"),
        ("t1_siemens_xa30_enhanced", "dicom"),
    ],
    ids=lambda parts: parts[0] if len(parts) == 2 else parts[-1],
)
def test_every_source_pixel_is_where_its_header_says(
    parts: tuple[str, ...], tmp_path: Path
) -> None:
    import nibabel as nib

    found = convert(shared(*parts), tmp_path)

    images = source_images(shared(*parts))
    files = [name for item in found for volume in item.volumes for name in volume["files"]]
    volumes = [nib.Nifti1Image.from_filename(str(tmp_path / name)) for name in files]
    assert len(images) == sum(item.images_used for item in found)
    assert best_agreement(images, volumes).min() > 0.99999


def test_unequally_spaced_slices_are_written_straight_and_their_places_told(
    tmp_path: Path,
) -> None:
    import nibabel as nib

    [found] = convert(shared("ct_head_ge_tilted", "dicom"), tmp_path)

    [volume] = found.volumes
    assert volume["files"] == ["1-CT_straight.nii"]
    assert len(volume["slice_origins_ras_mm"]) == 28
    images = source_images(shared("ct_head_ge_tilted", "dicom"))
    straight = nib.Nifti1Image.from_filename(str(tmp_path / "1-CT_straight.nii"))
    agreement = best_agreement(images, [straight])
    assert np.median(agreement) > 0.998
    assert agreement.min() > 0.99


def test_a_tilted_volume_is_written_with_its_exact_affine_and_straight(tmp_path: Path) -> None:
    import nibabel as nib

    [found] = convert(shared("odd_and_broken", "dicom2nifti_gantrytilting"), tmp_path)

    assert found.volumes[0]["files"] == ["1-CT.nii", "1-CT_straight.nii"]
    image = nib.Nifti1Image.from_filename(str(tmp_path / "1-CT.nii"))
    assert int(image.header["qform_code"]) == 0
    assert np.allclose(image.affine, found.volumes[0]["affine_ras_mm"], atol=1e-4)


def test_a_folder_of_everything_ends_in_volumes_and_reasons(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("odd_and_broken", "seg_and_sr_by_others"):
        shutil.copytree(shared(name), source / name)

    found = convert(source, tmp_path / "out")

    assert sum(bool(item.volumes) for item in found) >= 6
    assert {item.reason for item in found} >= {"no_images", "unreadable_instance"}
    assert sum(item.instances for item in found) > 40
    [first, *_] = sorted((tmp_path / "out").glob("*.json"))
    written = json.loads(first.read_text())
    assert written.keys() >= {"volumes", "unused", "images", "images_used", "sentence"}


def test_conflicting_instances_are_both_kept_and_the_same_bytes_used_once(
    phantom: Path, tmp_path: Path
) -> None:
    shutil.copy(phantom / "3.dcm", phantom / "again.dcm")

    [found] = convert(phantom, tmp_path / "out")

    assert [item.reason for item in found.unused] == ["same_bytes"]
    assert found.images_used == 17


def test_the_file_of_dicom2nifti_is_kept_where_it_is_right(phantom: Path, tmp_path: Path) -> None:
    [theirs] = convert(phantom, tmp_path / "theirs", Options())
    [ours] = convert(phantom, tmp_path / "ours", replace(OURS, compressed=True))

    assert theirs.volumes[0]["converter"] == "dicom2nifti"
    assert ours.volumes[0]["converter"].startswith("scorenode")
    assert theirs.volumes[0]["files"] == ours.volumes[0]["files"] == ["1-CT.nii.gz"]
    one, two = (load_nifti(tmp_path / home / "1-CT.nii.gz") for home in ("theirs", "ours"))
    assert np.sort(one[0], None) == pytest.approx(np.sort(two[0], None))


def test_truncated_files_do_not_stop_the_others(phantom: Path, tmp_path: Path) -> None:
    data = (phantom / "16.dcm").read_bytes()
    (phantom / "16.dcm").write_bytes(data[:-100])

    [found] = convert(phantom, tmp_path / "out")

    assert {item.reason for item in found.unused} == {"wrong_pixel_length"}
    assert len(found.unused) == 17


def test_a_decoder_that_crashes_ends_its_series_alone(phantom: Path, tmp_path: Path) -> None:
    home = shared("reference_conversions", "generic_compressed_jpeg_001")
    for path in sorted(home.iterdir()):
        data = path.read_bytes()
        scan = data.rindex(b"\xff\xc4")
        (phantom / f"jpeg-{path.name}").write_bytes(
            data[: scan + 6] + b"\x33\xff\x33\xa3" * 4 + data[scan + 22 :]
        )

    found = convert(phantom, tmp_path / "out")

    assert sorted(bool(item.volumes) for item in found) == [False, True]
    [refused] = [item for item in found if not item.volumes]
    assert refused.reason in ("decoder_crashed", "undecodable_pixels")


def test_a_folder_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not there"):
        convert_folder(tmp_path / "no", tmp_path / "out", quiet)


def test_the_command_lists_files_and_reasons(phantom: Path, tmp_path: Path) -> None:
    call = ["convert", str(phantom), "--out", str(tmp_path / "out"), "--no-dicom2nifti", "--json"]

    result = CliRunner().invoke(app, call)

    assert result.exit_code == 0, result.output
    [row] = json.loads(result.output)
    assert (row["used"], row["images"], row["files"]) == (17, 17, "1-CT.nii.gz")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1-CT.nii.gz", "1-CT.json"}


def test_the_command_tells_what_is_in_no_series(phantom: Path, tmp_path: Path) -> None:
    (phantom / "notes.txt").write_text("no image")
    directory = dcmread(next(phantom.glob("*.dcm")))
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del directory.PixelData
    directory.save_as(phantom / "DICOMDIR")

    done = CliRunner().invoke(
        app, ["convert", str(phantom), "--out", str(tmp_path / "o"), "--no-dicom2nifti", "--json"]
    )

    assert [row["images"] for row in json.loads(done.stdout)] == [17]
    told = "Passed over: 1 not DICOM (Part 10) and 1 DICOM directories (DICOMDIR)."
    assert told in done.stderr.replace("\n", " ")


def test_the_command_tells_when_its_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = CliRunner().invoke(app, ["convert", str(tmp_path), "--out", str(tmp_path / "file/out")])

    assert done.exit_code == 2
    assert "file/out cannot be made: Not a directory" in done.stderr.replace("\n", "")


def test_the_command_tells_when_there_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    result = CliRunner().invoke(app, ["convert", str(tmp_path / "in"), "-o", str(tmp_path / "o")])

    assert result.exit_code == 1
