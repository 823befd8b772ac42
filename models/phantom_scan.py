"""How a phantom is scanned: grid, pose, bending; bias, noise and ghosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantom_head import F32

FIELD_MM = (186.0, 236.0, 210.0)
"""Field of view from left to right, back to front, bottom to top."""
CENTER = np.array((0.0, -16.0, -8.0), np.float32)
"""Middle of the field of view, RAS+ mm; about it the head turns."""
SAMPLE_MM = 1.6
"""A voxel longer than this is the mean of several samples."""
WAVES = 7
BEND_MM = 6.0
WHITE = 0.86
HEAD_SCALE = 0.9
"""The ICBM152 maps are larger than people's heads."""
UNITS = 800.0


@dataclass(frozen=True)
class Scan:
    """How a head is scanned.

    Parameters
    ----------
    number : int
        Two numbers, two scans of the same head: other noise and bias.
    spacing : tuple of float
        Millimetres between voxels from left to right, back to front, bottom to top.
    noise : float
        Standard deviation of Rician noise, as a part of the signal of white matter.
    bias : float
        Coil sensitivity varies by about this part.
    contrast : str
        One of `models.phantom_t1.CONTRASTS`.
    ghosts : float
        Part of the phase encoding steps during which the head had moved by `ghosts` x 10 mm.
    turn_degrees : tuple of float
        Pitch (nodding), roll (ear to shoulder), yaw (looking aside).
    scale : float
        Size of the head.
    offset_mm : tuple of float
        Where the header says the middle of the field of view is, besides `CENTER`.
    axes : tuple of int
        Which of the axes above each axis of the file is: 1, 2, 3, negative when it runs the
        other way.
    """

    number: int = 0
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.03
    bias: float = 0.25
    contrast: str = "t1_3t"
    ghosts: float = 0.0
    turn_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    offset_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: tuple[int, int, int] = (1, 2, 3)


class ScanGrid:
    """Voxel centres of a scan, RAS+, and the samples within each voxel.

    Raises
    ------
    ValueError
        A spacing does not fit a head, or the axes are no permutation.
    """

    def __init__(self, scan: Scan) -> None:
        if not all(0 < step < min(FIELD_MM) / 8 for step in scan.spacing):
            raise ValueError(f"spacing {scan.spacing} mm does not fit a head")
        if sorted(map(abs, scan.axes)) != [1, 2, 3]:
            raise ValueError(f"axes {scan.axes} are no permutation of 1, 2, 3")
        self.scan = scan
        self.shape = tuple(round(f / s) for f, s in zip(FIELD_MM, scan.spacing, strict=True))
        self.parts = tuple(max(round(step / SAMPLE_MM), 1) for step in scan.spacing)
        self.affine = np.diag([*scan.spacing, 1.0])
        self.affine[:3, 3] = CENTER - self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)

    def axis(self, number: int) -> F32:
        """RAS+ coordinates of the samples along one axis."""
        parts = self.parts[number]
        index = (np.arange(self.shape[number] * parts) + 0.5) / parts - 0.5
        place: F32 = self.affine[number, 3] + self.affine[number, number] * index
        return place.astype(np.float32)

    def planes_of(self, k: int) -> Iterator[int]:
        """Which planes of samples a slice has."""
        return iter(range(k * self.parts[2], (k + 1) * self.parts[2]))

    def mean_plane(self, plane: F32) -> F32:
        """Average a plane of samples over its voxels, as one of `parts[2]` planes."""
        x, y, z = self.parts
        n_x, n_y = self.shape[:2]
        if x == y == z == 1:
            return plane
        mean: F32 = plane.reshape(n_x, x, n_y, y).mean(axis=(1, 3)) / np.float32(z)
        return mean

    def to_file(self, array: F32) -> F32:
        """View with the axes of the file."""
        turned = array.transpose([abs(axis) - 1 for axis in self.scan.axes])
        return turned[tuple(slice(None, None, -1 if axis < 0 else 1) for axis in self.scan.axes)]

    @property
    def file_affine(self) -> NDArray[np.float64]:
        """4 x 4, takes voxel indices of the file to RAS+ millimetres."""
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for column, axis in enumerate(self.scan.axes):
            row = abs(axis) - 1
            turn[row, column] = np.sign(axis)
            turn[row, 3] = self.shape[row] - 1 if axis < 0 else 0
        affine: NDArray[np.float64] = self.affine @ turn
        affine[:3, 3] += self.scan.offset_mm
        return affine


