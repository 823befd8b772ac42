from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipelines.base import NotScored
from pipelines.steps.instances import open_instance
from pipelines.steps.nifti import difference, load_nifti
from pipelines.steps.read import read_series
from pipelines.steps.volume import volume_from_series
from tests.phantoms import Shape, ct_series, head_ct, oblique
from tests.shared_data import shared


def files(*parts: str) -> list[Path]:
    return sorted(path for path in shared(*parts).iterdir() if path.suffix not in (".md", ".txt"))


def refusal_of(datasets: list[Dataset]) -> NotScored:
    with pytest.raises(NotScored) as caught:
        volume_from_series(datasets)
    return caught.value


@pytest.mark.parametrize("orientation", [None, oblique()], ids=["axial", "oblique"])
def test_a_series_in_any_order_becomes_the_volume_it_was_cut_from(
    orientation: tuple[float, ...] | None,
) -> None:
    shape = Shape(orientation=orientation) if orientation else Shape()
    series = ct_series(shape)
    np.random.default_rng(3).shuffle(series)

    volume = volume_from_series(series)

    assert np.array_equal(volume.array, head_ct(shape))
    assert np.abs(volume.affine - shape.affine()).max() < 1e-3
    by_place = sorted(series, key=lambda ds: -int(ds.InstanceNumber))
    assert volume.source_instance_uids == tuple(ds.SOPInstanceUID for ds in by_place)
    assert volume.facts["slice_step_mm"] == pytest.approx(9.0, abs=1e-3)
    assert volume.facts["coverage_mm"] == pytest.approx(153.0, abs=1e-2)


def test_each_slice_is_rescaled_by_its_own_header() -> None:
    series = ct_series()
    for k, ds in enumerate(series):
        stored = np.frombuffer(ds.PixelData, np.int16).astype(int)
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1100 - k
        ds.PixelData = ((stored + 1100 + k) // 2).astype(np.uint16).tobytes()
        ds.PixelRepresentation = 0

    volume = volume_from_series(series)

    assert np.abs(volume.array - head_ct()).max() <= 1


def test_padding_in_ct_is_air_whatever_the_sign_its_value_is_written_with() -> None:
    series = ct_series()
    for ds in series:
        stored = np.frombuffer(ds.PixelData, np.int16).reshape(ds.Rows, ds.Columns).copy()
        stored[:5] = -2000
        ds.PixelData = stored.tobytes()
        ds.add_new("PixelPaddingValue", "US", 65536 - 2000)

    volume = volume_from_series(series)

    assert (volume.array[:, :5] == -1000).all()
    assert volume.facts["padding_fraction"] == pytest.approx(5 / 61, abs=1e-4)


def test_monochrome1_leaves_hounsfield_units_and_turns_mr_over() -> None:
    series = ct_series()
    for ds in series:
        ds.PhotometricInterpretation = "MONOCHROME1"

    assert np.array_equal(volume_from_series(series).array, head_ct())

    for ds in series:
        ds.Modality = "MR"
    assert np.array_equal(volume_from_series(series).array, -1 - head_ct())


def test_an_image_that_is_there_twice_with_other_echoes_names_them() -> None:
    echoes = []
    for time in (11, 92):
        for ds in ct_series(seed="one series"):
            ds.SOPInstanceUID = f"{ds.SOPInstanceUID[:50]}.{ds.InstanceNumber}.{time}"
            ds.EchoTime = time
            echoes.append(ds)

    error = refusal_of(echoes)

    assert error.reason == "several_volumes"
    assert "34 images at 17 positions, EchoTime 11, 92" in error.sentence


def delete(keyword: str) -> Callable[[Dataset], None]:
    return lambda ds: ds.__delattr__(keyword)


def write(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, keyword, value)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (delete("Rows"), "missing_attribute"),
        (delete("PixelSpacing"), "missing_attribute"),
        (delete("ImagePositionPatient"), "missing_attribute"),
        (delete("ImageOrientationPatient"), "missing_attribute"),
        (delete("RescaleIntercept"), "missing_attribute"),
        (delete("PixelData"), "no_images"),
        (write("RescaleSlope", 0), "bad_rescale"),
        (write("RescaleType", "MGML"), "not_hounsfield"),
        (write("PixelSpacing", [0, 1]), "bad_spacing"),
        (write("PixelSpacing", [1, 2, 3]), "missing_attribute"),
        (write("Rows", 62), "mixed_matrix"),
        (write("Rows", 65535), "bad_matrix"),
        (write("PixelData", b"\0" * 100), "wrong_pixel_length"),
        (write("SamplesPerPixel", 3), "multi_component"),
        (write("PhotometricInterpretation", "PALETTE COLOR"), "multi_component"),
        (write("HighBit", 11), "unsupported_pixels"),
        (write("NumberOfFrames", 2), "bad_frame_count"),
        (write("ImageType", ["DERIVED", "PRIMARY", "LOCALIZER"]), "localizer"),
        (write("SOPClassUID", SecondaryCaptureImageStorage), "unsupported_class"),
        (write("FrameOfReferenceUID", "1.2.3"), "mixed_frame_of_reference"),
        (write("SeriesInstanceUID", "1.2.3"), "mixed_series"),
        (write("ImagePositionPatient", [0, 0, 0]), "displaced_slices"),
    ],
)
def test_one_odd_instance_refuses_the_series(
    damage: Callable[[Dataset], None], reason: str
) -> None:
    series = ct_series()
    damage(series[5])

    assert refusal_of(series).reason == reason


