"""Hippocampi of a phantom, and how to take a known part of their grey matter away."""

from __future__ import annotations

import numpy as np

from models.atlas import HIPPOCAMPUS
from models.phantom_head import F32, STEP_MM, Atlas, ellipsoid

WHITE = 4.0
"""No CSF comes to where more than a quarter is white matter."""


def hippocampi(atlas: Atlas) -> F32:
    """Part of each voxel of the atlas in either hippocampus, with what is around it."""
    depths = [
        ellipsoid((side * middle[0], *middle[1:]), radii, *atlas.places)
        for middle, radii in HIPPOCAMPUS
        for side in (1.0, -1.0)
    ]
    part: F32 = np.clip(np.max(depths, axis=0) / STEP_MM + 0.5, 0, 1).astype(np.float32)
    return part


def loss_in_logits(logits: F32, region: F32, loss: float) -> F32:
    """Find what to add to the logits of CSF so that grey matter in a region shrinks by a part.

    Grey matter goes where it borders on CSF or on itself. Where it borders on white matter there is
    no CSF in people either; a mixture of the two would look like grey matter.

    Parameters
    ----------
    logits : NDArray[np.float32]
        Of grey matter, white matter, CSF: shape (3, n_x, n_y, n_z).
    region : NDArray[np.float32]
        Weight of each voxel.
    loss : float
        Part that goes, 0 to 0.6.

    Returns
    -------
    NDArray[np.float32]
        Shape (n_x, n_y, n_z).

    Raises
    ------
    ValueError
        The loss is not 0 to 0.6.
    """
    if not 0 <= loss <= 0.6:
        raise ValueError(f"hippocampal loss {loss} is not 0 to 0.6")
    weight = region[region > 0]
    inside = logits[:, region > 0].astype(np.float64)
    own = np.exp(inside - inside.max(axis=0))
    shift = weight * np.clip(1 - WHITE * own[1] / own.sum(axis=0), 0, 1)

    def grey(extra: float) -> float:
        shifted = inside.copy()
        shifted[2] += extra * shift
        parts = np.exp(shifted - shifted.max(axis=0))
        return float((parts[0] / parts.sum(axis=0) * weight).sum())

    low, high, whole = 0.0, 40.0, grey(0.0)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if grey(middle) > (1 - loss) * whole else (low, middle)
    added = np.zeros_like(region)
    added[region > 0] = (low + high) / 2 * shift
    return added
