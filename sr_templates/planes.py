"""A head in three planes, with one tissue in colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.base import Findings, Segment, Volume
from models.canonical import orientation_of

FILL = 0.5
AIR_MM = 6.0
"""Shown around what is labelled."""
CUTS = ((0, 0.68), (1, 0.48), (2, 0.42))
"""Axis across a plane (RAS), and where it cuts what is labelled: near a hippocampus."""
LETTERS = {0: ("A", "P"), 1: ("R", "L"), 2: ("R", "L")}
"""What is at the left and right edge of a plane."""


def plane_pictures(
    findings: Findings, volume: Volume, segment: Segment, size: int
) -> list[tuple[Image.Image, tuple[str, str]]]:
    """Draw sagittal, coronal and axial planes, the patient's right on the left.

    Parameters
    ----------
    findings : Findings
    volume : Volume
    segment : Segment
        Whose voxels are coloured.
    size : int
        Width and height, pixels.

    Returns
    -------
    list of tuple
        RGB picture, and the patient's directions at its left and right edge.
    """
    if findings.labels is None:
        return []
    orientation = orientation_of(volume.affine)
    array = orientation.to_ras(volume.array)
    labels = orientation.to_ras(findings.labels)
    steps = volume.spacing[list(orientation.axes)]
    places = np.argwhere(labels > 0)
    if not len(places):
        places = np.argwhere(np.ones_like(labels))
    low, high = places.min(axis=0), places.max(axis=0)
    margin = np.rint(AIR_MM / steps).astype(int)
    box = [
        slice(max(int(a - m), 0), int(b + m) + 1) for a, b, m in zip(low, high, margin, strict=True)
    ]
    white = float(np.quantile(array[labels > 0], 0.98)) if (labels > 0).any() else 1.0
    pictures = []
    for axis, share in CUTS:
        at = int(low[axis] + share * (high[axis] - low[axis]))
        rest = [box[k] for k in range(3) if k != axis]
        plane = np.take(array, at, axis)[rest[0], rest[1]]
        marked = np.take(labels, at, axis)[rest[0], rest[1]] == segment.number
        mm = [float(steps[k]) for k in range(3) if k != axis]
        pictures.append((_picture(plane / max(white, 1e-6), marked, segment, mm, size), axis))
    return [(picture, LETTERS[axis]) for picture, axis in pictures]


def _picture(
    plane: NDArray[np.float32],
    marked: NDArray[np.bool_],
    segment: Segment,
    mm: list[float],
    size: int,
) -> Image.Image:
    """Turn up what is superior or anterior, colour, and scale into a square."""
    gray = np.clip(plane, 0, 1)[..., None] * np.full(3, 255.0)
    color = np.array(segment.color, np.float64)
    mixed = np.where(marked[..., None], gray * (1 - FILL) + color * FILL, gray)
    turned = mixed.transpose(1, 0, 2)[::-1, ::-1]
    width, height = turned.shape[1] * mm[0], turned.shape[0] * mm[1]
    scale = size / max(width, height)
    pixels = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(turned).astype(np.uint8))
    square = Image.new("RGB", (size, size))
    place = (size - pixels[0]) // 2, (size - pixels[1]) // 2
    square.paste(image.resize(pixels, Image.Resampling.BICUBIC), place)
    return square
