"""The packages that come with scorenode: each loads, passes its own test, and finds blood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.catalogue import BUILT_IN, list_packages
from models.evaluation import judge
from models.labelled_cases import LabelledCase
from models.loading import load_predictor, open_package
from models.package import ModelPackage, load_package
from models.phantom_ct import make_head_ct
from models.prognosis_package import load_prognosis
from models.recipe import load_recipe, recipe_path
from models.segmentation_metrics import Scored

pytestmark = pytest.mark.slow

PACKAGES = sorted(path for path in list_packages(()).values() if path.parent == BUILT_IN)
FRESH = [(4_000_001, "iph"), (4_000_002, "edh"), (4_000_003, "sdh"), (4_000_004, "iph")]
FRESH += [(4_000_005, "edh")]
"""Seeds far from those of training, which begin at 100 003 times the training's seed."""


def scored(heads: Sequence[tuple[int, str]]) -> list[Scored]:
    """Score fresh phantoms with the demonstration model."""
    predictor = load_predictor(load_package(BUILT_IN / "haemorrhage-demo"), "cpu")
    recipe = load_recipe(recipe_path("haemorrhage"))
    found = []
    for seed, kind in heads:
        phantom = make_head_ct(seed, kind)
        case = LabelledCase(str(seed), str(seed), kind, Path(), Path())
        truth = (phantom.labels > 0).astype(np.uint8)
        found.append(judge(predictor, phantom.volume, truth, case, recipe).scored)
    return found


@pytest.fixture(scope="module")
def results() -> list[Scored]:
    return scored(FRESH)


def test_the_demonstration_models_come_with_scorenode() -> None:
    assert {"haemorrhage-demo", "dementia-demo"} <= {package.name for package in PACKAGES}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_every_built_in_package_passes_its_test_vector(folder: Path) -> None:
    package = open_package(folder)

    if isinstance(package, ModelPackage):
        loaded = load_predictor(package, "cpu").identity
    else:
        loaded = load_prognosis(folder).identity
    assert loaded == package.identity


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_every_built_in_package_tells_what_it_is(folder: Path) -> None:
    package = open_package(folder)
    card = (folder / "MODEL_CARD.md").read_text()

    assert package.manifest.licence
    assert len(card) > 200
    assert json.loads((folder / "metrics.json").read_text())
    if package.identity.intended_use == "demonstration":
        assert "Not for clinical use" in card or "not for diagnosis" in card


@pytest.mark.slow
def test_the_demonstration_model_finds_blood_it_never_saw(results: list[Scored]) -> None:
    dice = {f"{r.kind} {r.structures[0].truth_ml:.0f} ml": round(r.dice, 3) for r in results}

    assert np.mean([result.dice for result in results]) > 0.8, dice
    assert min(result.dice for result in results) > 0.6, dice
    assert all(result.probability > 0.9 for result in results)


@pytest.mark.slow
def test_the_demonstration_model_measures_blood(results: list[Scored]) -> None:
    for result in results:
        blood = result.structures[0]
        assert blood.found_ml == pytest.approx(blood.truth_ml, rel=0.25, abs=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4_000_011, 4_000_012])
def test_the_demonstration_model_leaves_a_clean_head_nearly_clean(seed: int) -> None:
    assert scored([(seed, "none")])[0].structures[0].found_ml < 3.0
