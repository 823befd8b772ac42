"""Runs model classes written for the Bunkerhill SDK, unchanged, behind our own interface.

Their inputs are arrays and DICOM values by series; here they are made from volumes, so that what
comes back lies on the volume's grid. No pickle files, no sockets.

References
----------
bunkerhillhealth/bunkerhill-sdk, README (2023): inputs, outputs, ``BaseModel.inference``.
"""

from __future__ import annotations

import abc
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from models.base import BrokenPackage, UnfitInput, Volume
from models.manifest import Manifest

LPS = np.array([-1.0, -1.0, 1.0])
OF_THE_STUDY = frozenset({"chronological_age_months", "patient_sex", "patient_birth_date"})
"""Inputs that are given as they are; all others by series."""
_AGE = re.compile(r"^(\d{3})([DWMY])$")
_MONTHS = {"D": 12 / 365.25, "W": 7 * 12 / 365.25, "M": 1.0, "Y": 12.0}


class BaseModel(abc.ABC):
    """What models of the SDK are derived from."""

    @abc.abstractmethod
    def inference(self, **kwargs: Any) -> dict[str, Any]:
        """Run inference on one study."""


class ModelRunner:
    """Stands in for the SDK's server: a file may make one, nothing listens."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def start_run_loop(self) -> None:
        """Refuse: the node calls the model itself."""
        raise RuntimeError("this model is run by scorenode; nothing is served here")


def compute_z_dim_pixel_spacing(
    image_position_patient: Mapping[int, Sequence[float]],
) -> float:
    """Distance of neighbouring slices, from the positions of the first and the last."""
    first, last = min(image_position_patient), max(image_position_patient)
    ends = np.array(image_position_patient[last]) - np.array(image_position_patient[first])
    return float(np.linalg.norm(ends)) / max(last - first, 1)


def offer_sdk() -> None:
    """Let ``import bunkerhill...`` find what a model file needs, unless the SDK is installed."""
    if "bunkerhill" in sys.modules or importlib.util.find_spec("bunkerhill") is not None:
        return
    contents: dict[str, dict[str, Any]] = {
        "bunkerhill": {"__path__": []},
        "bunkerhill.base_model": {"BaseModel": BaseModel},
        "bunkerhill.model": {"BaseModel": BaseModel},
        "bunkerhill.bunkerhill_types": {
            "Outputs": dict[str, Any],
            "SeriesInstanceUID": str,
            "Tag": str,
        },
        "bunkerhill.model_runner": {"ModelRunner": ModelRunner},
        "bunkerhill.image_utils": {"compute_z_dim_pixel_spacing": compute_z_dim_pixel_spacing},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


@dataclass(frozen=True, eq=False)
class Adapted:
    """A model of the SDK behind our interface."""

    model: Any
    manifest: Manifest

    def inference(self, **inputs: Any) -> Mapping[str, Any]:
        """Call the model with the arguments it names; arrays come back on the volume's axes."""
        volumes = {name: one for name, one in inputs.items() if isinstance(one, Volume)}
        elements = {name: one for name, one in inputs.items() if not isinstance(one, Volume)}
        wanted = inspect.signature(self.model.inference).parameters
        said = self.model.inference(**{name: _argument(name, volumes, elements) for name in wanted})
        if not isinstance(said, Mapping):
            raise BrokenPackage("The model returned no mapping of outputs.")
        return {
            str(name): self._on_volume(str(name), value, next(iter(volumes)))
            for name, value in said.items()
            if name in self.manifest.outputs
        }

    def _on_volume(self, name: str, value: Any, series: str) -> Any:
        """Turn (slices, rows, columns) into the volume's axes; other values stay."""
        if isinstance(value, Mapping) and series in value:
            value = value[series]
        entry = self.manifest.outputs[name]
        if entry.kind not in ("mask", "probability_map"):
            return value
        array = np.asarray(value)
        if array.ndim == 4 and entry.segment is not None:  # one map for each class
            array = array[entry.segment]
        if array.ndim != 3:
            raise BrokenPackage(f"The output {name} has {array.ndim} axes, wanted three.")
        return array.transpose(2, 1, 0)


def _argument(
    name: str, volumes: Mapping[str, Volume], elements: Mapping[str, Any]
) -> dict[str, Any] | Any:
    """Value of one argument: by series, or of the study."""
    if name in _FROM_VOLUME:
        return {series: _FROM_VOLUME[name](volume) for series, volume in volumes.items()}
    if name not in elements:
        raise BrokenPackage(
            f"The model wants {name}; name it under elements in model.yaml, with its keyword."
        )
    value = elements[name]
    if name == "chronological_age_months":
        return _months(value)
    return value if name in OF_THE_STUDY else dict.fromkeys(volumes, value)


def _months(value: Any) -> float:
    found = _AGE.match(str(value or ""))
    if found is None:
        raise UnfitInput("element_missing", "The images have no Patient's Age the model could use.")
    return int(found[1]) * _MONTHS[found[2]]


def _positions(volume: Volume) -> dict[int, tuple[float, ...]]:
    """Image Position (Patient) of each slice, by its place."""
    return {k: tuple((origin * LPS).tolist()) for k, origin in enumerate(volume.origins)}


def _orientation(volume: Volume) -> tuple[float, ...]:
    cosines = volume.affine[:3, :2] / np.linalg.norm(volume.affine[:3, :2], axis=0)
    return tuple((cosines.T * LPS).ravel().tolist())


_FROM_VOLUME: Mapping[str, Callable[[Volume], Any]] = {
    "pixel_array": lambda volume: np.ascontiguousarray(volume.array.transpose(2, 1, 0)),
    "image_position_patient": _positions,
    "image_orientation_patient": _orientation,
    "pixel_spacing": lambda volume: (float(volume.spacing[1]), float(volume.spacing[0])),
    "slice_thickness": lambda volume: float(volume.spacing[2]),
    "rescale_slope": lambda volume: 1.0,
    "rescale_intercept": lambda volume: 0.0,
    "photometric_interpretation": lambda volume: "MONOCHROME2",
}
"""Arguments that a volume answers; its array is in modality units already."""
