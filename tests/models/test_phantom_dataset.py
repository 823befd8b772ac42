"""Phantoms as data to train on: slices that were far apart."""

from __future__ import annotations

import numpy as np

from models.phantom_ct import BONE_SHARED_HU, make_head_ct
from models.phantom_dataset import interpolated

APART, STEP = 7.0, 3.5


def test_slices_that_were_far_apart_mix_their_neighbours() -> None:
    far = make_head_ct(12, "iph", spacing=(2.0, 2.0, APART), tilt=12.0)

    near = interpolated(far, STEP)

    array = far.volume.array
    assert near.volume.spacing[2] == STEP
    assert near.volume.array.shape[2] == 2 * array.shape[2] - 1
    assert np.array_equal(near.volume.array[:, :, ::2], array)
    assert np.allclose(near.volume.array[:, :, 1], array[:, :, :2].mean(axis=2), atol=0.01)
    for k in (0, 4):  # the same place on either grid, though the gantry was tilted
        old, new = far.volume.affine @ [3, 5, k, 1], near.volume.affine @ [3, 5, 2 * k, 1]
        assert np.allclose(old, new)


def test_blood_is_where_the_nearer_slice_has_it_and_not_where_bone_is_mixed_in() -> None:
    far = make_head_ct(13, "sdh", spacing=(2.0, 2.0, APART))

    near = interpolated(far, STEP)

    assert near.labels.any()
    assert np.array_equal(near.labels[:, :, ::2], far.labels)
    between = near.volume.array[:, :, 1::2][near.labels[:, :, 1::2] > 0]
    assert between.max() < BONE_SHARED_HU
    either = (far.labels[:, :, :-1] > 0) | (far.labels[:, :, 1:] > 0)
    assert not np.any((near.labels[:, :, 1::2] > 0) & ~either)
