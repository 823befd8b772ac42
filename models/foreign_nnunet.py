"""A trained model of nnU-Net v2 as a draft of a package.

References
----------
MIC-DKFZ/nnUNet v2: ``dataset.json``, ``plans.json``, ``fold_X/checkpoint_final.pth``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save

from models.base import BrokenPackage
from models.foreign_draft import Draft, plain_name, plain_word, read_json
from models.importer import import_weights

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


def read_nnunet(folder: Path, fold: str) -> Draft:
    """Read ``plans.json``, ``dataset.json`` and the weights of the folds.

    Parameters
    ----------
    folder : Path
    fold : str
        One fold, 0 to 4 or ``all``; empty: the one that was trained on everything, or else all
        there are, whose mean counts, as nnU-Net itself predicts.
    """
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    checkpoints = _checkpoints(folder, fold)
    members = [import_weights(checkpoint) for checkpoint in checkpoints]
    imported = members[0]
    told = imported.facts.get("init_args")
    told = told if isinstance(told, Mapping) else {}
    name = str(told.get("configuration", "3d_fullres"))
    try:
        configuration = _configuration(plans, name)
        labels, regions = _labels(dataset)
        channels = _channels(dataset)
        architecture = _architecture(configuration, len(channels), len(labels) + (not regions))
        axes = [int(axis) for axis in plans.get("transpose_forward", [0, 1, 2])]
        preprocess = list(_steps(plans, configuration, channels, axes))
        inference = _inference(configuration, imported.facts)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise BrokenPackage(
            f"{folder}: plans.json or dataset.json is not as nnU-Net v2 writes it "
            f"({type(error).__name__}: {error})."
        ) from error
    folds = " ".join(checkpoint.parent.name for checkpoint in checkpoints)
    return Draft(
        name=plain_name(plans.get("dataset_name") or folder.parent.name),
        version="1.0.0",
        title=f"{plans.get('dataset_name', folder.parent.name)}, nnU-Net {name}"[:128],
        licence=str(dataset.get("licence") or dataset.get("license") or "not told")[:256],
        architecture=architecture | ({"members": len(members)} if len(members) > 1 else {}),
        weights=_weights([member.safetensors for member in members]),
        labels=labels,
        channels=[plain_word(channel) for channel in channels],
        modality="CT" if any(c.upper() == "CT" for c in channels) else "MR",
        preprocess=preprocess,
        inference=inference,
        activation="sigmoid" if regions else "softmax",
        source={"kind": "nnunet-v2", "uri": f"{folder.name}/{folds}"[:1024]},
        remarks=[f"folds: {folds}"],
        as_they_lay=not _turns_to_ras(dataset),
    )


def _turns_to_ras(dataset: Mapping[str, Any]) -> bool:
    """Whether the images were read by one of nnU-Net's readers that turn them."""
    return str(dataset.get("overwrite_image_reader_writer")).endswith("WithReorient")


def _checkpoints(folder: Path, fold: str) -> list[Path]:
    wanted = [[f"fold_{fold}"]] if fold else [["fold_all"], [f"fold_{n}" for n in range(5)]]
    for names in wanted:
        found = [folder / name / file for name in names for file in CHECKPOINTS]
        there = {path.parent: path for path in reversed(found) if path.is_file()}
        if there:
            return [there[parent] for parent in sorted(there)]
    raise BrokenPackage(f"{folder} has no {wanted[-1][0]}/{CHECKPOINTS[0]}.")


def _configuration(plans: Mapping[str, Any], name: str, depth: int = 8) -> dict[str, Any]:
    """Join a configuration with those it inherits from."""
    if not depth:
        raise ValueError(f"{name} inherits from itself")
    own = dict(plans["configurations"][name])
    parent = own.pop("inherits_from", None)
    return {**_configuration(plans, str(parent), depth - 1), **own} if parent else own


def _labels(dataset: Mapping[str, Any]) -> tuple[dict[int, str], bool]:
    """Structures by number from 1, and whether they are regions, which overlap."""
    labels = dataset["labels"]
    if not labels.keys() - {"background", "ignore"}:
        raise ValueError("there is no structure among the labels")
    if any(isinstance(value, list) for value in labels.values()):
        named = [name for name in labels if name not in ("background", "ignore")]
        return dict(enumerate(map(str, named), start=1)), True
    found = {int(value): str(name) for name, value in labels.items() if name != "ignore"}
    found.pop(0, None)
    if sorted(found) != list(range(1, len(found) + 1)):
        raise ValueError(f"labels are numbered {sorted(found)}")
    return dict(sorted(found.items())), False


def _channels(dataset: Mapping[str, Any]) -> list[str]:
    named = dataset.get("channel_names") or dataset["modality"]
    return [str(named[key]) for key in sorted(named, key=int)]


