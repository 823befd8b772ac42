"""Head CT phantoms: the same for a seed, true to their labels, and like a head."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from models.anatomy import load_anatomy
from models.phantom_blood import draw_blood
from models.phantom_ct import BONE_SHARED_HU, KINDS, HeadPhantom, Points, make_head_ct
from models.phantom_head import STEP_MM, draw_head, load_atlas

pytestmark = pytest.mark.slow

COARSE = (2.0, 2.5, 6.0)
BLEEDS = KINDS[1:]


@pytest.fixture(scope="module")
def heads() -> dict[str, HeadPhantom]:
    return {kind: make_head_ct(5, kind, COARSE, noise=0.0) for kind in KINDS}


def test_maps_are_looked_up_as_scipy_does_and_outside_at_their_border() -> None:
    random = np.random.default_rng(3)
    field = random.normal(0, 100, (7, 11, 5)).astype(np.float32)
    voxels = random.uniform(-3, 13, (3, 40, 50)).astype(np.float32)
    voxels[:, 0, :3] = ((0, 6, 5.9999), (0, 10, 2), (0, 4, 4))  # corners, and just inside
    chosen = random.random((40, 50)) < 0.5

    points = Points.among(voxels, field.shape)

    wanted = ndimage.map_coordinates(field, voxels, order=1, mode="nearest")
    assert np.abs(points.of(field) - wanted).max() < 1e-3
    assert np.array_equal(points.only(chosen).of(field), points.of(field)[chosen])


def test_the_maps_lie_where_mni_space_has_them() -> None:
    anatomy = load_anatomy()

    middle = anatomy.affine @ [*(np.argwhere(anatomy.brain).mean(axis=0)), 1]

    assert np.abs(middle[:3] - (0, -20, 10)).max() < 4
    assert anatomy.brain.sum() * 8 / 1000 == pytest.approx(1950, rel=0.05)
    fourth_ventricle = np.linalg.inv(anatomy.affine) @ (0.5, -45.5, -33.5, 1)
    place = tuple(np.rint(fourth_ventricle[:3]).astype(int))
    assert int(anatomy.gm[place]) + int(anatomy.wm[place]) < 128


def test_a_seed_makes_the_same_phantom_again() -> None:
    first, again = (make_head_ct(11, None, COARSE) for _ in range(2))

    assert first.kind == again.kind
    assert np.array_equal(first.volume.array, again.volume.array)
    assert np.array_equal(first.labels, again.labels)


def test_a_phantom_is_the_same_in_another_process() -> None:
    code = (
        "from models.phantom_ct import make_head_ct; import hashlib;"
        f"v = make_head_ct(11, 'iph', {COARSE}).volume.array;"
        "print(hashlib.sha256(v.tobytes()).hexdigest(), end='')"
    )
    there = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]

    assert there[0].stdout == there[1].stdout != ""


def test_different_seeds_make_different_heads() -> None:
    first, second = (make_head_ct(seed, "none", COARSE) for seed in (1, 2))

    assert not np.allclose(first.volume.array, second.volume.array, atol=50)


def test_kinds_of_one_seed_differ_only_around_the_blood(heads: dict[str, HeadPhantom]) -> None:
    plain = heads["none"].volume.array
    for kind in ("ivh", "sdh", "edh", "sah"):
        changed = np.abs(heads[kind].volume.array - plain) > 0.5

        near = ndimage.binary_dilation(heads[kind].labels > 0, iterations=3)

        assert changed[near].any()
        assert np.mean(changed & ~near) < 0.01


def test_six_seeds_make_every_kind_once_in_an_order_of_chance() -> None:
    blocks = [[make_head_ct(6 * b + i, None, (12.0,) * 3).kind for i in range(6)] for b in range(2)]

    assert [sorted(kinds) for kinds in blocks] == [sorted(KINDS)] * 2
    assert blocks[0] != blocks[1]


@pytest.mark.parametrize("tilt", [18.0, -12.0])
def test_a_tilted_scan_shows_the_same_head_in_the_same_place(
    heads: dict[str, HeadPhantom], tilt: float
) -> None:
    straight, tilted = heads["iph"], make_head_ct(5, "iph", COARSE, noise=0.0, tilt=tilt)

    assert tilted.volume_ml == pytest.approx(straight.volume_ml, rel=0.08)
    places = [
        head.volume.affine[:3, :3] @ np.argwhere(head.labels > 0).mean(axis=0)
        + head.volume.affine[:3, 3]
        for head in (straight, tilted)
    ]
    assert np.abs(places[0] - places[1]).max() < 1.5
    rise = tilted.volume.affine[:3, 1] / -COARSE[1]
    assert np.allclose(rise, (0, np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))))
    assert np.allclose(tilted.volume.affine[:3, 2], (0, 0, COARSE[2]))


def test_labels_name_the_kind(heads: dict[str, HeadPhantom]) -> None:
    for kind, head in heads.items():
        assert head.labels.dtype == np.uint8
        assert head.labels.shape == head.volume.array.shape
        expected = {0} if kind == "none" else {0, KINDS.index(kind)}
        assert set(np.unique(head.labels)) == expected


@pytest.mark.parametrize("kind", BLEEDS)
def test_labelled_voxels_are_as_bright_as_blood(heads: dict[str, HeadPhantom], kind: str) -> None:
    head = heads[kind]

    bright = head.volume.array[head.labels > 0]

    assert 42 < np.median(bright) < 95
    assert np.percentile(bright, 5) > 25


@pytest.mark.parametrize("kind", BLEEDS)
def test_no_labelled_voxel_is_as_bright_as_bone(heads: dict[str, HeadPhantom], kind: str) -> None:
    bright = heads[kind].volume.array[heads[kind].labels > 0]

    assert bright.max() < BONE_SHARED_HU + 25  # cupping and a streak come on top


def test_blood_in_the_cisterns_is_more_than_a_film() -> None:
    for seed in range(4):
        head = make_head_ct(seed, "sah", (1.0, 1.0, 5.0), noise=0.0)

        assert 1.0 < head.volume_ml < 90.0
        assert np.median(head.volume.array[head.labels > 0]) > 42


def test_blood_in_sulci_leaves_no_film_along_the_skull() -> None:
    """High over the base, where no cistern lies against bone."""
    for seed in range(40_000, 40_004):
        head = draw_head(np.random.default_rng(seed))
        blood = draw_blood(np.random.default_rng(seed), "sah", head)
        high = np.broadcast_to(load_atlas().places[2] > 10, blood.depth.shape)

        beside = high & (head.inner > min(head.gap_mm, 0.0) - 1.5)

        assert (blood.depth > 0).any()
        assert not (blood.depth[beside] > 0).any()


@pytest.mark.parametrize("seed", [40_005, 70_004])
def test_thin_blood_is_drawn_again_until_slices_show_it(seed: int) -> None:
    assert make_head_ct(seed, "sah", (1.0, 1.0, 5.0), noise=0.0).volume_ml > 0.75


def test_a_thick_slice_averages_what_thinner_ones_show() -> None:
    """Of 2 mm slices 10 mm thick, each is the mean of five, but for the ends."""
    thin = make_head_ct(8, "iph", (3.0, 3.0, 2.0), noise=0.0)
    thick = make_head_ct(8, "iph", (3.0, 3.0, 2.0), noise=0.0, thickness=10.0)

    mean = ndimage.uniform_filter1d(thin.volume.array, 5, axis=2)[:, :, 2:-2]
    apart = np.abs(thick.volume.array[:, :, 2:-2] - mean)

    assert np.percentile(apart, 99) < 6  # a streak in the petrous bone is added to slices as such
    assert np.abs(np.diff(thick.volume.array)).mean() < np.abs(np.diff(thin.volume.array)).mean()
    assert thick.volume_ml == pytest.approx(thin.volume_ml, rel=0.1)


def test_bone_rises_into_the_base_of_the_skull_and_leaves_the_vertex_smooth() -> None:
    atlas = load_atlas()
    heads = [draw_head(np.random.default_rng(seed)) for seed in range(3)]
    z = np.broadcast_to(atlas.places[2], atlas.shape)
    near = np.abs(atlas.inner) < 8

    for head in heads:
        change = head.inner - atlas.inner
        assert change[near & (z < -12)].std() > 1.5 * change[near & (z > 20)].std()
        assert np.median(np.abs(change[near & (z > 20)])) < 1.5
        clivus = np.rint((np.array((0, -9, -38)) - atlas.origin) / STEP_MM).astype(int)
        around = tuple(slice(i - 3, i + 4) for i in clivus)
        assert head.inner[around].max() > head.gap_mm
    assert not np.allclose(heads[0].inner, heads[1].inner, atol=1.0)


def test_a_bleed_in_the_parenchyma_is_large_and_bright_enough_to_see() -> None:
    for seed in range(6):
        head = make_head_ct(seed, "iph", COARSE, noise=0.0)
        lesion = head.labels > 0
        rim = ndimage.binary_dilation(lesion, iterations=3) & ~ndimage.binary_dilation(lesion)

        contrast = np.median(head.volume.array[lesion]) - np.median(head.volume.array[rim])

        assert 1.0 < head.volume_ml < 80.0
        assert contrast > 20


@pytest.mark.parametrize("kind", ["sdh", "edh"])
def test_blood_under_the_skull_leaves_no_film_over_the_hemisphere(kind: str) -> None:
    for seed in range(3):
        head = make_head_ct(seed, kind, (1.2, 1.2, 5.0), noise=0.0)
        lesion = head.labels > 0

        core = ndimage.binary_opening(lesion, np.ones((2, 2, 1)))
        kept = ndimage.binary_dilation(core, np.ones((3, 3, 1)), iterations=8)  # edges taper

        assert np.count_nonzero(lesion & ~kept) < 0.1 * np.count_nonzero(lesion)


@pytest.mark.parametrize("kind", BLEEDS)
def test_blood_lies_inside_the_skull(heads: dict[str, HeadPhantom], kind: str) -> None:
    lesion = heads[kind].labels > 0
    inside = _inside_skull(heads["none"])
    around = ndimage.binary_dilation(inside, np.ones((3, 3, 1)), iterations=2)  # notches are closed

    mostly_bone = heads[kind].volume.array > 850

    assert not (lesion & ~around).any()
    assert not (lesion & mostly_bone).any()


def test_a_head_has_the_size_and_the_tissues_of_a_head(heads: dict[str, HeadPhantom]) -> None:
    head = heads["none"]
    array = head.volume.array

    cavity = _inside_skull(head)
    brain = array[ndimage.binary_erosion(cavity, iterations=3)]

    widest_cm2 = np.count_nonzero(cavity, axis=(0, 1)).max() * COARSE[0] * COARSE[1] / 100
    assert 120 < widest_cm2 < 220
    assert 28 < np.median(brain) < 38
    assert array.max() > 800
    assert np.percentile(brain, 1) < 20
    assert np.mean(array < -900) > 0.3


def test_the_head_lies_as_its_affine_says(heads: dict[str, HeadPhantom]) -> None:
    head = heads["none"]
    affine = head.volume.affine
    face = (head.volume.array > -200) & (head.volume.array < 300)
    low = face[:, :, 3]

    middle = affine @ [*np.argwhere(_inside_skull(head)).mean(axis=0), 1]

    assert np.allclose(head.volume.spacing, COARSE)
    assert affine[0, 0] < 0 > affine[1, 1]
    assert affine[2, 2] > 0
    assert np.abs(middle[:3] - (0, -20, 15)).max() < 18
    assert np.argwhere(low)[:, 1].mean() < np.argwhere(face[:, :, 16])[:, 1].mean()


def test_the_side_of_the_world_is_kept_whatever_the_spacing() -> None:
    fine = make_head_ct(9, "edh", (1.5, 1.5, 5.0), noise=0.0)
    coarse = make_head_ct(9, "edh", COARSE, noise=0.0)

    places = [
        (head.volume.affine @ [*np.argwhere(head.labels).mean(axis=0), 1])[:3]
        for head in (fine, coarse)
    ]

    assert np.abs(places[0] - places[1]).max() < 2.5
    assert coarse.volume_ml == pytest.approx(fine.volume_ml, rel=0.12)


def test_noise_has_the_strength_asked_for() -> None:
    quiet, loud = (make_head_ct(4, "none", COARSE, noise=level) for level in (0.0, 5.0))

    difference = loud.volume.array - quiet.volume.array

    assert float(difference.std()) == pytest.approx(5.0, rel=0.02)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'tumour' is none of none, iph"):
        make_head_ct(1, "tumour")


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 5.0), (1.0, -1.0, 5.0), (1.0, 1.0, 100.0)])
def test_a_spacing_that_fits_no_head_is_refused(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="does not fit a head"):
        make_head_ct(1, "none", spacing)


def _inside_skull(head: HeadPhantom) -> NDArray[np.bool_]:
    """Everything that bone encloses, slice by slice; the largest part of it."""
    bone = ndimage.binary_closing(head.volume.array > 250, np.ones((3, 3, 1)), iterations=2)
    slices = [ndimage.binary_fill_holes(bone[:, :, k]) for k in range(bone.shape[2])]
    cavity = np.stack(slices, axis=2) & ~bone & (head.volume.array < 250)
    parts, _ = ndimage.label(cavity)
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    enclosed: NDArray[np.bool_] = parts == largest
    return enclosed
