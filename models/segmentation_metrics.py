"""How well label maps agree with the truth: overlap, surfaces, volumes, lesions, presence.

Distances are MONAI's. References: Dice 1945; Nikolov et al., arXiv 1809.04430 (NSD); Bland and
Altman, Lancet 327:307 (1986); Lin, Biometrics 45:255 (1989) (CCC).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from models.binary_metrics import area_under_curve

LESION_ML = 1.0
"""Smaller lesions are not counted one by one."""
TOUCHED = 0.1
"""A lesion is found when this share of it is marked; a mark is false when none of it is true."""
REPLICATES = 1000
LEVEL = 0.95
_TOUCHING = np.ones((3, 3, 3))


@dataclass(frozen=True)
class Agreement:
    """One structure of one case.

    Parameters
    ----------
    dice : float
        1 when neither has any.
    nsd : float
        Normalised surface Dice at the tolerance; 1 when neither has any, 0 when one has none.
    hd95_mm : float
        95th percentile of surface distances; NaN when either has none.
    truth_ml, found_ml : float
    lesions, lesions_found, false_lesions : int
        Connected parts (26 neighbours) of at least `LESION_ML`.
    """

    dice: float
    nsd: float
    hd95_mm: float
    truth_ml: float
    found_ml: float
    lesions: int
    lesions_found: int
    false_lesions: int


@dataclass(frozen=True)
class Scored:
    """One case.

    Parameters
    ----------
    name, patient, kind : str
    probability : float
        That anything is there.
    structures : tuple of Agreement
        In the order of the labels.
    """

    name: str
    patient: str
    kind: str
    probability: float
    structures: tuple[Agreement, ...]

    @property
    def dice(self) -> float:
        """Mean over the structures."""
        return float(np.mean([one.dice for one in self.structures]))


def agreement(
    truth: NDArray[np.bool_],
    found: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    tolerance_mm: float = 2.0,
) -> Agreement:
    """Compare two masks on one grid.

    Parameters
    ----------
    truth, found : NDArray[np.bool_]
        (columns, rows, slices)
    spacing : NDArray[np.float64]
        Millimetres, shape (3,).
    tolerance_mm : float
        Surfaces this close agree.
    """
    ml = float(np.prod(spacing)) / 1000.0
    both = int(truth.sum()) + int(found.sum())
    nsd, hd95 = _surfaces(truth, found, spacing, tolerance_mm)
    lesions, hit, false = _lesions(truth, found, LESION_ML / ml)
    return Agreement(
        dice=2.0 * int((truth & found).sum()) / both if both else 1.0,
        nsd=nsd,
        hd95_mm=hd95,
        truth_ml=float(truth.sum()) * ml,
        found_ml=float(found.sum()) * ml,
        lesions=lesions,
        lesions_found=hit,
        false_lesions=false,
    )


def _surfaces(
    truth: NDArray[np.bool_],
    found: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    tolerance_mm: float,
) -> tuple[float, float]:
    if not truth.any() or not found.any():
        return float(truth.any() == found.any()), float("nan")
    box = ndimage.find_objects((truth | found).astype(np.uint8))[0]
    one, other = (
        torch.from_numpy(np.pad(mask[box], 1))[None, None].float() for mask in (found, truth)
    )
    steps = [float(step) for step in spacing]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nsd = compute_surface_dice(one, other, [tolerance_mm], True, spacing=steps)
        hd95 = compute_hausdorff_distance(one, other, True, percentile=95, spacing=steps)
    return float(nsd), float(hd95)


def _lesions(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], least_voxels: float
) -> tuple[int, int, int]:
    """Lesions, those found, and marks of nothing."""
    parts, _ = ndimage.label(truth, _TOUCHING)
    sizes, hits = np.bincount(parts.ravel())[1:], _overlap(parts, found)
    large = sizes >= least_voxels
    marks, _ = ndimage.label(found, _TOUCHING)
    mark_sizes, true = np.bincount(marks.ravel())[1:], _overlap(marks, truth)
    return (
        int(large.sum()),
        int((large & (hits >= TOUCHED * sizes)).sum()),
        int(((mark_sizes >= least_voxels) & (true == 0)).sum()),
    )


def _overlap(parts: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.bincount(parts[mask], minlength=int(parts.max()) + 1)[1:]


def summary(scored: Sequence[Scored], names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Sum up; a list is value, low, high of a 95 % interval over patients (bootstrap).

    Parameters
    ----------
    scored : sequence of Scored
    names : sequence of str
        Label of each structure.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        What ``metrics.json`` holds. Figures that cannot be computed are null.

    Raises
    ------
    ValueError
        There is no case.
    """
    if not scored:
        raise ValueError("Without held-out cases nothing can be measured.")
    draws = _draws([case.patient for case in scored], seed)
    structures = {}
    for number, name in enumerate(names):
        found = [case.structures[number] for case in scored]
        structures[name] = _structure(found, draws)
    present = np.array([any(s.truth_ml > 0 for s in case.structures) for case in scored])
    probability = np.array([case.probability for case in scored])
    kinds = sorted({case.kind for case in scored} - {""})
    return {
        "held_out": len(scored),
        "patients": len({case.patient for case in scored}),
        "dice": {name: found["dice"][0] for name, found in structures.items()},
        "structures": structures,
        "presence_auc": _interval(
            lambda rows: _auc(present[rows], probability[rows]), draws, len(scored)
        ),
        "dice_by_kind": {
            kind: round(float(np.mean([c.dice for c in scored if c.kind == kind])), 4)
            for kind in kinds
        },
    }


