"""Ordinary dirt is repaired; what cannot be repaired is refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from io import BytesIO

import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from sr_templates.base import UnfitSource
from sr_templates.normalise import TYPE_2, normalised
from tests.phantoms import ct_series
from tests.shared_data import shared

NAMES = {
    "latin-1": ("ISO_IR 100", "Müller^Jörg^^Dr."),
    "greek": ("ISO_IR 126", "Διονυσιος^Σ"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг^А"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "utf-8": ("ISO_IR 192", "Παπαδόπουλος^Γιώργος"),
}


def as_received(sources: list[Dataset]) -> list[Dataset]:
    """Write and read, so that values are raw bytes in the declared character set."""
    received: list[Dataset] = []
    for ds in sources:
        buffer = BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        received.append(dcmread(BytesIO(buffer.getvalue())))
    return received


def spoiled(keyword: str, value: str) -> list[Dataset]:
    """Return a series with one bad value in every instance."""
    sources = ct_series()
    with config.disable_value_validation():
        for ds in sources:
            delattr(ds, keyword)
            setattr(ds, keyword, value)
    return sources


@pytest.mark.parametrize("keyword", TYPE_2)
def test_a_missing_type_2_attribute_becomes_empty(keyword: str) -> None:
    sources = ct_series()
    for ds in sources:
        delattr(ds, keyword)

    assert {str(ds[keyword].value) for ds in normalised(sources)} == {""}


@pytest.mark.parametrize(
    ("keyword", "value", "wanted"),
    [
        ("PatientSex", "X", ""),
        ("PatientSex", "m", "M"),
        ("PatientBirthDate", "19500000", ""),
        ("PatientBirthDate", "1950.01.31", "19500131"),
        ("StudyDate", "yesterday", ""),
        ("StudyTime", "25:00", ""),
        ("StudyTime", "101500.25", "101500.25"),
        ("AccessionNumber", "a very long accession number", "a very long accession number"),
    ],
)
def test_a_value_is_kept_repaired_or_emptied(keyword: str, value: str, wanted: str) -> None:
    assert str(normalised(spoiled(keyword, value))[0][keyword].value) == wanted


def test_an_age_that_is_none_is_left_out() -> None:
    assert "PatientAge" not in normalised(spoiled("PatientAge", "old"))[0]


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES)
def test_a_name_survives_in_utf_8(character_set: str | list[str], name: str) -> None:
    sources = ct_series(character_set=character_set, patient_name=name)
    for ds in sources:
        ds.StudyDescription, ds.ReferringPhysicianName = "CT", "Ref^Doc"

    clean = normalised(as_received(sources))

    assert clean[0].SpecificCharacterSet == "ISO_IR 192"
    assert str(clean[0].PatientName) == name


def encoded(ds: Dataset, *changes: tuple[bytes, bytes]) -> Dataset:
    """Write, change bytes to others of the same length, and read."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    for old, new in changes:
        assert len(old) == len(new)
        data = data.replace(old, new)
    return dcmread(BytesIO(data))


@pytest.mark.parametrize(
    "name", ["Müller^Jörg", "Müller^Jörg".encode().decode("latin-1")], ids=["latin-1", "utf-8"]
)
def test_an_undeclared_character_set_is_guessed(name: str) -> None:
    sources = ct_series(patient_name=name)

    received = [encoded(ds, (b"ISO_IR 100", b"          ")) for ds in sources]

    assert str(normalised(received)[0].PatientName) == "Müller^Jörg"


def test_latin_1_bytes_declared_as_utf_8_are_read_as_assumed() -> None:
    received = [encoded(ds, (b"ISO_IR 100", b"ISO_IR 192")) for ds in ct_series()]

    clean = normalised(received)[0]

    assert str(clean.PatientName) == "Müller^Jörg^^Dr."
    assert clean.StudyDescription == "CT Schädel nativ"


def test_normalising_twice_changes_nothing() -> None:
    once = normalised(as_received(ct_series()))

    assert normalised(list(once)) == once
    assert normalised(once) is once


def test_the_given_datasets_stay_as_they_are() -> None:
    sources = ct_series()
    before = deepcopy(sources)

    normalised(sources)

    assert sources == before


def test_the_order_of_arrival_does_not_matter() -> None:
    sources = ct_series()

    assert normalised(sources[::-1]) == normalised(sources[5:] + sources[:5])


def test_a_missing_slice_thickness_is_the_distance_of_the_slices() -> None:
    sources = ct_series()
    for ds in sources:
        del ds.SliceThickness

    assert {float(ds.SliceThickness) for ds in normalised(sources)} == {9.0}


def test_an_instance_that_came_twice_counts_once() -> None:
    sources = ct_series()

    assert len(normalised([*sources, deepcopy(sources[3])])) == len(sources)


def _other_study(ds: Dataset) -> None:
    ds.StudyInstanceUID = "1.2.3"


def _other_frame_of_reference(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = "1.2.3"


def _other_patient(ds: Dataset) -> None:
    ds.PatientID = "SOMEBODY"


def _no_series(ds: Dataset) -> None:
    del ds.SeriesInstanceUID


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_other_study, "belong to 2 different studies"),
        (_other_frame_of_reference, "belong to 2 different Frames of Reference"),
        (_other_patient, "belong to 2 different patients"),
        (_no_series, "has no SeriesInstanceUID"),
    ],
)
def test_what_cannot_be_repaired_is_refused_without_patient_data(
    change: Callable[[Dataset], None], sentence: str
) -> None:
    sources = ct_series()
    change(sources[2])

    with pytest.raises(UnfitSource, match=sentence) as refused:
        normalised(sources)

    assert "SOMEBODY" not in str(refused.value)
    assert "ller" not in str(refused.value)


def test_two_contents_under_one_uid_are_refused() -> None:
    sources = ct_series()
    other = deepcopy(sources[0])
    other.PixelData = bytes(len(other.PixelData))

    with pytest.raises(UnfitSource, match="two different instances"):
        normalised([*sources, other])


def test_an_invalid_uid_is_refused() -> None:
    with pytest.raises(UnfitSource, match="StudyInstanceUID that is not a valid UID"):
        normalised(spoiled("StudyInstanceUID", "1.2.03"))


def test_no_source_is_refused() -> None:
    with pytest.raises(UnfitSource, match="no source instance"):
        normalised([])


def test_a_real_enhanced_instance_keeps_its_frames_places() -> None:
    path = next(p for p in sorted(shared("t1_siemens_xa30_enhanced").rglob("*.dcm")))

    clean = normalised([dcmread(path)])[0]

    assert len(clean.PerFrameFunctionalGroupsSequence) == clean.NumberOfFrames
    assert isinstance(clean.ImageType, MultiValue)
    assert "PlaneOrientationSequence" in clean.SharedFunctionalGroupsSequence[0]
