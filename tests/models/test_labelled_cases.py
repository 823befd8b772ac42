"""Folders of labelled volumes: every layout is read, everything wrong is told at once."""

from __future__ import annotations

import gzip
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.labelled_cases import BadData, find_cases, read_case
from tests.models.labelled import save, two_balls, write_nnunet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_nnunet(tmp_path / "data", 4)


def mistakes_of(folder: Path, classes: int = 3) -> tuple[str, ...]:
    with pytest.raises(BadData) as refused:
        find_cases(folder, classes)
    return refused.value.mistakes


def test_nnunet_folders_are_read_with_patients(folder: Path) -> None:
    found = find_cases(folder, 3)

    assert [case.name for case in found.cases] == ["case_00", "case_01", "case_02", "case_03"]
    assert [case.patient for case in found.cases] == ["p0", "p0", "p1", "p1"]
    volume, labels = read_case(found.cases[2], found.values)
    array, truth, affine = two_balls(2)
    assert np.array_equal(volume.array, array)
    assert np.array_equal(labels, truth)
    assert np.allclose(volume.affine, affine)


@pytest.mark.parametrize("ending", [".NII.GZ", ".nii.GZ"])
def test_endings_in_capitals_are_read(folder: Path, ending: str) -> None:
    path = folder / "imagesTr" / "case_02_0000.nii.gz"
    path.rename(path.with_name(f"case_02_0000{ending}"))
    label = folder / "labelsTr" / "case_02.nii.gz"
    label.rename(label.with_name(f"case_02{ending}"))

    found = find_cases(folder, 3)

    assert [case.name for case in found.cases] == ["case_00", "case_01", "case_02", "case_03"]
    assert np.array_equal(read_case(found.cases[2], found.values)[0].array, two_balls(2)[0])


def test_plain_folders_are_read_without_a_table(folder: Path) -> None:
    (folder / "imagesTr").rename(folder / "images")
    (folder / "labelsTr").rename(folder / "labels")
    (folder / "dataset.json").unlink()
    (folder / "cases.csv").unlink()

    found = find_cases(folder, 3)

    assert [case.patient for case in found.cases] == [case.name for case in found.cases]


def test_decathlon_writes_labels_the_other_way_round(folder: Path) -> None:
    labels = {"0": "background", "1": "bright", "2": "dark"}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))

    assert len(find_cases(folder, 3).cases) == 4


def test_a_check_sum_that_is_wrong_is_told(folder: Path) -> None:
    path = folder / "imagesTr" / "case_01_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-8] + b"\1\2\3\4" + path.read_bytes()[-4:])

    (mistake,) = mistakes_of(folder)

    assert mistake.startswith("case_01: image or label map is no whole NIfTI file")


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, "has regions, which are not read: whole"),
        ({"background": 0, "bright": 1, "ignore": 2}, "has the label ignore, which is not read"),
    ],
)
def test_labels_that_are_more_than_a_number_are_told(
    folder: Path, labels: dict[str, Any], wanted: str
) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))

    assert mistakes_of(folder) == (f"dataset.json {wanted}",)


@pytest.mark.parametrize("between", [";", "\t"])
def test_a_table_of_ct_ich_that_names_nobody_is_told(tmp_path: Path, between: str) -> None:
    for name in ("ct_scans", "masks"):
        (tmp_path / name).mkdir()
    array, labels, affine = two_balls(1)
    save(tmp_path / "ct_scans" / "049.nii", array, affine)
    save(tmp_path / "masks" / "049.nii", (labels == 1).astype(np.uint8), affine)
    rows = ["PatientNumber,SliceNumber,Epidural", "49,1,1"]
    table = tmp_path / "hemorrhage_diagnosis_raw_ct.csv"
    table.write_text("\n".join(rows).replace(",", between))

    (mistake,) = mistakes_of(tmp_path, 2)

    assert mistake == f"{table.name} has no row with a patient's number, after commas"


