"""T1 phantoms: the truth adds up, and changes as it is told to."""

from __future__ import annotations

import numpy as np
import pytest

from models.phantom_t1 import HeadShape, Scan, T1Phantom, make_t1_head

pytestmark = pytest.mark.slow

COARSE = Scan(spacing=(4.0, 4.0, 4.0))


@pytest.fixture(scope="module")
def phantom() -> T1Phantom:
    return make_t1_head(7, scan=COARSE)


def test_fractions_of_a_voxel_are_parts_of_it(phantom: T1Phantom) -> None:
    whole = phantom.gm + phantom.wm + phantom.csf

    assert min(phantom.gm.min(), phantom.wm.min(), phantom.csf.min()) >= 0
    assert whole.max() <= 1 + 1e-5


def test_volumes_are_those_of_people(phantom: T1Phantom) -> None:
    assert 550 < phantom.millilitres(phantom.gm) < 1100
    assert 350 < phantom.millilitres(phantom.wm) < 750
    assert 150 < phantom.millilitres(phantom.csf) < 450


def test_a_seed_makes_the_same_phantom_and_another_scan_the_same_truth(phantom: T1Phantom) -> None:
    again = make_t1_head(7, scan=COARSE)
    other = make_t1_head(7, scan=Scan(number=1, spacing=(4.0, 4.0, 4.0)))

    assert np.array_equal(again.volume.array, phantom.volume.array)
    assert np.array_equal(other.gm, phantom.gm)
    assert not np.allclose(other.volume.array, phantom.volume.array)


def test_white_matter_is_brightest_and_csf_darkest_without_bias() -> None:
    flat = make_t1_head(7, scan=Scan(spacing=(4.0, 4.0, 4.0), bias=0.0, noise=0.0))

    signal = [
        float(np.median(flat.volume.array[part > 0.97])) for part in (flat.csf, flat.gm, flat.wm)
    ]

    assert signal == sorted(signal)
    assert signal[2] == pytest.approx(0.86 * 800, rel=0.03)


def test_hippocampi_lose_what_was_said_and_nothing_else_changes() -> None:
    loss = 0.3
    scan = Scan(spacing=(2.0, 2.0, 2.0))
    before = make_t1_head(7, scan=scan)
    after = make_t1_head(7, HeadShape(hippocampal_loss=loss), scan)

    assert after.hippocampal_ml / before.hippocampal_ml == pytest.approx(1 - loss, abs=0.03)
    far = (
        np.abs(after.gm - before.gm).sum() - np.abs(after.gm - before.gm)[before.hippocampus].sum()
    )
    lost = before.hippocampal_ml - after.hippocampal_ml
    assert far * before.volume.voxel_ml < 0.25 * lost


def test_atrophy_turns_tissue_into_csf(phantom: T1Phantom) -> None:
    old = make_t1_head(7, HeadShape(atrophy=0.25), COARSE)

    assert old.millilitres(old.gm) < 0.97 * phantom.millilitres(phantom.gm)
    assert old.millilitres(old.csf) > 1.1 * phantom.millilitres(phantom.csf)


def test_axes_of_the_file_keep_every_voxel_in_its_place(phantom: T1Phantom) -> None:
    axes = (-2, 3, -1)
    turned = make_t1_head(7, scan=Scan(spacing=(4.0, 4.0, 4.0), axes=axes))

    for volume in (phantom.volume, turned.volume):
        assert volume.affine.shape == (4, 4)
    brightest = np.argwhere(phantom.gm > 0.99)[17]
    place = phantom.volume.affine @ [*brightest, 1]
    index = np.rint(np.linalg.inv(turned.volume.affine) @ place)[:3].astype(int)
    assert turned.gm[tuple(index)] == phantom.gm[tuple(brightest)]


def test_thick_slices_hold_as_much_grey_matter(phantom: T1Phantom) -> None:
    thick = make_t1_head(7, scan=Scan(spacing=(4.0, 4.0, 8.0)))

    assert thick.millilitres(thick.gm) == pytest.approx(phantom.millilitres(phantom.gm), rel=0.02)


@pytest.mark.parametrize(
    ("scan", "shape", "sentence"),
    [
        (Scan(spacing=(0.0, 1.0, 1.0)), None, "spacing"),
        (Scan(axes=(1, 1, 3)), None, "axes"),
        (Scan(contrast="ct"), None, "contrast"),
        (COARSE, HeadShape(hippocampal_loss=0.9), "loss"),
    ],
    ids=["spacing", "axes", "contrast", "loss"],
)
def test_what_cannot_be_scanned_is_named(
    scan: Scan, shape: HeadShape | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_t1_head(7, shape, scan)
