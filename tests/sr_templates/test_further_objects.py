"""What a destination may ask for beside SEG, SR and the page: right to us and to other readers."""

from __future__ import annotations

import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from sr_templates.check import problems
from sr_templates.outlines import outline_report
from sr_templates.part10 import to_bytes
from sr_templates.rejection import rejection_note
from sr_templates.structure_set import structure_set
from sr_templates.text import render
from tests.noise import dcentvfy, dciodvfy, dsrdump, segimage2itkimage, tid1500reader
from tests.phantoms import Shape, ct_series, oblique
from tests.sr_templates.further import OBJECTS, SQUARE, outlines, pdf, rejection, rtstruct, text
from tests.sr_templates.objects import MAKER, PHANTOM, Case, bleeds, case, identity, save
from tests.sr_templates.test_contours import filled
from tests.tools import run, tool


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.mark.parametrize("name", OBJECTS)
def test_dciodvfy_and_the_checker_find_no_error(name: str, made: Case, tmp_path: Path) -> None:
    build, sop_class = OBJECTS[name]
    ds = build(made)

    assert ds.SOPClassUID == UID(sop_class)
    assert dciodvfy(save(ds, tmp_path / "one.dcm")) == []
    sources = ct_series(SQUARE) if name == "outlines" else made.sources
    assert problems(ds, sources, made.seg if name == "sr3d" else None) == []


@pytest.mark.parametrize("name", OBJECTS)
def test_building_twice_gives_the_same_bytes(name: str, made: Case) -> None:
    build, _ = OBJECTS[name]

    assert to_bytes(build(made)) == to_bytes(build(case()))


def test_a_note_may_reject_our_own_objects_only(made: Case) -> None:
    foreign = made.sources[0]

    with pytest.raises(ValueError, match="none of ours"):
        rejection_note([foreign], "No.", identity("rejection"), MAKER)


def test_a_rejection_note_names_each_result_and_why(made: Case) -> None:
    note = hd.ko.KeyObjectSelectionDocument.from_dataset(
        dcmread(BytesIO(to_bytes(rejection(made))))
    )

    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert "Scored with the wrong model." in render(note)
    for ds in (made.segmentation, made.sr):
        assert note.resolve_reference(ds.SOPInstanceUID)[1] == ds.SeriesInstanceUID
    assert "NOT FOR CLINICAL USE" in note.SeriesDescription


def test_a_text_report_says_what_the_measurement_report_says(made: Case, tmp_path: Path) -> None:
    path = save(text(made), tmp_path / "text.dcm")

    shown = run("dsrdump", "+U8", "+Pl", path).stdout

    assert "Intracranial haemorrhage. Presence of property: Present" in shown
    assert "Subdural haemorrhage. Volume: 22.11 ml" in shown
    assert "NOT FOR CLINICAL USE" in shown
    assert "NUM" not in shown


def test_a_pdf_holds_the_page_and_text_that_can_be_searched(made: Case, tmp_path: Path) -> None:
    ds = dcmread(BytesIO(to_bytes(pdf(made))))
    path = tmp_path / "report.pdf"
    path.write_bytes(ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength])
    said = subprocess.run(
        [tool("pdftotext"), path, "-"], capture_output=True, check=True, text=True
    )

    assert "Presence of property: Present" in " ".join(said.stdout.split())
    assert str(made.sources[0].PatientName) not in said.stdout
    assert str(made.sources[0].PatientID) not in said.stdout