def test_ct_ich_is_read_with_kinds_from_its_table(tmp_path: Path) -> None:
    for name in ("ct_scans", "masks"):
        (tmp_path / name).mkdir()
    for number in (49, 50):
        array, labels, affine = two_balls(number)
        save(tmp_path / "ct_scans" / f"{number:03d}.nii", array, affine)
        save(
            tmp_path / "masks" / f"{number:03d}.nii", ((labels == 1) * 255).astype(np.uint8), affine
        )
    head = (
        "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,"
        "Subdural,No_Hemorrhage,Fracture_Yes_No"
    )
    rows = ["49,1,0,0,0,0,0,1,0", "49,2,0,1,0,0,1,0,0", "49,3,0,1,0,0,0,0,0", "50,1,0,0,0,0,0,1,0"]
    (tmp_path / "hemorrhage_diagnosis_raw_ct.csv").write_text("\n".join([head, *rows]))

    found = find_cases(tmp_path, 2)

    assert [(case.name, case.patient, case.kind) for case in found.cases] == [
        ("049", "049", "iph"),
        ("050", "050", "none"),
    ]
    _, labels = read_case(found.cases[0], found.values)
    assert np.array_equal(labels, two_balls(49)[1] == 1)


def test_umlauts_of_another_system_are_the_same_name(folder: Path) -> None:
    image, label = folder / "imagesTr/case_00_0000.nii.gz", folder / "labelsTr/case_00.nii.gz"
    image.rename(image.with_name(unicodedata.normalize("NFC", "Schädel 1.nii.gz")))
    label.rename(label.with_name(unicodedata.normalize("NFD", "Schädel 1.nii.gz")))
    (folder / "cases.csv").unlink()

    assert "Schädel 1" in [case.name for case in find_cases(folder, 3).cases]


def test_a_fourth_axis_of_one_is_no_axis(folder: Path) -> None:
    array, _, affine = two_balls(0)
    save(folder / "imagesTr" / "case_00_0000.nii.gz", array[..., None], affine)

    found = find_cases(folder, 3)
    volume, labels = read_case(found.cases[0], found.values)

    assert volume.array.shape == labels.shape == array.shape


def test_a_changed_voxel_changes_the_fingerprint(folder: Path) -> None:
    before = find_cases(folder, 3).fingerprint
    _, labels, affine = two_balls(1)
    labels[0, 0, 0] = 1
    save(folder / "labelsTr" / "case_01.nii.gz", labels, affine)

    assert find_cases(folder, 3).fingerprint != before


def lose_a_label(folder: Path) -> None:
    (folder / "labelsTr" / "case_01.nii.gz").unlink()


def lose_an_image(folder: Path) -> None:
    (folder / "imagesTr" / "case_02_0000.nii.gz").unlink()


def cut_off(folder: Path) -> None:
    path = folder / "imagesTr" / "case_00_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:900])


def other_shape(folder: Path) -> None:
    _, labels, affine = two_balls(0)
    save(folder / "labelsTr" / "case_00.nii.gz", labels[:-1], affine)


def elsewhere(folder: Path) -> None:
    _, labels, affine = two_balls(0)
    affine[2, 3] += 3.0
    save(folder / "labelsTr" / "case_00.nii.gz", labels, affine)


def strange_values(folder: Path) -> None:
    _, labels, affine = two_balls(0)
    labels[0, 0, 0] = 7
    save(folder / "labelsTr" / "case_00.nii.gz", labels, affine)


def no_numbers(folder: Path) -> None:
    array, _, affine = two_balls(0)
    array[3, 3, 3] = np.nan
    save(folder / "imagesTr" / "case_00_0000.nii.gz", array, affine)


def second_channel(folder: Path) -> None:
    array, _, affine = two_balls(0)
    save(folder / "imagesTr" / "case_00_0001.nii.gz", array, affine)


def same_image(folder: Path) -> None:
    path = folder / "imagesTr"
    (path / "case_03_0000.nii.gz").write_bytes((path / "case_00_0000.nii.gz").read_bytes())


