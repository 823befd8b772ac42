"""The header walk: what it reads, and what it refuses."""

from __future__ import annotations

import contextlib
import struct
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from node.receive import effort
from node.receive.header import DEEPEST, MOST_ELEMENTS, HeaderError, scan
from node.receive.header_values import decode, encodings_of, tag_text
from tests.shared_data import shared

KEYS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "AcquisitionTime",
    "AccessionNumber",
    "Modality",
    "Manufacturer",
    "StudyDescription",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "PatientSex",
    "PatientAge",
    "BodyPartExamined",
    "SliceThickness",
    "KVP",
    "ProtocolName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "NumberOfFrames",
    "Rows",
    "PixelSpacing",
    "BitsStored",
    "SmallestImagePixelValue",
    "WindowCenter",
    "RescaleSlope",
    "FrameIncrementPointer",
    "DiffusionBValue",
)
PATHS = (
    "ReferencedStudySequence.ReferencedSOPInstanceUID",
    "RequestAttributesSequence.ScheduledProcedureStepDescription",
    "SegmentSequence.SegmentLabel",
    "SegmentSequence.SegmentedPropertyTypeCodeSequence.CodeMeaning",
    "SharedFunctionalGroupsSequence.PixelMeasuresSequence.PixelSpacing",
    "PerFrameFunctionalGroupsSequence.PlanePositionSequence.ImagePositionPatient",
)
FOLDERS = (
    "t1_siemens_xa30_enhanced",
    "ct_head_ge_tilted",
    "ct_head_phantom_philips_study",
    "ct_body_jpeg2000_with_seg",
    "mr_study_with_hippocampus_crop",
    "reference_conversions",
    "transfer_syntaxes_siemens_mosaic",
    "odd_and_broken",
    "seg_and_sr_by_others",
    "mr_multiecho_phantom_siemens",
    "t1_philips_whole_head_gm_ref",
)


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def data_set_of(path: Path) -> tuple[str, bytes]:
    """Transfer syntax and the bytes after the file meta information."""
    with path.open("rb") as file:
        file.seek(132)
        meta = read_file_meta_info(path)
        group = file.read(12)
        if group[:4] == b"\x02\x00\x00\x00":
            file.seek(struct.unpack("<I", group[8:])[0], 1)
        else:
            file.seek(132 + len(encoded(meta)))
        return str(meta.TransferSyntaxUID), file.read()


def expected(ds: Dataset, path: list[str]) -> list[Any] | None:
    """What pydicom has under a keyword or path; None where there is nothing."""
    first, *rest = path
    if first not in ds:
        return None
    if rest:
        found = [expected(item, rest) for item in ds[first].value or ()]
        present = [values for values in found if values is not None]
        return [value for values in present for value in values] if present else None
    value = ds[first].value
    if value is None or value == "":
        return []
    return list(value) if ds[first].VM > 1 else [value]


def same(found: Any, value: Any) -> bool:
    if isinstance(found, float):
        return found == pytest.approx(float(value), rel=1e-6)
    if isinstance(value, BaseTag):
        return bool(found == tag_text(value))
    return str(found).strip() == str(value).strip(" \0")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.filterwarnings("ignore")
