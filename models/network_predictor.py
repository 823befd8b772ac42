"""Any packaged network over a volume: prepared as the manifest says, labels on the source grid."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from models.architectures import build_network
from models.base import (
    BrokenPackage,
    Findings,
    ModelIdentity,
    Progress,
    UnfitInput,
    Volume,
)
from models.canonical import orientation_of
from models.engine import Engine
from models.filling import fill
from models.head_ct import refuse_unless_finite, refuse_unless_head
from models.labelling import exclusive, findings_of, overlapping, surest
from models.limits import MEMORY_LIMIT
from models.manifest import FIRST
from models.memory import activation_bytes
from models.package import ModelPackage
from models.preprocess import Seen, prepared
from models.skull import strays
from models.sliding import Plan, first_that_works, plans, slide, window_size, window_starts
from models.unet import deterministic

MOST_VECTOR_BYTES = 256 << 20
F32 = NDArray[np.float32]


class NetworkPredictor:
    """A loaded package, warm on its device.

    Parameters
    ----------
    package : ModelPackage
    engine : Engine
    """

    def __init__(self, package: ModelPackage, engine: Engine) -> None:
        self._package = package
        self._engine = engine

    @property
    def identity(self) -> ModelIdentity:
        """What to cite."""
        return self._package.identity

    def predict(self, volume: Volume, progress: Progress) -> Findings:
        """Label the structures of the manifest.

        Parameters
        ----------
        volume : Volume
            Any orientation, modality units; further inputs in ``others``, on the same grid.
        progress : callable

        Returns
        -------
        Findings
            ``volume`` of each structure, ml, and of all where they exclude each other;
            ``probability``: the mean of the 20 highest voxels of the largest mark.

        Raises
        ------
        UnfitInput
            An input is missing or not what the model was made for.
        """
        manifest = self._package.manifest
        channels = self._channels(volume)
        if manifest.first.content == "head-ct":
            refuse_unless_head(volume)
        seen = prepared(channels, manifest.preprocess)
        said = self._run(seen, progress)
        rules, ml = manifest.postprocess, volume.voxel_ml
        background, maps = self._maps(said, seen)
        if background is None:
            listed = list(maps)
            labels, whole = overlapping(listed, rules, ml)
            marked = np.maximum.reduce(listed)
        else:
            labels, whole = exclusive(background, maps, rules, ml), {}
            marked = 1.0 - background
        if rules.within == "skull":
            dropped = strays(volume, labels > 0, rules.min_component_ml)
            labels[dropped] = 0
            marked[dropped] = 0.0
            whole = {number: mask & ~dropped for number, mask in whole.items()}
        probability = None
        if manifest.runtime.activation != "none":
            probability = surest(marked, labels)
        return findings_of(labels, whole, self._package.segments, volume, probability)

    def probabilities(self, volume: Volume, progress: Progress) -> F32:
        """Probability of each structure, (structures, *volume.array.shape)."""
        seen = prepared(self._channels(volume), self._package.manifest.preprocess)
        _, maps = self._maps(self._run(seen, progress), seen)
        return np.stack(list(maps))

    def _channels(self, volume: Volume) -> dict[str, Volume]:
        """Give the inputs by name, in the order of the manifest."""
        names = list(self._package.manifest.channels)
        found = {names[0]: volume}
        for name in names[1:]:
            if name not in volume.others:
                raise UnfitInput("input_missing", f"The input {name} of the model is missing.")
            found[name] = volume.others[name]
        for name, one in found.items():
            refuse_unless_finite(one)
            if one.array.shape != volume.array.shape:
                raise UnfitInput("unfit_input", f"The input {name} lies on another grid.")
        return found

    def _run(self, seen: Seen, progress: Progress) -> F32:
        rules = self._package.manifest.inference
        shape = seen.array.shape[1:]
        window = window_size(shape, rules)
        padded = [max(n, size) for n, size in zip(shape, window, strict=True)]
        places = [
            len(window_starts(n, size, rules.overlap))
            for n, size in zip(padded, window, strict=True)
        ]
        voxels = 4 * int(np.prod(padded))
        channels = len(seen.array)

        def bytes_of(batch: int) -> int:
            return self._engine.window_bytes((batch, channels, *window))

        listed = plans(
            self._engine.devices,
            bytes_of,
            sums_bytes=(self._engine.outputs + 1) * voxels,
            fixed_bytes=(2 * channels + 4) * voxels,
            windows=int(np.prod(places)),
        )

        def run(plan: Plan) -> F32:
            with deterministic():
                return slide(
                    self._engine.run, seen.array, self._engine.outputs, rules, plan, progress
                )

        return first_that_works(listed, int(os.environ.get(MEMORY_LIMIT, "0")), run)

    def _maps(self, said: F32, seen: Seen) -> tuple[F32 | None, Iterator[F32]]:
        """Map of the background, where structures exclude each other, and of each structure."""
        match self._package.manifest.runtime.activation:
            case "softmax":
                shares = softmax(said)
                background = 1.0 - seen.on_source(1.0 - shares[0])
                return background, (seen.on_source(one) for one in shares[1:])
            case "none":
                background = 1.0 - seen.on_source(1.0 - said[0])
                return background, (seen.on_source(one) for one in said[1:])
            case "sigmoid":
                return None, (seen.on_source(1 / (1 + np.exp(-one))) for one in said)


def softmax(said: F32) -> F32:
    """Logits (classes, ...) to shares that add up to 1, in place, class by class."""
    highest = said.max(axis=0)
    total = np.zeros_like(highest)
    for one in said:
        one -= highest
        np.exp(one, out=one)
        total += one
    for one in said:
        one /= total
    return said


def load_predictor(package: ModelPackage, device: str = "auto") -> NetworkPredictor:
    """Load a package's weights and run its test vector.

    Raises
    ------
    BrokenPackage
        Weights and architecture do not fit, or the test vector comes out differently.
    """
    engine = engine_of(package, device)
    wanted = len(package.segments) + (package.manifest.runtime.activation != "sigmoid")
    if engine.outputs != wanted:
        raise BrokenPackage(
            f"The model of {package.identity.family} has {engine.outputs} outputs; for the "
            f"segments of its manifest it would need {wanted}."
        )
    predictor = NetworkPredictor(package, engine)
    run_test_vector(package, predictor)
    return predictor


def engine_of(package: ModelPackage, device: str) -> Engine:
    """Load what computes, by the kind of the package."""
    match package.manifest.runtime.kind:
        case "onnx":
            from models.other_engines import onnx_engine

            return onnx_engine(package)
        case "skops":
            from models.other_engines import skops_engine

            return skops_engine(package)
        case _:
            return torch_engine(package, device)


def torch_engine(package: ModelPackage, device: str) -> Engine:
    """Build the network and fill in its weights."""
    network = build_network(package.configuration())
    family = package.identity.family
    try:
        fill(network, _weights(package), family)
    except BrokenPackage:
        raise
    except (TypeError, RuntimeError, SafetensorError, ValueError, KeyError, OSError) as error:
        raise BrokenPackage(
            f"The weights of {family} do not fit its architecture ({type(error).__name__})."
        ) from error
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    devices = [torch.device(name)]
    if name != "cpu" and device == "auto":
        devices.append(torch.device("cpu"))
    network.to(devices[0])
    channels = len(package.manifest.channels)

    def run(batch: torch.Tensor) -> torch.Tensor:
        network.to(batch.device)
        return _whole_output(network, batch)

    return Engine(
        run,
        _outputs(network, channels, package),
        tuple(devices),
        lambda shape: activation_bytes(network, _space(network, shape)),
    )


def _weights(package: ModelPackage) -> dict[str, torch.Tensor]:
    entry = package.weights_entry
    data = package.read(entry)
    if entry.path.endswith(".safetensors"):
        return dict(load_tensors(data))
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return {name: torch.from_numpy(np.array(stored[name])) for name in stored.files}


def _whole_output(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Output of a network of two or three dimensions, the finest where it gives several."""
    flat = _flat_axis(network, batch.shape)
    said = network(batch if flat is None else batch.squeeze(flat))
    if isinstance(said, (list, tuple)):
        said = said[0]
    found: torch.Tensor = said if flat is None else said.unsqueeze(flat)
    if found.ndim == 6:  # deep supervision of DynUNet: (batch, heads, classes, x, y, z)
        found = found[:, 0]
    return found


