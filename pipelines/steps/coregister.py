"""Further inputs of a model on the grid of the first, through their common Frame of Reference."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from models.base import Volume
from pipelines.base import NotScored
from pipelines.steps.straighten import straightened

LEAST_OVERLAP = 0.5
"""Least share of the first input's voxels that a further one must cover."""


def on_grid_of(first: Volume, other: Volume, name: str) -> Volume:
    """Resample a volume to another's grid, linearly.

    Parameters
    ----------
    first : Volume
        Straight.
    other : Volume
        Of the same Frame of Reference; any orientation, spacing and tilt.
    name : str
        Of the input, for sentences.

    Raises
    ------
    NotScored
        The volumes are not of one Frame of Reference, or hardly overlap.
    """
    wanted, found = first.frame_of_reference_uid, other.frame_of_reference_uid
    if not wanted or wanted != found:
        raise NotScored(
            "other_frame_of_reference",
            f"The input {name} lies in Frame of Reference {found or 'none'}, the first input in "
            f"{wanted or 'none'}: they are not known to be aligned.",
        )
    straight = straightened(other)
    to_other = np.linalg.inv(straight.affine) @ first.affine
    covered = _sampled(np.ones(straight.array.shape, np.float32), to_other, first, 0.0)
    if float((covered > 0.5).mean()) < LEAST_OVERLAP:
        raise NotScored(
            "little_overlap",
            f"The input {name} covers {float((covered > 0.5).mean()):.0%} of the first input.",
        )
    background = -1000.0 if other.facts.get("modality") == "CT" else float(other.array.min())
    array = _sampled(straight.array.astype(np.float32), to_other, first, background)
    return Volume(array, first.affine, wanted, facts=other.facts)


def _sampled(
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    to_other: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    first: Volume,
    background: float,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    made = ndimage.affine_transform(
        array,
        to_other[:3, :3],
        to_other[:3, 3],
        output_shape=first.array.shape,
        order=1,
        mode="constant",
        cval=background,
    )
    return np.asarray(made, np.float32)
