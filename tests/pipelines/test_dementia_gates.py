"""What is no T1-weighted head is never scored by the pipeline, and the verdict says what failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from models.base import UnfitInput, Volume
from models.grey_matter import segment_tissues
from models.phantom_ct import make_head_ct
from models.phantom_t1 import Scan, make_t1_head
from models.t1_head import refuse_unless_t1_head, refuse_unless_whole_head
from models.tissue_fit import Effort
from pipelines.folders import content_of
from pipelines.phantom_series import write_mr_series
from pipelines.steps.read import read_series
from pipelines.steps.run import run_step
from pipelines.steps.volume import volume_from_series
from tests.pipelines.test_dementia import ROW, job, run
from tests.shared_data import shared

HEADS = ("t1_philips_whole_head_gm_ref", "t1_siemens_xa30_enhanced")
NO_BRAIN = {"fit", "brain_volume", "tissue_contrast"}
FAST = Effort(coarse_mm=10.0, middle_mm=5.0, fine_mm=5.0, rounds=(20, 40, 0))
FITTED = ("11-T1post-18670", "36468-FLAIRreg-58706")
"""Series of heads that are refused only after the fit."""


def _go_through_gates(volume: Volume) -> None:
    """Do what the pipeline does before it scores, with less effort."""
    refuse_unless_whole_head(volume)
    refuse_unless_t1_head(segment_tissues(volume, effort=FAST))


def _refused(volume: Volume, reasons: set[str]) -> None:
    with pytest.raises(UnfitInput) as caught:
        _go_through_gates(volume)

    assert caught.value.reason in reasons
    assert "wanted" in caught.value.sentence


def test_no_series_of_the_shared_data_but_heads_comes_to_a_score(tmp_path: Path) -> None:
    passed_over = (*HEADS, *FITTED)
    series = [
        one
        for one in content_of(shared()).series
        if not any(name in str(path) for path in one.paths for name in passed_over)
    ]

    found = [
        run(job(one.paths, {"a": ROW}), tmp_path / str(number)) for number, one in enumerate(series)
    ]

    assert len(found) >= 30
    assert {verdict.outcome for verdict in found} == {"not_scored"}
    assert all(verdict.sentence.endswith(".") and verdict.reason for verdict in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_a_real_head_of_another_contrast_is_refused(name: str) -> None:
    files = sorted(shared("mr_study_with_hippocampus_crop", "dicom", name).iterdir())
    found = volume_from_series(read_series(files))
    # Every second voxel within slices of 6.5 mm: half of the time.
    volume = Volume(found.array[::2, ::2], found.affine @ np.diag([2.0, 2.0, 1.0, 1.0]))

    _refused(volume, {"tissue_contrast"})


@pytest.mark.slow
@pytest.mark.parametrize("echo", [0, 1])
def test_a_bottle_is_refused_by_each_of_its_echoes(echo: int, tmp_path: Path) -> None:
    files = sorted(shared("mr_multiecho_phantom_siemens", "dicom").iterdir())
    times = sorted({float(dcmread(path, stop_before_pixels=True).EchoTime) for path in files})
    own = [p for p in files if float(dcmread(p, stop_before_pixels=True).EchoTime) == times[echo]]

    verdict = run(job(own, {"a": ROW}), tmp_path)

    assert verdict.outcome == "not_scored"
    _refused(volume_from_series(read_series(own)), NO_BRAIN | {"small_field"})


def _skull_phantom() -> Volume:
    """A real CT of a skull without a brain, its values as an MR image could have them."""
    folder = shared("ct_head_phantom_philips_study", "dicom", "S2010")
    found = volume_from_series(read_series(sorted(p for p in folder.rglob("*") if p.is_file())))
    array = np.clip(found.array + 1000.0, 0, 3000).astype(np.float32)[::4, ::4]
    return Volume(array, found.affine @ np.diag([4.0, 4.0, 1.0, 1.0]))


def _fruit() -> Volume:
    """A sphere with a rind, pips and a texture, as large as a head."""
    x, y, z = np.meshgrid(*[np.linspace(-100, 100, 50)] * 3, indexing="ij")
    away = np.sqrt(x * x + y * y + z * z)
    random = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(random.standard_normal(x.shape), 1.5)
    flesh = 600 + 150 * texture / texture.std()
    pips = ndimage.gaussian_filter(random.standard_normal(x.shape), 2.0) > 0.12
    array = np.where(away < 72, np.where(pips & (away < 35), 150, flesh), 300)
    array = np.where(away < 82, array, 4) + 10 * random.standard_normal(x.shape)
    return Volume(np.abs(array).astype(np.float32), np.diag([200 / 49] * 3 + [1.0]))


def _ct_head() -> Volume:
    found = make_head_ct(1).volume
    step = np.maximum(np.rint(4 / found.spacing).astype(int), 1)
    array = np.clip(found.array[tuple(slice(None, None, int(n)) for n in step)] + 1000, 0, 3000)
    return Volume(array.astype(np.float32), found.affine @ np.diag([*step, 1.0]))


def _head(contrast: str) -> Volume:
    return make_t1_head(21, scan=Scan(spacing=(3.0, 3.0, 3.0), contrast=contrast)).volume


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "reasons"),
    [
        (_fruit, NO_BRAIN),
        (_skull_phantom, NO_BRAIN),
        (_ct_head, NO_BRAIN),
        (lambda: _head("t2"), NO_BRAIN),
    ],
    ids=["fruit", "skull", "ct", "t2"],
)
def test_what_is_no_t1_head_is_refused(make: Callable[[], Volume], reasons: set[str]) -> None:
    _refused(make(), reasons)


@pytest.mark.slow
def test_the_philips_head_goes_through_all_three_steps(tmp_path: Path) -> None:
    # Every second voxel along each axis: the whole head of 1 mm takes a minute.
    files = sorted(shared("t1_philips_whole_head_gm_ref", "dicom").iterdir())
    found = volume_from_series(read_series(files))
    volume = Volume(found.array[::2, ::2, ::2], found.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))
    spec = job(write_mr_series(volume, tmp_path / "in", seed=1), {"a": ROW})

    verdicts = [
        run_step(spec, step, tmp_path / "job", lambda fraction, note: None)
        for step in ("convert", "infer", "report")
    ]

    assert [verdict.outcome for verdict in verdicts] == ["ok"] * 3, verdicts[-1]
    assert set(verdicts[2].facts["results"]) == {"seg", "sr", "capture"}
    assert 0 < verdicts[1].facts["numbers"]["score"] < 1.5