def test_a_refusal_quotes_no_patient_data() -> None:
    series = ct_series(patient_name="Secret^Patient")
    series[3].ImagePositionPatient = None

    error = refusal_of(series)

    assert series[3].SOPInstanceUID in error.sentence
    assert "Secret" not in error.sentence
    assert "PHANTOM" not in error.sentence


@pytest.mark.parametrize(
    ("parts", "reason", "words"),
    [
        (("ct_head_phantom_philips_study", "dicom", "S1000"), "localizer", "scout"),
        (("mr_multiecho_phantom_siemens", "dicom"), "several_volumes", "EchoTime 11, 92"),
        (("odd_and_broken", "dicom2nifti_slicecount"), "too_few_slices", "2 images"),
        (("odd_and_broken", "dicom2nifti_sliceorientation"), "several_volumes", "2 Series"),
        (("odd_and_broken", "duplicate_sop_uid"), "conflicting_instances", "share SOP Instance"),
        (("odd_and_broken", "xa_4d_interrupted"), "several_volumes", "34, 26 frames"),
        (("reference_conversions", "ge_dti_001"), "duplicate_positions", "4 of 8 images"),
        (("reference_conversions", "philips_fmri_001"), "duplicate_positions", "6 of 8 images"),
        (("reference_conversions", "generic_rgb_001"), "unsupported_class", "Secondary Capture"),
        (("transfer_syntaxes_siemens_mosaic", "dicom"), "several_volumes", "9 Series Numbers"),
        (("seg_and_sr_by_others", "dcmqi_sr_tid1500"), "no_images", "not a slice"),
    ],
)
def test_real_series_that_are_no_volume_are_refused_with_what_is_wrong(
    parts: tuple[str, ...], reason: str, words: str
) -> None:
    with pytest.raises(NotScored) as caught:
        volume_from_series(read_series(files(*parts)))

    assert caught.value.reason == reason
    assert words in caught.value.sentence


@pytest.mark.parametrize(
    "name",
    [
        "ge_anatomical_001_implicit",
        "generic_anatomical_001",
        "generic_compressed_j2k_001",
        "generic_compressed_jpeg_001",
        "generic_compressed_jpegls_001",
        "generic_compressed_rle_001",
        "hitachi_anatomical_001",
        "hyperfine_anatomical_001",
        "philips_enhanced_anatomical_001",
    ],
)
def test_small_series_equal_their_reference_conversion(name: str) -> None:
    reference = load_nifti(shared("reference_conversions", f"{name}_ground_truth.nii.gz"))

    volume = volume_from_series(read_series(files("reference_conversions", name)))

    assert difference(volume, *reference) == ""


def test_an_enhanced_t1_equals_the_conversion_of_dcm2niix() -> None:
    folder = shared("t1_siemens_xa30_enhanced")
    reference = load_nifti(folder / "ref" / "5_anat-T1w_acq-tfl.nii")

    volume = volume_from_series(read_series(files("t1_siemens_xa30_enhanced", "dicom")))

    assert difference(volume, *reference) == ""
    assert volume.facts["multi_frame"] is True
    assert volume.facts["slices"] == 96


def test_a_whole_head_t1_lies_where_its_brain_mask_lies() -> None:
    brain, affine = load_nifti(shared("t1_philips_whole_head_gm_ref", "ref", "bet.nii.gz"))

    volume = volume_from_series(read_series(files("t1_philips_whole_head_gm_ref", "dicom")))

    voxels = np.argwhere(brain > 0)
    to_volume = np.linalg.inv(volume.affine) @ affine
    there = voxels @ to_volume[:3, :3].T + to_volume[:3, 3]
    nearest = np.rint(there).astype(int)
    assert np.abs(there - nearest).max() < 0.05
    agreement = np.corrcoef(volume.array[tuple(nearest.T)], brain[tuple(voxels.T)])[0, 1]
    assert agreement == pytest.approx(0.972, abs=0.005)


