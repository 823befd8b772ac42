"""From volumes and scores to a prognosis; what must not be scored says why."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from models.atlas import NAMES
from models.base import UnfitInput
from models.catalogue import find_package
from models.clinical_table import read_table
from models.dementia import TableScore, case_of, refuse_unless_ready
from models.demo_cohort import PART_PERCENT, demo_config, write_demo_cohort
from models.gmlvq_config import BadTable, Feature, Outcome, TrainingConfig
from models.prognosis_package import Prognosis, load_prognosis
from models.prognosis_training import evaluate_prognosis
from models.regions import Regional

MMSE = TableScore(27.0, table="scores", date="2026-01-01", days_before=30)
ADAS = TableScore(14.0, "{score}", "scores")


@pytest.fixture(scope="module")
def demo() -> Prognosis:
    return load_prognosis(find_package("dementia-demo", ()))


def regional(loss: float = 0.0) -> Regional:
    """Volumes of a head as the cohort's stable people have them, at the mean age."""
    icv = 1450.0
    parts = {name: PART_PERCENT[name.rpartition("_")[0]] * icv / 100 for name in NAMES}
    for side in ("left", "right"):
        parts[f"hippocampus_{side}"] *= 1 - loss
    return Regional(parts, {"gm": 600.0, "wm": 500.0, "csf": 350.0, "icv": icv})


def test_a_smaller_hippocampus_and_a_lower_score_move_towards_decline(demo: Prognosis) -> None:
    age = demo.manifest.ageing.mean_age if demo.manifest.ageing else 72.0

    good = case_of(demo, regional(), {"mmse": MMSE, "adas_cog_13": ADAS}, age)
    atrophied = case_of(demo, regional(0.15), {"mmse": MMSE, "adas_cog_13": ADAS}, age)
    forgetful = case_of(
        demo, regional(), {"mmse": TableScore(24.0), "adas_cog_13": TableScore(24.0)}, age
    )

    assert good.outcome in ("stable", "undetermined")
    assert good.projection < atrophied.projection
    assert good.projection < forgetful.projection
    for case in (good, atrophied, forgetful):
        assert sum(one.contribution for one in case.features) == pytest.approx(case.projection)
        assert case.probability_interval[0] <= case.probability <= case.probability_interval[1]


def test_what_the_model_used_is_told_with_its_source(demo: Prognosis) -> None:
    case = case_of(demo, regional(), {"mmse": MMSE}, 72.0)
    used = {one.name: one for one in case.features}

    assert (used["mmse"].value, used["mmse"].source) == (27.0, "scores")
    assert (used["mmse"].date, used["mmse"].days_before) == ("2026-01-01", 30)
    assert used["adas_cog_13"].source == "imputed"
    assert [reason.code for reason in case.reasons].count("imputed") == 1
    assert not case.is_complete
    assert used["hippocampus"].source == "image"
    assert used["hippocampus"].regions == ("hippocampus_left", "hippocampus_right")


def test_age_is_taken_out_of_volumes_and_not_of_scores(demo: Prognosis) -> None:
    young, old = (
        {one.name: one.value for one in case_of(demo, regional(), {"mmse": MMSE}, age).features}
        for age in (60.0, 85.0)
    )

    assert young["mmse"] == old["mmse"]
    assert old["hippocampus"] > young["hippocampus"]


def test_a_value_beyond_the_cohort_names_no_class(demo: Prognosis) -> None:
    case = case_of(demo, regional(0.6), {"mmse": MMSE, "adas_cog_13": ADAS}, 72.0)

    assert case.outcome == "undetermined"
    assert "feature_out_of_range" in [reason.code for reason in case.reasons]
    assert np.isfinite(case.projection)


@pytest.mark.parametrize(
    ("scores", "age", "reason", "words"),
    [
        ({}, 70.0, "required_missing", "mmse is missing"),
        ({"mmse": TableScore(31.0, table="t")}, 70.0, "score_out_of_range", "outside 0 to 30"),
        ({"mmse": TableScore(27.0, "%", "t")}, 70.0, "score_unit", "is in %"),
        ({"mmse": MMSE}, 20.0, "age_out_of_range", "age is outside"),
    ],
)
def test_what_must_not_be_scored_is_refused_before_any_work(
    demo: Prognosis, scores: dict[str, TableScore], age: float, reason: str, words: str
) -> None:
    with pytest.raises(UnfitInput, match=words) as refused:
        refuse_unless_ready(demo.manifest, scores, age)

    assert refused.value.reason == reason


