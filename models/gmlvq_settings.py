"""What the parameters of GMLVQ may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight

from models.gmlvq_cost import Floats, Ints
from models.gmlvq_start import Init

CHOICES: dict[str, tuple[object, ...]] = {
    "solver": ("lbfgs", "waypoint"),
    "activation": ("sigmoid", "identity"),
    "missing": ("forbid", "partial"),
    "null_space": ("auto", True, False),
    "local": (True, False),
    "standardize": (True, False),
}


class Settings(Protocol):
    """The parameters of `GMLVQClassifier`, which describes them."""

    prototypes_per_class: int | Mapping[Any, int]
    rank: int | None
    local: bool
    solver: Literal["lbfgs", "waypoint"]
    activation: Literal["sigmoid", "identity"]
    beta: float
    regularization: float
    init: Init
    null_space: Literal["auto"] | bool
    subspace_correction: ArrayLike | None
    class_weight: Literal["balanced"] | Mapping[Any, float] | None
    missing: Literal["forbid", "partial"]
    standardize: bool
    max_iter: int
    tol: float
    calibration_folds: int


def check_settings(settings: Settings) -> None:
    """Refuse what no data could make right.

    Raises
    ------
    ValueError
        Names the parameter, its value and what it may be.
    """
    for name, allowed in CHOICES.items():
        value = getattr(settings, name)
        if not any(value is item or (isinstance(item, str) and value == item) for item in allowed):
            raise ValueError(f"{name} must be one of {allowed}, not {value!r}.")
    if isinstance(settings.init, str) and settings.init not in ("kmeans", "mean"):
        raise ValueError(f"init must be 'kmeans', 'mean' or an array, not {settings.init!r}.")
    for name in ("beta", "regularization", "tol"):
        value = getattr(settings, name)
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a number from 0, not {value!r}.")
    for name, least in (("max_iter", 1), ("calibration_folds", 0)):
        value = getattr(settings, name)
        if not _whole(value, least):
            raise ValueError(f"{name} must be a whole number from {least}, not {value!r}.")
    if settings.rank is not None and not _whole(settings.rank, 1):
        raise ValueError(f"rank must be a whole number from 1, or None, not {settings.rank!r}.")
    if settings.calibration_folds == 1:
        raise ValueError("calibration_folds must be 0 or at least 2: one fold holds nothing out.")
    if settings.activation == "sigmoid" and settings.beta == 0:
        raise ValueError("A sigmoid of beta 0 is flat; activation='identity' may be meant.")


def _whole(value: object, least: int) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and value >= least  # type: ignore[operator]


def class_weights(
    wanted: Literal["balanced"] | Mapping[Any, float] | None,
    classes: NDArray[Any],
    label: Ints,
) -> Floats:
    """Weight of each sample, shape (samples,), sum 1.

    Raises
    ------
    ValueError
        A weight is negative, or names no class.
    """
    if wanted is None:
        return np.full(len(label), 1 / len(label))
    given = dict(wanted) if isinstance(wanted, Mapping) else wanted
    of_class = compute_class_weight(given, classes=classes, y=classes[label])
    weight = np.asarray(of_class, dtype=np.float64)[label]
    if not (weight >= 0).all() or not 0 < weight.sum() < np.inf:
        raise ValueError(f"class_weight must hold numbers from 0, and not only 0: {wanted!r}.")
    found: Floats = weight / weight.sum()
    return found