def _architecture(configuration: Mapping[str, Any], channels: int, classes: int) -> dict[str, Any]:
    """Arguments of the network, from the new way plans say them or the old one."""
    told = configuration.get("architecture")
    if told:
        name = str(told["network_class_name"]).rpartition(".")[2]
        given = told["arch_kwargs"]
        dimensions = 3 if "3d" in str(given["conv_op"]).lower() else 2
        kernels, strides = given["kernel_sizes"], given["strides"]
        features = given["features_per_stage"]
        blocks = given.get("n_blocks_per_stage")
        down, up = given.get("n_conv_per_stage", blocks), given["n_conv_per_stage_decoder"]
    else:
        name = str(configuration["UNet_class_name"])
        kernels = configuration["conv_kernel_sizes"]
        strides = configuration["pool_op_kernel_sizes"]
        dimensions = len(configuration["patch_size"])
        base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
        features = [min(base * 2**level, most) for level in range(len(strides))]
        down = configuration["n_conv_per_stage_encoder"]
        up = configuration["n_conv_per_stage_decoder"]
    residual = name == "ResidualEncoderUNet"
    if name not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ValueError(f"the network is {name}")
    stages = len(features)
    return {
        "network": name,
        "arguments": {
            "dimensions": dimensions,
            "input_channels": channels,
            "num_classes": classes,
            "features_per_stage": [int(n) for n in features],
            "kernel_sizes": kernels,
            "strides": strides,
            "n_blocks_per_stage" if residual else "n_conv_per_stage": _each(down, stages),
            "n_conv_per_stage_decoder": _each(up, stages - 1),
        },
    }


def _each(value: Any, count: int) -> list[int]:
    return [int(value)] * count if isinstance(value, int) else [int(n) for n in value][:count]


def _steps(
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    channels: list[str],
    axes: list[int],
) -> Any:
    """nnU-Net's order: axes, crop to what is not zero, intensities, resampling.

    Its arrays are slices first; ours are columns first.
    """
    yield {"orient": "RAS"}
    yield {"transpose": [2 - axis for axis in axes]}
    yield {"crop": "nonzero"}
    facts = plans.get("foreground_intensity_properties_per_channel") or {}
    schemes = configuration["normalization_schemes"]
    names = [plain_word(channel) for channel in channels]
    masked = configuration.get("use_mask_for_norm") or [False] * len(names)
    for number, (scheme, name) in enumerate(zip(schemes, names, strict=True)):
        only = {"channel": name} if len(names) > 1 else {}
        known = facts.get(str(number), {})
        for step in _normalisation(str(scheme), known, nonzero=bool(masked[number])):
            yield {**step, **only}
    spacing = [float(mm) for mm in configuration["spacing"]]
    if len(spacing) == 2:  # slices one by one
        yield {"resample": {"spacing_mm": ["native", *spacing], "order": 3}}
    else:
        yield {"resample": {"spacing_mm": spacing, "order": 3}}


def _normalisation(scheme: str, facts: Mapping[str, Any], *, nonzero: bool) -> list[dict[str, Any]]:
    match scheme:
        case "CTNormalization":
            low, high = float(facts["percentile_00_5"]), float(facts["percentile_99_5"])
            scale = {"mean": float(facts["mean"]), "std": max(float(facts["std"]), 1e-8)}
            return [{"clip": [low, high]}, {"normalise": scale}]
        case "ZScoreNormalization":
            return [{"zscore": "nonzero" if nonzero else "all"}]
        case "RescaleTo01Normalization":
            return [{"minmax": [0.0, 1.0]}]
        case "NoNormalization":
            return []
    raise ValueError(f"the normalisation {scheme} is not known")


def _inference(configuration: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    patch = [int(n) for n in configuration["patch_size"]]
    patch = [1, *patch] if len(patch) == 2 else patch
    mirror = facts.get("inference_allowed_mirroring_axes") or []
    shift = 1 if len(configuration["patch_size"]) == 2 else 0
    axes = sorted({int(axis) + shift for axis in mirror})
    return {"patch": patch, "overlap": 0.5, "mirror": axes}


def _weights(members: Sequence[bytes]) -> bytes:
    """Leave out what a checkpoint holds twice, and the prefixes that compilers add."""
    kept: dict[str, Any] = {}
    for number, safetensors in enumerate(members):
        prefix = f"members.{number}." if len(members) > 1 else ""
        for key, value in load_tensors(safetensors).items():
            name = key.removeprefix("module.").removeprefix("_orig_mod.")
            if ".all_modules." not in name and not name.startswith("decoder.encoder."):
                kept[prefix + name] = value
    return save(kept)
