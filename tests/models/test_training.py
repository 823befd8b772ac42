"""Training: the same seed gives the same weights, also when killed; out comes a package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from models.fitting import Diverged
from models.labelled_cases import BadData
from models.loading import load_predictor
from models.package import load_package
from models.phantom_dataset import LEAST_PHANTOMS, kind_of
from models.phantom_training import train_on_phantoms
from models.training import Unusable, train_segmentation, work_folder
from tests.models.labelled import tiny_content, tiny_recipe, write_nnunet

pytestmark = pytest.mark.slow

DEADLINE = 600.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nnunet(tmp_path_factory.mktemp("labelled") / "data", 12)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A package trained once, and its metrics."""
    out = tmp_path_factory.mktemp("trained") / "balls"
    return out, train_segmentation(data, tiny_recipe(steps=90), out, ignore, fold=0)


def ignore(done: float, what: str) -> None:
    """Progress nobody looks at."""


def weights_of(package: Path) -> str:
    return load_package(package).identity.weights_sha256


def command(data: Path, recipe: dict[str, Any], out: Path) -> list[str]:
    """The command a person would write."""
    config = out.with_suffix(".yaml")
    with config.open("w") as file:
        YAML(typ="safe", pure=True).dump(json.loads(json.dumps(recipe)), file)
    arguments = ["train", "segmentation", "--data", data, "--config", config, "--out", out]
    return ["-m", "node", *map(str, arguments), "--json"]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


