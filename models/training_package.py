"""Write what training made as a model package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from models.base import Volume
from models.network import NetworkConfig
from models.package import (
    FileEntry,
    Files,
    Input,
    Limits,
    Manifest,
    Postprocess,
    Runtime,
    SegmentEntry,
    TestVector,
    entry_for,
    write_manifest,
)
from models.unet import probabilities_of


def write_package(
    out: Path,
    network: torch.nn.Module,
    config: NetworkConfig,
    sample: Volume,
    summary: dict[str, str | int | float],
    version: str,
) -> None:
    """Write a complete package; its pictures and card come later.

    Parameters
    ----------
    out : Path
        An empty folder.
    network : torch.nn.Module
        In evaluation mode, on the CPU.
    config : NetworkConfig
    sample : Volume
        A head; a small piece of it becomes the test vector.
    summary : dict
        How the network was trained, for the manifest.
    version : str
    """
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    (out / "weights.safetensors").write_bytes(save(state))
    (out / "arch.json").write_text(json.dumps(config.to_json(), indent=1) + "\n")
    blank = FileEntry(path="test_vector.npz", sha256="0" * 64)
    files = Files(
        weights=entry_for(out, "weights.safetensors"),
        config=entry_for(out, "arch.json"),
        test_vector=blank,
    )
    manifest = Manifest(
        schema_="scorenode-model/1",
        family="haemorrhage-unet",
        version=version,
        title="Intracranial haemorrhage, non-contrast head CT",
        intended_use="demonstration",
        licence="Apache-2.0",
        finding=("SCT", "1386000", "Intracranial hemorrhage"),
        files=files,
        runtime=Runtime(kind="torch-safetensors", architecture="monai-unet-2.5d"),
        input=Input(
            modality="CT",
            plane="axial",
            slices=Limits(min=12, max=600),
            slice_step_mm=Limits(min=0.4, max=10.0),
            coverage_mm=Limits(min=80.0, max=400.0),
            content="head-ct",
        ),
        segments=(
            SegmentEntry(
                number=1,
                label="Haemorrhage",
                category=("SCT", "49755003", "Morphologically Abnormal Structure"),
                type=("SCT", "50960005", "Hemorrhage"),
                anatomic_region=("SCT", "12738006", "Brain"),
                color=(255, 40, 40),
            ),
        ),
        postprocess=Postprocess(threshold=0.5, min_component_ml=0.2),
        test_vector=TestVector(atol=5e-3),
        training=summary,
    )
    _write_test_vector(out, network, config, sample, manifest)
    entry = entry_for(out, "test_vector.npz")
    complete = files.model_copy(update={"test_vector": entry})
    write_manifest(out, manifest.model_copy(update={"files": complete}))


def _write_test_vector(
    out: Path,
    network: torch.nn.Module,
    config: NetworkConfig,
    sample: Volume,
    manifest: Manifest,
) -> None:
    """Keep a small piece of a volume and what the network says of it."""
    middle = sample.array.shape[2] // 2
    array = np.round(sample.array[::3, ::3, middle - 1 : middle + 2])
    affine = sample.affine @ np.diag([3.0, 3.0, 1.0, 1.0])
    piece = Volume(array.astype(np.float32), affine)
    probabilities = probabilities_of(network, config, piece, lambda done: None, torch.device("cpu"))
    np.savez_compressed(
        out / "test_vector.npz",
        array=array.astype(np.int16),
        affine=affine,
        probabilities=probabilities.astype(np.float16),
    )


def card(metrics: dict[str, Any], summary: dict[str, Any], version: str) -> str:
    """Text of ``MODEL_CARD.md``."""
    kinds = ", ".join(f"{kind} {dice:.2f}" for kind, dice in metrics["dice_by_kind"].items())
    return f"""# Haemorrhage on head CT, demonstration model {version}

**Not for clinical use.** Trained and tested on synthetic head CT phantoms only; it has never seen a
patient's blood. It shows that the path from C-STORE to SEG and SR works.

- Input: non-contrast head CT, axial, evenly spaced slices 0.4 to 10 mm apart, 80 to 400 mm long. A
  series without a brain inside a skull is refused.
- Network: MONAI U-Net, 2.5-D (a slice and its neighbours), batch norm, 1.25 mm pixels.
- Training: {summary["phantoms"]} phantoms, {summary["steps"]} steps, seed {summary["seed"]}:
  `scorenode train haemorrhage --phantoms {summary["phantoms"] + summary["held_out"]} \
--steps {summary["steps"]} --seed {summary["seed"]} --out DIR`
- {metrics["held_out"]} phantoms held out: Dice mean {metrics["dice_mean"]:.3f}, median \
{metrics["dice_median"]:.3f} ({kinds}); volume off by {metrics["volume_mae_ml"]:.1f} ml on a mean \
of {metrics["truth_mean_ml"]:.1f} ml; {metrics["detected"]} of {metrics["with_blood"]} found; \
false blood median {metrics["false_blood_median_ml"]:.2f} ml, worst \
{metrics["false_blood_worst_ml"]:.2f} ml.
- The probability is not calibrated.
"""
