"""Models that are code: named inputs in, named outputs back, geometry never lost.

Such a package runs only where the admin trusts it, and only in a runner.
"""

from __future__ import annotations

import importlib.util
import io
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.base import (
    BrokenPackage,
    Findings,
    ModelIdentity,
    Number,
    Progress,
    UnfitInput,
    Volume,
)
from models.head_ct import refuse_unless_finite
from models.labelling import cleaned, findings_of
from models.manifest import OutputEntry
from models.package import ModelPackage

Mask = NDArray[np.bool_]


class Model(Protocol):
    """What a model of our own interface is: a class that is made once and asked often."""

    def inference(self, **inputs: Any) -> Mapping[str, Any]:
        """Score one case.

        Parameters
        ----------
        **inputs
            By the names of the manifest: a `Volume` for each series, a value for each element
            (None where the images have none).

        Returns
        -------
        mapping
            Name of an output to its value: an array on the first volume's grid (mask, probability
            map), a number (measurement), a word (class), a sentence (text).
        """


@dataclass(frozen=True, eq=False)
class PythonPredictor:
    """A trusted package's object, made and ready."""

    package: ModelPackage
    model: Model

    @property
    def identity(self) -> ModelIdentity:
        """What to cite."""
        return self.package.identity

    def predict(self, volume: Volume, progress: Progress) -> Findings:
        """Call the model and check what it returns.

        Raises
        ------
        UnfitInput
            An input is missing or not what the manifest asks for.
        BrokenPackage
            An output is missing, not named in the manifest, or not of its kind.
        """
        outputs = self.call(volume)
        progress(1.0)
        return self._findings(outputs, volume)

    def call(self, volume: Volume) -> Mapping[str, Any]:
        """Give the model its inputs by name; what it returns, all of what the manifest names."""
        manifest = self.package.manifest
        names = list(manifest.channels)
        volumes = {names[0]: replace(volume, others={})}
        for name in names[1:]:
            if name not in volume.others:
                raise UnfitInput("input_missing", f"The input {name} of the model is missing.")
            volumes[name] = volume.others[name]
        for name, one in volumes.items():
            refuse_unless_finite(one)
            volumes[name] = _own_copy(one)
        elements = {name: volume.elements.get(name) for name in manifest.elements}
        try:
            said = self.model.inference(**volumes, **elements)
        except (BrokenPackage, UnfitInput, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            from models.memory import is_out_of_memory  # imports torch

            if is_out_of_memory(error):
                raise
            raise BrokenPackage(
                f"{self._name} failed ({type(error).__name__}{_place_of(error)})."
            ) from error
        if not isinstance(said, Mapping):
            raise BrokenPackage(f"{self._name} returned {type(said).__name__}, wanted a mapping.")
        wanted = manifest.outputs
        wrong = sorted(map(str, said.keys() ^ wanted.keys()))
        if wrong:
            raise BrokenPackage(
                f"{self._name} returned other outputs than its manifest names: {', '.join(wrong)}."
            )
        return said

    @property
    def _name(self) -> str:
        return f"The model {self.package.identity.family}"

    def _findings(self, outputs: Mapping[str, Any], volume: Volume) -> Findings:
        entries = self.package.manifest.outputs
        masks: dict[int, Mask] = {}
        numbers: list[Number] = []
        texts: list[str] = []
        classes: dict[str, str] = {}
        named: dict[str, str] = {}
        for name, entry in entries.items():
            value = outputs[name]
            match entry.kind:
                case "mask" | "probability_map":
                    masks |= self._masks(name, entry, value, volume)
                case "measurement":
                    numbers.append(self._number(name, entry, value))
                case "class":
                    word = str(self._checked(name, value, (str, int, np.integer)))
                    if entry.classes and word not in entry.classes:
                        raise BrokenPackage(f"{self._name}: {name} is no class of its manifest.")
                    classes[name] = word
                    texts.append(f"{name}: {entry.classes.get(word, word)}.")
                case "text":
                    named[name] = str(self._checked(name, value, (str,)))[:1024]
                    texts.append(named[name])
        found = self._joined(masks, numbers, texts, volume)
        return replace(found, classes=classes, named_texts=named)

    def _masks(self, name: str, entry: OutputEntry, value: Any, volume: Volume) -> dict[int, Mask]:
        array = self._array(name, value)
        if array.shape != volume.array.shape:
            raise BrokenPackage(
                f"{self._name}: {name} has shape {array.shape}, the volume {volume.array.shape}."
            )
        rules = self.package.manifest.postprocess
        if entry.kind == "mask" and not (array == np.round(array)).all():
            raise BrokenPackage(f"{self._name}: {name} is a mask with values that are not whole.")
        if entry.kind == "probability_map":
            if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
                raise BrokenPackage(f"{self._name}: {name} is no map of probabilities.")
            found = {int(entry.segment or 0): array > rules.threshold}
        elif entry.segment is not None:
            found = {entry.segment: array != 0}
        else:
            known = {segment.number for segment in self.package.segments}
            strange = set(np.unique(array).tolist()) - known - {0}
            if strange:
                raise BrokenPackage(f"{self._name}: {name} holds {sorted(strange)}, no segment.")
            found = {number: array == number for number in known}
        return {n: cleaned(mask, rules, volume.voxel_ml) for n, mask in found.items()}

    def _array(self, name: str, value: Any) -> NDArray[Any]:
        try:
            array = np.asarray(value)
        except Exception as error:
            raise BrokenPackage(
                f"{self._name}: {name} is no array ({type(error).__name__})."
            ) from error
        if array.dtype.kind not in "biuf":
            raise BrokenPackage(f"{self._name}: {name} holds {array.dtype}, wanted numbers.")
        return array

    def _checked(self, name: str, value: Any, kinds: tuple[type, ...]) -> Any:
        if not isinstance(value, kinds):
            raise BrokenPackage(f"{self._name}: {name} is of type {type(value).__name__}.")
        return value

    def _number(self, name: str, entry: OutputEntry, value: Any) -> Number:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not np.isfinite(number):
            raise BrokenPackage(f"{self._name}: {name} is no finite number.")
        return Number(name, number, entry.unit, entry.segment, entry.name)

    def _joined(
        self, masks: dict[int, Mask], numbers: list[Number], texts: list[str], volume: Volume
    ) -> Findings:
        if not masks:
            return Findings(None, self.package.segments, tuple(numbers), None, texts=tuple(texts))
        labels = np.zeros(volume.array.shape, np.uint8)
        count = np.zeros(volume.array.shape, np.uint8)
        for number, mask in sorted(masks.items()):
            labels[mask] = number
            count += mask
        shared = count > 1
        whole = {number: mask for number, mask in masks.items() if (mask & shared).any()}
        found = findings_of(labels, whole, self.package.segments, volume, None)
        return replace(found, numbers=(*found.numbers, *numbers), texts=tuple(texts))


def _own_copy(volume: Volume) -> Volume:
    """Give a model arrays of its own: what it does to them does not move its results."""
    origins = volume.slice_origins
    return replace(
        volume,
        array=volume.array.astype(np.float32),
        affine=volume.affine.copy(),
        slice_origins=None if origins is None else origins.copy(),
    )


def _place_of(error: BaseException) -> str:
    """Line of the model's code where an error came from; its text may hold patient data."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def load_predictor(package: ModelPackage) -> PythonPredictor:
    """Import a trusted package's code, make its object, run its test vector.

    Raises
    ------
    BrokenPackage
        The code cannot be imported, has no such class, or does not give the test's outputs.
    """
    predictor = _made(package)
    _run_test_vector(package, predictor)
    return predictor


def output_arrays(package: ModelPackage, volume: Volume) -> dict[str, NDArray[Any]]:
    """Compute the outputs for a test vector that is being written, as arrays by name."""
    said = _made(package).call(volume)
    return {f"output_{name}": np.asarray(value) for name, value in said.items()}


def _made(package: ModelPackage) -> PythonPredictor:
    sys.dont_write_bytecode = True  # a package holds no file its manifest does not name
    runtime = package.manifest.runtime
    module_name, _, class_name = str(runtime.entry).partition(":")
    if runtime.interface == "bunkerhill":
        from models.bunkerhill_adapter import Adapted, offer_sdk

        offer_sdk()
    maker = getattr(_imported(package, module_name), class_name, None)
    if not callable(maker):
        raise BrokenPackage(f"{package.folder} has no class {class_name} in {module_name}.py.")
    try:
        made = maker()
    except (Exception, SystemExit) as error:
        raise BrokenPackage(
            f"The model {package.identity.family} cannot be made ({type(error).__name__})."
        ) from error
    model: Model = Adapted(made, package.manifest) if runtime.interface == "bunkerhill" else made
    return PythonPredictor(package, model)


def _imported(package: ModelPackage, name: str) -> ModuleType:
    """Import one verified file; its folder is on the path, so that it finds its neighbours."""
    path = package.folder / f"{name}.py"
    entry = next((e for e in package.manifest.files.code if e.path == path.name), None)
    if entry is None:
        raise BrokenPackage(f"{path.name} is not among files.code of {package.folder}.")
    source = package.read(entry)
    if str(package.folder) not in sys.path:
        sys.path.append(str(package.folder))
    unique = f"scorenode_model_{package.identity.sha256[:16]}_{name}"
    spec = importlib.util.spec_from_loader(unique, loader=None, origin=str(path))
    assert spec is not None  # noqa: S101 - made from a name and no loader
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[unique] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - trusted by the admin
    except (Exception, SystemExit) as error:
        raise BrokenPackage(f"{path} cannot be imported ({type(error).__name__}).") from error
    return module


def _run_test_vector(package: ModelPackage, predictor: PythonPredictor) -> None:
    """Compute the package's own test: every output must come out as it is there."""
    data = io.BytesIO(package.read(package.manifest.files.test_vector))
    names = list(package.manifest.channels)
    try:
        with np.load(data, allow_pickle=False) as stored:
            vector = {name: stored[name] for name in stored.files}
        affine = vector["affine"].astype(np.float64)
        keys = ["array", *(f"array_{name}" for name in names[1:])]
        volumes = [Volume(vector[key].astype(np.float32), affine) for key in keys]
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise BrokenPackage(
            f"The test vector of {package.identity.family} cannot be read ({type(error).__name__})."
        ) from error
    elements = {
        name: vector[f"element_{name}"].item()
        for name in package.manifest.elements
        if f"element_{name}" in vector
    }
    others = dict(zip(names[1:], volumes[1:], strict=True))
    said = predictor.call(replace(volumes[0], others=others, elements=elements))
    for name in package.manifest.outputs:
        if not _agrees(said[name], vector.get(f"output_{name}"), package.manifest.test_vector.atol):
            raise BrokenPackage(
                f"The test vector of {package.identity.family} comes out differently: {name}."
            )


def _agrees(said: Any, wanted: NDArray[Any] | None, atol: float) -> bool:
    if wanted is None:
        return False
    if wanted.dtype.kind in "US":
        return str(said) == str(wanted)
    try:
        found = np.asarray(said).astype(np.float64)
    except (TypeError, ValueError):
        return False
    return found.shape == wanted.shape and np.allclose(found, wanted.astype(np.float64), atol=atol)