SHAPES = {
    "non-square pixels": PHANTOM,
    "oblique": Shape(orientation=oblique(), slices=15, spacing=(2.5, 4.0, 9.0)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_contours_of_a_structure_set_give_every_voxel_back(shape: Shape) -> None:
    made = case(shape)
    ds = dcmread(BytesIO(to_bytes(rtstruct(made))))

    labels = np.zeros((shape.columns, shape.rows, shape.slices), np.uint8)
    to_index = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ shape.affine())
    for item in ds.ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            indices = points @ to_index[:3, :3].T + to_index[:3, 3]
            place = round(float(indices[:, 2].mean()))
            assert np.abs(indices[:, 2] - place).max() < 1e-2
            inside = filled([indices[:, :2]], (shape.rows, shape.columns))
            labels[:, :, place][inside.T] ^= int(item.ReferencedROINumber)

    wanted = bleeds(shape)
    wanted[wanted == 3] = 2
    assert np.array_equal(labels, wanted)
    assert [str(roi.ROIName) for roi in ds.StructureSetROISequence] == [
        "Intraparenchymal haemorrhage",
        "Subdural haemorrhage",
    ]
    assert list(ds.ROIContourSequence[1].ROIDisplayColor) == [0, 255, 255]


def test_outlines_lie_around_the_largest_slice_of_each_segment(made: Case) -> None:
    report: Any = hd.sr.ComprehensiveSR.from_dataset(dcmread(BytesIO(to_bytes(outlines(made)))))
    groups = report.content.get_planar_roi_measurement_groups()
    labels = bleeds(SQUARE)
    slices = {str(ds.SOPInstanceUID): ds for ds in ct_series(SQUARE)}

    assert len(groups) == 2
    for number, group in zip((1, 3), groups, strict=True):
        region = group.roi
        image = slices[region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
        place = SQUARE.slices - int(image.InstanceNumber)
        areas = (labels == number).sum(axis=(0, 1))
        assert areas[place] == areas.max()
        mask = filled([region.value - 0.5], (SQUARE.rows, SQUARE.columns))
        assert np.array_equal(mask.T, labels[:, :, place] == number)


def test_no_outlines_are_made_where_a_viewer_would_misplace_them(made: Case) -> None:
    assert outline_report(made.findings, made.seg, made.clean, identity("outlines"), MAKER) is None


def test_nothing_marked_gives_neither_outlines_nor_structures() -> None:
    made = case(labels=np.zeros_like(bleeds(PHANTOM)))

    assert outline_report(made.findings, made.seg, made.clean, identity("outlines"), MAKER) is None
    assert structure_set(made.findings, made.seg, made.clean, identity("rtstruct"), MAKER) is None
    assert problems(text(made), made.sources) == []
    assert "Presence of property: Absent" in render(text(made))


def test_dcmqi_reads_a_label_map_at_its_place(tmp_path: Path) -> None:
    made = case(kind="LABELMAP")
    path = save(made.segmentation, tmp_path / "seg.dcm")

    assert segimage2itkimage(path, tmp_path) == []
    labels, world = bleeds(PHANTOM), PHANTOM.world()
    image = nib.nifti1.Nifti1Image.from_filename(tmp_path / "1.nii.gz")
    for segment, number in ((1, 1), (2, 3)):
        voxels = np.argwhere(np.asarray(image.dataobj) == segment)
        found = np.round(nib.affines.apply_affine(image.affine, voxels), 1) + 0.0
        wanted = np.round(world[labels == number], 1) + 0.0
        assert {tuple(point) for point in found} == {tuple(point) for point in wanted}
    meta = json.loads((tmp_path / "meta.json").read_text())
    names = [item["SegmentLabel"] for group in meta["segmentAttributes"] for item in group]
    assert "Subdural haemorrhage" in names


def test_a_label_map_and_its_report_pass_the_checker(tmp_path: Path) -> None:
    made = case(kind="LABELMAP")

    assert made.segmentation.SOPClassUID == UID("1.2.840.10008.5.1.4.1.1.66.7")
    assert problems(made.segmentation, made.sources) == []
    assert problems(made.sr, made.sources, made.seg) == []
    assert dciodvfy(save(made.segmentation, tmp_path / "seg.dcm")) == []


def test_dcentvfy_finds_all_of_them_consistent_with_the_images(tmp_path: Path) -> None:
    made = case(sources=ct_series(character_set="ISO_IR 192"))
    everything = [*made.sources, made.segmentation, made.sr]
    everything += [build(made) for name, (build, _) in OBJECTS.items() if name != "outlines"]
    paths = [save(ds, tmp_path / f"{index}.dcm") for index, ds in enumerate(everything)]

    assert dcentvfy(paths) == []


@pytest.mark.parametrize("name", ["sr3d", "outlines", "text", "rejection"])
def test_dsrdump_reads_every_document(name: str, made: Case, tmp_path: Path) -> None:
    path = save(OBJECTS[name][0](made), tmp_path / "one.dcm")

    assert dsrdump(path) == []


@pytest.mark.parametrize("name", ["sr3d", "outlines"])
def test_dcmqi_reads_every_measurement_report(name: str, made: Case, tmp_path: Path) -> None:
    path = save(OBJECTS[name][0](made), tmp_path / "one.dcm")

    assert tid1500reader(path, tmp_path / "sr.json") == []
    assert json.loads((tmp_path / "sr.json").read_text())["Measurements"]