def test_values_are_those_that_pydicom_reads(folder: str) -> None:
    compared = 0
    for path in sorted(shared(folder).rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM" or "Deeply" in path.name:
            continue
        syntax, data = data_set_of(path)
        ds = dcmread(path, stop_before_pixels=True)
        found = scan(data, syntax, (*KEYS, *PATHS))
        assert None not in found.values.values()
        for key in (*KEYS, *PATHS):
            values = expected(ds, key.split("."))
            if values is None:
                assert key not in found.values, f"{path.name} {key}"
                continue
            read = found.values[key] or []
            assert len(read) == len(values), f"{path.name} {key}"
            assert all(map(same, read, values)), f"{path.name} {key}"
            compared += 1
    assert compared > 20


def test_a_deeply_nested_data_set_is_refused_by_name() -> None:
    path = shared("odd_and_broken", "hostile", "2026-05-06-Deeply-Nested-Sequence.dcm")
    syntax, data = data_set_of(path)
    with pytest.raises(HeaderError, match="nested deeper than 16 levels"):
        scan(data, syntax, KEYS)


@pytest.mark.parametrize(
    "name",
    ["ct_head_ge_tilted", "ct_body_jpeg2000_with_seg", "reference_conversions"],
)
def test_a_data_set_cut_anywhere_in_its_pixels_is_refused(name: str) -> None:
    path = next(
        p for p in sorted(shared(name).rglob("*")) if p.is_file() and p.stat().st_size > 20_000
    )
    syntax, data = data_set_of(path)
    for cut in (1, 2, 10, 1000, len(data) // 3):
        with pytest.raises(HeaderError, match="ends inside"):
            scan(data[:-cut], syntax, KEYS)


def small(**values: Any) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID = "1.2.3"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("undefined", [False, True])
def test_paths_collect_from_all_items(syntax: str, *, undefined: bool) -> None:
    items = [small(CodeValue="A"), small(CodeMeaning=""), small(CodeValue="B")]
    ds = small(Rows=7, ConceptNameCodeSequence=items)
    ds["ConceptNameCodeSequence"].is_undefined_length = undefined
    for item in items:
        item.is_undefined_length_sequence_item = undefined
    wanted = (
        "ConceptNameCodeSequence.CodeValue",
        "ConceptNameCodeSequence.CodeMeaning",
        "ConceptNameCodeSequence.CodingSchemeDesignator",
        "ConceptNameCodeSequence",
        "Rows",
        "(0028,0010)",
        0x00280010,
    )
    assert scan(encoded(ds, syntax), syntax, wanted).values == {
        "ConceptNameCodeSequence.CodeValue": ["A", "B"],
        "ConceptNameCodeSequence.CodeMeaning": [],
        "ConceptNameCodeSequence": [3.0],
        "Rows": [7.0],
        "(0028,0010)": [7.0],
    }


def test_absent_has_no_entry_and_empty_an_empty_list() -> None:
    ds = small(SeriesDescription="", SeriesNumber=None)
    found = scan(encoded(ds), ExplicitVRLittleEndian, ("SeriesDescription", "SeriesNumber", "Rows"))
    assert found.values == {"SeriesDescription": [], "SeriesNumber": []}


def test_text_follows_the_character_set_also_of_an_item() -> None:
    inner = small(SpecificCharacterSet="ISO_IR 100", CodeMeaning="Schädel")
    ds = small(
        SpecificCharacterSet="ISO_IR 192",
        SeriesDescription="頭部",
        ConceptNameCodeSequence=[inner],
        RequestAttributesSequence=[small(RequestedProcedureDescription="脳")],
    )
    wanted = (
        "SeriesDescription",
        "ConceptNameCodeSequence.CodeMeaning",
        "RequestAttributesSequence.RequestedProcedureDescription",
    )
    found = scan(encoded(ds), ExplicitVRLittleEndian, wanted).values
    assert [found[key] for key in wanted] == [["頭部"], ["Schädel"], ["脳"]]


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        # PS3.5 annexes H, I, J and K.
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        (b"\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong=洪^吉洞"),
        (b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
        (b"ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1yp\xd3", None),
        (b"NO SUCH SET", b"caf\xe9", "café"),
    ],
    ids=["japanese", "korean", "chinese", "cyrillic", "unknown"],
)
def test_names_decode_as_the_standard_shows(charset: bytes, raw: bytes, text: str | None) -> None:
    values = decode(raw, "PN", "<", encodings_of(charset))
    assert values == [text if text is not None else raw.decode("iso8859-5")]


def test_a_backslash_inside_a_chinese_character_is_no_delimiter() -> None:
    raw = "誠\\b".encode("GB18030")
    assert raw.count(b"\\") == 2 or b"\\" in raw
    assert decode(raw, "LO", "<", encodings_of(b"GB18030")) == ["誠", "b"]


def test_a_backslash_inside_a_kanji_is_no_delimiter() -> None:
    raw = "俑".encode("iso2022_jp") + b"\\b"
    assert raw.count(b"\\") == 2
    assert decode(raw, "LO", "<", encodings_of(b"\\ISO 2022 IR 87")) == ["俑", "b"]


def test_numbers_that_are_none_stay_text() -> None:
    assert decode(b"1.5\\abc\\\\nan ", "DS", "<", ("iso8859",)) == [1.5, "abc", "", "nan"]
    assert decode(struct.pack("<f", float("inf")), "FL", "<", ("iso8859",)) == ["inf"]


def test_private_text_is_read_and_private_bytes_are_known_to_be_there() -> None:
    ds = small()
    block = ds.private_block(0x0029, "VENDOR", create=True)
    block.add_new(0x10, "UN", b"PLAIN")
    block.add_new(0x11, "UN", b"\x00\x01\x02\x03")
    keys = ("(0029,0010)", "(0029,1010)", "(0029,1011)")
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        assert scan(encoded(ds, syntax), syntax, keys).values == {
            "(0029,0010)": ["VENDOR"],
            "(0029,1010)": ["PLAIN"],
            "(0029,1011)": ["4 bytes"],
        }


def test_an_ambiguous_number_follows_pixel_representation() -> None:
    ds = small(PixelRepresentation=1)
    ds.add(DataElement(0x00280120, "SS", -2000))
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        found = scan(encoded(ds, syntax), syntax, ("PixelPaddingValue",))
        assert found.values == {"PixelPaddingValue": [-2000.0]}


def test_items_of_an_unknown_sequence_are_implicit() -> None:
    inner = encoded(small(CodeValue="A"), ImplicitVRLittleEndian)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    body = struct.pack("<HH2sxxI", 0x0040, 0xA043, b"UN", 0xFFFFFFFF) + item + end
    sized = struct.pack("<HH2sxxI", 0x0040, 0xA043, b"UN", len(item)) + item
    tail = struct.pack("<HH2sH", 0x0040, 0xA123, b"PN", 2) + b"X "
    keys = ("ConceptNameCodeSequence.CodeValue", "PersonName")
    for data in (body + tail, sized + tail):
        values = scan(data, ExplicitVRLittleEndian, keys).values
        assert values == {"ConceptNameCodeSequence.CodeValue": ["A"], "PersonName": ["X"]}


def test_an_element_in_implicit_form_among_explicit_ones_is_read() -> None:
    strange = struct.pack("<HHI", 0x0018, 0x1030, 4) + b"HEAD"
    data = encoded(small()) + strange + encoded(small(Rows=3))
    found = scan(data, ExplicitVRLittleEndian, ("ProtocolName", "Rows"))
    assert found.values == {"ProtocolName": ["HEAD"], "Rows": [3.0]}


def nested(levels: int) -> Dataset:
    ds = small()
    for _ in range(levels):
        ds.is_undefined_length_sequence_item = True
        ds = small(ContentSequence=Sequence([ds]))
        ds["ContentSequence"].is_undefined_length = True
    return ds


def test_sixteen_levels_are_read_and_seventeen_refused() -> None:
    scan(encoded(nested(DEEPEST)), ExplicitVRLittleEndian, KEYS)
    with pytest.raises(HeaderError, match="nested deeper"):
        scan(encoded(nested(DEEPEST + 1)), ExplicitVRLittleEndian, KEYS)


def test_a_walk_stops_after_its_most_elements_and_says_what_nobody_knows() -> None:
    tiny = struct.pack("<HH2sH", 0x0028, 0x0010, b"US", 2) + b"\x07\0"
    wanted = ("Rows", "Columns", "SharedFunctionalGroupsSequence.PixelMeasuresSequence")
    found = scan(tiny * (MOST_ELEMENTS + 200), ExplicitVRLittleEndian, wanted)
    assert found.values == {"Rows": [7.0]} | dict.fromkeys(wanted[1:])


def test_a_sequence_that_is_left_half_way_is_not_known() -> None:
    item = encoded(small(ScheduledProcedureStepID="A"))
    items = (struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item) * MOST_ELEMENTS
    head = struct.pack("<HH2sxxI", 0x0040, 0x0275, b"SQ", len(items))
    wanted = ("RequestAttributesSequence.ScheduledProcedureStepID", "Rows", "Columns")
    found = scan(encoded(small(Rows=3)) + head + items, ExplicitVRLittleEndian, wanted)
    assert found.values == {"Rows": [3.0], wanted[0]: None, "Columns": None}


def test_long_walks_wait_for_each_other_and_short_ones_do_not() -> None:
    items = MOST_ELEMENTS // 8
    name = "RequestAttributesSequence.ScheduledProcedureStepID"
    ds = small(Rows=3)
    ds.RequestAttributesSequence = [small(ScheduledProcedureStepID="A")] * items
    data = encoded(ds)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(scan, data, ExplicitVRLittleEndian, (name,)) for _ in range(4)]
        short = scan(encoded(small(Rows=3)), ExplicitVRLittleEndian, ("Rows",))
        assert not all(one.done() for one in found)
    assert short.values == {"Rows": [3.0]}
    assert [one.result().values for one in found] == [{name: ["A"] * items}] * 4


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        (struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", 4_000_000_000), 0x7FE00010),
        (struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 60_000) + b"X", 0x00100010),
        (struct.pack("<HH2sxxI", 0x0010, 0x0010, b"UT", 0xFFFFFFFF), 0x00100010),
        (struct.pack("<HHI", 0xFFFE, 0xE000, 0), 0xFFFEE000),
        (b"\x10\x00\x10\x00\x01\x02\x03\x04" + b"x" * 20, 0x00100010),
        (b"\x10\x00\x10\x00UT", None),
    ],
    ids=["four_gigabytes", "beyond_the_end", "no_length", "lone_item", "no_vr", "half_a_header"],
)
def test_nonsense_is_refused_with_its_element(data: bytes, tag: int | None) -> None:
    with pytest.raises(HeaderError) as caught:
        scan(data, ExplicitVRLittleEndian, KEYS)
    assert caught.value.tag == tag
    assert caught.value.sentence


