"""Ordinary dirty data gives good SEG, SR and capture; what cannot be repaired is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset

from sr_templates.base import NoFrameOfReference, UnfitSource
from sr_templates.capture import capture
from sr_templates.check import problems
from sr_templates.normalise import TYPE_2, normalised
from sr_templates.repairs import repairs
from sr_templates.report import measurement_report
from sr_templates.segmentation import segmentation
from sr_templates.text import render
from tests.noise import dcentvfy, dciodvfy
from tests.phantoms import Shape, ct_series, ct_volume
from tests.sr_templates.objects import (
    MAKER,
    SEGMENTS,
    findings_of,
    identity,
    save,
)
from tests.sr_templates.test_normalise import NAMES, as_received

pytestmark = pytest.mark.slow

SMALL = Shape(columns=29, rows=33, slices=5, spacing=(6.0, 6.5, 25.0))
Change = Callable[[Dataset], None]


def results(sources: Sequence[Dataset], comments: Sequence[str] = ()) -> dict[str, Dataset]:
    """Make every object, as the report step does."""
    clean = normalised(sources)
    volume = replace(
        ct_volume(ct_series(SMALL), SMALL),
        frame_of_reference_uid=str(clean[0].get("FrameOfReferenceUID", "")),
    )
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[10:14, 12:17, 1:3] = SEGMENTS[0].number
    findings = findings_of(labels, volume)
    seg = segmentation(findings, volume, clean, identity("seg"), MAKER)
    assert seg is not None
    sr = measurement_report(findings, clean, seg, identity("sr"), MAKER, comments)
    page = capture(findings, volume, clean, identity("capture"), MAKER)
    return {"seg": seg, "sr": sr, "capture": page}


def assert_good(made: dict[str, Dataset], sources: Sequence[Dataset], folder: Path) -> None:
    """Check by our own rules and by dciodvfy."""
    for kind, ds in made.items():
        assert problems(ds, sources, made["seg"] if kind == "sr" else None) == [], kind
        assert dciodvfy(save(ds, folder / f"{kind}.dcm")) == [], kind


def lacking(*keywords: str) -> Change:
    def change(ds: Dataset) -> None:
        for keyword in keywords:
            ds.pop(keyword, None)

    return change


def having(keyword: str, value: object) -> Change:
    def change(ds: Dataset) -> None:
        with config.disable_value_validation():
            ds.pop(keyword, None)
            setattr(ds, keyword, value)

    return change


def dirty(change: Change) -> list[Dataset]:
    sources = ct_series(SMALL)
    for ds in sources:
        change(ds)
    return sources


def _deidentified(ds: Dataset) -> None:
    odd, empty = Dataset(), Dataset()
    odd.CodeValue, odd.CodingSchemeDesignator, odd.CodeMeaning = "113100", "DCM", "Our profile"
    empty.CodeValue, empty.CodingSchemeDesignator = "X1", "99SITE"
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethodCodeSequence = [odd, empty]


DIRT: dict[str, tuple[Change, str]] = {
    **{f"{word} missing": (lacking(word), f"{word}: missing, added empty") for word in TYPE_2},
    "all Type 2 missing": (lacking(*TYPE_2), "StudyID: missing, added empty"),
    "SliceThickness missing": (lacking("SliceThickness"), "computed from positions"),
    "timezone missing": (lacking("TimezoneOffsetFromUTC"), ""),
    "timezone CET": (having("TimezoneOffsetFromUTC", "CET"), "TimezoneOffsetFromUTC: unreadable"),
    "sex X": (having("PatientSex", "X"), "PatientSex: unreadable, left empty"),
    "sex m": (having("PatientSex", "m"), "PatientSex: rewritten"),
    "birth date 19500000": (having("PatientBirthDate", "19500000"), "PatientBirthDate: unreadable"),
    "birth date 1950.01.31": (having("PatientBirthDate", "1950.01.31"), "PatientBirthDate: rewr"),
    "age in words": (having("PatientAge", "old"), "PatientAge: unreadable, left empty"),
    "instance number missing": (lacking("InstanceNumber"), ""),
    "position reference missing": (lacking("PositionReferenceIndicator"), ""),
    "equipment missing": (lacking("Manufacturer", "SoftwareVersions", "DeviceSerialNumber"), ""),
    "body part missing": (lacking("BodyPartExamined"), ""),
    "body part Head": (having("BodyPartExamined", "Head"), "BodyPartExamined: rewritten"),
    "body part in words": (having("BodyPartExamined", "Head, plain"), "BodyPartExamined: unread"),
    "an indicator too long": (having("PositionReferenceIndicator", "x" * 70), "rewritten"),
    "question marks for letters": (having("InstitutionName", "Universit?tsklinikum"), ""),
    "equipment encoded twice": (having("StationName", "HÃ¶he"), ""),
    "nothing but a line break": (having("InstitutionName", "\r\n"), "InstitutionName: unread"),
    "two instance numbers": (having("InstanceNumber", [1, 2]), "InstanceNumber: unreadable"),
    "two thicknesses": (having("SliceThickness", [5, 5]), "SliceThickness: unreadable, comp"),
    "a weight that is none": (having("PatientWeight", "nan"), "PatientWeight: unreadable"),
    "a line break": (having("InstitutionName", "Clinic\r\nStation 3"), "InstitutionName: rewr"),
    "a number too long": (having("PatientWeight", "70.12345678901234567"), "PatientWeight: rewr"),
    "odd codes of de-identification": (_deidentified, ""),
    "lossy": (having("LossyImageCompression", "01"), ""),
}


@pytest.mark.parametrize("dirt", DIRT)
def test_ordinary_dirt_gives_good_objects(dirt: str, tmp_path: Path) -> None:
    change, told = DIRT[dirt]
    sources = dirty(change)

    made = results(sources)

    assert_good(made, sources, tmp_path)
    said = repairs(sources, normalised(sources))
    assert any(told in line for line in said) if told else True
    assert not any(word in " ".join(said) for word in ("PHANTOM", "Müller", "1950", "ACC0001"))


def test_a_clean_source_needs_no_repair() -> None:
    sources = ct_series(SMALL)

    assert repairs(sources, normalised(sources)) == []


MORE_NAMES = {
    "thai": ("ISO_IR 166", "ทดสอบ^ชื่อ"),
    "latin and cyrillic": (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Müller^Люкс"),
}


@pytest.mark.parametrize(("character_set", "name"), [*NAMES.values(), *MORE_NAMES.values()])
def test_a_name_survives_in_every_object(
    character_set: str | list[str], name: str, tmp_path: Path
) -> None:
    sources = ct_series(SMALL, character_set=character_set, patient_name=name)
    for ds in sources:
        ds.StudyDescription, ds.ReferringPhysicianName = "CT", "Ref^Doc"
    received = as_received(sources)

    made = results(received, ["Αιμορραγία, кровоизлияние, 出血: zażółć."])

    assert_good(made, received, tmp_path)
    for kind, ds in made.items():
        read = dcmread(tmp_path / f"{kind}.dcm")
        assert str(read.PatientName) == name, kind
        assert read.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == name
    assert "Αιμορραγία, кровоизлияние, 出血: zażółć." in render(dcmread(tmp_path / "sr.dcm"))


def test_dcentvfy_finds_results_and_images_consistent(tmp_path: Path) -> None:
    sources = as_received(ct_series(SMALL, character_set="ISO_IR 192", patient_name="Ψ^Σ"))
    made = results(sources)
    assert_good(made, sources, tmp_path)
    images = [save(ds, tmp_path / f"ct{n}.dcm") for n, ds in enumerate(sources)]

    assert dcentvfy([*images, *(tmp_path / f"{kind}.dcm" for kind in made)]) == []


def test_without_a_frame_of_reference_there_is_a_report_and_no_segmentation() -> None:
    sources = dirty(lacking("FrameOfReferenceUID"))
    with pytest.raises(NoFrameOfReference, match="has no Frame of Reference UID"):
        results(sources)
    clean = normalised(sources)
    volume = replace(ct_volume(ct_series(SMALL), SMALL), frame_of_reference_uid="")
    findings = findings_of(np.zeros(volume.array.shape, np.uint8), volume)

    sr = measurement_report(findings, clean, None, identity("sr"), MAKER)
    page = capture(findings, volume, clean, identity("capture"), MAKER)

    assert problems(sr, sources) == []
    assert problems(page, sources) == []


def _second_orientation(sources: list[Dataset]) -> None:
    sources[2].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _another_size(sources: list[Dataset]) -> None:
    sources[2].Rows = 32


def _another_spacing(sources: list[Dataset]) -> None:
    sources[2].PixelSpacing = [6.5, 5.0]


def _same_place(sources: list[Dataset]) -> None:
    sources[2].ImagePositionPatient = sources[1].ImagePositionPatient


def _missing(keyword: str) -> Callable[[list[Dataset]], None]:
    def change(sources: list[Dataset]) -> None:
        delattr(sources[2], keyword)

    return change


def _having(keyword: str, value: object) -> Callable[[list[Dataset]], None]:
    return lambda sources: having(keyword, value)(sources[2])


def _two_contents(sources: list[Dataset]) -> None:
    other = deepcopy(sources[2])
    other.PixelData = bytes(len(other.PixelData))
    sources.append(other)


REFUSED: dict[str, tuple[Callable[[list[Dataset]], None], str]] = {
    "two orientations": (_second_orientation, "has another orientation"),
    "another size": (_another_size, "has 32 x 29 pixels"),
    "another spacing": (_another_spacing, "has another Pixel Spacing"),
    "two slices at one place": (_same_place, "lie at the same place"),
    "two contents under one UID": (_two_contents, "two different instances"),
    "no PixelSpacing": (_missing("PixelSpacing"), "has no PixelSpacing"),
    "no position": (_missing("ImagePositionPatient"), "has no ImagePositionPatient"),
    "no orientation": (_missing("ImageOrientationPatient"), "has no ImageOrientationPatient"),
    "no UID": (_missing("SOPInstanceUID"), "has no SOPInstanceUID"),
    "a spacing of one number": (_having("PixelSpacing", 5), "has no PixelSpacing"),
    "a position that is none": (
        _having("ImagePositionPatient", ["nan", 0, 0]),
        "has no ImagePositionPatient",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_repaired_is_refused_with_the_reason(what: str) -> None:
    spoil, sentence = REFUSED[what]
    sources = ct_series(SMALL)
    spoil(sources)

    with pytest.raises(UnfitSource, match=sentence) as refused:
        results(sources)

    assert "PHANTOM" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.full((29, 33, 5), 2.5), "labels are float64, wanted whole numbers"),
        (np.full((29, 33, 5), 9), r"labels hold \[9\], which are no segment's number"),
        (np.full((29, 33, 5), -1), r"labels hold \[-1\], which are no segment's number"),
        (np.full((33, 29, 5), 1), "labels have shape"),
        (np.full((29, 33, 4), 1), "labels have shape"),
    ],
    ids=["fractions", "undeclared", "negative", "transposed", "short"],
)
def test_labels_that_fit_nothing_are_refused(labels: object, sentence: str) -> None:
    clean = normalised(ct_series(SMALL))
    volume = ct_volume(clean, SMALL)
    good = findings_of(np.zeros(volume.array.shape, np.uint8), volume)

    with pytest.raises(ValueError, match=sentence):
        segmentation(
            replace(good, labels=labels),  # type: ignore[arg-type]
            volume,
            clean,
            identity("seg"),
            MAKER,
        )


def test_labels_of_a_wider_type_are_taken() -> None:
    clean = normalised(ct_series(SMALL))
    volume = ct_volume(clean, SMALL)
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[3:6, 4:9, 2] = 1
    findings = findings_of(labels, volume)
    wide: Any = labels.astype(np.int64)

    first = segmentation(findings, volume, clean, identity("seg"), MAKER)
    second = segmentation(replace(findings, labels=wide), volume, clean, identity("seg"), MAKER)

    assert first is not None
    assert second is not None
    assert first.PixelData == second.PixelData


def test_what_the_scanner_says_of_itself_is_kept_as_it_came() -> None:
    made = results(dirty(having("InstitutionName", "Universit?tsklinikum")))

    for ds in made.values():
        [scanner] = [
            item
            for item in ds.ContributingEquipmentSequence
            if item.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        ]
        assert scanner.InstitutionName == "Universit?tsklinikum"


def test_images_of_a_class_nobody_knows_are_refused_by_it() -> None:
    with pytest.raises(UnfitSource, match=r"images of SOP Class 1\.2\.3 can be no source"):
        results(dirty(having("SOPClassUID", "1.2.3")))


def test_a_value_no_reader_can_parse_does_not_stop_a_result(tmp_path: Path) -> None:
    sources = ct_series(SMALL)
    received = []
    for ds in sources:
        ds.PatientWeight = "70.5"
        buffer = BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        received.append(dcmread(BytesIO(buffer.getvalue().replace(b"70.5", b"7O.5"))))

    made = results(received)

    assert_good(made, received, tmp_path)
    assert "PatientWeight" not in made["seg"]
