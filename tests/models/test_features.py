"""Features of grey matter: scores from voxels, and ageing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.ageing import fit_ageing
from models.atlas import coarse_atlas
from models.voxel_maps import map_grid
from models.voxel_score import fit_voxel_score

F64 = NDArray[np.float64]


def _cohort(seed: int, people: int) -> tuple[F64, F64, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    features = random.standard_normal((people, 300))
    target = features[:, 40:60].sum(axis=1) + 2.0 * random.standard_normal(people)
    return features, target, np.arange(people)


def test_elimination_finds_the_voxels_that_tell() -> None:
    score = fit_voxel_score(*_cohort(1, 150))

    assert len(score.voxels) < 100
    assert np.isin(np.arange(40, 60), score.voxels).mean() > 0.7
    features, target, _ = _cohort(2, 400)
    assert np.corrcoef(score(features), target)[0, 1] > 0.45
    assert max(r for _, r in score.curve) > score.curve[0][1] + 0.2
    assert np.abs(score(features).mean() - target.mean()) < 1.0


def test_a_score_of_noise_tells_nothing_of_others() -> None:
    features, target, groups = _cohort(3, 60)
    score = fit_voxel_score(features, np.random.default_rng(4).permutation(target), groups)

    others, truth, _ = _cohort(5, 400)
    assert abs(np.corrcoef(score(others), truth)[0, 1]) < 0.5


def test_too_few_people_are_refused() -> None:
    features, target, _ = _cohort(6, 20)

    with pytest.raises(ValueError, match="4 people"):
        fit_voxel_score(features, target, np.arange(20) % 4)


def test_ageing_is_removed_and_nothing_said_beyond_the_cohort() -> None:
    ages = np.linspace(55, 85, 40)
    rows = [{"hippocampus": 0.005 - 2e-5 * (age - 70)} for age in ages]

    ageing = fit_ageing(rows, ages.tolist())

    assert ageing.adjusted(rows[0], 55.0)["hippocampus"] == pytest.approx(0.005, abs=1e-9)
    with pytest.raises(ValueError, match="outside the reference cohort"):
        ageing.adjusted(rows[0], 90.0)
    with pytest.raises(ValueError, match="no feature"):
        ageing.adjusted({"amygdala": 1.0}, 70.0)


def test_places_of_the_atlas_are_where_anatomy_has_them() -> None:
    atlas = coarse_atlas()
    places = np.array(
        [(26, -20, -16), (-26, -20, -16), (22, -4, -20), (4, 60, 0), (-12, -18, 8), (20, -60, -35)],
        float,
    )

    names = [atlas.names[label - 1] for label in atlas.at(places)]

    assert [name.rsplit("_", 1)[0] for name in names] == [
        "hippocampus",
        "hippocampus",
        "amygdala",
        "frontal",
        "deep_grey",
        "cerebellum",
    ]
    assert names[0].endswith("right")
    assert names[1].endswith("left")
    assert atlas.at(np.array([[500.0, 0.0, 0.0]]))[0] == 0


def test_maps_have_some_thousand_features() -> None:
    _, affine, mask = map_grid()

    assert 10_000 < mask.sum() < 40_000
    assert affine[0, 0] == 4.0