def other_structures(folder: Path) -> None:
    labels = {"background": 0, "bright": 1}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def regions(folder: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def no_patients(folder: Path) -> None:
    (folder / "cases.csv").write_text("case,kind\ncase_00,iph\n")


def row_missing(folder: Path) -> None:
    (folder / "cases.csv").write_text("case,patient\ncase_00,p\ncase_01,p\ncase_02,p\n")


def header_of(path: Path, place: int, values: NDArray[Any]) -> None:
    """Overwrite values of a NIfTI header, which nibabel would not write."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[252:256] = np.array([0, 1], "<i2").tobytes()  # the place is that of the sform
    raw[place : place + values.nbytes] = values.tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def flat_place(folder: Path) -> None:
    for path in (folder / "imagesTr/case_00_0000.nii.gz", folder / "labelsTr/case_00.nii.gz"):
        header_of(path, 312, np.zeros(4, "<f4"))


def label_place_of_no_numbers(folder: Path) -> None:
    header_of(folder / "labelsTr/case_00.nii.gz", 280, np.full(4, np.nan, "<f4"))


def colours(folder: Path) -> None:
    _, labels, affine = two_balls(0)
    red = np.zeros(labels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(folder / "labelsTr" / "case_00.nii.gz", red, affine)


def complex_labels(folder: Path) -> None:
    _, labels, affine = two_balls(0)
    save(folder / "labelsTr" / "case_00.nii.gz", labels.astype(np.complex64), affine)


def link_to_nothing(folder: Path) -> None:
    (folder / "imagesTr" / "case_09_0000.nii.gz").symlink_to("nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "labelsTr" / "case_09.nii.gz")


def image_twice(folder: Path) -> None:
    array, _, affine = two_balls(9)
    save(folder / "imagesTr" / "case_00.nii", array, affine)


def label_map_twice(folder: Path) -> None:
    _, labels, affine = two_balls(9)
    save(folder / "labelsTr" / "case_00.nii", labels, affine)


def two_patients(folder: Path) -> None:
    with (folder / "cases.csv").open("a") as file:
        file.write("case_00,p9,\n")


def empty_table(folder: Path) -> None:
    (folder / "cases.csv").write_text("case,patient,kind\n")


def endless_label(folder: Path) -> None:
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "bright": Infinity}}')


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lose_a_label, "imagesTr/case_01_0000.nii.gz has no label map in labelsTr"),
        (lose_an_image, "labelsTr/case_02.nii.gz has no image in imagesTr"),
        (cut_off, "case_00: image or label map is no whole NIfTI file"),
        (other_shape, "case_00: the label map is 21 x 26 x 18, the image 22 x 26 x 18"),
        (elsewhere, "case_00: the label map lies up to 3.0 mm away from the image"),
        (strange_values, "case_00: the label map holds 7; wanted 0 to 2"),
        (no_numbers, "case_00: the image holds voxels that are no numbers"),
        (second_channel, "imagesTr/case_00_0001.nii.gz is channel 1; one channel is read"),
        (same_image, "case_03 and case_00 are the same image"),
        (other_structures, "dataset.json has 1 structures, the recipe has 2"),
        (regions, "dataset.json has regions, which are not read: whole"),
        (no_patients, "cases.csv needs the columns case and patient"),
        (row_missing, "cases.csv has no row for case_03"),
        (flat_place, "case_00: the image has no sensible place in space"),
        (label_place_of_no_numbers, "case_00: the label map has no sensible place in space"),
        (colours, "case_00: voxels are"),
        (complex_labels, "case_00: voxels are complex64, wanted plain numbers"),
        (link_to_nothing, "imagesTr/case_09_0000.nii.gz is no file, or a link to none"),
        (pipe, "labelsTr/case_09.nii.gz is no file, or a link to none"),
        (image_twice, "imagesTr holds case_00 twice"),
        (label_map_twice, "labelsTr holds case_00 twice"),
        (two_patients, "cases.csv has several rows for case_00"),
        (empty_table, "cases.csv has no rows"),
        (endless_label, "dataset.json cannot be read"),
    ],
)
def test_what_is_wrong_is_told(folder: Path, spoil: Callable[[Path], None], told: str) -> None:
    spoil(folder)

    assert any(told in mistake for mistake in mistakes_of(folder)), mistakes_of(folder)


def test_everything_wrong_is_told_at_once(folder: Path) -> None:
    lose_a_label(folder)
    elsewhere(folder)
    no_patients(folder)

    assert len(mistakes_of(folder)) == 3


def test_a_folder_without_images_says_what_was_looked_for(tmp_path: Path) -> None:
    assert "imagesTr" in mistakes_of(tmp_path)[0]
    assert mistakes_of(tmp_path / "nowhere") == ("there is no such folder",)
