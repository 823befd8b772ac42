"""MONAI bundles as drafts of packages.

Their configurations are read as data: nothing in them is evaluated, imported or called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.architectures import MONAI
from models.base import BrokenPackage
from models.foreign_draft import Draft, plain_name, plain_version, plain_word, read_json
from models.importer import import_weights

MOST_CHANNELS = 64
MOST_VALUES = 20_000
"""An inference configuration that grows beyond this when references are followed is none."""
_REFERENCE = re.compile(r"^@([A-Za-z_][\w#.]*)$")
_MODALITIES = {"ct": "CT", "mr": "MR", "mri": "MR", "pet": "PT"}
_IGNORED = frozenset(
    {
        "LoadImaged",
        "EnsureChannelFirstd",
        "EnsureTyped",
        "ToTensord",
        "CastToTyped",
        "AddChanneld",
        "AsChannelFirstd",
        "ToDeviced",
    }
)


def read_bundle(folder: Path) -> Draft:
    """Read a MONAI bundle: metadata and inference configuration, weights through the importer."""
    metadata = read_json(folder / "configs" / "metadata.json")
    config = _Config(read_json(_inference_file(folder)))
    remarks: list[str] = []
    network = config.resolved("network_def", config.resolved("network", {}))
    architecture = _network(network)
    labels, channels = _bundle_labels(metadata), _bundle_channels(metadata)
    preprocess = list(_bundle_steps(config, remarks))
    weights = import_weights(_weights_file(folder))
    return Draft(
        name=plain_name(metadata.get("name") or folder.name),
        version=plain_version(metadata.get("version", "0.0.0")),
        title=str(metadata.get("name") or folder.name)[:128],
        licence=_licence(metadata),
        architecture=architecture,
        weights=weights.safetensors,
        labels=labels,
        channels=channels,
        modality=_bundle_modality(metadata),
        preprocess=preprocess,
        inference=_bundle_inference(config),
        activation=_bundle_activation(config),
        source={"kind": "monai-bundle", "uri": str(metadata.get("name", ""))[:1024]},
        remarks=remarks,
    )


class _Config:
    """An inference configuration whose references are followed and whose code is not run."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content
        self._left = MOST_VALUES

    def resolved(self, key: str, default: Any = None) -> Any:
        """Follow ``@references`` in the value of a key; code stays a text that begins with $."""
        return self._follow(self._content[key], 16) if key in self._content else default

    def _follow(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if depth == 0 or self._left < 0:
            raise BrokenPackage("The inference configuration refers to itself, or is too large.")
        if isinstance(value, str):
            found = _REFERENCE.match(value)
            return self._follow(self._at(found[1]), depth - 1) if found else value
        if isinstance(value, Mapping):
            return {str(k): self._follow(v, depth - 1) for k, v in value.items()}
        if isinstance(value, list):
            return [self._follow(item, depth - 1) for item in value]
        return value

    def _at(self, place: str) -> Any:
        """Value at a place such as ``preprocessing#transforms#0``."""
        found: Any = self._content
        for part in re.split(r"[#.]|::", place):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found


def _inference_file(folder: Path) -> Path:
    for name in ("inference.json", "evaluate.json"):
        if (folder / "configs" / name).is_file():
            return folder / "configs" / name
    raise BrokenPackage(f"{folder} has no configs/inference.json.")


def _weights_file(folder: Path) -> Path:
    for name in ("model.safetensors", "model.pt", "model.pth", "model.ts"):
        if (folder / "models" / name).is_file():
            return folder / "models" / name
    raise BrokenPackage(f"{folder} has no models/model.pt; download the bundle with its weights.")


def _network(definition: Any) -> dict[str, Any]:
    """Name and plain arguments of the network; an argument that is code cannot be taken over."""
    if not isinstance(definition, Mapping) or "_target_" not in definition:
        raise BrokenPackage("The inference configuration has no network_def with a _target_.")
    name = str(definition["_target_"]).rpartition(".")[2]
    if name not in MONAI:
        raise BrokenPackage(
            f"The network {name} of the bundle is none of ours: {', '.join(sorted(MONAI))}."
        )
    arguments = {
        str(key): value
        for key, value in definition.items()
        if not str(key).startswith("_") and key != "use_checkpoint"
    }
    for key, value in arguments.items():
        if any(text.startswith("$") for text in _texts(value)):
            raise BrokenPackage(
                f"The argument {key} of the bundle's network is code, which is not evaluated; "
                "write its value into configs/inference.json."
            )
    return {"network": name, "arguments": arguments}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _bundle_steps(config: _Config, remarks: list[str]) -> Iterator[dict[str, Any]]:
    """Turn the transforms before the network into steps of a manifest."""
    preprocessing = config.resolved("preprocessing", {})
    transforms = preprocessing.get("transforms") if isinstance(preprocessing, Mapping) else None
    for item in transforms if isinstance(transforms, list) else ():
        if not isinstance(item, Mapping) or item.get("_disabled_") in (True, "true"):
            continue
        name = str(item.get("_target_", "")).rpartition(".")[2]
        if name in _IGNORED:
            continue
        step = _bundle_step(name, item)
        if step is None:
            remarks.append(f"preprocessing: {name} was not understood and is left out")
        else:
            yield step


def _bundle_step(name: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        match name:
            case "Orientationd":
                return {"orient": str(item["axcodes"])}
            case "Spacingd":
                return {"resample": {"spacing_mm": [float(mm) for mm in item["pixdim"]][:3]}}
            case "ScaleIntensityRanged":
                low, high = float(item["a_min"]), float(item["a_max"])
                to = [float(item.get("b_min", 0.0)), float(item.get("b_max", 1.0))]
                clip = bool(item.get("clip", False))
                return {"rescale": {"from": [low, high], "to": to, "clip": clip}}
            case "ScaleIntensityd":
                return {"minmax": [float(item.get("minv", 0.0)), float(item.get("maxv", 1.0))]}
            case "NormalizeIntensityd":
                return _normalise_step(item)
            case "CropForegroundd":
                return {"crop": "nonzero"}
    except (KeyError, TypeError, ValueError):
        return None
    return None


def _normalise_step(item: Mapping[str, Any]) -> dict[str, Any] | None:
    if item.get("subtrahend") is not None or item.get("divisor") is not None:
        mean, std = item.get("subtrahend", 0.0), item.get("divisor", 1.0)
        if isinstance(mean, (int, float)) and isinstance(std, (int, float)):
            return {"normalise": {"mean": float(mean), "std": float(std)}}
        return None
    return {"zscore": "nonzero" if item.get("nonzero") is True else "all"}


def _bundle_inference(config: _Config) -> dict[str, Any]:
    inferer = config.resolved("inferer", {})
    found: dict[str, Any] = {"multiple": 32 if _name(config) == "SwinUNETR" else 16}
    if isinstance(inferer, Mapping):
        size = inferer.get("roi_size")
        if isinstance(size, list) and len(size) == 3 and all(isinstance(n, int) for n in size):
            found["patch"] = size
        if isinstance(inferer.get("overlap"), (int, float)):
            found["overlap"] = min(float(inferer["overlap"]), 0.9)
    return found


def _name(config: _Config) -> str:
    definition = config.resolved("network_def", {})
    told = definition.get("_target_", "") if isinstance(definition, Mapping) else ""
    return str(told).rpartition(".")[2]


def _bundle_activation(config: _Config) -> str:
    """Whether structures exclude each other."""
    after = config.resolved("postprocessing", {})
    transforms = after.get("transforms", []) if isinstance(after, Mapping) else []
    for item in transforms if isinstance(transforms, list) else ():
        if isinstance(item, Mapping) and item.get("sigmoid") is True:
            return "sigmoid"
    return "softmax"


def _bundle_labels(metadata: Mapping[str, Any]) -> dict[int, str]:
    formats = metadata.get("network_data_format")
    outputs = formats.get("outputs") if isinstance(formats, Mapping) else None
    first = next(iter(outputs.values()), None) if isinstance(outputs, Mapping) else None
    named = first.get("channel_def") if isinstance(first, Mapping) else None
    if not isinstance(named, Mapping):
        raise BrokenPackage("metadata.json names no output channels (channel_def).")
    by_number = {int(key): str(name) for key, name in named.items() if str(key).isdecimal()}
    if by_number and by_number.get(0, "").lower() == "background":
        found = {number: name for number, name in by_number.items() if number > 0}
    else:
        found = {number + 1: name for number, name in by_number.items()}
    if sorted(found) != list(range(1, len(found) + 1)) or not found:
        raise BrokenPackage("metadata.json (channel_def) does not number its structures 1, 2, 3.")
    return dict(sorted(found.items()))


def _bundle_channels(metadata: Mapping[str, Any]) -> list[str]:
    formats = metadata.get("network_data_format")
    inputs = formats.get("inputs") if isinstance(formats, Mapping) else None
    first = next(iter(inputs.values()), None) if isinstance(inputs, Mapping) else None
    named = first.get("channel_def") if isinstance(first, Mapping) else None
    count = first.get("num_channels", 1) if isinstance(first, Mapping) else 1
    if type(count) is not int or not 1 <= count <= MOST_CHANNELS:
        raise BrokenPackage(f"metadata.json: num_channels is no number from 1 to {MOST_CHANNELS}.")
    if isinstance(named, Mapping) and len(named) == count > 1:
        return [plain_word(name) for name in named.values()]
    return ["image"] if count == 1 else [f"image{n}" for n in range(count)]


def _bundle_modality(metadata: Mapping[str, Any]) -> str:
    formats = metadata.get("network_data_format")
    inputs = formats.get("inputs") if isinstance(formats, Mapping) else None
    first = next(iter(inputs.values()), None) if isinstance(inputs, Mapping) else None
    told = str(first.get("modality", "")).lower() if isinstance(first, Mapping) else ""
    return next((word for key, word in _MODALITIES.items() if key in told), "")


def _licence(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get("license") or metadata.get("copyright") or "not told")[:256]
