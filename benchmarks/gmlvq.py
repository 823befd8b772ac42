"""Our GMLVQ beside sklvq on the same splits: accuracy and time to fit.

``python -m benchmarks.gmlvq [--peer FOLDER] [--table FILE.csv ...]``

sklvq's release runs with libraries of 2023 only, so it gets an environment of its own, made in
`--peer` on the first run (from Python 3.8 to 3.11). Times are CPU time of one thread, fitting only,
after the features were standardised; both learn without probabilities. A table of one's own has a
class in its last column, and no header.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import RepeatedStratifiedKFold

from models.gmlvq import GMLVQClassifier

PEER = ("sklvq==0.1.2", "numpy==1.23.5", "scipy==1.10.1", "scikit-learn==1.2.2")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SETS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
OURS: dict[str, dict[str, Any]] = {
    "scorenode": {},
    "scorenode identity": {"activation": "identity"},
    "scorenode waypoint": {
        "solver": "waypoint",
        "max_iter": 50,
        "activation": "identity",
        "regularization": 0.0,
    },
}
COMPARED = ("scorenode", "sklvq lbfgs")
REPEATS, FOLDS = 2, 5
FASTER, NO_WORSE = 3.0, 0.005

Found = dict[str, dict[str, list[float]]]


def main() -> None:
    """Measure and print; exit 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, default=Path.home() / ".cache/scorenode/sklvq")
    parser.add_argument("--table", type=Path, action="append", default=[])
    parser.add_argument("--set", choices=list(SETS), action="append", default=[])
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        # Libraries of linear algebra count their threads when they are loaded.
        again = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, again, os.environ | ONE_THREAD)  # noqa: S606 - itself
    python = _peer_python(options.peer)
    console = Console(width=100)
    good = True
    for name, x, y in _tables(options.set or list(SETS), options.table):
        held_out = _splits(x, y)
        found = _ours(x, y, held_out) | _theirs(python, x, y, held_out)
        good &= _show(console, f"{name}, {x.shape[0]} x {x.shape[1]}", found)
    sys.exit(0 if good else 1)


def _tables(
    names: list[str], paths: list[Path]
) -> list[tuple[str, NDArray[np.float64], NDArray[np.intp]]]:
    tables = [(name, *SETS[name](return_X_y=True)) for name in names]
    for path in paths:
        rows = np.genfromtxt(path, delimiter=",")
        tables.append((path.stem, rows[:, :-1], rows[:, -1].astype(int)))
    return tables


def _splits(x: NDArray[np.float64], y: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which samples each split holds out, shape (splits, samples)."""
    splitter = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    held_out = np.zeros((FOLDS * REPEATS, len(x)), dtype=bool)
    for row, (_, test) in zip(held_out, splitter.split(x, y), strict=True):
        row[test] = True
    return held_out


def _ours(x: NDArray[np.float64], y: NDArray[np.intp], held_out: NDArray[np.bool_]) -> Found:
    found: Found = {}
    for name, settings in OURS.items():
        accuracy, seconds = [], []
        for out in held_out:
            model = GMLVQClassifier(**settings)
            began = time.process_time()
            model.fit(x[~out], y[~out])
            seconds.append(time.process_time() - began)
            accuracy.append(float(model.score(x[out], y[out])))
        found[name] = {"accuracy": accuracy, "seconds": seconds}
    return found


def _theirs(
    python: Path, x: NDArray[np.float64], y: NDArray[np.intp], held_out: NDArray[np.bool_]
) -> Found:
    script = Path(__file__).with_name("gmlvq_peer.py")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.npz")
        np.savez(table, x=x, y=y, held_out=held_out)
        told = subprocess.run(
            [python, script, table], capture_output=True, check=True, env=os.environ | ONE_THREAD
        )
    found: Found = json.loads(told.stdout)
    return found


def _peer_python(folder: Path) -> Path:
    """Python of the environment with sklvq, which is made where there is none."""
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        if sys.version_info >= (3, 12):
            sys.exit("sklvq's libraries need Python 3.8 to 3.11; run this benchmark with one.")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
        (folder / "complete").touch()
    return python


def _show(console: Console, title: str, found: Found) -> bool:
    """Print one data set; tell whether the goals are met."""
    ours, theirs = (found[name] for name in COMPARED)
    table = Table(title=title, title_justify="left")
    for heading in ("", "accuracy", "fit, CPU ms", f"time beside {COMPARED[0]}"):
        table.add_column(heading, justify="left" if not heading else "right")
    unit = float(np.median(ours["seconds"]))
    for name, one in found.items():
        seconds = float(np.median(one["seconds"]))
        accuracy = float(np.mean(one["accuracy"]))
        table.add_row(name, f"{accuracy:.4f}", f"{1e3 * seconds:.1f}", f"{seconds / unit:.1f}")
    console.print(table)
    best = max(np.mean(one["accuracy"]) for name, one in found.items() if "sklvq" in name)
    behind = float(best - np.mean(ours["accuracy"]))
    faster = float(np.median(theirs["seconds"])) / unit
    console.print(
        f"accuracy {-behind:+.4f} beside the best of sklvq (goal {-NO_WORSE:+.3f} or better); "
        f"{faster:.1f} times as fast as {COMPARED[1]} (goal {FASTER:g})\n"
    )
    return behind <= NO_WORSE and faster >= FASTER


if __name__ == "__main__":
    main()
