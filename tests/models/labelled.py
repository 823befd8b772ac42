"""Small labelled volumes on disk, and a recipe that learns them in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from models.recipe import Recipe

SHAPE = (22, 26, 18)
SPACING = (1.0, 0.8, 1.5)


def two_balls(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """Noise with a bright ball (1) and a dark ball (2): image, labels, affine."""
    random = np.random.default_rng(seed)
    axes = [np.arange(n) * step for n, step in zip(SHAPE, SPACING, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    array = random.normal(100, 5, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for number, (side, value) in enumerate(((6.0, 160.0), (15.0, 40.0)), start=1):
        center = (side + random.uniform(-1, 1), random.uniform(7, 13), random.uniform(9, 17))
        ball = sum((a - c) ** 2 for a, c in zip((x, y, z), center, strict=True)) < 4.5**2
        array[ball], labels[ball] = value, number
    affine = np.diag([-SPACING[0], SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (30.0, -12.0, 4.0)
    return (array * random.uniform(0.5, 2.0)).astype(np.float32), labels, affine


def write_nnunet(folder: Path, count: int) -> Path:
    """Write cases in nnU-Net's layout; two cases a patient."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        array, labels, affine = two_balls(i)
        save(folder / "imagesTr" / f"case_{i:02d}_0000.nii.gz", array, affine)
        save(folder / "labelsTr" / f"case_{i:02d}.nii.gz", labels, affine)
    names = {"background": 0, "bright": 1, "dark": 2}
    content = {"channel_names": {"0": "MR"}, "labels": names, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    rows = [f"case_{i:02d},p{i // 2}," for i in range(count)]
    (folder / "cases.csv").write_text("\n".join(["case,patient,kind", *rows]) + "\n")
    return folder


def save(path: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a NIfTI file."""
    nib.save(nib.Nifti1Image(array, affine), path)


def tiny_recipe(**training: Any) -> Recipe:
    """Write a recipe for two balls; `training` changes its steps and so on."""
    return Recipe.model_validate(tiny_content(**training))


def flat_content(**training: Any) -> dict[str, Any]:
    """Content of a recipe for the network that sees slices."""
    content = tiny_content(**{"patch": [16, 16], **training})
    del content["package"]["preprocess"], content["package"]["inference"]
    return content | {"architecture": "monai-unet-2.5d", "network": {"spacing_mm": 0.3}}


def tiny_content(**training: Any) -> dict[str, Any]:
    """Content of the recipe's file."""
    category = ("SCT", "91723000", "Anatomical Structure")
    segments = [
        {"number": i, "label": label, "category": category, "type": category}
        for i, label in enumerate(("bright", "dark"), start=1)
    ]
    return {
        "package": {
            "family": "balls",
            "version": "0.0.7",
            "title": "Two balls",
            "intended_use": "demonstration",
            "licence": "Apache-2.0",
            "finding": ("SCT", "91723000", "Anatomical Structure"),
            "input": {"modality": "MR"},
            "preprocess": [
                {"orient": "RAS"},
                {"resample": {"spacing_mm": [1.5, 1.5, 1.5]}},
                {"zscore": "all"},
            ],
            "inference": {"multiple": 8},
            "segments": segments,
            "data": "Balls.",
        },
        "architecture": "network",
        "network": {
            "network": "BasicUNet",
            "arguments": {
                "spatial_dims": 3,
                "in_channels": 1,
                "out_channels": 3,
                "features": [6, 8, 8, 8, 8, 6],
                "norm": "batch",
            },
        },
        "training": {
            "steps": 30,
            "batch": 2,
            "patch": [16, 16, 16],
            "learning_rate": 0.02,
            "folds": 3,
            **training,
        },
        "augmentation": {"elastic_mm": 0.5, "blur": 0.5, "field": 0.1, "low_resolution": 0.3},
        "tolerance_mm": 1.0,
    }
