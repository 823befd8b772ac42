"""Finish a package: digests, a test vector, and the proof that it loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.base import BrokenPackage, NotEnoughMemory, UnfitInput, Volume
from models.catalogue import MANIFEST
from models.loading import load_predictor
from models.manifest import FIRST
from models.package import (
    ModelPackage,
    dump_manifest,
    entry_for,
    manifest_bytes,
    parse_yaml,
    read_package,
    write_manifest,
)

TEST_VECTOR = "test_vector.npz"
SAMPLE_SIDE = 48
MOST_SAMPLE_VOXELS = 96**3


def finish_package(
    folder: Path, sample: Volume | None = None, *, trust_code: bool = False
) -> ModelPackage:
    """Make a draft a package: ``model.yaml`` needs no digests and no test vector yet.

    Parameters
    ----------
    folder : Path
        Holds ``model.yaml`` and the files it names.
    sample : Volume or None
        What the test vector is made of, cut to its middle; None: noise.
    trust_code : bool
        Whether code of the package may run.

    Raises
    ------
    BrokenPackage
        The manifest has mistakes, or the model does not load.
    """
    content = _draft(folder)
    names = list(content.get("inputs") or {FIRST: None})
    volume = _sample(content, sample, names)
    np.savez_compressed(folder / TEST_VECTOR, **_arrays(volume, names))
    _write(folder, content)
    package = read_package(folder)
    try:
        said = _said(package, volume, trust_code=trust_code)
    except (UnfitInput, NotEnoughMemory) as error:
        raise BrokenPackage(f"The sample cannot be used: {error}") from error
    np.savez_compressed(folder / TEST_VECTOR, **_arrays(volume, names), **said)
    _write(folder, content)
    package = read_package(folder)
    load_predictor(package, "cpu", trust_code=trust_code)
    return package


def save_sample(path: Path, sample: Volume) -> None:
    """Write a sample for another process that finishes a package."""
    np.savez(path, **_arrays(sample, [FIRST, *sample.others]))


def load_sample(path: Path) -> Volume:
    """Read what `save_sample` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        found = {name: stored[name] for name in stored.files}
    affine = found.pop("affine")
    first = found.pop("array")
    others = {name.removeprefix("array_"): Volume(one, affine) for name, one in found.items()}
    return Volume(first, affine, others=others)


def _draft(folder: Path) -> dict[str, Any]:
    content = parse_yaml(folder / MANIFEST, manifest_bytes(folder))
    if not isinstance(content, dict):
        raise BrokenPackage(f"{folder / MANIFEST} is not a manifest.")
    for key in ("files", "inputs"):
        if not isinstance(content.get(key) or {}, Mapping):
            raise BrokenPackage(f"{folder / MANIFEST} is not a manifest: {key} has no names.")
    return {"schema": "scorenode-model/1", **content}


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest with the digests of the files that are there now."""
    files: dict[str, Any] = {}
    for kind, entry in {**dict(content.get("files") or {}), "test_vector": TEST_VECTOR}.items():
        listed = entry if isinstance(entry, list) else [entry]
        made = [_entry(folder, kind, one) for one in listed]
        files[kind] = made if isinstance(entry, list) else made[0]
    dump_manifest(folder, {**content, "files": files})
    write_manifest(folder, read_package(folder).manifest)


def _entry(folder: Path, kind: str, entry: Any) -> dict[str, str]:
    name = str(entry.get("path")) if isinstance(entry, Mapping) else str(entry)
    if not (folder / name).is_file():
        raise BrokenPackage(f"files.{kind}: there is no file {name} in {folder}.")
    return entry_for(folder, name).model_dump()


def _sample(content: Mapping[str, Any], sample: Volume | None, names: list[str]) -> Volume:
    """Take the inputs of the test vector: the middle of a sample, or noise, the same every time."""
    if sample is None:
        random = np.random.default_rng(0)
        shape, affine = (SAMPLE_SIDE, SAMPLE_SIDE - 4, SAMPLE_SIDE - 8), np.diag([1.0, 1, 1, 1])
        made = {
            name: Volume(random.normal(50.0, 60.0, shape).astype(np.float32), affine)
            for name in names
        }
        sample = replace(made[names[0]], others={name: made[name] for name in names[1:]})
    missing = [name for name in names[1:] if name not in sample.others]
    if missing:
        raise BrokenPackage(f"The sample has no input {missing[0]}.")
    box = _middle(sample.array.shape)
    affine = sample.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([side.start for side in box], float)
    cut = {name: Volume(one.array[box], affine) for name, one in sample.others.items()}
    return Volume(sample.array[box].astype(np.float32), affine, others=cut)


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Box in the middle that is small enough to be kept in a package."""
    scale = min(1.0, (MOST_SAMPLE_VOXELS / float(np.prod(shape))) ** (1 / 3))
    sides = [max(1, int(n * scale)) for n in shape]
    return tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(shape, sides, strict=True))


def _arrays(volume: Volume, names: list[str]) -> dict[str, Any]:
    others = {f"array_{name}": volume.others[name].array for name in names[1:]}
    return {"array": volume.array, "affine": volume.affine, **others}


def _said(package: ModelPackage, volume: Volume, *, trust_code: bool) -> dict[str, Any]:
    """Compute the outputs of the model for the test vector."""
    if package.manifest.runtime.kind == "python":
        if not trust_code:
            raise BrokenPackage("The package is code: say --trust-code to run it.")
        from models.python_model import output_arrays

        return output_arrays(package, volume)
    from models.network_predictor import NetworkPredictor, engine_of

    predictor = NetworkPredictor(package, engine_of(package, "cpu"))
    found = predictor.probabilities(volume, lambda done: None)
    return {"probabilities": found.astype(np.float32)}
