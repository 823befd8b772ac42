"""Configurations of others that mean harm or make no sense end in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.base import BrokenPackage
from models.foreign_models import read_foreign
from models.importer import Imported

NETWORK = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
METADATA: dict[str, Any] = {
    "name": "Anything",
    "network_data_format": {
        "inputs": {"image": {"modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen"}}},
    },
}


def bundle(folder: Path, metadata: dict[str, Any], inference: dict[str, Any]) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    return folder


def with_format(kind: str, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    return METADATA | {
        "network_data_format": METADATA["network_data_format"] | {kind: {name: entry}}
    }


def test_references_that_multiply_are_not_followed_for_ever(tmp_path: Path) -> None:
    """Seven lists of a hundred references each stand for a hundred million million values."""
    bomb: dict[str, Any] = {f"k{n}": [f"@k{n + 1}"] * 100 for n in range(7)}
    inference = {"network_def": NETWORK | {"channels": "@k0"}, **bomb, "k7": 1}

    with pytest.raises(BrokenPackage, match="too large"):
        read_foreign(bundle(tmp_path / "bundle", METADATA, inference))


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        (with_format("inputs", "image", {"num_channels": "several"}), "num_channels is no number"),
        (with_format("inputs", "image", {"num_channels": 10**9}), "num_channels is no number"),
        (with_format("inputs", "image", {"num_channels": None}), "num_channels is no number"),
        (with_format("outputs", "pred", {"channel_def": {}}), "does not number its structures"),
        (
            with_format("outputs", "pred", {"channel_def": {"0": "background"}}),
            "does not number its structures",
        ),
        (
            with_format("outputs", "pred", {"channel_def": {"\u00b2": "spleen"}}),
            "does not number its structures",
        ),
        (
            with_format("outputs", "pred", {"channel_def": {"0": "background", "7": "spleen"}}),
            "does not number its structures",
        ),
    ],
)
def test_metadata_that_makes_no_sense_is_told(
    tmp_path: Path, metadata: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(BrokenPackage, match=wanted):
        read_foreign(bundle(tmp_path / "bundle", metadata, {"network_def": NETWORK}))


CIRCLE = {"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}


@pytest.mark.parametrize(
    ("plans", "dataset", "facts"),
    [
        ({"configurations": CIRCLE}, {"labels": {"x": 1}}, {"init_args": {"configuration": "a"}}),
        ({"configurations": {"3d_fullres": {}}}, {"labels": ["background", "x"]}, {}),
        ({"configurations": {"3d_fullres": {}}}, {"labels": {"background": 0}}, {}),
        ({"configurations": {"3d_fullres": {}}}, {"labels": {"x": float("inf")}}, {}),
        ({"configurations": {"3d_fullres": {}}}, {"labels": {"x": 1}, "channel_names": [1]}, {}),
        ({"configurations": {"3d_fullres": {}}}, {"labels": {"x": 1}}, {"init_args": "a"}),
    ],
    ids=["circle", "list", "no structure", "endless", "channels", "init_args"],
)
def test_plans_that_make_no_sense_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    monkeypatch.setattr("models.foreign_nnunet.import_weights", lambda path: Imported(b"", facts))

    with pytest.raises(BrokenPackage, match="not as nnU-Net v2 writes it"):
        read_foreign(tmp_path)
