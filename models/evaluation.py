"""How well a model finds blood: what it labels against the truth of phantoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import Predictor
from models.phantom_ct import HeadPhantom


@dataclass(frozen=True, eq=False)
class Result:
    """How one held-out phantom came out; volumes in ml."""

    kind: str
    dice: float
    truth_ml: float
    found_ml: float
    overlap_ml: float
    probability: float
    array: NDArray[np.float32]
    truth: NDArray[np.bool_]
    found: NDArray[np.bool_]


def evaluate(predictor: Predictor, phantom: HeadPhantom) -> Result:
    """Score one phantom and compare with its truth.

    Parameters
    ----------
    predictor : Predictor
        Of a model that labels voxels and tells ``probability``.
    phantom : HeadPhantom
    """
    findings = predictor.predict(phantom.volume, lambda done: None)
    assert findings.labels is not None  # noqa: S101 - this model labels voxels
    found, truth = findings.labels > 0, phantom.labels > 0
    overlap, both = int((found & truth).sum()), int(found.sum() + truth.sum())
    ml = phantom.volume.voxel_ml
    return Result(
        kind=phantom.kind,
        dice=2.0 * overlap / both if both else 1.0,
        truth_ml=float(truth.sum()) * ml,
        found_ml=float(found.sum()) * ml,
        overlap_ml=overlap * ml,
        probability=findings.number("probability"),
        array=phantom.volume.array,
        truth=truth,
        found=found,
    )


def metrics_of(results: Sequence[Result]) -> dict[str, Any]:
    """Sum up; Dice over phantoms with blood, false blood over those without.

    Raises
    ------
    ValueError
        There is no phantom with blood, or none without.
    """
    bleeds = [result for result in results if result.kind != "none"]
    clean = [result for result in results if result.kind == "none"]
    if not bleeds or not clean:
        raise ValueError("Phantoms with blood and without are needed to measure a model.")
    errors = [abs(result.found_ml - result.truth_ml) for result in bleeds]
    dice = [result.dice for result in bleeds]
    return {
        "held_out": len(results),
        "dice_mean": round(float(np.mean(dice)), 4),
        "dice_median": round(float(np.median(dice)), 4),
        "dice_by_kind": {
            kind: round(float(np.mean([r.dice for r in bleeds if r.kind == kind])), 4)
            for kind in sorted({result.kind for result in bleeds})
        },
        "volume_mae_ml": round(float(np.mean(errors)), 3),
        "truth_mean_ml": round(float(np.mean([r.truth_ml for r in bleeds])), 3),
        "detected": sum(result.overlap_ml > 0.1 for result in bleeds),
        "with_blood": len(bleeds),
        "false_blood_median_ml": round(float(np.median([r.found_ml for r in clean])), 3),
        "false_blood_worst_ml": round(float(max(r.found_ml for r in clean)), 3),
    }
