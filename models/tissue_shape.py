"""How a head is bent into the template: an affine map after an invertible warp; and bias fields."""

from __future__ import annotations

import torch
from torch.nn import functional

SQUARINGS = 6


def affine_matrix(parameters: torch.Tensor) -> torch.Tensor:
    """Exponential of a matrix of rotation, log-scale and shear.

    Parameters
    ----------
    parameters : torch.Tensor
        Three rotations (radians), three logarithms of scale, three shears: shape (9,).

    Returns
    -------
    torch.Tensor
        Shape (3, 3), determinant above 0.
    """
    turn, size, shear = parameters[:3], parameters[3:6], parameters[6:]
    rows = [
        torch.stack([size[0], shear[0] - turn[2], shear[1] + turn[1]]),
        torch.stack([shear[0] + turn[2], size[1], shear[2] - turn[0]]),
        torch.stack([shear[1] - turn[1], shear[2] + turn[0], size[2]]),
    ]
    matrix: torch.Tensor = torch.linalg.matrix_exp(torch.stack(rows))
    return matrix


def exponential(velocity: torch.Tensor, step_mm: torch.Tensor) -> torch.Tensor:
    """Displacement that a stationary velocity makes in one unit of time.

    Parameters
    ----------
    velocity : torch.Tensor
        At the nodes of a grid, mm along its axes: shape (3, n_x, n_y, n_z).
    step_mm : torch.Tensor
        Distance of the nodes, shape (3,).

    Returns
    -------
    torch.Tensor
        Same shape. The exponential of the negative velocity is its inverse.

    References
    ----------
    Arsigny et al., A log-Euclidean framework for statistics on diffeomorphisms, MICCAI 2006.
    """
    shape = velocity.shape[1:]
    axes = [torch.linspace(-1, 1, n, device=velocity.device) for n in shape]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    extent = step_mm * (torch.tensor(shape, device=velocity.device) - 1)
    moved: torch.Tensor = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        at = (nodes + 2 * moved.permute(1, 2, 3, 0) / extent).flip(-1)
        there = functional.grid_sample(
            moved[None], at[None], align_corners=True, padding_mode="border"
        )
        moved = moved + there[0]
    return moved


def hats(places_mm: torch.Tensor, step_mm: float, count: int) -> torch.Tensor:
    """Linear interpolation from nodes as a matrix, shape (n, count)."""
    nodes = torch.arange(count, device=places_mm.device) * step_mm
    return (1 - (places_mm[:, None] - nodes).abs() / step_mm).clamp_min(0)


def cosines(places_mm: torch.Tensor, field_mm: float, count: int) -> torch.Tensor:
    """Cosines over a field of view, shape (n, count)."""
    waves = torch.arange(count, device=places_mm.device)
    return torch.cos(torch.pi * places_mm[:, None] / field_mm * waves)


def product(coefficients: torch.Tensor, bases: list[torch.Tensor]) -> torch.Tensor:
    """Evaluate a tensor product on a grid.

    Parameters
    ----------
    coefficients : torch.Tensor
        Shape (..., k_x, k_y, k_z).
    bases : list of torch.Tensor
        Shapes (n_x, k_x), (n_y, k_y), (n_z, k_z).

    Returns
    -------
    torch.Tensor
        Shape (..., n_x, n_y, n_z).
    """
    at_z = coefficients @ bases[2].T
    at_y = bases[1] @ at_z
    found: torch.Tensor = torch.einsum("...ayz,xa->...xyz", at_y, bases[0])
    return found


def roughness(velocity: torch.Tensor, step_mm: torch.Tensor) -> torch.Tensor:
    """Membrane and bending energy, mean over the nodes."""
    energy = velocity.new_zeros(())
    for axis in (1, 2, 3):
        slope = velocity.diff(dim=axis) / step_mm[axis - 1]
        energy = energy + 0.5 * (slope**2).mean()
        for other in (1, 2, 3):
            energy = energy + 1.3 * (slope.diff(dim=other) ** 2).mean()
    return energy
