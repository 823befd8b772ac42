"""The header of a NIfTI-1 file, in bytes: what `save_nifti` needs of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from pipelines.steps.geometry import FloatArray

HEADER_BYTES, OFFSET = 348, 352
DATA_TYPES = {"|u1": 2, "<i2": 4, "<f4": 16}
SCANNER = 1
"""NIfTI code of a transform to scanner coordinates."""
UNKNOWN = 0
"""NIfTI code of a transform that is not to be used: a quaternion cannot say a shear."""
MILLIMETRES, SECONDS = 2, 8
SHEAR = 1e-5
"""Cosines between axes below this are rounding."""

_LAYOUT = struct.Struct("<i 36x 8h 14x 2h 2x 8f 3f 3x B 128x 2h 6f 12f 16x 4s 4x")


def nifti_header(shape: Sequence[int], kind: np.dtype[np.generic], affine: FloatArray) -> bytes:
    """Encode the header of a single-file NIfTI-1 image, up to where the voxels begin.

    Parameters
    ----------
    shape : sequence of int
        Three sides, or four where there are points in time.
    kind : dtype
        uint8, little-endian int16 or float32.
    affine : FloatArray
        4 x 4, to RAS+ millimetres: sform and qform; the qform is off where it is sheared.

    References
    ----------
    nifti1.h, version 1.1 (nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h).
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    handed, turn = quaternion(affine)
    return _LAYOUT.pack(
        HEADER_BYTES,
        *(len(shape), *shape, *[1] * (7 - len(shape))),
        *(DATA_TYPES[kind.str], kind.itemsize * 8),
        *(handed, *sizes, *[1.0] * 4),
        *(OFFSET, 1.0, 0.0),
        MILLIMETRES + (SECONDS if len(shape) > 3 else 0),
        *(UNKNOWN if is_sheared(affine) else SCANNER, SCANNER),
        *(*turn, *affine[:3, 3]),
        *affine[:3].reshape(-1),
        b"n+1\0",
    )


def is_sheared(affine: FloatArray) -> bool:
    """Tell whether the axes of a grid are not perpendicular."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR)


def quaternion(affine: FloatArray) -> tuple[float, FloatArray]:
    """Turn of an affine's axes, nearest to them where they are sheared.

    Returns
    -------
    float
        qfac: -1 where the axes are left-handed, else 1.
    FloatArray
        b, c and d of the quaternion, whose a is not negative.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    handed = 1.0 if np.linalg.det(axes) > 0 else -1.0
    axes[:, 2] *= handed
    left, _, right = np.linalg.svd(axes)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = left @ right
    # The eigenvector of the largest eigenvalue, which is exact near half turns, too.
    symmetric = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    found = np.linalg.eigh(symmetric)[1][:, -1]
    turn: FloatArray = found[:3] if found[3] >= 0 else -found[:3]
    return handed, turn
