"""`scorenode validate` judges files as results are judged before they leave."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from typer.testing import CliRunner

from node.cli.main import app
from node.validation import validate
from sr_templates.capture import capture
from sr_templates.part10 import to_bytes
from tests.shared_data import shared
from tests.sr_templates.further import OBJECTS
from tests.sr_templates.objects import MAKER, Case, case, identity, save

COLOURLESS = "segment 1 has no RecommendedDisplayCIELabValue"


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.fixture
def folder(made: Case, tmp_path: Path) -> Path:
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    results = {"seg": made.segmentation, "sr": made.sr, "capture": page}
    for name, ds in results.items():
        save(ds, tmp_path / f"{name}.dcm")
    (tmp_path / "images").mkdir()
    for number, ds in enumerate(made.sources):
        save(ds, tmp_path / "images" / f"{number:03d}.dcm")
    (tmp_path / "notes.txt").write_text("not DICOM")
    return tmp_path


def test_good_results_are_compared_with_their_images_and_are_good(folder: Path) -> None:
    found = {item.file.stem: item for item in validate([folder])}

    assert {name: item.verdict for name, item in found.items()} == {
        "capture": "good",
        "seg": "good",
        "sr": "good",
    }
    assert {item.images for item in found.values()} == {17}
    assert found["sr"].segmentation
    assert all(item.own for item in found.values())


@pytest.mark.parametrize("name", ["rtstruct", "pdf", "text"])
def test_every_kind_of_result_is_compared_with_the_images_it_names(
    made: Case, folder: Path, name: str
) -> None:
    path = save(OBJECTS[name][0](made), folder / f"{name}.dcm")

    [found] = [item for item in validate([folder]) if item.file == path]

    assert (found.verdict, found.images) == ("good", 17)


def test_a_contour_beside_its_image_is_found(made: Case, folder: Path) -> None:
    ds = OBJECTS["rtstruct"][0](made)
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [str(float(value) + 1.0) for value in contour.ContourData]
    path = save(ds, folder / "rtstruct.dcm")

    [found] = [item for item in validate([folder]) if item.file == path]

    assert [defect.rule for defect in found.defects] == ["contour"]


def test_a_result_is_judged_by_itself_where_images_are_missing(folder: Path) -> None:
    alone = validate([folder / "seg.dcm"])
    with_some = validate([folder / "seg.dcm", folder / "images" / "003.dcm"])

    assert [(item.verdict, item.images) for item in (*alone, *with_some)] == [
        ("good", 0),
        ("good", 1),
    ]


def test_the_command_says_what_where_and_what_to_do(made: Case, folder: Path) -> None:
    spoiled = case().segmentation
    del spoiled.SegmentSequence[0].RecommendedDisplayCIELabValue
    spoiled.PatientID = "SOMEBODY"
    save(spoiled, folder / "seg.dcm")

    result = CliRunner().invoke(app, ["validate", str(folder), "--json"])

    assert result.exit_code == 1
    seg = next(item for item in json.loads(result.stdout) if item["file"].endswith("seg.dcm"))
    assert {item["reason"] for item in seg["defects"]} == {"differs_from_source", "segment_colour"}
    colour = next(item for item in seg["defects"] if item["reason"] == "segment_colour")
    assert colour["sentence"] == COLOURLESS
    assert colour["cure"].startswith("Write Recommended Display CIELab Value")
    assert "SOMEBODY" not in result.stdout


def test_the_command_ends_well_for_good_objects(folder: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(folder)])

    assert result.exit_code == 0
    assert "compared with 17 images and its segmentation" in " ".join(result.stdout.split())


def test_others_are_judged_by_the_standard_and_strictly_on_demand() -> None:
    path = shared("seg_and_sr_by_others", "highdicom", "seg_image_ct_binary.dcm")

    assert [item.verdict for item in validate([path])] == ["good"]
    strictly = validate([path], strict=True)
    assert "segment_colour" in {defect.rule for defect in strictly[0].defects}


def test_a_named_file_that_is_not_dicom_is_an_error(folder: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(folder / "notes.txt")])

    assert result.exit_code == 1
    assert "cannot be read as DICOM" in result.stdout


def test_a_deflated_file_that_was_cut_off_is_an_error(made: Case, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    ds = dcmread(BytesIO(to_bytes(made.sr)))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    assert [item.verdict for item in validate([path])] == ["good"]
    path.write_bytes(path.read_bytes()[:2000])

    assert [item.defects[0].rule for item in validate([path])] == ["unreadable"]


@pytest.mark.parametrize("what", ["nowhere", "images"])
def test_nothing_to_judge_is_a_usage_error(folder: Path, what: str) -> None:
    assert CliRunner().invoke(app, ["validate", str(folder / what)]).exit_code == 2