def test_a_long_walk_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "MOST_WAIT_SECONDS", 0.05)
    name = "RequestAttributesSequence.ScheduledProcedureStepID"
    ds = small(Rows=3)
    ds.RequestAttributesSequence = [small(ScheduledProcedureStepID="A")] * (MOST_ELEMENTS // 8)
    with effort._long_walks:
        found = scan(encoded(ds), ExplicitVRLittleEndian, (name,))
    assert found.values[name] == ["A"] * (MOST_ELEMENTS // 8)
    assert effort._long_walks.acquire(blocking=False), "a turn that was not had is not given back"
    effort._long_walks.release()


def test_zeros_that_pad_a_data_set_are_no_elements() -> None:
    data = encoded(small(Rows=3))
    for padding in (1, 2, 7, 8, 100):
        found = scan(data + bytes(padding), ExplicitVRLittleEndian, ("Rows",))
        assert found.values == {"Rows": [3.0]}


def test_a_deflated_data_set_is_refused() -> None:
    with pytest.raises(HeaderError, match="deflated"):
        scan(b"", DeflatedExplicitVRLittleEndian, KEYS)


def test_a_value_repeated_later_counts_as_for_later_readers() -> None:
    data = encoded(small(SeriesDescription="one")) + encoded(small(SeriesDescription="two"))
    found = scan(data, ExplicitVRLittleEndian, ("SeriesDescription",))
    assert found.values == {"SeriesDescription": ["two"]}


SEED = encoded(
    small(
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Yamada",
        ConceptNameCodeSequence=[small(CodeValue="A", ContentSequence=[small(Rows=1)])],
        PixelSpacing=[1, 2],
        BitsAllocated=16,
        PixelData=bytes(64),
    )
)
WALKED = (*KEYS, "ConceptNameCodeSequence.ContentSequence.Rows", "ConceptNameCodeSequence")


@given(
    st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), max_size=30),
    st.integers(0, len(SEED)),
    st.binary(max_size=40),
    st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]),
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_bytes_give_a_scan_or_a_header_error(
    changes: list[tuple[int, int]], cut: int, tail: bytes, syntax: str
) -> None:
    data = bytearray(SEED)
    for at, value in changes:
        data[at] = value
    hostile = bytes(data[:cut]) + tail
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(HeaderError):
            scan(hostile, syntax, WALKED)
    assert time.monotonic() - began < 5


@given(st.binary(max_size=2000), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
@settings(max_examples=300, deadline=None)
def test_noise_gives_a_scan_or_a_header_error(data: bytes, syntax: str) -> None:
    with contextlib.suppress(HeaderError):
        scan(memoryview(data), syntax, WALKED)