def places_of(grid: ScanGrid, random: np.random.Generator) -> Callable[[int], F32]:
    """Draw how a head differs from the mean in shape, and where each sample lies in it.

    Returns
    -------
    callable
        From the number of a plane of samples to atlas coordinates, shape (3, n_x, n_y), mm.
    """
    scan = grid.scan
    own = random.standard_normal((3, 3))
    shape = np.eye(3) + 0.04 * np.diag(np.diag(own)) + 0.01 * (own + own.T)
    shift = random.uniform(-5, 5, 3) + CENTER
    order = sum(np.meshgrid(*[np.arange(WAVES) ** 2] * 3, indexing="ij"))
    bend = random.standard_normal((3, WAVES, WAVES, WAVES)) * np.exp(-order / 12.0)
    bend *= BEND_MM / np.sqrt(3) / np.sqrt((bend**2).sum(axis=(1, 2, 3)) / 8)[:, None, None, None]
    matrix = shape @ _turn(scan) / (scan.scale * HEAD_SCALE)
    away = [grid.axis(i) - CENTER[i] for i in range(3)]
    waves = [_waves(one, FIELD_MM[i]) for i, one in enumerate(away)]

    def of(plane: int) -> F32:
        at = np.tensordot(bend, waves[2][:, plane], 1)
        bent = waves[0].T @ at @ waves[1]
        x, y, z = away[0][:, None], away[1][None, :], away[2][plane]
        rows = [r[0] * x + r[1] * y + r[2] * z + s for r, s in zip(matrix, shift, strict=True)]
        places: F32 = (np.stack(rows) + bent).astype(np.float32)
        return places

    return of


def _turn(scan: Scan) -> NDArray[np.float64]:
    turn = np.eye(3)
    for (first, second), angle in zip(
        ((1, 2), (0, 2), (0, 1)), np.deg2rad(scan.turn_degrees), strict=True
    ):
        one = np.eye(3)
        one[[first, second], [first, second]] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn


def _waves(away: F32, field_mm: float) -> F32:
    """Cosines along one axis, shape (`WAVES`, n)."""
    phase = np.pi * (away / field_mm + 0.5)
    waves: F32 = np.cos(np.arange(WAVES, dtype=np.float32)[:, None] * phase)
    return waves


def degrade(signal: F32, scan: Scan, random: np.random.Generator) -> tuple[F32, F32]:
    """Multiply by a coil's sensitivity, move, and add noise.

    Returns
    -------
    tuple of NDArray[np.float32]
        The image, white matter near 700, and the sensitivity.
    """
    coarse = ndimage.gaussian_filter(random.standard_normal((12, 12, 12)), 2.0, mode="reflect")
    coarse /= coarse.std()
    steps = [np.linspace(1, 10, n) for n in signal.shape]
    smooth = np.stack(
        [
            ndimage.map_coordinates(coarse, np.meshgrid(steps[0], steps[1], [z], indexing="ij"))
            for z in steps[2]
        ],
        axis=2,
    )[:, :, :, 0]
    bias: F32 = np.exp(scan.bias / 2 * smooth).astype(np.float32)
    image = signal * bias
    if scan.ghosts:
        image = _ghosts(image, scan, random)
    level = np.float32(scan.noise * WHITE)
    real = image + level * random.standard_normal(image.shape, dtype=np.float32)
    other = level * random.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, other) * np.float32(UNITS), bias


def _ghosts(image: F32, scan: Scan, random: np.random.Generator) -> F32:
    """Move the head along the phase encoding (back to front) during some of its steps."""
    lines = np.fft.fft(image, axis=1)
    steps = np.fft.fftfreq(image.shape[1])
    moved = random.random(image.shape[1]) < scan.ghosts
    shift = np.where(moved, scan.ghosts * 10 / scan.spacing[1], 0.0)
    lines *= np.exp(-2j * np.pi * steps * shift)[None, :, None]
    ghosted: F32 = np.abs(np.fft.ifft(lines, axis=1)).astype(np.float32)
    return ghosted
