"""Read a system that Biehl's MATLAB toolbox learned, saved as MATLAB v5."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from models.base import BrokenPackage
from models.gmlvq import GMLVQClassifier
from models.gmlvq_case import TrainingRange
from models.gmlvq_cost import Floats
from models.gmlvq_learning import Learned

FIELDS = ("protos", "lambda", "plbl", "mean_features", "std_features")
MOST_BYTES = 1 << 30
MOST_CLASS, MOST_RELEVANCE = 1e6, 1e100
RANGE_STD = 4.0
"""The toolbox keeps no range of its training data; this many standard deviations stand for it."""


def read_toolbox(path: Path, labels: list[str] | None = None) -> GMLVQClassifier:
    """Make a classifier of the struct ``gmlvq_system``; it has no probabilities.

    Parameters
    ----------
    path : Path
        A ``.mat`` file up to version 7 (v7.3 is HDF5; save with ``-v7``). One struct in it has the
        fields ``protos lambda plbl mean_features std_features``. Prototypes are of z-scored
        features: the toolbox's default.
    labels : list of str, optional
        Names of the classes 1, 2 and so on.

    Raises
    ------
    BrokenPackage
        There is no such struct, or its fields do not fit each other.
    """
    system = _system(path)
    prototypes, relevance = (np.atleast_2d(system[name]) for name in ("protos", "lambda"))
    mean, scale = (np.ravel(system[name]) for name in ("mean_features", "std_features"))
    numbers = np.ravel(system["plbl"])
    _check(path, prototypes, relevance, mean, scale, numbers)
    classes, of = np.unique(numbers, return_inverse=True)
    if labels is not None:
        if len(set(labels)) < len(labels) or not all(map(str.strip, labels)):
            raise BrokenPackage("Names of classes must be there, and each another.")
        if len(labels) != len(classes):
            raise BrokenPackage(
                f"{path} has {len(classes)} classes; {len(labels)} names are given."
            )
        classes, places = np.unique(labels, return_inverse=True)
        of = places[of]
    order = np.argsort(of, kind="stable")
    model = GMLVQClassifier(solver="waypoint", activation="identity", regularization=0.0)
    model.classes_ = classes.astype(int) if labels is None else classes
    model.n_features_in_ = len(mean)
    omega = _root(relevance)[None]
    model._keep(Learned(mean, scale, prototypes[order], of[order], omega, np.zeros(1), True))
    spread = RANGE_STD * scale
    model.training_range_ = TrainingRange(mean - spread, mean + spread, np.finfo(float).max)
    model.training_sha256_ = hashlib.sha256(path.read_bytes()).hexdigest()
    model.calibration_, model.bootstrap_ = None, None
    return model


def _system(path: Path) -> dict[str, Floats]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BrokenPackage(f"{path} is larger than {MOST_BYTES >> 20} MiB.")
        content = loadmat(path, squeeze_me=True, struct_as_record=True)
    except OSError as error:
        raise BrokenPackage(f"{path} cannot be read: {error.strerror or 'damaged'}.") from error
    except (MatReadError, ValueError, TypeError, NotImplementedError, EOFError) as error:
        raise BrokenPackage(f"{path} is no MATLAB file up to version 7.") from error
    structs = [value for value in content.values() if _names(value) >= set(FIELDS)]
    if len(structs) != 1:
        raise BrokenPackage(f"{path} holds {len(structs)} structs with {', '.join(FIELDS)}.")
    try:
        return {name: _numbers(structs[0][name].item()) for name in FIELDS}
    except (ValueError, TypeError) as error:
        raise BrokenPackage(f"{path} has a field that does not hold real numbers.") from error


def _names(value: Any) -> set[str]:
    return set(getattr(getattr(value, "dtype", None), "names", None) or ())


def _numbers(value: Any) -> Floats:
    array: NDArray[Any] = np.asarray(value)
    if array.dtype.kind not in "iufb":
        raise TypeError("no real numbers")
    return array.astype(np.float64)


def _check(
    path: Path, prototypes: Floats, relevance: Floats, mean: Floats, scale: Floats, numbers: Floats
) -> None:
    features = len(mean)
    fits = (
        prototypes.shape == (len(numbers), features)
        and relevance.shape == (features, features)
        and scale.shape == (features,)
        and len(np.unique(numbers)) >= 2
    )
    if not fits:
        raise BrokenPackage(f"{path}: sizes of prototypes, lambda, means and labels do not fit.")
    arrays = (prototypes, relevance, mean, scale, numbers)
    if not all(np.isfinite(array).all() for array in arrays) or (scale <= 0).any():
        raise BrokenPackage(f"{path} holds what is no number, or a scale that is not positive.")
    if (numbers % 1 != 0).any() or abs(numbers).max() > MOST_CLASS:
        raise BrokenPackage(f"{path}: plbl must hold whole numbers of classes.")
    size = float(abs(relevance).max())
    if not 1 / MOST_RELEVANCE < size < MOST_RELEVANCE:
        raise BrokenPackage(f"{path}: lambda is no relevance matrix: 0, or beyond all measure.")
    lowest = float(np.linalg.eigvalsh((relevance + relevance.T) / 2).min())
    if abs(relevance - relevance.T).max() > 1e-8 * size or lowest < -1e-8 * size:
        raise BrokenPackage(f"{path}: lambda is no relevance matrix, symmetric and not negative.")


def _root(relevance: Floats) -> Floats:
    """Omega of trace 1 with Omega^T Omega = Lambda."""
    values, vectors = np.linalg.eigh((relevance + relevance.T) / 2)
    omega: Floats = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return omega / float(np.linalg.norm(omega))