def test_what_was_trained_is_a_complete_package(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    out, metrics = trained

    package = load_package(out)
    assert load_predictor(package, "cpu").identity == package.identity
    assert package.identity.version == "0.0.7"
    assert [segment.label for segment in package.segments] == ["bright", "dark"]
    assert package.manifest.training["cases"] == 8
    assert json.loads((out / "metrics.json").read_text()) == metrics
    card = (out / "MODEL_CARD.md").read_text()
    assert "Not for clinical use" in card
    assert f"| bright | {metrics['dice']['bright']:.3f}" in card
    for name in ("training.png", "cases.png"):
        with Image.open(out / name) as picture:
            assert np.asarray(picture).std() > 5
    assert not work_folder(out).exists()


def test_it_finds_what_it_was_trained_on_in_patients_it_never_saw(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    _, metrics = trained

    assert (metrics["held_out"], metrics["patients"]) == (4, 2)
    assert min(metrics["dice"].values()) > 0.8, metrics["dice"]
    assert metrics["structures"]["bright"]["hd95_mm"][0] < 2.5


def test_the_same_seed_trains_the_same_weights(data: Path, tmp_path: Path) -> None:
    """The second time over an older package, which is replaced whole."""
    told: list[tuple[float, str]] = []
    before = torch.random.get_rng_state()
    recipe = tiny_recipe(steps=4)

    one = train_segmentation(data, recipe, tmp_path / "one", lambda *a: told.append(a))
    train_segmentation(data, tiny_recipe(steps=4, seed=2), tmp_path / "two", ignore)
    assert weights_of(tmp_path / "one") != weights_of(tmp_path / "two")
    (tmp_path / "two" / "left_over.txt").write_text("old")
    two = train_segmentation(data, recipe, tmp_path / "two", ignore)

    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    assert one == two
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    assert not (tmp_path / "two" / "left_over.txt").exists()
    assert all(a <= b + 1e-9 for (a, _), (b, _) in pairwise(told))
    assert told[-1] == (1.0, "done")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.timeout(1200)
def test_killed_and_begun_again_it_trains_the_same_weights(data: Path, tmp_path: Path) -> None:
    """SIGKILL after a checkpoint in the middle of training; the same command goes on."""
    recipe = tiny_content(steps=60)
    first, again = tmp_path / "first", tmp_path / "again"
    arguments = command(data, recipe, again)
    quick = environment(SCORENODE_CHECKPOINT="0")
    child = subprocess.Popen([sys.executable, *arguments], env=quick, stdout=subprocess.DEVNULL)
    checkpoint = work_folder(again) / "checkpoint.safetensors"
    deadline = time.monotonic() + DEADLINE
    while not checkpoint.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not again.exists()

    found = subprocess.run(
        [sys.executable, *arguments], env=quick, capture_output=True, text=True, check=True
    )
    train_segmentation(data, tiny_recipe(steps=60), first, ignore)

    assert weights_of(again) == weights_of(first)
    assert json.loads(found.stdout) == json.loads((first / "metrics.json").read_text())
    assert not work_folder(again).exists()


def test_a_checkpoint_of_another_training_is_not_taken_up(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stop(done: float, what: str) -> None:
        if what.startswith("step 3"):
            raise KeyboardInterrupt

    monkeypatch.setattr("models.fitting.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train_segmentation(data, tiny_recipe(steps=8), out, stop)

    with pytest.raises(Unusable, match="belongs to another training"):
        train_segmentation(data, tiny_recipe(steps=9), out, ignore)
    train_segmentation(data, tiny_recipe(steps=8), out, ignore)
    assert load_package(out).manifest.training["steps"] == 8


def test_values_that_look_alike_and_that_nothing_has_are_told(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(alike=[45, 100])

    with pytest.raises(BadData, match="no case has a voxel without a label between 45 and 100"):
        train_segmentation(data, recipe, tmp_path / "out", ignore, fold=0)


@pytest.mark.timeout(1200)
def test_two_processes_train_one_network(data: Path, tmp_path: Path) -> None:
    """As ``torchrun`` starts them, over gloo."""
    out = tmp_path / "out"
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    subprocess.run(
        [sys.executable, *launch, *command(data, tiny_content(steps=6), out)],
        env=environment(),
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    )

    assert load_package(out).manifest.training["processes"] == 2
    train_segmentation(data, tiny_recipe(steps=6), tmp_path / "alone", ignore)
    assert weights_of(out) != weights_of(tmp_path / "alone")


def test_training_stops_when_watched_cases_get_no_better(data: Path, tmp_path: Path) -> None:
    """With hardly any learning rate no look is better than the first."""
    rules = {"every": 2, "patience": 2, "cases": 2}
    recipe = tiny_recipe(steps=200, learning_rate=1e-9, early_stop=rules)

    train_segmentation(data, recipe, tmp_path / "out", ignore)

    training = load_package(tmp_path / "out").manifest.training
    assert training["steps"] == 6
    assert (training["cases"], training["held_out"]) == (6, 4)


def test_a_loss_that_is_no_number_ends_training_with_advice(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=40, learning_rate=1.0, clip_gradient=1e30, weight_decay=1.0)
    recipe = recipe.model_copy(
        update={"augmentation": recipe.augmentation.model_copy(update={"gain": 1e38})}
    )

    with pytest.raises(Diverged, match="is no number at step 1; lower the learning_rate"):
        train_segmentation(data, recipe, tmp_path / "out", ignore)


def test_without_a_fold_everything_is_trained_on_and_nothing_measured(
    data: Path, tmp_path: Path
) -> None:
    metrics = train_segmentation(data, tiny_recipe(steps=2), tmp_path / "out", ignore, fold=None)

    assert metrics == {}
    assert load_package(tmp_path / "out").manifest.training["cases"] == 12
    assert "Not measured" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_a_broken_folder_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no such folder"):
        train_segmentation(tmp_path / "nowhere", tiny_recipe(), tmp_path / "out", ignore)

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_named_with_the_file(data: Path, tmp_path: Path) -> None:
    arguments = command(data, tiny_content(), tmp_path / "out")

    done = subprocess.run(
        ["/bin/bash", "-c", 'ulimit -f 2; exec "$@"', "bash", sys.executable, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE,
    )

    told = "".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "image.npy:Nospaceleftondevice.Whenthatismended,thesamecommandgoeson" in told


def test_two_trainings_of_one_package_are_not_run_at_once(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = command(data, tiny_content(steps=10_000), out)
    first = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment(SCORENODE_CHECKPOINT="0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + DEADLINE
        while not (work_folder(out) / "checkpoint.safetensors").is_file():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(Unusable, match="Another training is going on"):
            train_segmentation(data, tiny_recipe(), out, ignore)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()

    with pytest.raises(Unusable, match="belongs to another training"):
        train_segmentation(data, tiny_recipe(), out, ignore)


def test_a_folder_that_is_no_package_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("two years of work")

    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(Unusable, match="is there and is no model package"):
            train_segmentation(data, tiny_recipe(), out, ignore)
    with pytest.raises(Unusable, match="There is no fold 3; folds are 0 to 2"):
        train_segmentation(data, tiny_recipe(), tmp_path / "out", ignore, fold=3)

    assert (tmp_path / "thesis.txt").read_text() == "two years of work"


def test_phantoms_are_trained_on_by_the_recipe_for_haemorrhage(tmp_path: Path) -> None:
    """Too little, on heads too coarse, in seconds."""
    metrics = train_on_phantoms(
        tmp_path / "out",
        phantoms=LEAST_PHANTOMS,
        steps=3,
        seed=3,
        progress=ignore,
        pixel_mm=4.0,
        slices_mm=(12.0, 14.0),
    )

    package = load_package(tmp_path / "out")
    assert package.manifest.runtime.architecture == "monai-unet-2.5d"
    assert package.input.content == "head-ct"
    assert package.manifest.postprocess.within == "skull"
    assert metrics == {}
    assert package.manifest.training["cases"] == LEAST_PHANTOMS
    assert package.manifest.training["held_out"] == 0


@pytest.mark.parametrize("phantoms", [-1, 0, LEAST_PHANTOMS - 1])
def test_too_few_phantoms_are_refused(tmp_path: Path, phantoms: int) -> None:
    with pytest.raises(Unusable, match=f"{phantoms} phantoms are too few: {LEAST_PHANTOMS}"):
        train_on_phantoms(tmp_path / "out", phantoms=phantoms, steps=5, seed=1, progress=ignore)


@pytest.mark.parametrize("phantoms", [LEAST_PHANTOMS, 60, 250])
def test_every_kind_of_phantom_is_as_frequent(phantoms: int) -> None:
    kinds = [kind_of(i) for i in range(phantoms)]

    counts = [kinds.count(kind) for kind in ("iph", "ivh", "sdh", "edh", "sah")]
    assert max(counts) - min(counts) <= 1
    assert kinds.count("none") == phantoms // 5
