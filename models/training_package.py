"""Write what training made as a model package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from models.base import Volume
from models.network import NetworkConfig
from models.package import (
    FileEntry,
    Files,
    Manifest,
    Runtime,
    TestVector,
    entry_for,
    write_manifest,
)
from models.recipe import Recipe
from models.unet import labelled, probabilities_of
from models.volume_unet import labelled_volume, volume_probabilities_of

CPU = torch.device("cpu")
VECTOR_VOXELS = 20_000
"""The test vector has about so many at most."""

Known = Mapping[str, str | int | float]


def write_package(
    out: Path, network: torch.nn.Module, recipe: Recipe, sample: Volume, known: Known
) -> None:
    """Write a complete package; its pictures, metrics and card come later.

    Parameters
    ----------
    out : Path
        An empty folder.
    network : torch.nn.Module
        In evaluation mode, on the CPU.
    recipe : Recipe
    sample : Volume
        Of the data; a small piece of it becomes the test vector.
    known : mapping
        How the network was trained, for the manifest.
    """
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    (out / "weights.safetensors").write_bytes(save(state))
    (out / "arch.json").write_text(json.dumps(recipe.config.to_json(), indent=1) + "\n")
    _write_test_vector(out, network, recipe, sample)
    told = recipe.package
    manifest = Manifest(
        schema_="scorenode-model/1",
        family=told.family,
        version=told.version,
        title=told.title,
        intended_use=told.intended_use,
        licence=told.licence,
        finding=told.finding,
        files=Files(
            weights=entry_for(out, "weights.safetensors"),
            config=entry_for(out, "arch.json"),
            test_vector=entry_for(out, "test_vector.npz"),
        ),
        runtime=Runtime(kind="torch-safetensors", architecture=recipe.architecture),
        input=told.input,
        segments=told.segments,
        postprocess=told.postprocess,
        test_vector=TestVector(atol=5e-3),
        training=dict(known),
    )
    write_manifest(out, manifest)


def probabilities_with(
    network: torch.nn.Module, recipe: Recipe, volume: Volume
) -> NDArray[np.float32]:
    """Run a network that is no package yet; (classes - 1, *volume.array.shape)."""
    config = recipe.config
    if isinstance(config, NetworkConfig):
        return probabilities_of(network, config, volume, lambda done: None, CPU)
    return volume_probabilities_of(network, config, volume, lambda done: None, CPU)


def label_with(network: torch.nn.Module, recipe: Recipe, volume: Volume) -> NDArray[np.uint8]:
    """Label a volume as the package would."""
    found = probabilities_with(network, recipe, volume)
    rules = recipe.package.postprocess
    least = rules.min_component_ml / volume.voxel_ml
    if isinstance(recipe.config, NetworkConfig):
        return labelled(found, rules.threshold, least)[0]
    return labelled_volume(found, rules.threshold, least)


def _write_test_vector(
    out: Path, network: torch.nn.Module, recipe: Recipe, sample: Volume
) -> None:
    """Keep a small piece of a volume and what the network says of it."""
    piece = _piece(sample, flat=isinstance(recipe.config, NetworkConfig))
    np.savez_compressed(
        out / "test_vector.npz",
        array=_compact(piece.array),
        affine=piece.affine,
        probabilities=probabilities_with(network, recipe, piece).astype(np.float16),
    )


def _compact(array: NDArray[np.float32]) -> NDArray[Any]:
    """Whole numbers of a CT take half the room."""
    small = array.astype(np.int16) if np.abs(array).max() < 32000 else array
    return small if np.array_equal(small, array) else array


def _piece(sample: Volume, *, flat: bool) -> Volume:
    """Leave out voxels until a volume is small; a flat one has three whole slices."""
    shape = sample.array.shape
    middle = shape[2] // 2
    slices = slice(middle - 1, middle + 2) if flat and shape[2] >= 3 else slice(None)
    array = sample.array[:, :, slices]
    step = 1
    while array[::step, ::step].size > VECTOR_VOXELS:
        step += 1
    array = array[::step, ::step].astype(np.float32)
    affine = sample.affine @ np.diag([step, step, 1.0, 1.0])
    affine[:3, 3] += sample.affine[:3, 2] * (slices.start or 0)
    return Volume(array, affine)


def write_card(out: Path, recipe: Recipe, known: Known, metrics: Mapping[str, Any]) -> None:
    """Write ``MODEL_CARD.md``."""
    told = recipe.package
    caution = {
        "demonstration": "**Not for clinical use**: a demonstration.",
        "research": "**For research only.**",
        "clinical": "",
    }[told.intended_use]
    measured = _measured(metrics) if metrics else "Not measured: no case was held out.\n"
    (out / "MODEL_CARD.md").write_text(f"""# {told.title}, {told.version}

{caution}

## What it is

- Input: {_input(recipe)}.
- Output: {", ".join(recipe.names)}.
- Network: {recipe.architecture}, {_parameters(out)} parameters.
- Licence of the weights: {told.licence}.

## Training

- Data: {told.data or "not described"}
- {known["cases"]} cases trained on, {known["held_out"]} held out (by patient), {known["steps"]} \
steps, seed {known["seed"]}. SHA-256 of the data: `{known["data_sha256"]}`.

## Measured

{measured}
The probability is not calibrated. Figures of these data say nothing about another scanner, another
protocol or another population: measure it on your own cases before you believe it.
""")


def _input(recipe: Recipe) -> str:
    told = recipe.package.input
    slices, step = told.slices, told.slice_step_mm
    return (
        f"{told.modality}, plane {told.plane}, {slices.min:g} to {slices.max:g} slices, "
        f"{step.min:g} to {step.max:g} mm apart"
    )


def _parameters(out: Path) -> str:
    size = (out / "weights.safetensors").stat().st_size
    return f"about {size / 4000:,.0f} thousand"


def _measured(metrics: Mapping[str, Any]) -> str:
    lines = [
        f"{metrics['held_out']} cases of {metrics['patients']} patients held out; in brackets 95 % "
        "intervals over patients (bootstrap).",
        "",
        "| Structure | Dice | Surface Dice | HD95 mm | Volume off by, ml | CCC | Lesions found |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("dice", "nsd", "hd95_mm", "volume_mae_ml", "volume_ccc", "lesion_sensitivity")
    for name, found in metrics["structures"].items():
        lines.append(f"| {name} | {' | '.join(_figure(found[key]) for key in keys)} |")
    for name, found in metrics["structures"].items():
        limits = found["bland_altman_ml"]
        lines.append("")
        lines.append(
            f"{name}: bias {limits['bias']} ml, limits of agreement {limits['low']} to "
            f"{limits['high']} ml (Bland-Altman); false marks where there is none: median "
            f"{found['false_ml_median']} ml, worst {found['false_ml_worst']} ml."
        )
    if metrics["dice_by_kind"]:
        kinds = ", ".join(f"{kind} {dice:.2f}" for kind, dice in metrics["dice_by_kind"].items())
        lines += ["", f"Dice by kind: {kinds}."]
    return "\n".join(lines) + "\n"


def _figure(found: list[float | None]) -> str:
    value, low, high = found
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
