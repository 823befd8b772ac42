"""Marks on a head CT: blood inside the skull stays, bone and what bone brightens goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Volume
from models.skull import ALONG_MM, strays
from tests.models.tiny import orientations, turned

SPACING = (0.5, 1.0, 5.0)
SHAPE = (320, 170, 32)
INNER_MM, BONE_MM, SCALP_MM = 62.0, 7.0, 6.0
LEAST_ML = 0.2
Mask = NDArray[np.bool_]


def places() -> tuple[NDArray[np.float64], ...]:
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x, y, z


X, Y, Z = places()
DEPTH = INNER_MM - np.sqrt(X**2 + Y**2 + Z**2)
"""Millimetres below the inner table of a round skull, negative in bone and outside."""


def scan(blood: Mask, *, flap: Mask | None = None, noise: float = 3.0) -> Volume:
    """Scan a ball of brain in bone in scalp, as blurred as a scanner does."""
    outside = -DEPTH
    array = np.select(
        [outside < 0, outside < BONE_MM, outside < BONE_MM + SCALP_MM],
        [33.0, 1100.0, 50.0],
        -1000.0,
    )
    if flap is not None:
        array[flap & (outside >= 0) & (outside < BONE_MM)] = 40.0
    array[blood] = 65.0
    array = ndimage.gaussian_filter(array, (0.8 / SPACING[0], 0.8 / SPACING[1], 0))
    array += np.random.default_rng(3).normal(0, noise, SHAPE)
    affine = np.diag([*SPACING, 1.0])
    return Volume(array.astype(np.float32), affine)


def ball(center: tuple[float, float, float], radius: float) -> Mask:
    away = [(a - c) ** 2 for a, c in zip((X, Y, Z), center, strict=True)]
    return np.sqrt(sum(away)) < radius


DEEP = ball((20.0, -10.0, 5.0), 14.0)
CRESCENT = (DEPTH > 0) & (DEPTH < 7.0) & (X > 25) & (np.abs(Z) < 25)
FILM = (DEPTH > -1.5) & (DEPTH < 1.6) & (np.abs(Z) < 25)


@pytest.mark.parametrize("lesion", [DEEP, CRESCENT], ids=["in the brain", "under the skull"])
def test_blood_stays_to_its_edge(lesion: Mask) -> None:
    dropped = strays(scan(lesion), lesion, LEAST_ML)

    assert np.count_nonzero(dropped) < 0.01 * np.count_nonzero(lesion)


def test_a_film_along_the_bone_goes() -> None:
    assert np.array_equal(strays(scan(np.zeros(SHAPE, bool)), FILM, LEAST_ML), FILM)


def test_a_film_that_touches_blood_goes_but_for_what_is_next_to_it() -> None:
    marks = FILM | CRESCENT

    kept = marks & ~strays(scan(CRESCENT), marks, LEAST_ML)

    away = ndimage.distance_transform_edt(~CRESCENT, sampling=SPACING)
    assert np.count_nonzero(CRESCENT & ~kept) < 0.01 * np.count_nonzero(CRESCENT)
    assert not (kept & (away > ALONG_MM + 8)).any()


def test_the_thin_end_of_a_crescent_stays() -> None:
    taper = (DEPTH > 0) & (DEPTH < 2.5) & (X > 18) & (np.abs(Z) < 25)
    marks = CRESCENT | taper
    beyond = taper & ~CRESCENT

    kept = marks & ~strays(scan(marks), marks, LEAST_ML)

    assert np.count_nonzero(kept & beyond) > 0.9 * np.count_nonzero(beyond)


def test_what_bone_of_the_next_slice_brightens_goes() -> None:
    cap = (DEPTH > 0) & (np.roll(DEPTH, -1, axis=2) < 0) & (Z > 0)

    assert np.count_nonzero(cap) * np.prod(SPACING) / 1000 > 5
    assert np.array_equal(strays(scan(np.zeros(SHAPE, bool)), cap, LEAST_ML), cap)


def test_a_swelling_of_the_scalp_goes() -> None:
    swelling = ball((INNER_MM + BONE_MM + 8, 0.0, 0.0), 9.0) & (DEPTH < -BONE_MM - 2)

    assert np.array_equal(strays(scan(swelling), swelling, LEAST_ML), swelling)


def test_calcium_goes() -> None:
    spot = ball((0.0, 20.0, 0.0), 6.0)
    volume = scan(np.zeros(SHAPE, bool))
    volume.array[spot] = 180.0

    assert np.array_equal(strays(volume, spot, LEAST_ML), spot)


def test_blood_deep_under_a_missing_flap_stays() -> None:
    flap = (X > 0) & (np.abs(Y) < 20) & (np.abs(Z) < 30)

    assert not strays(scan(DEEP, flap=flap), DEEP, LEAST_ML).any()


def test_a_core_that_is_too_small_goes_with_all_around_it() -> None:
    speck = ball((0.0, 0.0, 0.0), 3.0)
    ml = float(np.count_nonzero(speck) * np.prod(SPACING)) / 1000

    assert strays(scan(speck), speck, 2 * ml).sum() == speck.sum()
    assert not strays(scan(speck), speck, 0.5 * ml).any()


def test_nothing_marked_is_nothing_dropped() -> None:
    nothing = np.zeros(SHAPE, bool)

    assert not strays(scan(nothing), nothing, LEAST_ML).any()


def test_the_way_the_source_is_stored_changes_nothing() -> None:
    marks = FILM | CRESCENT | DEEP
    volume = scan(CRESCENT | DEEP)
    upright = strays(volume, marks, LEAST_ML)

    assert upright.any()
    for axes, flips in orientations()[::11]:
        source, turn = turned(volume, axes, flips)
        found = strays(source, turn(marks), LEAST_ML)
        assert found.shape == source.array.shape
        assert np.array_equal(found, turn(upright))


def test_slices_that_were_far_apart_blur_bone_as_far() -> None:
    """Given slices 10 mm apart and as thick, interpolated to 2.5 mm."""
    thin = scan(np.zeros(SHAPE, bool), noise=0.0).array
    far = ndimage.gaussian_filter1d(thin, 4.0 / SPACING[2], axis=2)[:, :, ::2]
    between = ndimage.zoom(far, (1, 1, 4), order=1, grid_mode=True, mode="nearest")
    volume = Volume(between, np.diag([*SPACING[:2], 2.5, 1.0]))
    told = replace(volume, facts={"largest_step_mm": 10.0})
    marks = (between > 45) & (between < 110)

    assert (marks & ~strays(volume, marks, LEAST_ML)).any()
    assert not (marks & ~strays(told, marks, LEAST_ML)).any()
