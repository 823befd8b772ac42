"""Packaged networks of any kind: they label what they were made to label, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.base import NotEnoughMemory, UnfitInput, Volume
from models.limits import MEMORY_LIMIT
from models.loading import load_predictor
from models.memory import LEAST_WORKSPACE, activation_bytes
from models.network_predictor import NetworkPredictor, engine_of
from models.package import load_package
from models.packaging import finish_package
from models.preprocess import prepared
from models.sliding import Plan, first_that_works, plans, slide, window_starts
from tests.models.small import draft, nested_changes, shades_volume, write_draft, write_shades
from tests.models.tiny import orientations, quiet, turned


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shades(tmp_path_factory.mktemp("shades") / "shades")


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_structures_are_labelled_on_the_source_grid_whatever_its_axes(shades: Path) -> None:
    predictor = load_predictor(load_package(shades), "cpu")
    volume, truth = shades_volume()

    for axes, flips in orientations()[::7]:
        moved, turn = turned(volume, axes, flips)
        findings = predictor.predict(moved, quiet)

        assert findings.labels is not None
        for number in (1, 2):
            assert dice(findings.labels == number, turn(truth) == number) > 0.9
        ml = float((findings.labels == 1).sum()) * volume.voxel_ml
        assert findings.number("volume", 1) == pytest.approx(ml)


@pytest.mark.parametrize("changes", [{}, nested_changes()], ids=["exclusive", "overlapping"])
def test_within_the_skull_nothing_is_labelled_without_one(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = write_shades(tmp_path / "shades", postprocess={"within": "skull"}, **changes)
    predictor = load_predictor(load_package(folder), "cpu")
    volume, _ = shades_volume()

    findings = predictor.predict(volume, quiet)

    assert findings.labels is not None
    assert not findings.labels.any()
    assert not findings.present
    assert not any(mask.any() for mask in findings.overlapping.values())
    assert findings.number("volume", 1) == findings.number("volume", 2) == 0.0
    assert findings.number("probability") < 0.5


# Memory


class Hungry:
    """Runs out of memory until so many windows at once are asked of it."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], most: int, error: Exception):
        self.run, self.most, self.error, self.batches = run, most, error, [0]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(batch.shape[0])
        if batch.shape[0] > self.most:
            raise self.error
        return self.run(batch)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_a_volume_that_does_not_fit_is_run_with_a_smaller_plan(
    shades: Path, error: Exception
) -> None:
    package = load_package(shades)
    engine = engine_of(package, "cpu")
    volume, _ = shades_volume()
    wanted = NetworkPredictor(package, engine).predict(volume, quiet).labels
    meta = torch.device("cpu")
    hungry = Hungry(engine.run, 1, error)
    listed = plans([meta], lambda batch: 1 << 20, 1 << 10, 1 << 10, windows=9)
    large = [replace(listed[0], batch=4), *listed]
    image = prepared({"image": volume}, package.manifest.preprocess).array

    def run(plan: Plan) -> np.ndarray:
        return slide(hungry, image, 3, package.manifest.inference, plan, quiet)

    said = first_that_works(large, 0, run)

    assert hungry.batches[1] == 4
    assert set(hungry.batches[2:]) == {1}
    assert wanted is not None
    assert said.shape[0] == 3


def test_what_is_kept_on_disk_is_the_same(shades: Path) -> None:
    package = load_package(shades)
    engine = engine_of(package, "cpu")
    volume, _ = shades_volume()
    image = prepared({"image": volume}, package.manifest.preprocess).array
    rules, cpu = package.manifest.inference, torch.device("cpu")

    here = slide(engine.run, image, 3, rules, Plan(cpu, 1, False, 0, 0), quiet)
    disk = slide(engine.run, image, 3, rules, Plan(cpu, 1, True, 0, 0), quiet)

    assert np.array_equal(here, np.asarray(disk))


def test_without_room_for_the_smallest_plan_nothing_is_started(
    shades: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY_LIMIT, str(64 << 20))
    predictor = load_predictor_unchecked(shades)

    with pytest.raises(NotEnoughMemory, match="needs about"):
        predictor.predict(shades_volume()[0], quiet)


def load_predictor_unchecked(folder: Path) -> NetworkPredictor:
    package = load_package(folder)
    return NetworkPredictor(package, engine_of(package, "cpu"))


def test_the_estimate_grows_with_the_window_and_computes_nothing() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(16, 2, 1)
    )

    small = activation_bytes(network, (1, 1, 64, 64, 64))
    large = activation_bytes(network, (1, 1, 128, 128, 128))

    voxels = 128**3 * 4
    assert 7 < (large - LEAST_WORKSPACE) / (small - LEAST_WORKSPACE) < 9
    assert 16 * voxels < large < 64 * voxels


@pytest.mark.parametrize("length", [5, 16, 17, 40, 61])
def test_windows_cover_everything_and_overlap(length: int) -> None:
    starts = window_starts(length, 16, 0.5)

    covered = np.zeros(max(length, 16), int)
    for start in starts:
        covered[start : start + 16] += 1
    assert covered.min() >= 1
    assert all(b - a <= 8 for a, b in pairwise(starts))


# Several inputs


def test_channels_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    package = load_package(write_two_channels(tmp_path / "two"))
    predictor = load_predictor(package, "cpu")
    volume, truth = shades_volume()
    other = Volume(np.where(truth == 2, 100.0, 0.0).astype(np.float32), volume.affine)

    findings = predictor.predict(replace(volume, others={"pet": other}), quiet)

    assert findings.labels is not None
    assert dice(findings.labels > 0, truth == 2) > 0.9
    with pytest.raises(UnfitInput, match="input pet"):
        predictor.predict(volume, quiet)


def write_two_channels(folder: Path) -> Path:
    """A classifier that marks what is bright in its second channel, whatever the first says."""
    skops_io = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    features = random.uniform(0, 1, (400, 2))
    model = LogisticRegression(C=1e3).fit(features, (features[:, 1] > 0.5).astype(int))
    content = draft(
        files={"weights": "classifier.skops"},
        runtime={"kind": "skops", "activation": "none"},
        input=None,
        inputs={"ct": {"modality": "CT"}, "pet": {"modality": "CT"}},
        segments=draft()["segments"][:1],
        preprocess=[
            {"rescale": {"from": [0.0, 100.0]}, "channel": "ct"},
            {"rescale": {"from": [0.0, 100.0]}, "channel": "pet"},
        ],
    )
    write_draft(folder, content)
    (folder / "arch.json").unlink()
    (folder / "weights.safetensors").unlink()
    skops_io.dump(model, folder / "classifier.skops")
    finish_package(folder)
    return folder
