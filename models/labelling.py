"""From probabilities to labelled voxels and the numbers a report says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Findings, Number, Segment, Volume
from models.manifest import Postprocess

PEAK_VOXELS = 20
_NEIGHBOURS = np.ones((3, 3, 3))
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass
class Running:
    """Maps of structures, one after the other, so that all are never in memory at once.

    Parameters
    ----------
    best : F32
        Highest probability so far in each voxel, at first that of the background.
    total : F32 or None
        Sum over the structures, where a threshold is compared with it.
    labels : NDArray[np.uint8]
    """

    best: F32
    labels: NDArray[np.uint8]
    total: F32 | None = None

    def add(self, number: int, probability: F32) -> None:
        """Take in the map of a structure."""
        higher = probability > self.best
        self.labels[higher] = number
        np.maximum(self.best, probability, out=self.best)
        if self.total is not None:
            self.total += probability


def exclusive(
    background: F32, maps: Iterable[F32], rules: Postprocess, voxel_ml: float
) -> NDArray[np.uint8]:
    """Give each voxel the likeliest of structures that exclude each other.

    Parameters
    ----------
    background : F32
        Its probability.
    maps : iterable of F32
        Probability of each structure; may be made one by one.
    rules : Postprocess
        ``argmax``: a voxel is marked when a structure is likelier than the background;
        ``threshold``: when all structures together exceed it.
    voxel_ml : float
    """
    by_sum = rules.decide == "threshold"
    start = np.full_like(background, -1.0) if by_sum else background.copy()
    running = Running(
        start, np.zeros(background.shape, np.uint8), np.zeros_like(background) if by_sum else None
    )
    for number, probability in enumerate(maps, start=1):
        running.add(number, probability)
    if running.total is not None:
        running.labels[running.total <= rules.threshold] = 0
    numbers = range(1, int(running.labels.max(initial=0)) + 1)
    for number in numbers:
        mask = running.labels == number
        running.labels[mask & ~cleaned(mask, rules, voxel_ml)] = 0
    return running.labels


def cleaned(mask: Mask, rules: Postprocess, voxel_ml: float) -> Mask:
    """Drop parts (26 neighbours) that are too small, or all but the largest."""
    least = rules.min_component_ml / voxel_ml
    if (least <= 1 and not rules.largest_only) or not mask.any():
        return mask
    parts, _ = ndimage.label(mask, _NEIGHBOURS)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    keep = sizes >= max(least, 1)
    if rules.largest_only:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    kept: Mask = keep[parts]
    return kept


def overlapping(
    maps: Sequence[F32], rules: Postprocess, voxel_ml: float
) -> tuple[NDArray[np.uint8], dict[int, Mask]]:
    """Mark each structure by itself.

    Returns
    -------
    labels : NDArray[np.uint8]
        The last structure of each voxel: later ones lie within earlier ones, as a core in a tumour.
    whole : dict
        Number of each structure that shares voxels with another to all of its voxels.
    """
    masks = {
        number: cleaned(probability > rules.threshold, rules, voxel_ml)
        for number, probability in enumerate(maps, start=1)
    }
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    count = np.zeros(labels.shape, np.uint8)
    for number, mask in masks.items():
        labels[mask] = number
        count += mask
    shared = count > 1
    whole = {number: mask for number, mask in masks.items() if (mask & shared).any()}
    return labels, whole


def findings_of(
    labels: NDArray[np.uint8],
    whole: dict[int, Mask],
    segments: tuple[Segment, ...],
    volume: Volume,
    probability: float | None,
) -> Findings:
    """Sum up: volume of each structure, and of all where they exclude each other."""
    counts = np.bincount(labels.ravel(), minlength=len(segments) + 1)
    for number, mask in whole.items():
        counts[number] = np.count_nonzero(mask)
    numbers = [
        Number("volume", float(counts[segment.number]) * volume.voxel_ml, "ml", segment.number)
        for segment in segments
    ]
    if not whole:
        numbers.append(Number("volume", float(counts[1:].sum()) * volume.voxel_ml, "ml"))
    if probability is not None:
        numbers.append(Number("probability", probability, "1"))
    present = bool(labels.any())
    return Findings(labels, segments, tuple(numbers), present=present, overlapping=whole)


def surest(marked: F32, labels: NDArray[np.uint8]) -> float:
    """Mean of the 20 highest probabilities of the largest connected mark, else of everything.

    Parameters
    ----------
    marked : F32
        Probability that a voxel is of any structure.
    labels : NDArray[np.uint8]
    """
    region = marked.ravel()
    if labels.any():
        parts, _ = ndimage.label(labels > 0, _NEIGHBOURS)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        region = marked[parts == sizes.argmax()]
    top = min(PEAK_VOXELS, region.size)
    return float(np.partition(region, -top)[-top:].mean())
