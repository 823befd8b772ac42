"""A network small enough to train in a second, and volumes it was made for."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from ruamel.yaml import YAML

from models.base import Volume
from models.catalogue import MANIFEST
from models.network import NetworkConfig, build
from models.package import Manifest, Postprocess, write_manifest
from models.recipe import Recipe, load_recipe, recipe_path
from models.training_package import write_package
from models.unet import channels_of, resampled

CONFIG = NetworkConfig(channels=(8, 16), spacing_mm=2.0)
GREY_HU, BRIGHT_HU = 30.0, 70.0

Turn = Callable[[NDArray[Any]], NDArray[Any]]


def quiet(done: float) -> None:
    """Progress nobody looks at."""


def ball_volume(
    shape: tuple[int, int, int] = (53, 47, 11),
    spacing: tuple[float, float, float] = (1.3, 1.7, 4.0),
    center: tuple[float, float, float] = (25.0, 45.0, 17.0),
    radius_mm: float = 13.0,
    seed: int = 0,
) -> tuple[Volume, NDArray[np.bool_]]:
    """Grey noise with one bright ball, and where the ball is; radius 0: none."""
    axes = [np.arange(n) * step - c for n, step, c in zip(shape, spacing, center, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    ball = x**2 + y**2 + z**2 < radius_mm**2
    noise = np.random.default_rng(seed).normal(0.0, 3.0, shape)
    array = np.where(ball, BRIGHT_HU, GREY_HU) + noise
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30.0, 12.0, 400.0)
    return Volume(array.astype(np.float32), affine), ball


def orientations() -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """All 48 ways to exchange and turn round the axes of a grid."""
    return list(product(permutations(range(3)), product((False, True), repeat=3)))


def turned(volume: Volume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[Volume, Turn]:
    """Store the same volume on other axes; and the function that does so with its labels."""

    def turn(array: NDArray[Any]) -> NDArray[Any]:
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
        return np.ascontiguousarray(array.transpose(axes)[steps])

    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, list(axes)]
    for k, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, k] * (volume.array.shape[axes[k]] - 1)
            affine[:3, k] *= -1.0
    return Volume(turn(volume.array), affine), turn


@cache
def tiny_network() -> torch.nn.Module:
    """Train the tiny network to find what is bright."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(CONFIG)
        random = np.random.default_rng(0)
        batches = [_batch(random) for _ in range(16)]
        optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
        loss_of = DiceCELoss(
            include_background=False, to_onehot_y=True, softmax=True, batch=True, lambda_ce=2.0
        )
        for step in range(120):
            inputs, truth = batches[step % len(batches)]
            optimizer.zero_grad()
            loss_of(network(inputs), truth).backward()
            optimizer.step()
    return network.eval()


def _batch(random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Eight slices with a ball, padded with air as the predictor does."""
    columns, rows = (int(n) for n in random.integers(20, 33, 2))
    center = (random.uniform(5, 2 * columns - 5), random.uniform(5, 2 * rows - 5), 16.0)
    spacing = (2.0, 2.0, random.uniform(1.0, 5.0))
    volume, ball = ball_volume(
        (columns, rows, 8), spacing, center, random.uniform(7, 16), int(random.integers(1 << 30))
    )
    stack = resampled(volume.array, volume.spacing, CONFIG)
    truth = torch.zeros(stack.shape)
    truth[:, :columns, :rows] = torch.from_numpy(ball.transpose(2, 0, 1).astype(np.float32))
    pad = (0, 32 - stack.shape[2], 0, 32 - stack.shape[1])
    inputs = F.pad(channels_of(stack, torch.arange(8), CONFIG), pad, value=-1.0)
    return inputs, F.pad(truth[:, None], pad)


def write_tiny_package(folder: Path) -> Path:
    """Write a package around the tiny network, for any volume."""
    folder.mkdir()
    sample, _ = ball_volume(shape=(96, 96, 9), center=(60.0, 80.0, 16.0), radius_mm=30.0)
    write_package(folder, tiny_network(), _recipe(), sample, {"steps": 120})
    manifest = Manifest.model_validate(read_yaml(folder))
    free = manifest.model_copy(
        update={
            "input": manifest.first.model_copy(update={"content": "any"}),
            "postprocess": Postprocess(threshold=0.5, min_component_ml=0.2),
        }
    )
    write_manifest(folder, free)
    return folder


def _recipe() -> Recipe:
    """Change the recipe for haemorrhage to the tiny network."""
    recipe = load_recipe(recipe_path("haemorrhage"))
    package = recipe.package.model_copy(update={"version": "1.2.3"})
    network = {"channels": list(CONFIG.channels), "spacing_mm": CONFIG.spacing_mm}
    return recipe.model_copy(update={"package": package, "network": network})


def copy_of(package: Path, folder: Path) -> Path:
    """Copy a package, to do something to it."""
    return Path(shutil.copytree(package, folder / "package"))


def read_yaml(folder: Path) -> dict[str, Any]:
    """Content of the manifest, as anybody may read it."""
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(folder / MANIFEST)
    return content


def edit_manifest(folder: Path, keys: str, value: object) -> None:
    """Put a value into the manifest: ``files.weights.path``."""
    content = read_yaml(folder)
    place: Any = content
    *above, last = keys.split(".")
    for key in above:
        place = place[int(key) if key.isdigit() else key]
    place[int(last) if last.isdigit() else last] = value
    with (folder / MANIFEST).open("w") as file:
        YAML(typ="safe", pure=True).dump(content, file)


def forge(folder: Path, kind: str, data: bytes) -> None:
    """Exchange a file and make the manifest agree, as an author could."""
    (folder / read_yaml(folder)["files"][kind]["path"]).write_bytes(data)
    edit_manifest(folder, f"files.{kind}.sha256", hashlib.sha256(data).hexdigest())
