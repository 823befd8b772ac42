"""Bring a volume to the orientation every network sees, and findings back to the source grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """How the axes of a grid lie in RAS+ space.

    Parameters
    ----------
    axes : tuple of int
        The grid's axis that runs closest to left-right, posterior-anterior, inferior-superior.
    flips : tuple of bool
        Whether that axis runs the other way (to the left, to posterior, to inferior).
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def to_ras(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array of the source grid as (right, anterior, superior)."""
        turned = array.transpose(self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def from_ras(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array in (right, anterior, superior) on the source grid again."""
        turned = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return turned.transpose(np.argsort(self.axes))


def orientation_of(affine: NDArray[np.float64]) -> Orientation:
    """Find the axes closest to RAS+.

    Parameters
    ----------
    affine : NDArray[np.float64]
        4 x 4, voxel indices to RAS+ mm.

    Raises
    ------
    ValueError
        The affine puts different voxels in the same place, or nowhere.
    """
    if affine.shape != (4, 4):
        raise ValueError(f"The affine is not 4 x 4: its shape is {affine.shape}.")
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    if not (np.isfinite(lengths).all() and abs(np.linalg.det(steps)) > 1e-6 * lengths.prod() > 0):
        raise ValueError("The affine is not invertible: its three axes do not span space.")
    directions = steps / lengths
    axes: list[int] = [-1, -1, -1]
    flips = [False, False, False]
    left = np.abs(directions)
    for _ in range(3):
        world, axis = (int(i) for i in np.unravel_index(np.argmax(left), left.shape))
        axes[world], flips[world] = axis, bool(directions[world, axis] < 0)
        left[world, :] = left[:, axis] = -1.0
    return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
