"""Phantoms as CT series: valid to dciodvfy, and read back where they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from models.base import Volume
from models.phantom_ct import HeadPhantom, make_head_ct
from pipelines.phantom_series import write_ct_series
from pipelines.steps.volume import volume_from_series
from tests.noise import dciodvfy

pytestmark = pytest.mark.slow

HALF_HU = 0.5 + 1e-3


@pytest.fixture(scope="module")
def head() -> HeadPhantom:
    return make_head_ct(3, "iph", (1.25, 1.5, 7.0))


def test_a_series_passes_dciodvfy(head: HeadPhantom, tmp_path: Path) -> None:
    paths = write_ct_series(head, tmp_path, seed=3)

    errors = [line for path in paths[:3] + paths[-1:] for line in dciodvfy(path)]

    assert errors == []


def test_the_volume_comes_back_where_it_was(head: HeadPhantom, tmp_path: Path) -> None:
    paths = write_ct_series(head, tmp_path, seed=3)

    back = volume_from_series([pydicom.dcmread(path) for path in reversed(paths)])

    assert np.abs(back.array - head.volume.array).max() <= HALF_HU
    assert np.abs(back.affine - head.volume.affine).max() < 1e-3
    assert back.facts["plane"] == "axial"
    assert back.facts["tilt_degrees"] == 0


def test_spacing_that_has_no_short_decimal_survives(tmp_path: Path) -> None:
    head = make_head_ct(3, "none", (10 / 7, 5 / 3, 17 / 3))

    paths = write_ct_series(head, tmp_path, seed=3)
    back = volume_from_series([pydicom.dcmread(path) for path in paths])

    assert np.abs(back.affine - head.volume.affine).max() < 1e-3


def test_a_tilted_gantry_is_written_as_scanners_do(tmp_path: Path) -> None:
    head = make_head_ct(3, "none", (4.0, 4.0, 7.0), tilt=14.0)

    paths = write_ct_series(head, tmp_path, seed=3)
    back = volume_from_series([pydicom.dcmread(path) for path in paths])

    assert dciodvfy(paths[0]) == []
    assert np.abs(back.affine - head.volume.affine).max() < 1e-3
    assert abs(float(back.facts["tilt_degrees"])) == pytest.approx(14.0, abs=0.01)
    assert float(pydicom.dcmread(paths[0]).GantryDetectorTilt) == pytest.approx(14.0)


def test_the_image_shows_the_patients_right_on_its_left(head: HeadPhantom, tmp_path: Path) -> None:
    ds = pydicom.dcmread(write_ct_series(head, tmp_path, seed=3)[10])

    assert ds.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert ds.pixel_array.shape == (head.volume.array.shape[1], head.volume.array.shape[0])
    assert (ds.RescaleIntercept, ds.RescaleSlope) == (-1024, 1)
    assert (ds.WindowCenter, ds.WindowWidth) == (40, 80)


def test_slices_are_numbered_from_the_feet_up(head: HeadPhantom, tmp_path: Path) -> None:
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True)
        for path in write_ct_series(head, tmp_path, seed=3)
    ]

    heights = [ds.ImagePositionPatient[2] for ds in headers]

    assert heights == sorted(heights)
    assert [ds.InstanceNumber for ds in headers] == list(range(1, len(headers) + 1))
    assert len({ds.SOPInstanceUID for ds in headers}) == len(headers)
    assert len({(ds.SeriesInstanceUID, ds.FrameOfReferenceUID) for ds in headers}) == 1


def test_the_same_phantom_is_written_as_the_same_bytes(head: HeadPhantom, tmp_path: Path) -> None:
    first = write_ct_series(head, tmp_path / "first", seed=3)
    again = write_ct_series(head, tmp_path / "again", seed=3)

    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in again]


def test_what_differs_shares_no_uid(head: HeadPhantom, tmp_path: Path) -> None:
    series = [
        write_ct_series(head, tmp_path / "a", seed=3),
        write_ct_series(head, tmp_path / "b", seed=4),
        write_ct_series(head, tmp_path / "c", seed=3, patient_id="OTHER"),
        write_ct_series(make_head_ct(3, "iph", (1.25, 1.5, 8.0)), tmp_path / "d", seed=3),
    ]

    headers = [pydicom.dcmread(paths[0]) for paths in series]

    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert len({ds[keyword].value for ds in headers}) == len(series)


def test_the_patient_is_who_was_asked_for(head: HeadPhantom, tmp_path: Path) -> None:
    paths = write_ct_series(
        head,
        tmp_path,
        seed=3,
        patient_name="Roe^Jane",
        patient_id="R7",
        patient_birth_date="19610203",
        study_description="CT of a test",
    )

    ds = pydicom.dcmread(paths[0])

    assert (ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.StudyDescription) == (
        "Roe^Jane",
        "R7",
        "19610203",
        "CT of a test",
    )


def test_values_beyond_16_bits_are_refused(head: HeadPhantom, tmp_path: Path) -> None:
    bright = Volume(head.volume.array + 40000, head.volume.affine)

    with pytest.raises(ValueError, match="do not fit 16 bits"):
        write_ct_series(HeadPhantom(bright, head.labels, head.kind), tmp_path, seed=3)
