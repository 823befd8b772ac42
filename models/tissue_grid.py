"""The head on the grids a segmentation works on: its own, and coarser ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from models.base import UnfitInput, Volume
from models.canonical import Orientation, orientation_of

AROUND_MM = 14.0
"""Air further from the head than this tells nothing."""
DEPTH_MM = 190.0
"""Neck deeper below the vertex than this tells nothing."""


@dataclass(frozen=True, eq=False)
class Scanned:
    """A volume with its axes close to right, anterior, superior.

    Parameters
    ----------
    signal : torch.Tensor
        Shape (n_x, n_y, n_z), as scanned.
    spacing : NDArray[np.float64]
        Millimetres, shape (3,).
    directions : NDArray[np.float64]
        Columns are unit vectors of the axes in RAS+, shape (3, 3).
    origin : NDArray[np.float64]
        RAS+ mm of the first voxel.
    orientation : Orientation
        How the volume's own axes lie.
    """

    signal: torch.Tensor
    spacing: NDArray[np.float64]
    directions: NDArray[np.float64]
    origin: NDArray[np.float64]
    orientation: Orientation

    @property
    def field_mm(self) -> NDArray[np.float64]:
        """Extent along each axis."""
        field: NDArray[np.float64] = self.spacing * np.array(self.signal.shape)
        return field


def scanned(volume: Volume, device: torch.device) -> Scanned:
    """Turn a volume."""
    orientation = orientation_of(volume.affine)
    axes, flips = list(orientation.axes), np.array(orientation.flips)
    steps = volume.affine[:3, axes] * np.where(flips, -1, 1)
    last = np.zeros(3)
    last[axes] = np.where(flips, np.array(volume.array.shape)[axes] - 1, 0)
    array = np.ascontiguousarray(orientation.to_ras(volume.array), dtype=np.float32)
    spacing = np.linalg.norm(steps, axis=0)
    return Scanned(
        torch.from_numpy(array).to(device),
        spacing,
        steps / spacing,
        volume.affine[:3, :3] @ last + volume.affine[:3, 3],
        orientation,
    )


@dataclass(frozen=True, eq=False)
class Points:
    """Where a fit looks: block means of a volume, in and around the head.

    Parameters
    ----------
    signal : torch.Tensor
        Bright tissue near 1, shape (n,).
    places : torch.Tensor
        Millimetres along the volume's axes from its first voxel, shape (n, 3).
    chosen : torch.Tensor
        Flat indices of the points in the coarse grid, shape (n,).
    axes : tuple of torch.Tensor
        Millimetres of the coarse grid along each axis.
    """

    signal: torch.Tensor
    places: torch.Tensor
    chosen: torch.Tensor
    axes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Outline:
    """Where the head is, coarsely: a mask on block means, and the unit of signal."""

    mask: NDArray[np.bool_]
    blocks: tuple[int, int, int]
    scale: float


def blocks_of(scan: Scanned, step_mm: float) -> tuple[int, int, int]:
    """Voxels that make up one block of about `step_mm`."""
    x, y, z = (max(round(step_mm / step), 1) for step in scan.spacing)
    return x, y, z


def block_means(scan: Scanned, blocks: tuple[int, int, int]) -> torch.Tensor:
    """Average blocks of voxels; what does not fill a block is left out."""
    mean: torch.Tensor = functional.avg_pool3d(scan.signal[None, None], blocks, blocks)[0, 0]
    return mean


def outline(scan: Scanned, step_mm: float = 4.0) -> Outline:
    """Find the head as what is brighter than air.

    Raises
    ------
    UnfitInput
        Nothing stands out from the background.
    """
    blocks = blocks_of(scan, step_mm)
    signal = block_means(scan, blocks).cpu().numpy()
    some = signal[signal > 0]
    if some.size < 1000 or float(some.max()) <= float(some.min()):
        raise UnfitInput("no_signal", "This is no head: the image is empty or all of one value.")
    scale = float(np.quantile(some, 0.98))
    mask = ndimage.binary_opening(signal > 0.5 * _otsu(np.minimum(some, 1.5 * scale)))
    labels, count = ndimage.label(mask)
    if not count:
        raise UnfitInput("no_signal", "This is no head: nothing stands out from the background.")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return Outline(labels == sizes.argmax(), blocks, scale)


def points(scan: Scanned, head: Outline, step_mm: float) -> Points:
    """Choose points in the head and a rim of air; voxels of exactly zero are no signal."""
    blocks = blocks_of(scan, step_mm)
    signal = block_means(scan, blocks)
    near = torch.from_numpy(_near(scan, head, blocks, tuple(signal.shape))).to(signal.device)
    chosen = torch.nonzero((near & (signal > 0)).flatten())[:, 0]
    even = len(chosen) - len(chosen) % 2
    chosen = chosen[:even]
    axes = _axes(scan, blocks, tuple(signal.shape))
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return Points(signal.flatten()[chosen] / head.scale, mesh[chosen], chosen, axes)


def _axes(
    scan: Scanned, blocks: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    device = scan.signal.device
    x, y, z = (
        (torch.arange(n, device=device) * block + (block - 1) / 2) * float(step)
        for n, block, step in zip(shape, blocks, scan.spacing, strict=True)
    )
    return x, y, z


def _near(
    scan: Scanned, head: Outline, blocks: tuple[int, int, int], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Say which blocks are in the head or close to it, and not deep in the neck."""
    steps = scan.spacing * np.array(head.blocks)
    away = ndimage.distance_transform_edt(~head.mask, sampling=steps)
    wanted = away < AROUND_MM
    top = np.nonzero(head.mask.any(axis=(0, 1)))[0].max() * steps[2]
    wanted &= np.arange(wanted.shape[2]) * steps[2] > top - DEPTH_MM
    index = [
        np.minimum((np.arange(n) * block + block // 2) // old, size - 1)
        for n, block, old, size in zip(shape, blocks, head.blocks, wanted.shape, strict=True)
    ]
    near: NDArray[np.bool_] = wanted[np.ix_(*index)]
    return near


def _otsu(values: NDArray[np.float32]) -> float:
    """Threshold that parts values into two groups best (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middle[np.nanargmax(between)])
