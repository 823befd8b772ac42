"""The gate: heads with a brain pass, everything else is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.base import UnfitInput, Volume
from models.head_ct import head_facts, refuse_unless_head
from models.phantom_ct import KINDS, HeadPhantom, make_head_ct
from pipelines.steps.read import read_series
from pipelines.steps.volume import volume_from_series
from tests.models.tiny import orientations, turned
from tests.shared_data import shared

pytestmark = pytest.mark.slow

COARSE = (2.5, 2.5, 8.0)


@pytest.fixture(scope="module")
def head() -> HeadPhantom:
    return make_head_ct(11, "none", spacing=COARSE)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def evenly_sampled(datasets: list[Dataset], step_mm: float) -> Volume:
    """Stack tilted, unevenly spaced slices: the nearest one for each place of an even grid."""
    row, column = np.reshape(np.array(datasets[0].ImageOrientationPatient, float), (2, 3))
    normal = np.cross(row, column)
    positions = np.array([np.array(ds.ImagePositionPatient, float) for ds in datasets])
    heights = positions @ normal
    order = np.argsort(heights)
    low, high = order[0], order[-1]
    places = np.arange(heights[low], heights[high], step_mm)
    nearest = [int(np.abs(heights - place).argmin()) for place in places]
    array = np.stack([hounsfield(datasets[i]) for i in nearest], axis=2)
    down, across = (float(value) for value in datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = row * across, column * down, positions[low]
    way = positions[high] - positions[low]
    affine[:3, 2] = way / (heights[high] - heights[low]) * step_mm
    return Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def hounsfield(ds: Dataset) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ds.pixel_array.T * np.float32(ds.RescaleSlope)
    return found + np.float32(ds.RescaleIntercept)


def reason_of(volume: Volume) -> str:
    with pytest.raises(UnfitInput) as refused:
        refuse_unless_head(volume)
    assert refused.value.sentence.endswith(".")
    assert "wanted" in refused.value.sentence
    return refused.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_phantom_of_every_kind_passes(kind: str) -> None:
    facts = refuse_unless_head(make_head_ct(3, kind, spacing=COARSE).volume)

    assert 25 < facts.enclosed_median_hu < 40


@pytest.mark.parametrize("spacing", [(0.6, 0.6, 10.0), (1.0, 1.0, 1.5), (2.0, 0.9, 6.0)])
def test_a_head_passes_at_any_usual_spacing(spacing: tuple[float, float, float]) -> None:
    facts = refuse_unless_head(make_head_ct(21, "sdh", spacing=spacing).volume)

    assert 1000 < facts.enclosed_ml < 2000


def test_a_real_tilted_head_passes() -> None:
    datasets = [dcmread(path) for path in files(shared("ct_head_ge_tilted", "dicom"))]
    volume = evenly_sampled(list(datasets), step_mm=4.0)

    facts = refuse_unless_head(volume)

    assert 1200 < facts.enclosed_ml < 1500
    assert 25 < facts.enclosed_median_hu < 38


def test_the_skull_phantom_without_a_brain_is_refused() -> None:
    axial = shared("ct_head_phantom_philips_study", "dicom", "S2010")

    assert reason_of(volume_from_series(read_series(files(axial)))) == "no_brain"


def test_an_abdomen_is_refused() -> None:
    abdomen = shared("ct_body_jpeg2000_with_seg", "dicom")

    assert reason_of(volume_from_series(read_series(files(abdomen)))) == "no_brain"


@pytest.mark.parametrize(
    ("fill", "reason"),
    [(-1024.0, "no_skull"), (0.0, "no_skull"), (35.0, "no_skull"), (3000.0, "no_skull")],
    ids=["air", "water", "brain without skull", "metal"],
)
def test_a_constant_volume_is_refused(fill: float, reason: str) -> None:
    array = np.full((100, 120, 30), fill, np.float32)

    assert reason_of(Volume(array, np.diag([2.0, 2.0, 5.0, 1.0]))) == reason


@pytest.mark.parametrize("sigma", [5.0, 100.0, 200.0, 500.0])
def test_noise_is_refused(sigma: float) -> None:
    array = np.random.default_rng(1).normal(30.0, sigma, (100, 120, 30)).astype(np.float32)

    assert reason_of(Volume(array, np.diag([2.0, 2.0, 5.0, 1.0]))) in ("no_skull", "no_brain")


@pytest.mark.parametrize(
    ("inside_hu", "passes"), [(35.0, True), (0.0, False), (80.0, False), (-1000.0, False)]
)
def test_a_ball_of_bone_passes_with_brain_inside_only(inside_hu: float, passes: bool) -> None:
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in (100, 100, 40)], indexing="ij")
    far = np.sqrt((2 * x) ** 2 + (2 * y) ** 2 + (5 * z) ** 2)
    array = np.select([far < 70, far < 78], [inside_hu, 1200.0], -1000.0).astype(np.float32)
    volume = Volume(array, np.diag([2.0, 2.0, 5.0, 1.0]))

    if passes:
        # Closing bridges the ring from inside, so a little less than the ball is measured.
        ball_ml = 4 / 3 * np.pi * 7.0**3
        assert refuse_unless_head(volume).enclosed_ml == pytest.approx(ball_ml, rel=0.1)
    else:
        assert reason_of(volume) == "no_brain"


def test_a_head_in_wrong_units_is_refused(head: HeadPhantom) -> None:
    """Rescale Intercept forgotten: everything is 1024 HU too high."""
    raw = Volume(head.volume.array + np.float32(1024.0), head.volume.affine)

    assert reason_of(raw) in ("no_skull", "no_brain")


def test_a_head_with_wrong_spacing_is_refused(head: HeadPhantom) -> None:
    for factor in (0.5, 2.0):
        scaled = Volume(head.volume.array, head.volume.affine @ np.diag([factor] * 3 + [1.0]))

        assert reason_of(scaled) in ("no_skull", "no_brain")


def test_a_few_slices_of_a_head_are_refused(head: HeadPhantom) -> None:
    few = Volume(head.volume.array[:, :, 8:12].copy(), head.volume.affine)

    assert reason_of(few) in ("no_skull", "no_brain")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(head: HeadPhantom, value: float) -> None:
    array = head.volume.array.copy()
    array[5:7, 5, 5] = value

    with pytest.raises(UnfitInput, match="2 voxels of this volume are not finite") as refused:
        refuse_unless_head(Volume(array, head.volume.affine))
    assert refused.value.reason == "not_finite"


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 4), (4, 4, 4, 2)])
def test_an_array_that_is_no_volume_is_refused(shape: tuple[int, ...]) -> None:
    assert reason_of(Volume(np.zeros(shape, np.float32), np.eye(4))) == "no_volume"


def test_a_single_voxel_is_refused() -> None:
    assert reason_of(Volume(np.zeros((1, 1, 1), np.float32), np.eye(4))) == "no_skull"


def test_the_facts_are_the_same_whatever_way_the_source_is_stored(head: HeadPhantom) -> None:
    upright = head_facts(head.volume)

    for axes, flips in orientations()[::5]:
        source, _ = turned(head.volume, axes, flips)
        found = head_facts(source)

        assert found.enclosed_median_hu == upright.enclosed_median_hu
        assert found.bone_ml == pytest.approx(upright.bone_ml, rel=1e-9)
        assert found.enclosed_ml == pytest.approx(upright.enclosed_ml, rel=1e-9)