def _flat_axis(network: torch.nn.Module, shape: Sequence[int]) -> int | None:
    """Axis of a window that a network of two dimensions does not have."""
    if not any(isinstance(m, torch.nn.Conv2d) for m in network.modules()):
        return None
    flat = [axis for axis in (4, 3, 2) if shape[axis] == 1]
    if not flat:
        raise BrokenPackage("A network of two dimensions needs a patch that is 1 along one axis.")
    return flat[0]


def _space(network: torch.nn.Module, shape: Sequence[int]) -> list[int]:
    flat = _flat_axis(network, shape)
    return [size for axis, size in enumerate(shape) if axis != flat]


def _outputs(network: torch.nn.Module, channels: int, package: ModelPackage) -> int:
    """Channels of the output, found by running the network without computing anything."""
    import copy

    window = window_size((64, 64, 64), package.manifest.inference)
    shadow = copy.deepcopy(network).to("meta")
    try:
        with torch.no_grad():
            said = _whole_output(shadow, torch.empty((1, channels, *window), device="meta"))
    except BrokenPackage:
        raise
    except Exception as error:
        raise BrokenPackage(
            f"The network of {package.identity.family} does not take {channels} channels of "
            f"{' x '.join(map(str, window))} voxels ({type(error).__name__})."
        ) from error
    if tuple(said.shape[2:]) != tuple(window):
        raise BrokenPackage(
            f"The network of {package.identity.family} gives {tuple(said.shape[2:])} voxels for a "
            f"window of {window}: inference.multiple does not fit it."
        )
    return int(said.shape[1])


