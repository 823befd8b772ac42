"""sklvq on one data set; runs in an environment of its own, see `benchmarks.gmlvq`.

``python gmlvq_peer.py TABLE.npz``, with ``x``, ``y`` and a row of ``held_out`` for each split;
prints JSON.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

SOLVERS: dict[str, dict[str, Any]] = {
    "sklvq lbfgs": {"solver_type": "lbfgs"},
    "sklvq default (sgd)": {},
    "sklvq waypoint": {
        "solver_type": "waypoint-gradient-descent",
        "solver_params": {"max_runs": 50, "k": 5},
    },
}


def main() -> None:
    """Fit every split with every solver."""
    from sklvq import GMLVQ  # type: ignore[import-not-found]

    warnings.simplefilter("ignore")
    table = np.load(sys.argv[1])
    x, y = table["x"], table["y"]
    found: dict[str, dict[str, list[float]]] = {}
    for name, settings in SOLVERS.items():
        accuracy, seconds = [], []
        for held_out in table["held_out"]:
            scaler = StandardScaler().fit(x[~held_out])
            train, test = scaler.transform(x[~held_out]), scaler.transform(x[held_out])
            model = GMLVQ(random_state=0, **settings)
            began = time.process_time()
            model.fit(train, y[~held_out])
            seconds.append(time.process_time() - began)
            accuracy.append(float(np.mean(model.predict(test) == y[held_out])))
        found[name] = {"accuracy": accuracy, "seconds": seconds}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
