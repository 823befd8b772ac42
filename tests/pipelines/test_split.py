"""Every volume of a series, and every image that is in none."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, MRImageStorage
from scipy.spatial.transform import Rotation

from models.base import Volume
from pipelines.base import NotScored
from pipelines.steps.geometry import voxel_indices
from pipelines.steps.instances import Instance, open_instance
from pipelines.steps.nifti import difference, load_nifti
from pipelines.steps.series import image_facts, open_series
from pipelines.steps.split import plan_series
from pipelines.steps.volume import Conversion, volumes_of_series
from pipelines.steps.voxels import Filling, filled, refuse_misplaced
from tests.phantoms import SAGITTAL, Shape, ct_series
from tests.shared_data import shared

SMALL = Shape(columns=9, rows=7, slices=6)


def series(
    seed: str, shape: Shape = SMALL, values: Mapping[str, object] | None = None
) -> list[Dataset]:
    """A series of noise, so that any two images differ, with other values of attributes."""
    size = (shape.columns, shape.rows, shape.slices)
    noise = np.random.default_rng(len(seed)).integers(-900, 900, size).astype(np.float32)
    made = ct_series(shape, noise, seed=seed)
    for ds in made:
        ds.SOPInstanceUID = f"1.2.3.{abs(hash(seed)) % 10**9}.{ds.InstanceNumber}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        ds.FrameOfReferenceUID = "1.2.3.5"
        for keyword, value in (values or {}).items():
            setattr(ds, keyword, value)
    return made


def counted(found: Conversion) -> None:
    """Images in are images used and images that are not, each once."""
    used = [
        (uid, frame)
        for volume in found.volumes
        for uid, frame in zip(volume.source_instance_uids, volume.source_frame_numbers, strict=True)
    ]
    assert len(used) + len(found.unused) == found.frames
    assert all(item.reason and item.sentence.endswith(".") for item in found.unused)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ({"EchoTime": 11}, {"EchoTime": 92}, "EchoTime"),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "Temporal"),
        ({"SeriesNumber": 3}, {"SeriesNumber": 7}, "SeriesNumber"),
        ({"ImageType": "ORIGINAL\\PRIMARY\\M"}, {"ImageType": "ORIGINAL\\PRIMARY\\P"}, "ImageType"),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, "AcquisitionNumber"),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, "DiffusionBValue"),
        ({}, {"PixelSpacing": [4, 4]}, ""),
        ({}, {"ImageOrientationPatient": list(SAGITTAL)}, ""),
        ({}, {"Columns": 8}, ""),
        ({}, {"SOPClassUID": MRImageStorage}, "SOPClassUID"),
    ],
)
def test_what_makes_volumes_splits_a_series(
    one: dict[str, object], other: dict[str, object], name: str
) -> None:
    first, second = series("first", values=one), series("second one", values=other)
    if "ImageOrientationPatient" in other:
        second = series("second one", Shape(9, 7, 6, orientation=SAGITTAL))
    if "Columns" in other:
        second = series("second one", Shape(8, 7, 6))
    mixed = [*first, *second]
    np.random.default_rng(1).shuffle(mixed)

    found = volumes_of_series(mixed)

    counted(found)
    assert found.unused == ()
    assert len(found.volumes) == 2
    alone = [volumes_of_series(part).volumes[0] for part in (first, second)]
    for volume in found.volumes:
        assert any(
            np.array_equal(volume.array, item.array) and np.allclose(volume.affine, item.affine)
            for item in alone
        )
    assert any(name in key for key in found.volumes[0].facts)


def test_images_at_one_position_that_differ_in_nothing_are_told_apart_by_their_order() -> None:
    first = series("first")
    second = series("second one")
    for ds in second:
        ds.InstanceNumber = int(ds.InstanceNumber) + 100

    found = volumes_of_series([*second, *first])

    assert [volume.facts["only_Repetition"] for volume in found.volumes] == ["1", "2"]
    assert np.array_equal(found.volumes[0].array, volumes_of_series(first).volumes[0].array)


@pytest.mark.parametrize("by_slice", [False, True], ids=["by repetition", "by slice"])
@pytest.mark.parametrize("lost", [0, 7, 8, 17])
def test_a_missing_image_does_not_mix_repetitions(by_slice: bool, lost: int) -> None:
    repetitions = [series(seed) for seed in ("r", "re", "rep")]
    for turn, part in enumerate(repetitions):
        for place, ds in enumerate(part):
            ds.InstanceNumber = 1 + (3 * place + turn if by_slice else 6 * turn + place)
    repetitions[lost // 6].pop(lost % 6)

    found = volumes_of_series([ds for part in repetitions for ds in part])

    counted(found)
    assert {frozenset(volume.source_instance_uids) for volume in found.volumes} == {
        frozenset(str(ds.SOPInstanceUID) for ds in part) for part in repetitions
    }


def test_an_attribute_that_some_images_lack_tells_volumes_apart_although_one_image_is_missing() -> (
    None
):
    plain = series("plain", values={"AcquisitionNumber": 1})
    weighted = series("weighted", values={"AcquisitionNumber": 1, "DiffusionBValue": 1000.0})
    for place, ds in enumerate([*plain, *weighted]):
        ds.InstanceNumber = place
    gone = plain.pop(2)

    found = volumes_of_series([*plain, *weighted])

    counted(found)
    uids = [{str(ds.SOPInstanceUID) for ds in part} for part in (plain, weighted)]
    assert [set(volume.source_instance_uids) for volume in found.volumes] == uids
    told = f"no image at z = {gone.ImagePositionPatient[2]:.1f} mm"
    assert found.volumes[0].facts["missing"] == told


def test_scouts_reports_and_single_images_are_listed_with_their_reason() -> None:
    made = series("first")
    scout, report, lone = series("second one")[:3]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
    lone.SeriesNumber = 99

    found = volumes_of_series([scout, *made, report, lone])

    counted(found)
    assert len(found.volumes) == 1
    assert {item.sop_instance_uid: item.reason for item in found.unused} == {
        scout.SOPInstanceUID: "localizer",
        report.SOPInstanceUID: "unsupported_class",
        lone.SOPInstanceUID: "too_few_slices",
    }


def test_a_series_without_a_volume_says_why() -> None:
    found = volumes_of_series(series("first")[:1])

    assert found.volumes == ()
    assert found.refusal is not None
    assert found.refusal.reason == "too_few_slices"


def test_nothing_is_no_series() -> None:
    refusal = volumes_of_series([]).refusal

    assert refusal is not None
    assert refusal.reason == "no_images"


def test_missing_slices_are_named_and_the_others_keep_their_place() -> None:
    made = series("first")
    gone = sorted(made, key=lambda ds: float(ds.ImagePositionPatient[2]))[2]
    made.remove(gone)

    [volume] = volumes_of_series(made).volumes

    assert volume.facts["gap_free"] is False
    assert volume.facts["missing"] == f"no image at z = {gone.ImagePositionPatient[2]:.1f} mm"
    assert volume.slice_origins is not None
    places = sorted(float(ds.ImagePositionPatient[2]) for ds in made)
    assert np.allclose(volume.slice_origins[:, 2], places)


def enhanced_ct(sources: list[Dataset]) -> Dataset:
    """One Enhanced CT instance of what single-frame ones hold, each frame with its own rescale."""
    whole = copy.deepcopy(sources[0])
    whole.SOPClassUID = EnhancedCTImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
                    "RescaleSlope", "RescaleIntercept", "RescaleType"):  # fmt: skip
        delattr(whole, keyword)
    whole.NumberOfFrames = len(sources)
    whole.PerFrameFunctionalGroupsSequence = []
    pixels = b""
    for k, ds in enumerate(sources):
        place, values, groups = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = ds.ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -k, "HU"
        groups.PlanePositionSequence, groups.PixelValueTransformationSequence = [place], [values]
        whole.PerFrameFunctionalGroupsSequence.append(groups)
        pixels += (np.frombuffer(ds.PixelData, "<i2") + k).astype("<i2").tobytes()
    measures, orientation, shared_groups = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = sources[0].PixelSpacing
    orientation.ImageOrientationPatient = sources[0].ImageOrientationPatient
    shared_groups.PixelMeasuresSequence = [measures]
    shared_groups.PlaneOrientationSequence = [orientation]
    whole.SharedFunctionalGroupsSequence = [shared_groups]
    whole.PixelData = pixels
    return whole


def test_an_enhanced_ct_is_the_volume_its_frames_make(tmp_path: Path) -> None:
    made = series("first")
    whole = enhanced_ct(made)
    whole.save_as(tmp_path / "one.dcm", enforce_file_format=True)

    for source in (whole, open_instance(tmp_path / "one.dcm")):
        [volume] = volumes_of_series([source]).volumes

        [classic] = volumes_of_series(made).volumes
        assert np.array_equal(volume.array, classic.array)
        assert np.allclose(volume.affine, classic.affine)
        assert sorted(volume.source_frame_numbers) == [1, 2, 3, 4, 5, 6]
        assert volume.facts["multi_frame"] is True


def test_tags_that_describe_geometry_change_nothing() -> None:
    made = series("first")
    [plain] = volumes_of_series(made).volumes
    for ds in made:
        ds.GantryDetectorTilt, ds.SliceThickness, ds.SpacingBetweenSlices = -18.5, 77, 0.01
        ds.SliceLocation = 5

    [volume] = volumes_of_series(made).volumes

    assert np.array_equal(volume.affine, plain.affine)
    assert np.array_equal(volume.array, plain.array)
    assert volume.facts == plain.facts


def harmed_order(filling: Filling) -> None:
    filling.array[...] = filling.array[:, :, ::-1].copy()


def harmed_mirror(filling: Filling) -> None:
    filling.array[...] = filling.array[::-1].copy()


def harmed_shift(filling: Filling) -> None:
    filling.array[...] = np.roll(filling.array, 1, axis=1)


def harmed_slice(filling: Filling) -> None:
    filling.array[:, :, 2] = filling.array[:, :, 3]


def harmed_value(filling: Filling) -> None:
    filling.array[:, :, 4] += 1


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize(
    "harm", [harmed_order, harmed_mirror, harmed_shift, harmed_slice, harmed_value]
)
def test_the_self_check_sees_voxels_that_are_elsewhere(
    harm: Callable[[Filling], None], kind: type[np.generic]
) -> None:
    instances = [Instance(ds) for ds in series("first")]
    [stack] = plan_series(instances).stacks
    filling = filled(stack.frames, instances, kind)
    refuse_misplaced(stack, filling)

    harm(filling)

    with pytest.raises(NotScored) as caught:
        refuse_misplaced(stack, filling)
    assert caught.value.reason == "misplaced_slice"


def test_the_self_check_sees_a_grid_that_is_elsewhere() -> None:
    instances = [Instance(ds) for ds in series("first")]
    [stack] = plan_series(instances).stacks
    filling = filled(stack.frames, instances, np.int16)
    moved = stack.grid.affine.copy()
    moved[0, 3] += 0.5 * np.linalg.norm(moved[:3, 0])

    with pytest.raises(NotScored) as caught:
        refuse_misplaced(replace(stack, grid=replace(stack.grid, affine=moved)), filling)

    assert "0.50 voxels off" in caught.value.sentence


@st.composite
def acquisitions(draw: st.DrawFn) -> tuple[list[Dataset], NDArray[np.float64]]:
    """A series in any orientation, tilted, with slices missing, in any order; and its stride."""
    angles = [draw(st.floats(-180, 180)) for _ in range(3)]
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    shape = Shape(
        columns=draw(st.integers(2, 9)),
        rows=draw(st.integers(2, 9)),
        slices=draw(st.integers(4, 12)),
        spacing=(draw(st.floats(0.3, 3)), draw(st.floats(0.3, 3)), draw(st.floats(0.5, 8))),
        orientation=tuple(axes[:, :2].T.ravel()),
    )
    made = series("property", shape)
    tilt = np.tan(np.radians(draw(st.sampled_from([0.0, 0.0, 5.0, -18.5, 30.0]))))
    steps = np.cumsum([draw(st.floats(0.6, 2)) for _ in made]) if draw(st.booleans()) else None
    row, column = axes[:, 0], axes[:, 1]
    stride = (np.cross(row, column) - tilt * column) * shape.spacing[2]
    for ds in made:
        k = shape.slices - int(ds.InstanceNumber)
        place = shape.position(0) + stride * (k if steps is None else steps[k])
        ds.ImagePositionPatient = [round(float(value), 6) for value in place]
        ds.ImageOrientationPatient = [round(float(value), 10) for value in axes[:, :2].T.ravel()]
    gone = draw(st.sets(st.integers(1, len(made) - 2), max_size=2))
    kept = [ds for k, ds in enumerate(made) if k not in gone]
    return draw(st.permutations(kept)), stride


@settings(max_examples=60, deadline=None)
@given(acquisitions())
def test_every_voxel_lies_where_its_header_says(
    acquired: tuple[list[Dataset], NDArray[np.float64]],
) -> None:
    datasets, _ = acquired

    found = volumes_of_series(datasets)

    counted(found)
    [volume] = found.volumes
    for ds in datasets:
        k = volume.source_instance_uids.index(str(ds.SOPInstanceUID))
        _assert_place(ds, volume, k)


def _assert_place(ds: Dataset, volume: Volume, k: int) -> None:
    """The header's equation and the volume agree to a thousandth of a millimetre, both ways."""
    rows, columns = (side.ravel() for side in np.indices((ds.Rows, ds.Columns)))
    cosines = np.array(ds.ImageOrientationPatient, float)
    spacing = np.array(ds.PixelSpacing, float)
    lps = (
        np.array(ds.ImagePositionPatient, float)
        + np.outer(columns * spacing[1], cosines[:3])
        + np.outer(rows * spacing[0], cosines[3:])
    )
    ras = volume.origins[k] + np.outer(columns, volume.affine[:3, 0])
    ras = ras + np.outer(rows, volume.affine[:3, 1])
    assert np.abs(ras * (-1, -1, 1) - lps).max() < 1e-3
    indices = voxel_indices(volume.affine, lps, volume.slice_origins)
    wanted = np.column_stack([columns, rows, np.full(len(rows), k)])
    steps = (*spacing[::-1], float(volume.facts["smallest_step_mm"]))
    assert np.abs((indices - wanted) * steps).max() < 1e-3
    stored = np.frombuffer(ds.PixelData, "<i2").reshape(ds.Rows, ds.Columns)
    assert np.array_equal(volume.array[:, :, k].T, stored)


