"""What a GMLVQ model on disk consists of, and whether its parts fit each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from models.gmlvq_case import Bootstrap, TrainingRange
from models.gmlvq_learning import Learned
from models.gmlvq_probability import Calibration

LIBRARIES = ("numpy", "scipy", "scikit-learn", "safetensors")
ARRAY_PARAMETERS = ("init", "subspace_correction")
PER_CLASS_PARAMETERS = ("prototypes_per_class", "class_weight")
OF_BOOTSTRAP = ("mean", "scale", "prototypes", "omega", "calibration")
"""The last is missing in models without probabilities, and in those of earlier versions."""
NORM_TOLERANCE = 1e-9

LabelKind = Literal["bool", "int64", "float64", "str", "object"]
LABELS: dict[str, LabelKind] = {
    "b": "bool",
    "i": "int64",
    "u": "int64",
    "f": "float64",
    "U": "str",
    "O": "object",
}
"""How labels of a kind are kept, whatever their width."""

Array = NDArray[Any]
Label = bool | int | float | str


class Header(BaseModel):
    """The content of ``model.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    schema_version: Literal["scorenode-gmlvq/1"]
    classes: list[Label]
    class_dtype: LabelKind
    features: list[str] | None
    units: dict[str, str]
    parameters: dict[str, Any]
    converged: bool
    calibration: list[float] | None
    distance_limit: float
    training_sha256: str
    libraries: dict[str, str]
    arrays_sha256: str
    digest: str = ""

    def digest_of_rest(self) -> str:
        """SHA-256 of everything but itself."""
        content = self.model_dump(exclude={"digest"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Contents:
    """What both files hold.

    Parameters
    ----------
    header : Header
    arrays : dict
        By name, as `troubles` wants them.
    """

    header: Header
    arrays: dict[str, Array]

    def parameters(self) -> dict[str, Any]:
        """Parameters of the classifier."""
        found = dict(self.header.parameters)
        for name in ARRAY_PARAMETERS:
            found[name] = self.arrays.get(f"parameter.{name}", found.get(name))
        for name in PER_CLASS_PARAMETERS:
            if isinstance(found[name], list):
                found[name] = dict(found[name])
        return found

    def classes(self) -> Array:
        """Labels of the classes, shape (classes,)."""
        return np.array(self.header.classes, dtype=self.header.class_dtype)

    def learned(self) -> Learned:
        """Prototypes and matrices."""
        names = ("mean", "scale", "prototypes", "prototype_classes", "omega", "curve")
        return Learned(
            **{name: self.arrays[name] for name in names}, converged=self.header.converged
        )

    def training_range(self) -> TrainingRange:
        """Give what was learned from."""
        limit = self.header.distance_limit
        return TrainingRange(self.arrays["lowest"], self.arrays["highest"], limit)

    def calibration(self) -> Calibration | None:
        """How distances become probabilities."""
        told = self.header.calibration
        return None if told is None else Calibration.of(told)

    def bootstrap(self) -> Bootstrap | None:
        """Replicates, where there are any."""
        if "bootstrap.mean" not in self.arrays:
            return None
        needed = {name: self.arrays[f"bootstrap.{name}"] for name in OF_BOOTSTRAP[:-1]}
        return Bootstrap(**needed, calibration=self.arrays.get("bootstrap.calibration"))


def fingerprint(x: Array, y: Array) -> str:
    """SHA-256 of training data: shape, values, labels."""
    digest = hashlib.sha256(repr(x.shape).encode())
    digest.update(np.ascontiguousarray(x, dtype="<f8").tobytes())
    digest.update(json.dumps(y.tolist(), default=str).encode())
    return digest.hexdigest()


def contents_of(model: Any, units: Mapping[str, str]) -> Contents:
    """Gather what a fitted classifier knows.

    Raises
    ------
    ValueError
        Its classes or parameters cannot be written as JSON.
    """
    dtype = model.classes_.dtype
    if dtype.kind not in LABELS:
        raise ValueError(f"A model with labels of the type {dtype.name} cannot be saved.")
    arrays = _arrays_of(model)
    parameters = model.get_params(deep=False)
    for name in ARRAY_PARAMETERS:
        if parameters[name] is not None and not isinstance(parameters[name], str):
            arrays[f"parameter.{name}"] = np.asarray(parameters.pop(name), dtype=np.float64)
    for name in PER_CLASS_PARAMETERS:
        if isinstance(parameters[name], Mapping):
            pairs = parameters[name].items()
            parameters[name] = [[_plain(key), _plain(value)] for key, value in pairs]
    if isinstance(parameters["random_state"], np.random.RandomState):
        parameters["random_state"] = None
    names = getattr(model, "feature_names_in_", None)
    calibration = model.calibration_
    header = Header(
        schema_version="scorenode-gmlvq/1",
        classes=model.classes_.tolist(),
        class_dtype=LABELS[dtype.kind],
        features=None if names is None else [str(name) for name in names],
        units=dict(units),
        parameters={name: _plain(value) for name, value in parameters.items()},
        converged=model.converged_,
        calibration=calibration and calibration.numbers,
        distance_limit=model.training_range_.distance_limit,
        training_sha256=model.training_sha256_,
        libraries={name: version(name) for name in LIBRARIES},
        arrays_sha256="",
    )
    return Contents(header, arrays)


def _arrays_of(model: Any) -> dict[str, Array]:
    arrays = {
        "mean": model.mean_,
        "scale": model.scale_,
        "prototypes": model.prototypes_,
        "prototype_classes": model.prototype_classes_.astype(np.int64),
        "omega": model.omega_ if model.local else model.omega_[None],
        "curve": model.cost_curve_,
        "lowest": model.training_range_.lowest,
        "highest": model.training_range_.highest,
    }
    if model.bootstrap_ is not None:
        found = {name: getattr(model.bootstrap_, name) for name in OF_BOOTSTRAP}
        arrays |= {f"bootstrap.{name}": one for name, one in found.items() if one is not None}
    return arrays


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def troubles(contents: Contents) -> Iterator[str]:
    """Find what does not fit; nothing where all is well."""
    header, arrays = contents.header, contents.arrays
    wanted = _shapes(arrays, header)
    if set(wanted) != set(arrays):
        odd = sorted(set(wanted) ^ set(arrays))
        yield f"arrays are missing or too many: {', '.join(odd)[:200]}."
        return
    for name, shape in wanted.items():
        found = arrays[name]
        kind = np.int64 if name == "prototype_classes" else np.float64
        fits = len(found.shape) == len(shape) and all(
            size in (None, there) for size, there in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype != kind or 0 in found.shape:
            yield f"{name} has the wrong shape or type: {found.shape} {found.dtype}."
            return
        if not np.isfinite(found).all():
            yield f"{name} holds what is no number."
    yield from _odd_values(header, arrays)


def _shapes(arrays: Mapping[str, Array], header: Header) -> dict[str, tuple[int | None, ...]]:
    """Shape of each array that must be there; None where any length will do."""
    features = _length(arrays, "mean")
    prototypes = _length(arrays, "prototypes")
    matrices = prototypes if header.parameters.get("local") else 1
    shapes: dict[str, tuple[int | None, ...]] = {
        **dict.fromkeys(("mean", "scale", "lowest", "highest"), (features,)),
        "prototypes": (prototypes, features),
        "prototype_classes": (prototypes,),
        "omega": (matrices, None, features),
        "curve": (None,),
    }
    if any(name.startswith("bootstrap.") for name in arrays):
        count = _length(arrays, "bootstrap.mean")
        shapes |= {f"bootstrap.{name}": (count, features) for name in ("mean", "scale")}
        shapes["bootstrap.prototypes"] = (count, prototypes, features)
        shapes["bootstrap.omega"] = (count, matrices, None, features)
        if "bootstrap.calibration" in arrays:
            shapes["bootstrap.calibration"] = (count, len(header.classes) + 1)
    if "parameter.init" in arrays:
        shapes["parameter.init"] = (prototypes, features)
    if "parameter.subspace_correction" in arrays:
        shapes["parameter.subspace_correction"] = (features, None)
    return shapes


def _length(arrays: Mapping[str, Array], name: str) -> int | None:
    found = arrays.get(name)
    return len(found) if found is not None and found.ndim else None


def _odd_values(header: Header, arrays: Mapping[str, Array]) -> Iterator[str]:
    classes = len(header.classes)
    if classes < 2 or len(set(map(repr, header.classes))) < classes:
        yield "there must be at least two classes, each named once."
    elif not _are_in_order(header):
        yield f"classes are not labels of the type {header.class_dtype}, in their order."
    if not np.array_equal(np.unique(arrays["prototype_classes"]), np.arange(classes)):
        yield "prototypes are not those of the classes."
    if (arrays["lowest"] > arrays["highest"]).any():
        yield "the lowest value is above the highest."
    if not (arrays["scale"] > 0).all():
        yield "a feature has no positive scale."
    for name in ("omega", "bootstrap.omega"):
        norms = np.linalg.norm(arrays.get(name, np.ones((1, 1, 1))), axis=(-2, -1))
        if (abs(norms - 1) > NORM_TOLERANCE).any():
            yield f"relevances of {name} do not add up to 1."
    told = header.calibration
    if told is not None and (len(told) != classes + 1 or told[0] < 0):
        yield "the calibration is not one for these classes."
    if (arrays.get("bootstrap.calibration", np.ones((1, 1)))[:, 0] < 0).any():
        yield "a calibration of bootstrap.calibration falls with distance."
    if header.features is not None and (
        len(header.features) != len(arrays["mean"])
        or len(set(header.features)) < len(header.features)
    ):
        yield "names of features are too few, too many, or not different."
    if header.distance_limit < 0:
        yield "a limit of distances is negative."


def _are_in_order(header: Header) -> bool:
    """Whether labels are what their type makes of them, and ascend."""
    try:
        classes = np.array(header.classes, dtype=header.class_dtype)
        in_order = bool((np.sort(classes) == classes).all())
    except (TypeError, ValueError, OverflowError):
        return False
    return in_order and list(map(repr, classes.tolist())) == list(map(repr, header.classes))
