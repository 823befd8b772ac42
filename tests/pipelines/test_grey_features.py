"""The table of features of an archive: what is no head has a reason, and a run goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from models.base import Volume
from models.phantom_t1 import Scan, make_t1_head
from models.voxel_maps import map_grid
from pipelines.base import Misconfigured
from pipelines.grey_features import COLUMNS, read_map_features, write_features
from pipelines.phantom_series import write_mr_series
from pipelines.steps.nifti import save_nifti
from tests.shared_data import shared


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _quiet(fraction: float, note: str) -> None:
    assert 0 <= fraction <= 1
    assert note


def test_a_bottle_has_a_row_that_says_why_it_was_not_measured(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"

    count = write_features(shared("mr_multiecho_phantom_siemens"), out, _quiet)

    assert (count.measured, count.refused, count.known) == (0, 1, 0)
    (row,) = _rows(out)
    assert row["verdict"] == "not_scored"
    assert row["reason"]
    assert row["sentence"].endswith(".")
    assert row["gm_ml"] == ""


def test_a_second_run_passes_over_what_has_a_row(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    folder = shared("mr_multiecho_phantom_siemens")
    write_features(folder, out, _quiet)
    before = out.read_bytes()

    count = write_features(folder, out, _quiet)

    assert (count.measured, count.refused, count.known) == (0, 0, 1)
    assert out.read_bytes() == before


def test_a_row_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    folder = shared("mr_multiecho_phantom_siemens")
    write_features(folder, out, _quiet)
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])

    count = write_features(folder, out, _quiet)

    assert count.refused == 1
    assert out.read_bytes() == whole


def _block(folder: Path) -> list[Path]:
    """A series that is refused at once: its voxels are too large."""
    array = np.random.default_rng(1).uniform(0, 900, (20, 20, 30)).astype(np.float32)
    return write_mr_series(Volume(array, np.diag([10.0, 10.0, 6.0, 1.0])), folder, seed=1)


def _change(path: Path, **attributes: str) -> None:
    ds = dcmread(path)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    ds.save_as(path)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"ContrastBolusAgent": "Gadovist"}, "contrast_medium"),
        ({"PatientID": "OTHER"}, "mixed_patients"),
        ({"PatientID": "phantom"}, "mixed_patients"),
        ({"ContrastBolusAgent": "NONE"}, "voxel_size"),
        ({"PatientID": " PHANTOM "}, "voxel_size"),
    ],
)
def test_what_would_teach_something_wrong_has_no_volumes(
    tmp_path: Path, attributes: dict[str, str], reason: str
) -> None:
    paths = _block(tmp_path / "dicom")
    _change(paths[7], **attributes)

    write_features(tmp_path / "dicom", tmp_path / "f.csv", _quiet)

    (row,) = _rows(tmp_path / "f.csv")
    assert (row["verdict"], row["reason"]) == ("not_scored", reason)


@pytest.mark.parametrize("name", ["a\x85b", "a\u2028b", 'a"b', "a,b", "a\nb"])
def test_a_run_goes_on_whatever_a_patient_is_called(tmp_path: Path, name: str) -> None:
    for path in _block(tmp_path / "dicom"):
        _change(path, PatientID=name, SpecificCharacterSet="ISO_IR 192")
    out = tmp_path / "f.csv"
    write_features(tmp_path / "dicom", out, _quiet)
    before = out.read_bytes()

    count = write_features(tmp_path / "dicom", out, _quiet)

    assert (count.known, out.read_bytes()) == (1, before)
    assert _rows(out)[0]["PatientID"] == name.replace("\n", " ")


@pytest.mark.parametrize("cut", [1, 2, 20, 200, 400])
def test_a_run_that_was_killed_while_it_wrote_goes_on(tmp_path: Path, cut: int) -> None:
    for number in (1, 2):
        for path in _block(tmp_path / "dicom" / str(number)):
            uid = dcmread(path).SOPInstanceUID
            _change(
                path, SeriesInstanceUID=f"1.2.3.{number}", SOPInstanceUID=f"{uid[:50]}.{number}"
            )
    out = tmp_path / "f.csv"
    write_features(tmp_path / "dicom", out, _quiet)
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])

    write_features(tmp_path / "dicom", out, _quiet)

    assert out.read_bytes() == whole


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"no line", b"\xff\xd8\n\x00", b"\n\n"])
def test_a_file_that_is_no_such_table_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "features.csv"
    out.write_bytes(content)

    with pytest.raises(Misconfigured, match="other columns"):
        write_features(tmp_path, out, _quiet)
    assert out.read_bytes() == content


def test_tissue_maps_that_cannot_be_used_are_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"neither gm.nii.gz"):
        write_features(tmp_path, tmp_path / "features.csv", _quiet, priors=tmp_path)
    assert not (tmp_path / "features.csv").exists()


def test_a_table_of_other_tissue_maps_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    row = dict.fromkeys(COLUMNS, "") | {"verdict": "ok", "priors": "0123"}
    with out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerow(row)

    with pytest.raises(Misconfigured, match="other tissue maps"):
        write_features(tmp_path, out, _quiet)


@pytest.mark.slow
def test_a_head_has_a_map_that_is_made_again_when_it_is_lost(tmp_path: Path) -> None:
    out, maps = tmp_path / "features.csv", tmp_path / "maps"
    phantom = make_t1_head(5, scan=Scan(spacing=(4.0, 4.0, 4.0)))
    write_mr_series(phantom.volume, tmp_path / "dicom", seed=5)

    count = write_features(tmp_path / "dicom", out, _quiet, maps=maps)

    assert count.measured == 1
    (row,) = _rows(out)
    assert row["priors"] == "icbm152"
    ids, features = read_map_features(maps)
    assert ids == (row["SeriesInstanceUID"],)
    assert features.shape == (1, int(map_grid()[2].sum()))
    # Smoothed over 8 mm, a part of the cortex lies outside the template's brain.
    assert features.sum() == pytest.approx(0.85 * float(row["gm_ml"]), rel=0.1)
    table, (path,) = out.read_bytes(), maps.iterdir()
    written = path.read_bytes()
    path.unlink()
    assert write_features(tmp_path / "dicom", out, _quiet, maps=maps).measured == 1
    assert (out.read_bytes(), path.read_bytes()) == (table, written)
    assert write_features(tmp_path / "dicom", out, _quiet, maps=maps).known == 1


def test_a_file_that_is_no_voxel_map_is_refused(tmp_path: Path) -> None:
    save_nifti(np.zeros((3, 4, 5), np.float32), np.eye(4), tmp_path / "1.2.3.nii.gz")

    with pytest.raises(Misconfigured, match=r"1.2.3.nii.gz is no voxel map"):
        read_map_features(tmp_path)


@pytest.mark.slow
def test_a_real_head_has_volumes(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"

    count = write_features(shared("t1_siemens_xa30_enhanced", "dicom"), out, _quiet)

    assert count.measured == 1
    (row,) = _rows(out)
    assert tuple(row) == COLUMNS
    assert 500 < float(row["gm_ml"]) < 900
    assert 2 < float(row["hippocampus_left_ml"]) < 7