def test_a_body_ct_in_jpeg_2000_with_empty_uids_takes_them_from_the_file_meta() -> None:
    paths = files("ct_body_jpeg2000_with_seg", "dicom")

    volume = volume_from_series(read_series(paths))

    assert volume.array.shape == (512, 512, 20)
    assert {f"CT.{uid}" for uid in volume.source_instance_uids} == {path.name for path in paths}


def test_the_axial_series_of_the_phantom_study_is_a_volume_and_its_files_are_read_once() -> None:
    paths = files("ct_head_phantom_philips_study", "dicom", "S2010")

    volume = volume_from_series(read_series([*paths, *paths]))

    assert volume.facts["plane"] == "axial"
    assert volume.facts["slices"] == 28
    assert volume.facts["coverage_mm"] == pytest.approx(140.0)


def test_every_odd_and_broken_file_ends_in_a_refusal_or_a_volume() -> None:
    volumes, sentences = [], []
    for path in sorted(shared("odd_and_broken").rglob("*")):
        if path.is_dir() or path.suffix in (".md", ".txt"):
            continue
        try:
            volumes.append(volume_from_series(read_series([path])).array.shape)
        except NotScored as error:
            sentences.append(error.sentence)

    assert sorted(volumes) == [(64, 64, 34), *[(64, 64, 35)] * 3]
    assert len(sentences) > 20
    assert all(sentence.endswith(".") for sentence in sentences)


@settings(max_examples=80, deadline=None)
@given(
    signed=st.booleans(),
    bits=st.sampled_from([7, 8, 12, 15, 16]),
    rescale=st.sampled_from(
        [
            (1, 0),
            (1, -1024),
            (1, -32768),
            (1, 20000),
            (1, 40000),
            (1, -1023.5),
            (2, -1024),
            (0.5, 0),
        ]
    ),
    padded=st.booleans(),
    modality=st.sampled_from(["CT", "MR"]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    seed=st.integers(0, 9),
)
def test_whole_values_are_held_as_such_and_all_are_what_the_header_says(
    *,
    signed: bool,
    bits: int,
    rescale: tuple[float, float],
    padded: bool,
    modality: str,
    photometric: str,
    seed: int,
) -> None:
    shape = Shape(columns=6, rows=4, slices=5)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    kind = np.dtype(f"<{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    chance = np.random.default_rng(seed)
    stored = chance.integers(low, high, (6, 4, 5), endpoint=True)
    junk = chance.integers(0, 1 << (kind.itemsize * 8 - bits), stored.shape) << bits
    series = ct_series(shape)
    with tempfile.TemporaryDirectory() as folder:
        instances = []
        for k, ds in enumerate(reversed(series)):
            mask = (1 << bits) - 1
            raw = (stored[:, :, k].T & mask) | junk[:, :, k].T
            ds.PixelData = raw.astype(f"<u{kind.itemsize}").tobytes()
            ds.BitsAllocated, ds.BitsStored, ds.HighBit = kind.itemsize * 8, bits, bits - 1
            ds.PixelRepresentation = int(signed)
            ds.RescaleSlope, ds.RescaleIntercept = rescale
            ds.Modality, ds.PhotometricInterpretation = modality, photometric
            if padded:
                ds.add_new("PixelPaddingValue", "SS" if signed else "US", int(stored[0, 0, 0]))
            ds.save_as(Path(folder) / f"{k}.dcm", enforce_file_format=True)
            instances.append(open_instance(Path(folder) / f"{k}.dcm"))

        volume = volume_from_series(instances)

    turned = photometric == "MONOCHROME1" and modality == "MR"
    wanted = (low + high - stored if turned else stored) * float(rescale[0]) + rescale[1]
    if padded:
        for k in range(5):
            plane, mask = wanted[:, :, k], stored[:, :, k] == stored[0, 0, 0]
            plane[mask] = -1000 if modality == "CT" else plane[~mask].min()
    values = stored + rescale[1]
    if padded:
        values = values[stored != stored[0, 0, 0]]
    whole = rescale[0] == 1 and rescale[1] % 1 == 0 and not turned
    fits = whole and values.min() >= -32768 and values.max() <= 32767
    assert volume.array.dtype == (np.int16 if fits else np.float32)
    assert np.array_equal(volume.array, wanted.astype(np.float32))