def real(*parts: str) -> Conversion:
    paths = [
        path for path in sorted(shared(*parts).iterdir()) if path.suffix not in (".md", ".txt")
    ]
    instances, unused = open_series(paths)
    assert unused == []
    found = volumes_of_series(instances)
    counted(found)
    return found


def test_each_echo_equals_its_reference() -> None:
    found = real("mr_multiecho_phantom_siemens", "dicom")

    references = sorted(shared("mr_multiecho_phantom_siemens", "ref").glob("*.nii*"))
    assert [volume.facts["echo_time_ms"] for volume in found.volumes] == [11, 92]
    assert len(references) == 2
    for volume in found.volumes:
        assert "" in [difference(volume, *load_nifti(path)) for path in references]


def test_a_mosaic_in_nine_encodings_equals_its_reference_nine_times() -> None:
    found = real("transfer_syntaxes_siemens_mosaic", "dicom")

    [reference] = shared("transfer_syntaxes_siemens_mosaic", "ref").glob("*.nii*")
    assert len(found.volumes) == 9
    for volume in found.volumes:
        assert difference(volume, *load_nifti(reference)) == ""


@pytest.mark.parametrize(("name", "count"), [("ge_dti_001", 2), ("philips_fmri_001", 4)])
def test_points_of_a_fourth_axis_equal_their_reference(name: str, count: int) -> None:
    found = real("reference_conversions", name)

    reference = load_nifti(shared("reference_conversions", f"{name}_ground_truth.nii.gz"))
    assert len(found.volumes) == count
    assert difference(found.volumes, *reference) == ""


