"""What our walk reads of a header is what pydicom reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipelines.base import NotScored
from pipelines.steps.head_reader import HeadReader, head_of
from pipelines.steps.headers import KEYWORDS, Head
from pipelines.steps.instances import open_instance
from pipelines.steps.read import read_instance, third_party_warnings_off
from pipelines.steps.volume import volumes_of_series
from storage.place import Place
from tests.fuzz.conversion import mutated, seeds
from tests.phantoms import ct_series
from tests.shared_data import shared


def written(ds: Dataset, path: Path, syntax: UID | None = None) -> Path:
    if syntax:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return path


def nested(depth: int, *, undefined: bool) -> Sequence:
    item = Dataset()
    item.CodeValue = "x" * 7
    if depth:
        item.ContentSequence = nested(depth - 1, undefined=undefined)
        item["ContentSequence"].is_undefined_length = undefined
    item.is_undefined_length_sequence_item = undefined
    return Sequence([item, Dataset()])


@pytest.mark.parametrize("undefined", [True, False], ids=["delimiters", "lengths"])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_sequences_before_the_pixels_are_passed(
    syntax: UID | None, undefined: bool, tmp_path: Path
) -> None:
    ds = ct_series()[0]
    ds.ReferencedImageSequence = nested(3, undefined=undefined)
    ds["ReferencedImageSequence"].is_undefined_length = undefined
    path = written(ds, tmp_path / "one.dcm", syntax)

    head = head_of(Place(path))

    assert head is not None
    found, wanted = head.dataset(), dcmread(path)
    for keyword in KEYWORDS:
        assert found.get(keyword) == wanted.get(keyword), keyword
    start, length = head.pixels
    assert path.read_bytes()[start : start + length] == wanted.PixelData


def test_every_real_file_is_read_as_pydicom_reads_it_or_left_to_it() -> None:
    seen = 0
    for path in sorted(shared("odd_and_broken").parent.rglob("*")):
        if not path.is_file() or path.suffix in (".md", ".txt", ".gz", ".json", ".nii"):
            continue
        head = head_of(Place(path))
        if head is None:
            continue
        with third_party_warnings_off():
            found, wanted = head.dataset(), read_instance(path)
            for keyword in KEYWORDS:
                assert found.get(keyword) == wanted.get(keyword), (path, keyword)
            start, length = head.pixels
            assert path.read_bytes()[start : start + length] == wanted.PixelData
        seen += 1
    assert seen > 300


def test_a_place_in_a_larger_file_is_read_like_a_file_of_its_own(tmp_path: Path) -> None:
    stream = BytesIO()
    ds = ct_series()[3]
    ds.save_as(stream, enforce_file_format=True)
    whole = stream.getvalue()
    (tmp_path / "arena").write_bytes(b"?" * 4096 + whole + b"?" * 100)

    instance = open_instance(Place(tmp_path / "arena", 4096, len(whole)))

    [stored] = instance.stored([0])
    assert np.array_equal(stored, ds.pixel_array)


def test_deflated_data_sets_are_inflated_only_when_that_is_enabled(tmp_path: Path) -> None:
    series = ct_series()
    paths = [
        written(ds, tmp_path / f"{k}.dcm", DeflatedExplicitVRLittleEndian)
        for k, ds in enumerate(series)
    ]

    with pytest.raises(NotScored) as caught:
        open_instance(paths[0])

    assert caught.value.reason == "deflated"
    instances = [open_instance(path, deflated=True) for path in paths]
    [volume] = volumes_of_series(instances).volumes
    assert np.array_equal(volume.array, volumes_of_series(series).volumes[0].array)


def test_pixels_that_reach_beyond_the_object_are_not_read(tmp_path: Path) -> None:
    path = written(ct_series()[3], tmp_path / "arena")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"?" * 5000)

    with pytest.raises(NotScored) as caught:
        open_instance(Place(path, 0, size - 50))

    assert caught.value.reason == "wrong_pixel_length"


def cut(data: bytes) -> bytes:
    return data[:1200]


def without_preamble(data: bytes) -> bytes:
    return data[132:]


def unsorted(data: bytes) -> bytes:
    place = data.index(b"\x20\0\x10\0SH")
    return data[:place] + b"\x08\0\x60\0" + data[place + 4 :]


@pytest.mark.parametrize("damage", [cut, without_preamble, unsorted])
def test_what_is_not_understood_is_left_to_pydicom(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = written(ct_series()[0], tmp_path / "one.dcm")
    path.write_bytes(damage(path.read_bytes()))

    assert head_of(Place(path)) is None


def same(found: Head | None, wanted: Head | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return (
        found.elements == wanted.elements
        and found.vrs == wanted.vrs
        and found.pixels == wanted.pixels
        and found.kin == wanted.kin
        and found.transfer_syntax_uid == wanted.transfer_syntax_uid
    )


def test_a_reader_of_many_files_reads_each_as_if_it_were_alone() -> None:
    paths = [
        path
        for path in shared("odd_and_broken").parent.rglob("*")
        if path.is_file() and path.suffix not in (".md", ".txt", ".gz", ".json", ".nii")
    ]
    seen = 0
    for order in (sorted(paths), random.Random(1).sample(paths, len(paths))):
        reader = HeadReader()
        for path in order:
            head = head_of(Place(path))
            assert same(reader.head_of(Place(path)), head), path
            seen += head is not None
    assert seen > 600


@pytest.mark.parametrize("seed", range(4))
def test_a_reader_that_knows_a_series_is_not_misled_by_a_harmed_file(
    seed: int, tmp_path: Path
) -> None:
    harm = random.Random(seed)
    path = tmp_path / "one.dcm"
    for files in seeds():
        reader = HeadReader()
        understood = 0
        for turn in range(60):
            data = harm.choice(files)
            path.write_bytes(mutated(data, harm) if turn % 3 else data)
            head = head_of(Place(path))
            assert same(reader.head_of(Place(path)), head)
            understood += head is not None
        assert understood or all(head_of_bytes(data, path) is None for data in files)


def head_of_bytes(data: bytes, path: Path) -> Head | None:
    path.write_bytes(data)
    return head_of(Place(path))


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_what_differs_between_slices_is_read_of_each(syntax: UID | None, tmp_path: Path) -> None:
    reader = HeadReader()
    for k, ds in enumerate(ct_series()):
        ds.ReferencedImageSequence = nested(k % 3, undefined=bool(k % 2))
        ds["ReferencedImageSequence"].is_undefined_length = True
        ds.RescaleIntercept = -1000 - k // 4
        path = written(ds, tmp_path / f"{k}.dcm", syntax)

        head = reader.head_of(Place(path))

        assert head is not None
        found, wanted = head.dataset(), dcmread(path)
        for keyword in KEYWORDS:
            assert found.get(keyword) == wanted.get(keyword), keyword
        start, length = head.pixels
        assert path.read_bytes()[start : start + length] == wanted.PixelData
