"""Segmentation of coarse T1 phantoms, whose truth is known; fast settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.base import UnfitInput, Volume
from models.grey_matter import Tissues, segment_tissues
from models.phantom_t1 import Scan, T1Phantom, make_t1_head
from models.regions import regional_volumes
from models.t1_head import refuse_unless_t1_head, refuse_unless_whole_head, t1_facts
from models.tissue_fit import Effort
from models.tissue_shape import affine_matrix, exponential
from models.voxel_maps import grey_map, map_features, map_grid

pytestmark = pytest.mark.slow

FAST = Effort(coarse_mm=10.0, middle_mm=5.0, fine_mm=5.0, rounds=(20, 40, 0))
SPACING = (2.5, 2.5, 2.5)


@pytest.fixture(scope="module")
def phantom() -> T1Phantom:
    scan = Scan(
        spacing=SPACING,
        bias=0.5,
        turn_degrees=(12.0, -6.0, 8.0),
        offset_mm=(30.0, -40.0, 55.0),
        axes=(2, -3, 1),
    )
    return make_t1_head(11, scan=scan)


@pytest.fixture(scope="module")
def tissues(phantom: T1Phantom) -> Tissues:
    return segment_tissues(phantom.volume, effort=FAST)


def _dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_turned_head_of_any_order_of_axes_is_segmented(
    phantom: T1Phantom, tissues: Tissues
) -> None:
    assert tissues.gm.shape == phantom.volume.array.shape
    assert _dice(tissues.gm > 0.5, phantom.gm > 0.5) > 0.9
    assert _dice(tissues.wm > 0.5, phantom.wm > 0.5) > 0.9
    assert _dice(tissues.gm + tissues.wm > 0.5, phantom.brain) > 0.95


def test_a_small_head_that_is_tipped_far_is_segmented() -> None:
    """Before poses are refined, the wrong pitch is the likeliest; the right one has to be kept."""
    scan = Scan(
        spacing=(3.0, 3.0, 3.0),
        turn_degrees=(23.7, -3.8, 2.1),
        scale=0.846,
        offset_mm=(60.0, 6.0, -26.0),
        axes=(2, 3, 1),
    )
    phantom = make_t1_head(1199, scan=scan)

    tissues = segment_tissues(phantom.volume)

    assert _dice(tissues.gm + tissues.wm > 0.5, phantom.brain) > 0.97
    assert tissues.gm.sum() == pytest.approx(phantom.gm.sum(), rel=0.03)


def test_volume_of_grey_matter_is_close_to_the_truth(phantom: T1Phantom, tissues: Tissues) -> None:
    true = phantom.millilitres(phantom.gm)

    assert tissues.millilitres(tissues.gm) == pytest.approx(true, rel=0.06)


def test_fractions_add_up_to_at_most_one(tissues: Tissues) -> None:
    whole = tissues.gm + tissues.wm + tissues.csf

    assert min(tissues.gm.min(), tissues.wm.min(), tissues.csf.min()) >= 0
    assert whole.max() <= 1 + 1e-4


def test_bias_field_is_undone(phantom: T1Phantom, tissues: Tissues) -> None:
    left = (tissues.correction * phantom.bias)[phantom.brain]

    assert left.std() / left.mean() < 0.5 * phantom.bias[phantom.brain].std()


def test_regions_hold_the_grey_matter_and_both_sides_alike(tissues: Tissues) -> None:
    found = regional_volumes(tissues)

    assert 0.9 < sum(found.values_ml.values()) / found.totals_ml["gm"] <= 1
    for name in ("hippocampus", "frontal", "cerebellum", "deep_grey"):
        left, right = found.values_ml[f"{name}_left"], found.values_ml[f"{name}_right"]
        assert left > 0
        assert left == pytest.approx(right, rel=0.3)
    assert found.parts()["frontal_left"] < 0.2


def test_the_map_in_template_space_keeps_the_amount_of_grey_matter(tissues: Tissues) -> None:
    pushed = grey_map(tissues)

    assert pushed.sum() == pytest.approx(tissues.millilitres(tissues.gm), rel=0.01)
    assert len(map_features(tissues)) == map_grid()[2].sum()


def test_left_is_left(phantom: T1Phantom, tissues: Tissues) -> None:
    """Grey matter taken from the patient's left is missing on the left."""
    index = np.argwhere(phantom.brain)
    x = (index @ phantom.volume.affine[:3, :3].T + phantom.volume.affine[:3, 3])[:, 0]
    left = index[x < np.median(x) - 10]
    gone = tissues.gm.copy()
    gone[tuple(left.T)] = 0
    less = Tissues(**{**vars(tissues), "gm": gone})

    found = regional_volumes(less).values_ml

    assert found["parietal_left"] < 0.3 * found["parietal_right"]


