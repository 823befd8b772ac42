"""Lesions one by one: how many, the largest, its volume by ABC/2, and whether they are urgent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from models.base import Findings, Number, Volume

_NEIGHBOURS = np.ones((3, 3, 3))
Mask = NDArray[np.bool_]


def with_lesions(findings: Findings, volume: Volume, priority_ml: float) -> Findings:
    """Add what a report says of lesions.

    Parameters
    ----------
    findings : Findings
        With labels on the slices of `volume`.
    volume : Volume
        Slices along the third axis.
    priority_ml : float
        More than this in all is urgent.

    Returns
    -------
    Findings
        ``lesions``: connected marks (26 neighbours) of all segments together; ``largest``: volume
        of the largest, ml; ``abc2``: the same by ABC/2, ml; ``priority`` set.
    """
    if findings.labels is None:
        return findings
    parts, count = ndimage.label(findings.labels > 0, _NEIGHBOURS)
    numbers = [*findings.numbers, Number("lesions", float(count), "1")]
    total = 0.0
    if count:
        each = np.stack(
            [
                np.bincount(parts[:, :, k].ravel(), minlength=count + 1)
                for k in range(parts.shape[2])
            ]
        )
        ml = volume.voxel_ml_by_slice @ each
        ml[0] = 0.0
        total, largest = float(ml.sum()), int(ml.argmax())
        numbers.append(Number("largest", float(ml[largest]), "ml"))
        numbers.append(Number("abc2", abc2_ml(parts == largest, volume), "ml"))
    return replace(findings, numbers=tuple(numbers), priority=total > priority_ml)


def abc2_ml(lesion: Mask, volume: Volume) -> float:
    """Estimate the volume of a lesion by ABC/2, millilitres.

    A is the greatest diameter on the slice where the lesion is largest, B the extent at right
    angles to it on the same slice, C the number of slices times their distance, without weights.

    Parameters
    ----------
    lesion : Mask
        (columns, rows, slices)
    volume : Volume

    References
    ----------
    Kothari et al., Stroke 27:1304 (1996).
    """
    areas = np.count_nonzero(lesion, axis=(0, 1))
    if not areas.any():
        return 0.0
    a, b = diameters_mm(lesion[:, :, int(areas.argmax())], volume.spacing[:2].tolist())
    pixel_mm2 = float(np.prod(volume.spacing[:2]))
    steps = volume.voxel_ml_by_slice * 1000.0 / pixel_mm2
    c = float(steps[areas > 0].sum())
    return a * b * c / 2000.0


def diameters_mm(plane: Mask, spacing: Sequence[float]) -> tuple[float, float]:
    """Greatest diameter of a mark on a slice, and its extent at right angles to that.

    Parameters
    ----------
    plane : Mask
        (columns, rows), not empty.
    spacing : sequence of float
        Of columns and rows, mm; a pixel is as large as this.
    """
    places = np.argwhere(plane)
    corners = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)])
    points = (places[:, None] + corners[None]).reshape(-1, 2) * np.asarray(spacing)
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:
        points = np.unique(points, axis=0)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    i, j = np.unravel_index(int(apart.argmax()), apart.shape)
    along = (points[j] - points[i]) / apart[i, j]
    across = points @ np.array([-along[1], along[0]])
    return float(apart[i, j]), float(np.ptp(across))
