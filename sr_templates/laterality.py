"""On which side of the head something was marked, where that is clear."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Findings
from sr_templates.codes import is_in_head
from sr_templates.tiles import View

Side = Literal["left", "right", "both sides"]
F64 = NDArray[np.float64]

PIXEL_MM = 2.0
TURNS = np.deg2rad(np.arange(-30.0, 31.0, 2.0))
"""How far a head may be turned in its slices."""
SLAB_MM = 15.0
"""How far beyond the marked slices the head's midline is looked for."""
LEAST_SYMMETRY = 0.9
CLEAR_MM = 6.0
"""Nearer to the midline than this is on neither side."""
ONE_SIDED = 0.95
"""Least share of what is marked that lies on a side named alone."""
STRAY = 0.01
"""Largest share that may then lie clear of the midline on the other side."""
EITHER = 0.20
"""Least share on each side that makes both sides."""


def side_of(view: View, findings: Findings) -> Side | None:
    """Say on which side of the head's midline the labelled voxels lie.

    The midline is the line across the marked slices about which they mirror themselves best.

    Parameters
    ----------
    view : View
        Axial or coronal; right and left come from the volume's affine.
    findings : Findings

    Returns
    -------
    {"left", "right", "both sides"} or None
        The patient's side. None: nothing is marked, it lies at or across the midline, the slices
        are not symmetric enough to have one, or it is not of the head.
    """
    regions = [segment.anatomic_region for segment in findings.segments]
    if not all(region is not None and is_in_head(region) for region in regions):
        return None
    if findings.labels is None or not findings.labels.any() or view.letters[:2] != ("R", "L"):
        return None
    midline = _midline(_isotropic(view, _slab(view, findings.labels)))
    return None if midline is None else _decide(_distances(view, findings.labels, *midline))


def _slab(view: View, labels: NDArray[np.uint8]) -> F64:
    """Mean of the windowed slices around the marked ones, 0 to 1, shape (down, right)."""
    marked = np.flatnonzero(labels.any(axis=(0, 1)))
    more = round(SLAB_MM / float(view.volume.spacing[2]))
    part = view.volume.array[:, :, max(marked[0] - more, 0) : marked[-1] + more + 1]
    level, width = view.window
    scaled = np.clip((part - (level - width / 2)) / width, 0.0, 1.0).mean(axis=2)
    return np.asarray(view.turned(scaled), np.float64)


def _isotropic(view: View, picture: F64) -> F64:
    """Bring a picture to pixels of `PIXEL_MM`, the middle of the first at 0, with air around."""
    right, down = view.pixel_mm
    rows, columns = (
        int((n - 1) * mm / PIXEL_MM) + 1 for n, mm in zip(picture.shape, (down, right), strict=True)
    )
    smooth = ndimage.gaussian_filter(picture, (PIXEL_MM / down / 2, PIXEL_MM / right / 2))
    steps = (PIXEL_MM / down, PIXEL_MM / right)
    return np.asarray(
        ndimage.affine_transform(smooth, steps, output_shape=(rows, columns), order=1)
    )


def _midline(picture: F64) -> tuple[float, tuple[float, float], float] | None:
    """Find the line about which a picture mirrors itself best.

    Returns
    -------
    tuple or None
        Turn (radians), the point turned about (down, right; millimetres), and where the line then
        lies (right of that point, millimetres); None when the picture is not symmetric.
    """
    energy = float((picture**2).sum())
    if energy == 0.0:
        return None
    center = np.array(ndimage.center_of_mass(picture))
    size = int(np.ceil(np.hypot(*picture.shape))) | 1
    best = (0.0, 0.0, 0.0)
    for turn in TURNS:
        offset = center - _rotation(turn) @ np.full(2, size // 2)
        turned = ndimage.affine_transform(picture, _rotation(turn), offset, (size, size), order=1)
        spectrum = np.fft.rfft(turned, 2 * size, axis=1)
        mirrored = np.fft.irfft((spectrum**2).sum(axis=0), 2 * size)
        place = int(mirrored.argmax())
        score = float(mirrored[place]) / energy
        if score > best[0]:
            best = (score, float(turn), (place / 2 - size // 2) * PIXEL_MM)
    if best[0] < LEAST_SYMMETRY:
        return None
    return best[1], (float(center[0] * PIXEL_MM), float(center[1] * PIXEL_MM)), best[2]


def _rotation(turn: float) -> F64:
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def _distances(
    view: View,
    labels: NDArray[np.uint8],
    turn: float,
    center: tuple[float, float],
    midline: float,
) -> F64:
    """Millimetres of every labelled voxel to the patient's left of the midline."""
    counts = np.asarray(view.turned(np.count_nonzero(labels, axis=2)))
    places = np.argwhere(counts > 0)
    right, down = view.pixel_mm
    away = places * (down, right) - np.array(center)
    across = (away @ _rotation(turn))[:, 1] - midline
    return np.asarray(np.repeat(across, counts[counts > 0]), np.float64)


def _decide(distances: F64) -> Side | None:
    left, right = float((distances > CLEAR_MM).mean()), float((distances < -CLEAR_MM).mean())
    if min(left, right) >= EITHER:
        return "both sides"
    middle = float(distances.mean())
    if abs(middle) < CLEAR_MM or min(left, right) > STRAY:
        return None
    on_this_side = float((distances * middle > 0).mean())
    if on_this_side < ONE_SIDED:
        return None
    return "left" if middle > 0 else "right"
