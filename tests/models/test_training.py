"""Training: the same seed trains the same weights, and what comes out is a package."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.evaluation import evaluate, metrics_of
from models.loading import load_predictor
from models.package import load_package
from models.phantom_ct import KINDS, make_head_ct
from models.training import HELD_OUT_SHARE, LEAST_PHANTOMS, kind_of, train_haemorrhage

pytestmark = pytest.mark.slow

STEPS = 6


def ignore(done: float, what: str) -> None:
    """Progress nobody looks at."""


def train(out: Path, told: list[tuple[float, str]]) -> dict[str, Any]:
    """Train too little on heads too coarse, in seconds."""
    return train_haemorrhage(
        out,
        phantoms=LEAST_PHANTOMS,
        steps=STEPS,
        seed=3,
        progress=lambda done, what: told.append((done, what)),
        version="0.0.7",
        pixel_mm=3.0,
        slices_mm=(10.0, 12.0),
    )


@pytest.mark.slow
def test_training_twice_writes_the_same_weights_and_a_complete_package(
    package: Path, tmp_path: Path
) -> None:
    """The second time over an older package, which is replaced whole."""
    told: list[tuple[float, str]] = []
    two_papers = package.rename(tmp_path / "two") / "left_over.txt"
    two_papers.write_text("old")
    before = torch.random.get_rng_state()

    metrics = train(tmp_path / "one", told)
    again = train(tmp_path / "two", [])

    one, two = (load_package(tmp_path / name) for name in ("one", "two"))
    assert one.identity.weights_sha256 == two.identity.weights_sha256
    assert one.identity.version == "0.0.7"
    assert one.manifest.training["seed"] == 3
    assert load_predictor(one, "cpu").identity == one.identity
    assert metrics == again
    assert not two_papers.exists()
    assert json.loads((tmp_path / "one" / "metrics.json").read_text()) == metrics
    assert (metrics["held_out"], metrics["with_blood"]) == (5, 4)
    card = (tmp_path / "one" / "MODEL_CARD.md").read_text()
    assert "Not for clinical use" in card
    assert f"--phantoms {LEAST_PHANTOMS} --steps {STEPS} --seed 3" in card
    for path in (tmp_path / "one").iterdir():
        assert path.stat().st_mode & 0o444 == 0o444, path.name
    for name in ("training.png", "cases.png"):
        with Image.open(tmp_path / "one" / name) as picture:
            assert np.asarray(picture).std() > 5
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    assert all(a <= b + 1e-9 for (a, _), (b, _) in pairwise(told))
    assert told[-1] == (1.0, "done")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("phantoms", [-1, 0, 4, LEAST_PHANTOMS - 1])
def test_too_few_phantoms_are_refused(tmp_path: Path, phantoms: int) -> None:
    with pytest.raises(ValueError, match=f"{phantoms} phantoms are too few: 20 or more"):
        train_haemorrhage(tmp_path / "out", phantoms=phantoms, steps=5, seed=1, progress=ignore)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("steps", "seed"), [(0, 1), (-3, 1), (5, -1)])
def test_steps_and_seeds_that_make_no_sense_are_refused(
    tmp_path: Path, steps: int, seed: int
) -> None:
    with pytest.raises(ValueError, match=r"steps are too few|The seed is -1"):
        train_haemorrhage(tmp_path / "out", phantoms=24, steps=steps, seed=seed, progress=ignore)


def test_a_folder_that_is_no_package_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("two years of work")

    with pytest.raises(ValueError, match="is there and is no model package"):
        train_haemorrhage(tmp_path, phantoms=24, steps=5, seed=1, progress=ignore)
    with pytest.raises(ValueError, match="is there and is no model package"):
        train_haemorrhage(tmp_path / "thesis.txt", phantoms=24, steps=5, seed=1, progress=ignore)

    assert (tmp_path / "thesis.txt").read_text() == "two years of work"


@pytest.mark.parametrize("phantoms", [LEAST_PHANTOMS, 24, 30, 40, 160, 240, 500])
def test_every_kind_is_trained_on_and_clean_heads_are_held_out(phantoms: int) -> None:
    kinds = [kind_of(i) for i in range(phantoms)]
    held_out = kinds[HELD_OUT_SHARE - 1 :: HELD_OUT_SHARE]
    training = [kind for i, kind in enumerate(kinds) if (i + 1) % HELD_OUT_SHARE]

    assert "none" in held_out
    assert {"none", "iph"} < set(training)
    if phantoms >= 30:
        assert set(training) == set(KINDS)
        assert set(held_out) == set(KINDS)


def test_evaluation_counts_voxels(tiny_package: Path) -> None:
    """A network that finds only what is bright everywhere: numbers against their definition."""
    predictor = load_predictor(load_package(tiny_package), "cpu")
    phantoms = [make_head_ct(5, kind, spacing=(3.0, 3.0, 10.0)) for kind in ("iph", "none")]

    results = [evaluate(predictor, phantom) for phantom in phantoms]

    for phantom, result in zip(phantoms, results, strict=True):
        ml = 3.0 * 3.0 * 10.0 / 1000.0
        assert result.truth_ml == pytest.approx(np.count_nonzero(phantom.labels) * ml)
        assert result.found_ml == pytest.approx(np.count_nonzero(result.found) * ml)
        assert result.overlap_ml == pytest.approx((result.found & result.truth).sum() * ml)
        wanted = 2 * result.overlap_ml / (result.truth_ml + result.found_ml)
        assert result.dice == pytest.approx(wanted)
    metrics = metrics_of(results)
    assert metrics["dice_by_kind"] == {"iph": round(results[0].dice, 4)}
    assert metrics["false_blood_worst_ml"] == round(results[1].found_ml, 3)


def test_metrics_need_heads_with_blood_and_without(tiny_package: Path) -> None:
    with pytest.raises(ValueError, match="with blood and without"):
        metrics_of([])
