"""A network of a few weights that tells structures by their brightness, and packages of it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from models.architectures import build_network
from models.base import Volume
from models.package import dump_manifest
from models.packaging import finish_package

BONE, SHADE = 100.0, 50.0
"""Values of the two structures; the background is 0."""
ARCHITECTURE: dict[str, Any] = {
    "network": "UNet",
    "arguments": {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [8, 8],
        "strides": [1],
        "kernel_size": 1,
        "up_kernel_size": 1,
        "num_res_units": 0,
        "norm": None,
        "act": "relu",
    },
}


def draft(**changes: Any) -> dict[str, Any]:
    """A manifest without digests."""
    content: dict[str, Any] = {
        "family": "shades",
        "version": "1.0.0",
        "title": "Shades of a phantom",
        "intended_use": "demonstration",
        "licence": "Apache-2.0",
        "finding": ["SCT", "91723000", "Anatomical Structure"],
        "files": {"weights": {"path": "weights.safetensors"}, "config": {"path": "arch.json"}},
        "runtime": {"kind": "torch-safetensors", "architecture": "network"},
        "input": {"modality": "CT"},
        "preprocess": [
            {"orient": "RAS"},
            {"resample": {"spacing_mm": [2.0, 2.0, "native"]}},
            {"rescale": {"from": [0.0, 100.0], "to": [0.0, 1.0], "clip": True}},
        ],
        "inference": {"patch": [16, 16, 8], "overlap": 0.25},
        "segments": [
            {
                "number": 1,
                "label": "Left hippocampus",
                "category": ["SCT", "91723000", "Anatomical Structure"],
                "type": ["SCT", "5366008", "Hippocampus"],
                "side": "left",
                "color": [20, 200, 40],
            },
            {
                "number": 2,
                "label": "Right hippocampus",
                "category": ["SCT", "91723000", "Anatomical Structure"],
                "type": ["SCT", "5366008", "Hippocampus"],
                "anatomic_region": ["SCT", "12738006", "Brain"],
                "side": "right",
                "color": [220, 60, 240],
            },
        ],
    }
    return content | changes


NESTED_ARCHITECTURE: dict[str, Any] = {
    "network": "UNet",
    "arguments": ARCHITECTURE["arguments"] | {"out_channels": 2},
}


@cache
def brightness_network(nested: bool = False) -> torch.nn.Module:
    """Fit the network to tell 0, 0.5 and 1 apart, voxel by voxel.

    `nested`: the first output is of all that is not 0, the second of 1 alone.
    """
    network = build_network(NESTED_ARCHITECTURE if nested else ARCHITECTURE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.5)
        values = torch.linspace(-0.1, 1.1, 64)
        truth = torch.bucketize(values, torch.tensor([0.25, 0.75]))
        optimizer = torch.optim.Adam(network.parameters(), 2e-2)
        for _ in range(400):
            optimizer.zero_grad()
            said = network(values.reshape(1, 1, 8, 8, 1))
            classes = truth.reshape(1, 8, 8, 1)
            if nested:
                both = torch.stack([classes > 0, classes > 1], dim=1).float()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(said, both)
            else:
                loss = torch.nn.functional.cross_entropy(said, classes)
            torch.autograd.backward(loss)
            optimizer.step()
    return network.eval()


def write_draft(folder: Path, content: dict[str, Any]) -> Path:
    """Write what an author writes: a manifest, weights, an architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    nested = content["runtime"].get("activation") == "sigmoid"
    weights = brightness_network(nested).state_dict()
    state = {name: value.contiguous() for name, value in weights.items()}
    (folder / "weights.safetensors").write_bytes(save(state))
    chosen = NESTED_ARCHITECTURE if nested else ARCHITECTURE
    (folder / "arch.json").write_text(json.dumps(chosen))
    dump_manifest(folder, content)
    return folder


def write_shades(folder: Path, **changes: Any) -> Path:
    """Write a whole package."""
    finish_package(write_draft(folder, draft(**changes)))
    return folder


def nested_changes() -> dict[str, Any]:
    """Changes to the manifest for structures that overlap: a core within a whole."""
    code = {
        "category": ["SCT", "91723000", "Anatomical Structure"],
        "type": ["SCT", "5366008", "Hippocampus"],
    }
    return {
        "runtime": {
            "kind": "torch-safetensors",
            "architecture": "network",
            "activation": "sigmoid",
        },
        "segments": [
            {"number": 1, "label": "Whole", **code},
            {"number": 2, "label": "Core", **code},
        ],
    }


def shades_volume(
    shape: tuple[int, int, int] = (41, 37, 13),
) -> tuple[Volume, NDArray[np.uint8]]:
    """Two blocks of different brightness in a void, and which voxel is which."""
    truth = np.zeros(shape, np.uint8)
    truth[5:17, 8:20, 3:9] = 2
    truth[23:33, 14:26, 4:11] = 1
    array = np.select([truth == 1, truth == 2], [SHADE, BONE], 0.0)
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    affine[:3, 3] = (30.0, 25.0, -10.0)
    return Volume(array.astype(np.float32), affine), truth
