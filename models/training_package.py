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

from models.base import Volume, Voxels
from models.manifest import Manifest
from models.package import dump_manifest, entry_for, write_manifest
from models.packaging import TEST_VECTOR, finish_package
from models.recipe import Recipe
from models.unet import probabilities_of

CPU = torch.device("cpu")
WEIGHTS, ARCH = "weights.safetensors", "arch.json"
VECTOR_VOXELS = 30_000
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
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    (out / WEIGHTS).write_bytes(save(state))
    (out / ARCH).write_text(json.dumps(recipe.arch, indent=1) + "\n")
    dump_manifest(out, _draft(recipe, known))
    piece = _piece(sample, flat=recipe.slices is not None)
    if recipe.slices is None:
        finish_package(out, piece)
        return
    found = probabilities_of(network, recipe.slices, piece, lambda done: None, CPU)
    np.savez_compressed(
        out / TEST_VECTOR, array=_compact(piece.array), affine=piece.affine, probabilities=found
    )
    content = _draft(recipe, known)
    content["files"] = {
        kind: entry_for(out, name).model_dump()
        for kind, name in {**content["files"], "test_vector": TEST_VECTOR}.items()
    }
    write_manifest(out, Manifest.model_validate(content))


def _draft(recipe: Recipe, known: Known) -> dict[str, Any]:
    """Content of ``model.yaml`` without digests."""
    told = recipe.package.model_dump(mode="json", exclude_none=True, exclude={"data"})
    return {
        "schema": "scorenode-model/1",
        **told,
        "files": {"weights": WEIGHTS, "config": ARCH},
        "runtime": {"kind": "torch-safetensors", "architecture": recipe.architecture},
        "test_vector": {"atol": 5e-3},
        "training": dict(known),
    }


def _compact(array: Voxels) -> NDArray[Any]:
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
    affine = sample.affine @ np.diag([step, step, 1.0, 1.0])
    affine[:3, 3] += sample.affine[:3, 2] * (slices.start or 0)
    return Volume(array[::step, ::step].astype(np.float32), affine)


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
- Network: {recipe.network.get("network", recipe.architecture)}, {_parameters(out)} parameters.
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
    size = (out / WEIGHTS).stat().st_size
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
            f"{limits['high']} ml (Bland-Altman).{_false_marks(found)}"
        )
    if metrics["dice_by_kind"]:
        kinds = ", ".join(f"{kind} {dice:.2f}" for kind, dice in metrics["dice_by_kind"].items())
        lines += ["", f"Dice by kind: {kinds}."]
    return "\n".join(lines) + "\n"


def _false_marks(found: Mapping[str, Any]) -> str:
    """Tell of cases that have none of a structure, where there are such cases."""
    if found["false_ml_median"] is None:
        return ""
    return (
        f" False marks where there is none: median {found['false_ml_median']} ml, worst "
        f"{found['false_ml_worst']} ml."
    )


def _figure(found: list[float | None]) -> str:
    value, low, high = found
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
