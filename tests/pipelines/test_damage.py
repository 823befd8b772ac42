"""Damaged files end in a refusal or in a volume, never in another exception."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

from pipelines.base import NotScored
from pipelines.steps.codestreams import size_of
from pipelines.steps.read import read_instance, read_series
from pipelines.steps.volume import volume_from_series
from tests.shared_data import shared

ROUNDS = 150


def files(name: str) -> list[Path]:
    return sorted(shared("reference_conversions", name).iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "generic_anatomical_001",
        "generic_compressed_rle_001",
        "ge_anatomical_001_implicit",
        "philips_enhanced_anatomical_001",
    ],
)
def test_flipped_lost_and_cut_bytes_are_refused_or_harmless(name: str, tmp_path: Path) -> None:
    paths = files(name)
    whole = paths[0].read_bytes()
    harm = random.Random(name)
    damaged = tmp_path / "damaged.dcm"

    reasons = set()
    for _ in range(ROUNDS):
        damaged.write_bytes(_damaged(whole, harm))
        try:
            volume_from_series(read_series([damaged, *paths[1:]]))
        except NotScored as error:
            reasons.add(error.reason)

    assert len(reasons) >= 3


def _damaged(whole: bytes, harm: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(harm.randint(1, 12)):
        place = harm.randrange(min(len(data), harm.choice([400, 3000, 12000, len(data)])))
        match harm.choice(["byte", "bit", "lost", "cut"]):
            case "byte":
                data[place] = harm.randrange(256)
            case "bit":
                data[place] ^= 1 << harm.randrange(8)
            case "lost":
                del data[place : place + harm.randint(1, 60)]
            case "cut":
                del data[place + 132 :]
    return bytes(data)


def test_compressed_pixels_that_are_cut_short_are_refused() -> None:
    series = [dcmread(path) for path in files("generic_compressed_j2k_001")]
    whole = next(generate_frames(series[2].PixelData, number_of_frames=1))
    series[2].PixelData = encapsulate([whole[:-200]])

    with pytest.raises(NotScored) as caught:
        volume_from_series(series)

    assert caught.value.reason == "undecodable_pixels"
    assert series[2].SOPInstanceUID in caught.value.sentence


def test_a_codestream_of_another_size_is_refused_before_a_decoder_sees_it() -> None:
    series = [dcmread(path) for path in files("generic_compressed_j2k_001")]
    whole = bytearray(next(generate_frames(series[2].PixelData, number_of_frames=1)))
    place = whole.index(b"\xff\x4f\xff\x51")
    whole[place + 12 : place + 16] = (6_226_176).to_bytes(4, "big")  # openjpeg: minutes
    series[2].PixelData = encapsulate([bytes(whole)])

    with pytest.raises(NotScored) as caught:
        volume_from_series(series)

    assert caught.value.reason == "undecodable_pixels"
    assert "not of the 256 rows and 256 columns" in caught.value.sentence


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (b"", None),
        (b"\xff\xd8\xff\xff\xff\xf7\0\x0b\x10\x01\0\0\x80\x01", (256, 128, 1)),
        (b"\xff\xd8\xff\xe0\0\x04\0\0\xff\xc3\0\x0b\x10\x01\0\0\x80\x03", (256, 128, 3)),
        (b"\xff\xd8\xff\xe0\xff\xff", None),
        (b"\xff\xd8\0\0\0\0", None),
        (b"\xff\x4f\xff\x51\0\x29", None),
        (b"\xff\x4f\xff\x51" + bytes(38), None),
    ],
)
def test_a_codestream_says_its_size(frame: bytes, size: tuple[int, ...] | None) -> None:
    assert size_of(frame) == size


def test_a_file_that_is_not_dicom_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "Secret^Patient.txt").write_text("hello")

    with pytest.raises(NotScored) as caught:
        read_instance(tmp_path / "Secret^Patient.txt", 7)

    assert caught.value.sentence == "File 7 of the series is not a DICOM file."


def test_an_odd_name_and_date_disturb_nobody() -> None:
    path = shared("reference_conversions", "hitachi_anatomical_001", "001.dcm")

    assert read_instance(path).SOPInstanceUID == dcmread(path).SOPInstanceUID