def run_test_vector(package: ModelPackage, predictor: NetworkPredictor) -> None:
    """Compute the package's own test; BrokenPackage when it comes out differently."""
    volume, wanted = read_test_vector(package)
    found = predictor.probabilities(volume, lambda done: None)
    same = found.shape == wanted.shape
    worst = float(np.abs(found - wanted).max()) if same else float("inf")
    if not worst <= package.manifest.test_vector.atol:
        raise BrokenPackage(
            f"The test vector of {package.identity.family} comes out {worst:.2g} off, allowed is "
            f"{package.manifest.test_vector.atol:g}: this machine computes something else."
        )


def read_test_vector(package: ModelPackage) -> tuple[Volume, F32]:
    """Read the inputs and the probabilities that belong to them."""
    data = io.BytesIO(package.read(package.manifest.files.test_vector))
    names = list(package.manifest.channels)
    try:
        with zipfile.ZipFile(data) as archive:
            if sum(item.file_size for item in archive.infolist()) > MOST_VECTOR_BYTES:
                raise ValueError("too large")
        with np.load(data, allow_pickle=False) as vector:
            affine = vector["affine"].astype(np.float64)
            made = {
                name: Volume(vector[vector_key(name, names)].astype(np.float32), affine)
                for name in names
            }
            wanted = vector["probabilities"].astype(np.float32)
        for one in made.values():
            refuse_unless_finite(one)
        orientation_of(affine)
    except (ValueError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BrokenPackage(
            f"The test vector of {package.identity.family} cannot be read ({type(error).__name__})."
        ) from error
    first, *rest = names
    return replace(made[first], others={name: made[name] for name in rest}), wanted


def vector_key(name: str, names: Sequence[str]) -> str:
    """Name of an input in the test vector: ``array``, or ``array_<name>`` of the further ones."""
    return "array" if name in (FIRST, names[0]) else f"array_{name}"
