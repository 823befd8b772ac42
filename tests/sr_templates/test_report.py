"""A measurement report says the same to every reader."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from models.base import Number
from sr_templates.base import MANUFACTURER
from sr_templates.check import problems
from sr_templates.part10 import to_bytes
from sr_templates.report import measurement_report
from sr_templates.text import render
from tests.noise import dcentvfy, dciodvfy, dsrdump, tid1500reader
from tests.phantoms import Shape, ct_series
from tests.sr_templates.objects import MAKER, PHANTOM, bleeds, case, identity, maker, save
from tests.sr_templates.test_normalise import NAMES
from tests.tools import run

ML_PER_VOXEL = 3.25 * 3.5 * 9.0 / 1000.0


def nothing_found() -> np.ndarray:
    return np.zeros_like(bleeds(PHANTOM))


@pytest.mark.parametrize("found", [True, False], ids=["bleeds", "nothing"])
def test_dciodvfy_and_dsrdump_find_no_error(found: bool, tmp_path: Path) -> None:
    made = case(labels=None if found else nothing_found())
    path = save(made.sr, tmp_path / "sr.dcm")

    said = run("dsrdump", "+U8", path)

    assert dciodvfy(path) == []
    assert dsrdump(path) == []
    assert ('"Present"' in said.stdout, '"Absent"' in said.stdout) == (found, not found)


def test_dcentvfy_finds_report_segmentation_and_images_consistent(tmp_path: Path) -> None:
    made = case(sources=ct_series(character_set="ISO_IR 192"))
    paths = [
        save(ds, tmp_path / f"{index}.dcm")
        for index, ds in enumerate([*made.sources, made.segmentation, made.sr])
    ]

    assert dcentvfy(paths) == []


def test_dcmqi_reads_the_measurements(tmp_path: Path) -> None:
    made = case()
    path = save(made.sr, tmp_path / "sr.dcm")

    assert tid1500reader(path, tmp_path / "sr.json") == []
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    volumes = {
        group["TrackingUniqueIdentifier"]: float(item["value"])
        for group in groups
        for item in group["measurementItems"]
        if item["quantity"]["CodeValue"] == "118565006"
    }
    for number in (1, 3):
        counted = int((bleeds(PHANTOM) == number).sum()) * ML_PER_VOXEL
        assert volumes[identity("seg").uid(f"tracking-{number}")] == round(counted, 2)


def test_highdicom_reads_presence_segments_and_algorithm() -> None:
    made = case()
    content: Any = hd.sr.srread(BytesIO(to_bytes(made.sr))).content

    (study,) = content.get_image_measurement_groups()
    rois = content.get_volumetric_roi_measurement_groups()

    assert study.finding_type.value == "1386000"
    assert "Present" in {item.value.meaning for item in study.get_qualitative_evaluations()}
    assert [roi.tracking_uid for roi in rois] == [
        item.TrackingUID for item in made.segmentation.SegmentSequence
    ]
    segments = [roi.referenced_segment for roi in rois]
    assert [segment.referenced_segment_numbers[0] for segment in segments] == [1, 2]
    assert {s.referenced_sop_instance_uid for s in segments} == {made.segmentation.SOPInstanceUID}


def test_nothing_found_is_reported_as_absent_without_segments() -> None:
    made = case(labels=nothing_found())

    text = render(made.sr)

    assert made.seg is None
    assert "Presence of property: Absent" in text
    assert "Probability: 0.02\n" in text
    assert "Source of Measurement" not in text
    assert "TID 1411" not in text
    assert problems(made.sr, made.sources) == []


def test_dcmqi_reads_a_report_of_nothing_found(tmp_path: Path) -> None:
    path = save(case(labels=nothing_found()).sr, tmp_path / "sr.dcm")

    assert tid1500reader(path, tmp_path / "sr.json") == []


@pytest.mark.parametrize("far", [1, 15], ids=["first slices", "last slices"])
def test_the_source_of_measurement_is_the_image_with_the_largest_marked_area(far: int) -> None:
    labels = nothing_found()
    labels[10:14, 10:14, far - 1 : far + 2] = 1
    labels[30:33, 10:13, far] = 2
    labels[20:23, 30:33, 8] = 3
    made = case(labels=labels)
    content: Any = hd.sr.srread(BytesIO(to_bytes(made.sr))).content

    (study,) = content.get_image_measurement_groups()

    (image,) = study.source_images
    assert image.referenced_sop_instance_uid == made.volume.source_instance_uids[far]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.99955, 0.9996),
        (0.99996, 0.9999),
        (1.0, 1.0),
        (0.00002, 0.0001),
        (0.0, 0.0),
        (0.39399596, 0.394),
    ],
)
def test_only_a_certain_probability_is_written_as_certain(value: float, written: float) -> None:
    made = case(labels=nothing_found())
    findings = replace(made.findings, numbers=(Number("probability", value, "1"),))

    sr = measurement_report(findings, made.clean, None, identity("sr"), MAKER)

    assert f"Probability: {written}\n" in render(sr)


def test_the_procedure_reported_is_a_head_ct() -> None:
    assert "Procedure reported: Computed tomography of head" in render(case().sr)


def test_an_undetermined_finding_is_reported_as_such() -> None:
    made = case(labels=nothing_found())
    unsure = replace(made.findings, present=None, numbers=())

    sr = measurement_report(unsure, made.clean, None, identity("sr"), MAKER)

    assert "Presence of property: Undetermined" in render(sr)
    assert "Volume" not in render(sr)


def test_values_agree_with_contributing_equipment_as_ihe_air_asks() -> None:
    made = case()
    (equipment,) = (i for i in made.sr.ContributingEquipmentSequence if "DeviceUID" in i)

    text = render(made.sr)

    assert f"Device Observer UID: {equipment.DeviceUID}\n" in text
    assert f"Device Observer Manufacturer: {equipment.Manufacturer}\n" in text
    assert f"Device Observer Model Name: {equipment.ManufacturerModelName}\n" in text
    assert f"Algorithm Name: {equipment.ManufacturerModelName}\n" in text
    assert f"Algorithm Version: {equipment.SoftwareVersions}\n" in text
    assert f"Algorithm Manufacturer: {MANUFACTURER}\n" in text
    assert f"Algorithm Parameters: weights-sha256={'b2' * 32}\n" in text


def test_warning_and_comments_reach_the_reader() -> None:
    made = case(comments=["Series forced complete after 20 minutes."])

    text = render(made.sr)

    assert "Comment: NOT FOR CLINICAL USE - demonstration\n" in text
    assert "Comment: Series forced complete after 20 minutes.\n" in text


def test_a_clinical_model_carries_no_warning() -> None:
    made = case()

    sr = measurement_report(made.findings, made.clean, made.seg, identity("sr"), maker("clinical"))

    assert "CLINICAL USE" not in render(sr)
    assert sr.ContentQualification == "PRODUCT"


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES)
def test_names_survive_in_report_and_segmentation(
    character_set: str | list[str], name: str, tmp_path: Path
) -> None:
    sources = ct_series(character_set=character_set, patient_name=name)
    for ds in sources:
        ds.StudyDescription, ds.ReferringPhysicianName = "CT", "Ref^Doc"
    received = [dcmread(save(ds, tmp_path / f"{i}.dcm")) for i, ds in enumerate(sources)]

    made = case(sources=received, comments=["Αιμορραγία"])

    for slot, ds in (("seg", made.segmentation), ("sr", made.sr)):
        path = save(ds, tmp_path / f"{slot}.dcm")
        assert str(dcmread(path).PatientName) == name
        assert dciodvfy(path) == []
        assert problems(ds, received, made.seg if slot == "sr" else None) == []
    assert "Αιμορραγία" in render(dcmread(tmp_path / "sr.dcm"))


def test_building_twice_gives_the_same_bytes() -> None:
    assert to_bytes(case().sr) == to_bytes(case(sources=ct_series()[::-1]).sr)


def test_a_segmentation_of_other_findings_is_refused() -> None:
    made = case()
    fewer = replace(made.findings, segments=made.findings.segments[:1])

    with pytest.raises(ValueError, match="segments that the findings do not have"):
        measurement_report(fewer, made.clean, made.seg, identity("sr"), MAKER)


def test_an_unknown_number_is_refused() -> None:
    made = case()
    strange = replace(made.findings, numbers=(Number("texture", 1.0, "1"),))

    with pytest.raises(ValueError, match="no code for the quantity 'texture'"):
        measurement_report(strange, made.clean, made.seg, identity("sr"), MAKER)


def test_a_single_segment_is_reported_and_the_segmentation_left_alone() -> None:
    labels = bleeds(PHANTOM)
    labels[labels == 1] = 0
    made = case(Shape(), labels)
    before = to_bytes(made.segmentation)

    measurement_report(made.findings, made.clean, made.seg, identity("sr"), MAKER)

    assert to_bytes(made.segmentation) == before
    assert problems(made.sr, made.sources, made.seg) == []