def test_a_t1_head_passes_the_gates(phantom: T1Phantom, tissues: Tissues) -> None:
    refuse_unless_whole_head(phantom.volume)
    facts = refuse_unless_t1_head(tissues)

    assert facts == t1_facts(tissues)
    assert 5 < facts.contrast_by_noise < 10


def test_two_runs_find_the_same() -> None:
    few = Effort(coarse_mm=14.0, middle_mm=9.0, fine_mm=9.0, rounds=(3, 3, 0))
    volume = make_t1_head(12, scan=Scan(spacing=(5.0, 5.0, 5.0))).volume

    first, second = (segment_tissues(volume, effort=few) for _ in range(2))

    assert np.array_equal(first.gm, second.gm)


def test_the_warp_is_undone_by_its_inverse() -> None:
    random = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 3, 4, 4, 4, generator=random) * 8
    velocity = torch.nn.functional.interpolate(coarse, (16, 16, 16), mode="trilinear")[0]
    step = torch.full((3,), 12.0)

    there, back = exponential(velocity, step), exponential(-velocity, step)

    x, y, z = 5, 9, 8
    node = torch.tensor([x, y, z]) * 12.0
    moved = node + there[:, x, y, z]
    grid = (2 * moved / (12.0 * 15) - 1).flip(-1).reshape(1, 1, 1, 1, 3)
    home = moved + torch.nn.functional.grid_sample(back[None], grid, align_corners=True).flatten()
    assert float((home - node).abs().max()) < 0.15 * float(there[:, x, y, z].abs().max())
    assert float(there.abs().max()) > 5
    slopes = torch.stack([there.diff(dim=a + 1)[:, :15, :15, :15] / 12.0 for a in range(3)], 1)
    jacobian = torch.linalg.det(slopes.permute(2, 3, 4, 0, 1) + torch.eye(3))
    assert float(jacobian.min()) > 0


def test_rotations_of_the_affine_map_are_rotations() -> None:
    turn = affine_matrix(torch.tensor([0.3, -0.2, 0.1, 0, 0, 0, 0, 0, 0]))

    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-5)
    assert float(torch.det(affine_matrix(torch.tensor([0, 0, 0, 0.1, 0.1, 0.1, 0, 0, 0.0])))) == (
        pytest.approx(np.exp(0.3), rel=1e-5)
    )


def _score(volume: Volume) -> None:
    refuse_unless_whole_head(volume)
    refuse_unless_t1_head(segment_tissues(volume, effort=FAST))


def _refused(volume: Volume) -> UnfitInput:
    with pytest.raises(UnfitInput) as caught:
        _score(volume)
    return caught.value


def _ball() -> Volume:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij")
    noise = np.random.default_rng(0).standard_normal(x.shape)
    array = np.where(x * x + y * y + z * z < 0.5, 800, 5) + 10 * noise
    return Volume(np.abs(array).astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    "contrast", ["flair", pytest.param("t1_gadolinium", marks=pytest.mark.slow)]
)
def test_a_head_of_another_contrast_is_refused(contrast: str) -> None:
    volume = make_t1_head(13, scan=Scan(spacing=SPACING, contrast=contrast)).volume

    found = _refused(volume)

    wanted = "contrast_medium" if contrast == "t1_gadolinium" else "tissue_contrast"
    assert found.reason == wanted
    assert "wanted" in found.sentence


@pytest.mark.slow
def test_a_scan_too_noisy_to_measure_grey_matter_is_refused() -> None:
    found = _refused(make_t1_head(12, scan=Scan(spacing=SPACING, noise=0.12)).volume)

    assert found.reason == "noise"
    assert "wanted at least 4.0" in found.sentence


def test_a_ball_is_refused() -> None:
    assert _refused(_ball()).reason in {"fit", "brain_volume", "tissue_contrast"}


@pytest.mark.parametrize(
    ("array", "step", "reason"),
    [
        (np.zeros((40, 40, 40), np.float32), 4.0, "no_signal"),
        (np.ones((40, 40, 10), np.float32), 4.0, "small_field"),
        (np.ones((40, 40, 40), np.float32), 9.0, "voxel_size"),
        (np.full((40, 40, 40), np.nan, np.float32), 4.0, "not_finite"),
    ],
    ids=["empty", "slab", "coarse", "nan"],
)
def test_what_can_be_no_head_is_refused_before_any_work(
    array: NDArray[Any],
    step: float,
    reason: str,
) -> None:
    assert _refused(Volume(array, np.diag([step, step, step, 1.0]))).reason == reason


def test_a_head_of_large_voxels_loses_no_grey_matter_to_csf() -> None:
    """At 3 mm no voxel lies deep in CSF; its signal is taken from what there is."""
    phantom = make_t1_head(1, scan=Scan(spacing=(3.0, 3.0, 3.0)))

    tissues = segment_tissues(phantom.volume)

    assert tissues.gm.sum() == pytest.approx(phantom.gm.sum(), rel=0.04)
    assert tissues.csf.sum() == pytest.approx(phantom.csf.sum(), rel=0.25)