def _structure(found: Sequence[Agreement], draws: Sequence[NDArray[np.intp]]) -> dict[str, Any]:
    count = len(found)
    truth = np.array([one.truth_ml for one in found])
    guess = np.array([one.found_ml for one in found])
    column = {
        key: np.array([getattr(one, key) for one in found])
        for key in ("dice", "nsd", "hd95_mm", "lesions", "lesions_found", "false_lesions")
    }
    there = truth > 0
    error = guess - truth
    told: dict[str, Any] = {}
    for key in ("dice", "nsd", "hd95_mm"):
        told[key] = _interval(lambda rows, k=key: _mean(column[k][rows][there[rows]]), draws, count)  # type: ignore[misc]
    told["dice_median"] = _rounded(_median(column["dice"][there]))
    told["cases_with"] = int(there.sum())
    told["truth_mean_ml"] = _rounded(_mean(truth[there]))
    told["volume_mae_ml"] = _interval(
        lambda rows: _mean(abs(error[rows][there[rows]])), draws, count
    )
    told["volume_ccc"] = _interval(lambda rows: concordance(truth[rows], guess[rows]), draws, count)
    spread = 1.96 * float(error.std(ddof=1)) if count > 1 else float("nan")
    told["bland_altman_ml"] = {
        "bias": _rounded(float(error.mean())),
        "low": _rounded(float(error.mean()) - spread),
        "high": _rounded(float(error.mean()) + spread),
    }
    told["lesions"] = int(column["lesions"].sum())
    told["lesion_sensitivity"] = _interval(
        lambda rows: _share(column["lesions_found"][rows], column["lesions"][rows]), draws, count
    )
    told["false_lesions_per_case"] = _rounded(float(column["false_lesions"].mean()))
    told["false_ml_median"] = _rounded(_median(guess[~there]))
    told["false_ml_worst"] = _rounded(
        float(guess[~there].max()) if (~there).any() else float("nan")
    )
    return told


def concordance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Lin's concordance correlation coefficient; NaN for fewer than two cases."""
    if len(one) < 2:
        return float("nan")
    apart = one.var() + other.var() + (one.mean() - other.mean()) ** 2
    together = ((one - one.mean()) * (other - other.mean())).mean()
    return float(2 * together / apart) if apart > 0 else float("nan")


def _draws(patients: Sequence[str], seed: int) -> list[NDArray[np.intp]]:
    """Rows of the cases of patients drawn with replacement, `REPLICATES` times."""
    groups = np.unique(patients, return_inverse=True)[1]
    rows = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
    random = np.random.default_rng(seed)
    return [
        np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])
        for _ in range(REPLICATES)
    ]


def _interval(
    figure: Callable[[NDArray[np.intp]], float], draws: Sequence[NDArray[np.intp]], count: int
) -> list[float | None]:
    value = figure(np.arange(count))
    drawn = np.array([figure(rows) for rows in draws])
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return [_rounded(value), None, None]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return [_rounded(value), _rounded(float(low)), _rounded(float(high))]


def _mean(values: NDArray[np.float64]) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _share(part: NDArray[np.int_], whole: NDArray[np.int_]) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")


def _auc(present: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    if present.all() or not present.any():
        return float("nan")
    return area_under_curve(present, probability)


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
