"""GMLVQ on disk comes back bit for bit, or not at all."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sklearn.datasets import load_iris

from models.base import BrokenPackage
from models.gmlvq import GMLVQClassifier
from models.gmlvq_contents import Header
from models.gmlvq_file import ARRAYS, HEADER


def iris() -> tuple[NDArray[np.float64], NDArray[Any]]:
    x, y = load_iris(return_X_y=True)
    return x, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.mark.parametrize(
    "settings",
    [
        {"calibration_folds": 3},
        {"local": True, "missing": "partial", "class_weight": {"setosa": 2.0}},
        {"rank": 2, "prototypes_per_class": {"setosa": 2}, "random_state": 5},
        {"init": load_iris().data[[0, 50, 100]], "subspace_correction": np.eye(4)[:, :1]},
    ],
    ids=["calibrated", "local", "rank", "arrays"],
)
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    x, y = iris()
    model = GMLVQClassifier(**settings).fit(x, y).bootstrap(x, y, replicates=5)

    model.save(tmp_path / "model")
    other = GMLVQClassifier.load(tmp_path / "model")

    assert np.array_equal(other.classes_, model.classes_)
    assert np.array_equal(other.predict(x), model.predict(x))
    assert np.array_equal(other.decision_function(x), model.decision_function(x))
    assert np.array_equal(other.relevance_matrix_, model.relevance_matrix_)
    assert other.reject_reasons(x * 2) == model.reject_reasons(x * 2)
    assert other.training_sha256_ == model.training_sha256_
    if model.calibration_folds:
        assert np.array_equal(other.probability_interval(x), model.probability_interval(x))
    again = other.fit(x, y)
    assert again.predict(x).shape == (150,)
    model.save(tmp_path / "second")
    first, second = ((tmp_path / at / ARRAYS).read_bytes() for at in ("model", "second"))
    assert first == second


@pytest.mark.parametrize(
    "labels", [[0, 1], [False, True], [1.0, 2.0]], ids=["int", "bool", "float"]
)
def test_labels_keep_their_kind(tmp_path: Path, labels: list[Any]) -> None:
    x, y = iris()
    model = GMLVQClassifier().fit(x, np.array(labels)[(y == "setosa").astype(int)])

    model.save(tmp_path)

    assert GMLVQClassifier.load(tmp_path).predict(x).dtype == model.predict(x).dtype


@pytest.mark.parametrize("kind", ["int8", "int32", "uint8", "float16", "float32"])
def test_labels_of_any_width_come_back(tmp_path: Path, kind: str) -> None:
    x, y = iris()
    labels = (y == "setosa").astype(kind)
    model = GMLVQClassifier().fit(x, labels)

    model.save(tmp_path)

    assert np.array_equal(GMLVQClassifier.load(tmp_path).predict(x), model.predict(x))


def test_labels_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    x, y = iris()
    model = GMLVQClassifier().fit(x, y.astype("S"))

    with pytest.raises(ValueError, match=r"labels of the type bytes\d+ cannot be saved"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def saved(folder: Path) -> Path:
    x, y = iris()
    GMLVQClassifier(calibration_folds=3).fit(x, y).bootstrap(x, y, replicates=2).save(folder)
    return folder


def seal(folder: Path, header: dict[str, Any]) -> None:
    """Write a header with digests that are right."""
    header["arrays_sha256"] = hashlib.sha256((folder / ARRAYS).read_bytes()).hexdigest()
    rest = {name: value for name, value in header.items() if name != "digest"}
    header["digest"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    (folder / HEADER).write_text(json.dumps(header))


def change_array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        arrays = load((folder / ARRAYS).read_bytes())
        arrays[name] = np.ascontiguousarray(change(arrays.get(name)))
        (folder / ARRAYS).write_bytes(save(arrays))
        seal(folder, json.loads((folder / HEADER).read_text()))

    return act


def change_header(name: str, value: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        header = json.loads((folder / HEADER).read_text())
        seal(folder, header | {name: value})

    return act


def change_parameter(name: str, value: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        header = json.loads((folder / HEADER).read_text())
        header["parameters"][name] = value
        seal(folder, header)

    return act


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / ARRAYS).read_bytes())
    data[-1] ^= 1
    (folder / ARRAYS).write_bytes(data)


def rename_a_class(folder: Path) -> None:
    text = (folder / HEADER).read_text()
    (folder / HEADER).write_text(text.replace("setosa", "sedosa"))


def put_a_pickle(folder: Path) -> None:
    (folder / ARRAYS).write_bytes(pickle.dumps({"mean": [0.0]}))
    seal(folder, json.loads((folder / HEADER).read_text()))


def write_nan(folder: Path) -> None:
    text = (folder / HEADER).read_text()
    (folder / HEADER).write_text(text.replace('"converged": true', '"converged": NaN'))


def set_first(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (flip_a_byte, "is not the file that"),
        (rename_a_class, "was altered"),
        (put_a_pickle, "not in the safetensors format"),
        (write_nan, "is not JSON"),
        (lambda folder: (folder / ARRAYS).unlink(), "cannot be read"),
        (lambda folder: (folder / HEADER).write_text("{}"), "as its schema wants"),
        (lambda folder: (folder / HEADER).write_text("[" * 99999), "not JSON"),
        (lambda folder: (folder / HEADER).write_text(" " * 2**21), "larger than"),
        (change_header("extra", 1), "as its schema wants: extra"),
        (change_header("schema_version", "scorenode-gmlvq/2"), "schema_version"),
        (change_header("classes", ["a", "a", "b"]), "each named once"),
        (change_header("classes", ["b", "a", "c"]), "in their order"),
        (change_header("classes", ["a", "b", 1]), "in their order"),
        (change_header("class_dtype", "int64"), "in their order"),
        (change_header("class_dtype", "bool"), "in their order"),
        (change_header("parameters", {}), "cannot be"),
        (change_parameter("class_weight", [1, 2]), "cannot be"),
        (change_parameter("prototypes_per_class", [[[1], 2]]), "cannot be"),
        (change_parameter("rank", "two"), "rank must be"),
        (change_array("lowest", lambda lowest: lowest + 100), "lowest value is above"),
        (change_header("calibration", [-1.0, 0.0, 0.0, 0.0]), "calibration"),
        (change_header("features", ["a", "b"]), "names of features"),
        (change_header("distance_limit", -1.0), "limit"),
        (change_parameter("solver", "adam"), "solver must be one of"),
        (change_parameter("depth", 3), "another version"),
        (change_array("mean", set_first(np.nan)), "mean holds what is no number"),
        (change_array("omega", lambda o: o * 2), "relevances of omega"),
        (change_array("omega", lambda o: o[:, :, :3]), "omega has the wrong shape"),
        (change_array("omega", lambda o: o.astype(np.float32)), "omega has the wrong"),
        (change_array("scale", set_first(0.0)), "positive scale"),
        (change_array("prototype_classes", set_first(2)), "not those of the classes"),
        (change_array("prototypes", lambda p: p[:0]), "wrong shape"),
        (change_array("bootstrap.omega", lambda o: o[:1]), "bootstrap.omega"),
        (change_array("bootstrap.calibration", lambda c: c[:, :2]), "bootstrap.calibration"),
        (change_array("bootstrap.calibration", lambda c: -1 - abs(c)), "falls with distance"),
        (change_array("surprise", lambda nothing: np.zeros(3)), "too many: surprise"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path: Path, harm: Callable[[Path], Any], told: str) -> None:
    folder = saved(tmp_path)
    harm(folder)

    with pytest.raises(BrokenPackage, match=told):
        GMLVQClassifier.load(folder)


def test_a_model_of_an_earlier_version_has_intervals_with_one_calibration(tmp_path: Path) -> None:
    x, _ = iris()
    folder = saved(tmp_path)
    now = GMLVQClassifier.load(folder).probability_interval(x)
    arrays = load((folder / ARRAYS).read_bytes())
    del arrays["bootstrap.calibration"]
    (folder / ARRAYS).write_bytes(save(arrays))
    seal(folder, json.loads((folder / HEADER).read_text()))

    before = GMLVQClassifier.load(folder).probability_interval(x)

    assert before.shape == now.shape
    assert not np.array_equal(before, now)


def test_names_and_units_of_features_are_kept(tmp_path: Path) -> None:
    x, y = iris()
    model = GMLVQClassifier().fit(x, y)
    model.feature_names_in_ = np.array(["sepal", "width", "petal", "wide"], dtype=object)

    model.save(tmp_path, units={"sepal": "cm"})

    header = Header.model_validate(json.loads((tmp_path / HEADER).read_text()))
    assert header.units == {"sepal": "cm"}
    assert GMLVQClassifier.load(tmp_path).feature_names_in_[0] == "sepal"