def test_with_most_values_missing_nothing_is_scored(demo: Prognosis) -> None:
    """Whatever a model of many scores and few regions makes of a person without any score."""
    scores = [feature for feature in demo.manifest.features if not feature.regions]
    optional = [feature.model_copy(update={"required": False}) for feature in scores]
    measured = [feature for feature in demo.manifest.features if feature.regions]
    manifest = demo.manifest.model_copy(update={"features": (*optional, measured[0])})

    refuse_unless_ready(manifest, {"mmse": MMSE}, 72.0)
    with pytest.raises(UnfitInput, match=r"2 of 3 values .* mmse, adas_cog_13") as refused:
        refuse_unless_ready(manifest, {}, 72.0)

    assert refused.value.reason == "too_few_values"


def test_a_table_of_features_is_read_as_parts_of_the_cranium(tmp_path: Path) -> None:
    config = demo_config(30, 1)
    write_demo_cohort(tmp_path / "t.csv", 30, 1)
    with (tmp_path / "t.csv").open(newline="") as file:
        first = next(csv.DictReader(file))

    table = read_table(tmp_path / "t.csv", config.features, config.outcome, "patient", "age")

    both = float(first["hippocampus_left_ml"]) + float(first["hippocampus_right_ml"])
    assert table.x[0, 2] == pytest.approx(100 * both / float(first["icv_ml"]))
    assert table.age is not None
    assert table.age[0] == float(first["age"])


def test_age_is_learned_from_stable_people_alone(tmp_path: Path) -> None:
    lines = ["class,age,hippocampus_left_ml,icv_ml"]
    lines += [f"s,{60 + k},{15 - 0.15 * k},1500" for k in range(10)]
    lines += [f"d,{60 + k},{9 + k},1500" for k in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    feature = Feature(name="h", unit="%", regions=("hippocampus_left",))
    outcome = Outcome(column="class", stable="s", declining="d")

    table = read_table(tmp_path / "t.csv", [feature], outcome, None, "age")
    ageing = table.ageing(np.arange(20))

    assert ageing is not None
    assert ageing.slopes["h"] == pytest.approx(-0.01)
    assert list(ageing.ages) == [60.0, 69.0]
    stable = table.at_mean_age(ageing)[table.declining == 0, 0]
    np.testing.assert_allclose(stable, stable[0])


def test_people_whom_the_pipeline_would_refuse_for_their_age_are_not_evaluated(
    tmp_path: Path,
) -> None:
    write_demo_cohort(tmp_path / "t.csv", 60, 1)
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:5]:
        row["age"] = "30"
    with (tmp_path / "t.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    package = find_package("dementia-demo", ())

    found = evaluate_prognosis(package, tmp_path / "t.csv", None, "patient")

    assert found["rows"] == 55
    assert found["left_out"]["of an age the model does not know"] == 5
    with (tmp_path / "t.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(row | {"age": "30"} for row in rows)
    with pytest.raises(BadTable, match="fewer than two usable rows"):
        evaluate_prognosis(package, tmp_path / "t.csv", None, "patient")


def test_a_configuration_without_age_or_with_an_unknown_region_is_refused() -> None:
    good = demo_config(100, 1).model_dump(by_alias=True)
    with pytest.raises(ValueError, match="needs age"):
        TrainingConfig.model_validate(good | {"age": None})
    with pytest.raises(ValueError, match="no region left_foot"):
        Feature(name="x", unit="%", regions=("left_foot",))


def test_people_of_one_age_cannot_teach_what_age_does(tmp_path: Path) -> None:
    lines = ["class,age,hippocampus_left_ml,icv_ml"]
    lines += [f"{'sd'[k % 2]},70,{5 + k},1500" for k in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    feature = Feature(name="h", unit="%", regions=("hippocampus_left",))
    table = read_table(
        tmp_path / "t.csv", [feature], Outcome(column="class", stable="s", declining="d"), None,
        "age",
    )  # fmt: skip

    with pytest.raises(BadTable, match="What age does cannot be learned"):
        table.ageing(np.arange(8))