@pytest.mark.parametrize(
    ("parts", "shapes"),
    [
        (("ct_head_ge_tilted", "dicom"), [(512, 512, 28)]),
        (("odd_and_broken", "dicom2nifti_gantrytilting"), [(512, 512, 4)]),
        (("odd_and_broken", "dicom2nifti_slicecount"), [(256, 256, 2)]),
        (("odd_and_broken", "dicom2nifti_sliceorientation"), [(288, 288, 2)] * 2),
        (("odd_and_broken", "duplicate_sop_uid"), [(64, 64, 35)] * 3),
        (("odd_and_broken", "xa_4d_interrupted"), [(64, 64, 34), (64, 64, 26)]),
        (("seg_and_sr_by_others", "dcmqi_24x38x3", "image"), [(24, 38, 3)]),
        (("reference_conversions", "generic_rgb_001"), []),
        (("ct_head_phantom_philips_study", "dicom", "S1000"), []),
    ],
    ids=lambda value: value[-1] if value and isinstance(value[0], str) else "",
)
def test_real_series_become_all_their_volumes(
    parts: tuple[str, ...], shapes: list[tuple[int, ...]]
) -> None:
    found = real(*parts)

    assert [volume.array.shape for volume in found.volumes] == shapes
    assert (found.refusal is None) == bool(shapes)


def test_a_tilt_is_told_from_positions_whatever_the_tag_says() -> None:
    [ge] = real("ct_head_ge_tilted", "dicom").volumes
    [untagged] = real("odd_and_broken", "dicom2nifti_gantrytilting").volumes

    assert ge.facts["tilt_degrees"] == pytest.approx(18.5, abs=0.01)
    assert ge.facts["smallest_step_mm"] == pytest.approx(1.08, abs=0.01)
    assert untagged.facts["tilt_degrees"] == pytest.approx(14.0, abs=0.01)
    assert untagged.slice_origins is None


def test_rules_get_the_facts_of_a_volume_without_its_pixels() -> None:
    paths = sorted(shared("ct_head_ge_tilted", "dicom").iterdir())

    [facts] = image_facts(paths)

    [volume] = real("ct_head_ge_tilted", "dicom").volumes
    assert facts == {key: volume.facts[key] for key in facts}
    assert volume.facts.keys() - facts.keys() == {"padding_fraction"}
    assert (facts["plane"], facts["orientation"], facts["slices"]) == ("axial", "LPS", 28)


def test_a_file_that_is_no_series_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("hello")

    assert image_facts([tmp_path / "letter.txt"]) == []
    assert image_facts([]) == []
