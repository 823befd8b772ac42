"""What is written is what was meant, or nothing is written."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from sr_templates import part10
from sr_templates.base import IMPLEMENTATION_CLASS_UID
from sr_templates.part10 import Unwritable, reread, to_bytes
from sr_templates.segmentation import SegmentationType
from tests.phantoms import ct_series
from tests.sr_templates.objects import case


def test_a_file_has_an_empty_preamble_and_our_implementation() -> None:
    data = to_bytes(ct_series()[0])

    assert data[:132] == bytes(128) + b"DICM"
    assert dcmread(BytesIO(data)).file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID


def test_what_was_written_is_read_again() -> None:
    ds = ct_series()[0]

    assert dcmread(BytesIO(to_bytes(ds))) == ds


def test_the_dataset_stays_as_it_was() -> None:
    ds = ct_series()[0]
    meta = ds.file_meta

    to_bytes(ds)

    assert ds.file_meta is meta
    assert "ImplementationClassUID" not in meta


def test_text_outside_its_character_set_is_refused_without_showing_it() -> None:
    ds = ct_series()[0]
    ds.StudyDescription = "Αιμορραγία"

    with pytest.raises(Unwritable, match="cannot be written without loss") as refused:
        to_bytes(ds)

    assert "Αιμορραγία" not in str(refused.value)
    assert str(ds.SOPInstanceUID) in str(refused.value)
    assert refused.value.__suppress_context__


def test_writing_large_pixels_leaves_the_object_as_it_is() -> None:
    ds = ct_series()[0]
    ds.PixelData = bytes(2 << 20)

    data = to_bytes(ds)

    assert isinstance(ds.PixelData, bytes)
    assert to_bytes(ds) == data
    assert dcmread(BytesIO(data)).PixelData == ds.PixelData


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_large_object_is_read_again_without_a_copy_of_its_pixels(
    kind: SegmentationType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = case(kind=kind).segmentation
    monkeypatch.setattr(part10, "_LARGE_PIXELS", 0)

    found = reread(ds)

    read = dcmread(BytesIO(to_bytes(ds)))
    assert found.PixelData is ds.PixelData
    assert read.pop("PixelData").value == found.pop("PixelData").value
    assert found == read
    assert len({id(frame.DerivationImageSequence) for frame in _frames(found)}) == len(
        {float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in _frames(found)}
    )


def _frames(ds: Dataset) -> list[Dataset]:
    return list(ds.PerFrameFunctionalGroupsSequence)


def test_large_pixels_of_an_odd_length_are_read_as_they_were_padded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ds = ct_series()[0]
    ds.PixelData = bytes(3)
    ds["PixelData"].VR = "OB"
    monkeypatch.setattr(part10, "_LARGE_PIXELS", 0)

    assert len(reread(ds).PixelData) == 4
