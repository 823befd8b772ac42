"""A synthetic cohort as a table: visits of patients, two outcomes, a column that tells nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

CONFIG = """\
family: test-prognosis
version: 1.2.3
title: Stable or progressive, synthetic cohort
intended_use: demonstration
outcome: {column: outcome, stable: sMCI, declining: pMCI}
group: patient
features:
  - {name: mmse, unit: "{score}", range: [0, 30], required: true}
  - {name: hippocampus, unit: mL}
  - {name: noise}
search: {beta: [0, 2], regularization: [0.01]}
outer_folds: 3
inner_folds: 3
bootstrap: 20
"""


def write_cohort(path: Path, patients: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "outcome", "mmse", "hippocampus", "noise"])
        for patient in range(patients):
            declines = random.random() < 0.4
            own = random.standard_normal(3)
            for _ in range(1 + (patient % 4 == 0)):
                z = 0.9 * own + 0.4 * random.standard_normal(3)
                mmse = float(np.clip(26 + z[0] - 2 * declines, 0, 30))
                values = [mmse, 3.4 + 0.4 * z[1] - 0.5 * declines, z[2]]
                cells = [f"{value:.3f}" for value in values]
                if random.random() < 0.05:
                    cells[1] = ""
                writer.writerow([f"P{patient}", "pMCI" if declines else "sMCI", *cells])
    return path


def write_config(path: Path, text: str = CONFIG) -> Path:
    path.write_text(text)
    return path
