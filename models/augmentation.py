"""Change training patches: where things lie, how bright and how sharp they are."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from models.recipe import Augmentation, Recipe
from models.training_cases import argmax_of

AXES = ("right", "anterior", "superior")
KNOTS = 4
"""Of smooth bendings and fields, along each axis."""


def augmented(
    inputs: torch.Tensor, truth: torch.Tensor, recipe: Recipe, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch.

    Parameters
    ----------
    inputs : Tensor
        (n, channels, right, anterior) or (n, channels, right, anterior, superior).
    truth : Tensor
        (n, right, anterior[, superior]), int64.
    recipe : Recipe
    random : Generator

    Returns
    -------
    inputs, truth : Tensor
        The truth with an axis of one channel.
    """
    rules, classes = recipe.augmentation, recipe.classes
    grid = _grid(tuple(inputs.shape[2:]), inputs.shape[0], rules, random)
    outside = -1.0 if inputs.ndim == 4 else 0.0  # what padding is, in either network
    inputs = F.grid_sample(inputs - outside, grid, align_corners=False) + outside
    shares = torch.stack([truth == number for number in range(1, classes)], 1).float()
    moved = F.grid_sample(shares, grid, align_corners=False)
    truth = argmax_of(moved.movedim(1, 0))[:, None]
    return _intensities(inputs, rules, random), truth


def _grid(
    size: tuple[int, ...], n: int, rules: Augmentation, random: np.random.Generator
) -> torch.Tensor:
    """Where each voxel of the new patch is taken from, in grid_sample's coordinates."""
    dims = len(size)
    matrix = np.stack([_matrix(dims, rules, random) for _ in range(n)])
    # Turn in voxels, not in the stretched coordinates of grid_sample, whose axes run backwards.
    scale = np.array(size, np.float64)
    matrix = matrix * scale[None, None, :] / scale[None, :, None]
    theta = np.zeros((n, dims, dims + 1))
    theta[:, :, :dims] = matrix[:, ::-1, ::-1]
    theta[:, :, dims] = random.normal(0, 2 * rules.shift, (n, dims))
    grid = F.affine_grid(
        torch.tensor(theta, dtype=torch.float32), [n, 1, *size], align_corners=False
    )
    if rules.elastic_mm and dims == 3:
        knots = random.normal(0, rules.elastic_mm, (n, dims, *(KNOTS,) * dims))
        bend = F.interpolate(
            torch.tensor(knots, dtype=torch.float32),
            size=size,
            mode="trilinear",
            align_corners=True,
        )
        per_voxel = torch.tensor(2.0 / scale[::-1].copy(), dtype=torch.float32)
        grid = grid + bend.movedim(1, -1) * per_voxel
    return grid


def _matrix(dims: int, rules: Augmentation, random: np.random.Generator) -> np.ndarray:
    """Turn, scale and mirror, over (right, anterior[, superior])."""
    planes = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    matrix = np.eye(dims)
    for first, second in planes:
        angle = np.deg2rad(random.normal(0, rules.degrees))
        turn = np.eye(dims)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix /= random.uniform(*rules.scale)
    for axis, name in enumerate(AXES[:dims]):
        if name in rules.mirror and random.random() < 0.5:
            matrix[:, axis] *= -1
    return matrix


def _intensities(
    inputs: torch.Tensor, rules: Augmentation, random: np.random.Generator
) -> torch.Tensor:
    n, dims = inputs.shape[0], inputs.ndim - 2
    one = (n, *(1,) * (dims + 1))
    if rules.low_resolution and dims == 3:
        for i in np.flatnonzero(random.random(n) < rules.low_resolution):
            inputs[i] = _half_resolution(inputs[i])
    if rules.blur:
        for i in np.flatnonzero(random.random(n) < 0.5):
            inputs[i] = _blurred(inputs[i], random.uniform(0, rules.blur))
    if rules.field:
        knots = random.normal(0, rules.field, (n, 1, *(KNOTS,) * dims))
        mode = "trilinear" if dims == 3 else "bilinear"
        smooth = F.interpolate(
            torch.tensor(knots, dtype=torch.float32),
            size=inputs.shape[2:],
            mode=mode,
            align_corners=True,
        )
        inputs = inputs * smooth.exp()
    gain = torch.tensor(random.normal(1.0, rules.gain, one), dtype=torch.float32)
    bias = torch.tensor(random.normal(0.0, rules.bias, one), dtype=torch.float32)
    noise = torch.tensor(random.uniform(0.0, rules.noise, one), dtype=torch.float32)
    generator = torch.Generator().manual_seed(int(random.integers(2**63)))  # faster than numpy's
    drawn = torch.randn(inputs.shape, generator=generator)
    return inputs * gain + bias + noise * drawn


def _half_resolution(patch: torch.Tensor) -> torch.Tensor:
    """Average pairs of slices, and interpolate between them again."""
    size = patch.shape[1:]
    fewer = F.avg_pool3d(patch[None], (1, 1, 2))
    return F.interpolate(fewer, size=size, mode="trilinear")[0]


def _blurred(patch: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian along each axis; three taps are enough for a voxel of sigma."""
    side = float(np.exp(-0.5 / max(sigma, 1e-3) ** 2))
    kernel = torch.tensor([side, 1.0, side]) / (1 + 2 * side)
    for axis in range(1, patch.ndim):
        turned = patch.movedim(axis, -1)
        flat = F.pad(turned.reshape(-1, 1, turned.shape[-1]), (1, 1), mode="replicate")
        patch = F.conv1d(flat, kernel[None, None]).reshape(turned.shape).movedim(-1, axis)
    return patch
