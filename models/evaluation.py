"""One labelled case, scored as the node would score it and compared with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.base import Predictor, Volume
from models.canonical import orientation_of
from models.labelled_cases import LabelledCase
from models.recipe import Recipe
from models.segmentation_metrics import Scored, agreement


@dataclass(frozen=True, eq=False)
class Judged:
    """A case and one picture of it.

    Parameters
    ----------
    scored : Scored
    grey : NDArray[np.float32]
        The slice with most truth, (anterior, right) as a reader sees it, 0 to 1.
    truth, found : NDArray[np.uint8]
        Classes in it.
    aspect : float
        Height of a pixel in widths.
    """

    scored: Scored
    grey: NDArray[np.float32]
    truth: NDArray[np.uint8]
    found: NDArray[np.uint8]
    aspect: float


def judge(
    predictor: Predictor,
    volume: Volume,
    truth: NDArray[np.uint8],
    case: LabelledCase,
    recipe: Recipe,
) -> Judged:
    """Score a case and compare it with its truth, on the grid of the volume.

    Parameters
    ----------
    predictor : Predictor
        Of a model that labels voxels.
    volume : Volume
    truth : NDArray[np.uint8]
        On its grid; 1 is the first structure.
    case : LabelledCase
        Its name, patient and kind.
    recipe : Recipe
        Its structures, tolerance and window.
    """
    findings = predictor.predict(volume, lambda done: None)
    found = findings.labels
    assert found is not None  # noqa: S101 - this model labels voxels
    parts = tuple(
        agreement(truth == number, found == number, volume.spacing, recipe.tolerance_mm)
        for number in range(1, recipe.classes)
    )
    probability = findings.number("probability")
    scored = Scored(case.name, case.patient, case.kind, probability, parts)
    orientation = orientation_of(volume.affine)
    upright, marked = orientation.to_ras(truth), orientation.to_ras(found)
    z = _fullest(upright, marked)
    grey = _grey(orientation.to_ras(volume.array)[:, :, z], recipe.window)
    right, anterior = volume.spacing[list(orientation.axes[:2])]
    return Judged(scored, grey.T, upright[:, :, z].T, marked[:, :, z].T, float(anterior / right))


def _fullest(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> int:
    """Slice with most truth; without truth, with most that was found."""
    counts = (truth > 0).sum(axis=(0, 1))
    if not counts.any():
        counts = (found > 0).sum(axis=(0, 1))
    return int(counts.argmax()) if counts.any() else truth.shape[2] // 2


def _grey(image: NDArray[np.float32], window: tuple[float, float] | None) -> NDArray[np.float32]:
    low, high = window or np.percentile(image, (1, 99))
    grey: NDArray[np.float32] = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return grey
