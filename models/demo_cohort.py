"""A cohort that never was, for the demonstration of the dementia pipeline.

People are drawn by chance around what our grey matter pipeline measures in T1 phantoms. What is
told apart is made up: the model that learns from it says nothing about anybody.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.atlas import NAMES, SIDES
from models.gmlvq_config import ICV, Feature, Outcome, Search, TrainingConfig
from models.gmlvq_validation import Progress
from models.prognosis_training import train_prognosis

PART_PERCENT = {
    "hippocampus": 0.227,
    "amygdala": 0.061,
    "parahippocampal": 0.169,
    "deep_grey": 0.605,
    "frontal": 8.41,
    "temporal": 4.25,
    "parietal": 4.51,
    "occipital": 2.65,
    "cerebellum": 4.42,
}
"""Grey matter of one side in percent of the intracranial volume: mean of
`measure_phantoms` over three heads of 2 mm, which ``python -m models.demo_cohort`` prints."""
ICV_ML = (1500.0, 120.0)
LOST_A_YEAR = {"hippocampus": 0.006, "amygdala": 0.005, "parahippocampal": 0.004}
LOST_BY_DECLINE = {
    "hippocampus": 0.10, "amygdala": 0.08, "parahippocampal": 0.05, "temporal": 0.03,
}  # fmt: skip
OTHERS_LOST_A_YEAR, OTHERS_LOST_BY_DECLINE = 0.002, 0.015
SPREAD_PERSON, SPREAD_REGION, SPREAD_SIDE = 0.04, 0.10, 0.04
AGES, MEAN_AGE = (50.0, 95.0), 72.0
DECLINING_SHARE, MISSING_SHARE = 0.45, 0.06
OUTCOME, STABLE, DECLINING = "outcome", "stable MCI", "progressive MCI"


def demo_config(people: int, seed: int) -> TrainingConfig:
    """Say what is learned from the cohort."""
    sides = {
        name: tuple(f"{name}_{side}" for side in SIDES)
        for name in ("hippocampus", "amygdala", "parahippocampal", "temporal")
    }
    return TrainingConfig(
        family="dementia-demo",
        version="1.1.0",
        title="Stable or progressive MCI, demonstration",
        intended_use="demonstration",
        licence="Apache-2.0",
        population=(
            f"synthetic cohort, {people} people aged {AGES[0]:.0f} to {AGES[1]:.0f} drawn by a "
            "program around measurements of phantoms; no patient; not for diagnostic use."
        ),
        outcome=Outcome(column=OUTCOME, stable=STABLE, declining=DECLINING),
        group="patient",
        age="age",
        features=(
            Feature(
                name="mmse", label="MMSE", unit="{score}", range=(0, 30), required=True,
                code=("LN", "72106-8", "Total score [MMSE]"),
            ),
            Feature(name="adas_cog_13", label="ADAS-Cog 13", unit="{score}", range=(0, 85)),
            Feature(name="hippocampus", label="Hippocampi", unit="%", regions=sides["hippocampus"]),
            Feature(name="amygdala", label="Amygdalae", unit="%", regions=sides["amygdala"]),
            Feature(
                name="parahippocampal", label="Parahippocampal", unit="%",
                regions=sides["parahippocampal"],
            ),
            Feature(name="temporal", label="Temporal lobes", unit="%", regions=sides["temporal"]),
        ),
        search=Search(beta=(0, 2), regularization=(1e-3, 1e-2)),
        indeterminate=0.1,
        seed=seed,
    )  # fmt: skip


def write_demo_cohort(path: Path, people: int, seed: int) -> None:
    """Write the cohort as a table such as ``scorenode features`` and a memory clinic make."""
    random = np.random.default_rng([seed, 71])
    columns = ["patient", OUTCOME, "age", "mmse", "adas_cog_13", ICV]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*columns, *(f"{name}_ml" for name in NAMES)])
        for number in range(people):
            table.writerow([f"S{number + 1:04d}", *_person(random)])


def _person(random: np.random.Generator) -> list[str]:
    """Cells of one row, after the first."""
    declining = bool(random.random() < DECLINING_SHARE)
    age = float(np.clip(random.normal(MEAN_AGE, 9), *AGES))
    icv = float(random.normal(*ICV_ML))
    mmse = float(np.clip(np.rint(random.normal(26.2 if declining else 27.4, 1.9)), 0, 30))
    adas = float(np.clip(np.rint(random.normal(18.5 if declining else 14.5, 6.0)), 0, 85))
    cells = [DECLINING if declining else STABLE, f"{age:.2f}", f"{mmse:.0f}", f"{adas:.0f}"]
    if random.random() < MISSING_SHARE:
        cells[3] = ""
    volumes = _volumes(random, declining, age, icv)
    return [*cells, f"{icv:.2f}", *(f"{volumes[name]:.4f}" for name in NAMES)]


def _volumes(
    random: np.random.Generator, declining: bool, age: float, icv: float
) -> Mapping[str, float]:
    person = random.normal(0, SPREAD_PERSON)
    found = {}
    for structure, part in PART_PERCENT.items():
        aged = (age - MEAN_AGE) * LOST_A_YEAR.get(structure, OTHERS_LOST_A_YEAR)
        lost = declining * LOST_BY_DECLINE.get(structure, OTHERS_LOST_BY_DECLINE)
        own = random.normal(0, SPREAD_REGION)
        for side in SIDES:
            chance = np.exp(person + own + random.normal(0, SPREAD_SIDE))
            found[f"{structure}_{side}"] = icv * part / 100 * (1 - aged) * (1 - lost) * chance
    return found


def train_demo(out: Path, people: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Draw the cohort, learn from it, and write the package.

    Parameters
    ----------
    out : Path
        A new or empty folder.
    people : int
    seed : int
        The same seed gives the same package on the same machine.
    progress : callable

    Returns
    -------
    dict
        What ``metrics.json`` holds.

    Raises
    ------
    BadTable
        The folder is not empty, or the people are too few.
    """
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "synthetic-cohort.csv"
        write_demo_cohort(table, people, seed)
        return train_prognosis(table, demo_config(people, seed), out, progress)


def measure_phantoms(seeds: range, spacing_mm: float) -> dict[str, list[float]]:
    """Measure phantoms: grey matter of one side in percent of the intracranial volume, by seed."""
    from models.grey_matter import segment_tissues
    from models.phantom_t1 import Scan, make_t1_head
    from models.regions import regional_volumes

    found: dict[str, list[float]] = {name: [] for name in PART_PERCENT}
    for seed in seeds:
        head = make_t1_head(seed, scan=Scan(spacing=(spacing_mm,) * 3))
        regional = regional_volumes(segment_tissues(head.volume))
        for name in found:
            both = [f"{name}_{side}" for side in SIDES]
            found[name].append(100 * regional.part(both) / len(SIDES))
    return found


def main() -> None:
    """Print what `PART_PERCENT` holds."""
    for name, values in measure_phantoms(range(3), 2.0).items():
        print(f"{name}: mean {np.mean(values):.4f}, deviation {np.std(values):.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
