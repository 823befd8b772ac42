"""From a table to a prognosis package, and from a package to scores."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import load, save
from scipy.io import savemat
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score
from typer.testing import CliRunner

from models.base import BrokenPackage
from models.binary_metrics import Scores, measure, with_intervals
from models.clinical_table import impute, read_table
from models.gmlvq import GMLVQClassifier
from models.gmlvq_config import BadTable, load_training_config
from models.gmlvq_toolbox import read_toolbox
from models.gmlvq_validation import cross_validate
from models.loading import load_identity, read_any
from models.prognosis_package import load_prognosis
from node.cli.main import app
from tests.models import toolbox_run
from tests.models.cohort import CONFIG, write_cohort, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that the command line trained; beside it the table and its description."""
    folder = tmp_path_factory.mktemp("trained")
    table = write_cohort(folder / "table.csv", 120, seed=1)
    config = write_config(folder / "config.yaml")

    told = CliRunner().invoke(
        app,
        ["train", "gmlvq", "-t", str(table), "-c", str(config), "-o", str(folder / "package")],
    )

    assert told.exit_code == 0, told.output
    return folder / "package"


@pytest.fixture
def package(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may harm."""
    return Path(shutil.copytree(trained, tmp_path / "package"))


def test_training_writes_a_whole_package(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "model.yaml", "model.json", "model.safetensors", "reference.safetensors",
        "test_vector.safetensors", "metrics.json", "MODEL_CARD.md",
        "roc.png", "calibration.png", "relevances.png",
    }  # fmt: skip
    metrics = json.loads((trained / "metrics.json").read_text())
    auc, low, high = metrics["cross_validation"]["auc"]
    assert low < auc < high
    assert auc > 0.75
    assert (metrics["rows"], metrics["patients"]) == (150, 120)
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in trained.glob("*.png"))
    assert "Demonstration use only" in (trained / "MODEL_CARD.md").read_text()
    assert load_identity(trained).family == "test-prognosis"


def test_a_second_table_is_evaluated(trained: Path, tmp_path: Path) -> None:
    table = write_cohort(tmp_path / "second.csv", 150, seed=2)

    told = CliRunner().invoke(
        app,
        ["evaluate", str(trained), "-t", str(table), "--group", "patient", "--json",
         "-o", str(tmp_path / "out")],
    )  # fmt: skip

    assert told.exit_code == 0, told.output
    metrics = json.loads(told.output)
    assert metrics["evaluation"]["auc"][0] > 0.8
    assert (tmp_path / "out" / "roc.png").exists()


def test_a_second_table_in_another_unit_is_noticed(trained: Path, tmp_path: Path) -> None:
    table = write_cohort(tmp_path / "second.csv", 60, seed=2)
    head, *lines = table.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    for row in cells:
        row[3] = f"{1000 * float(row[3])}" if row[3] else ""
    table.write_text("\n".join([head, *map(",".join, cells)]) + "\n")

    told = CliRunner().invoke(app, ["evaluate", str(trained), "-t", str(table)])

    assert told.exit_code == 0, told.output
    words = " ".join(told.output.split())
    assert "hippocampus is beyond what was trained on in 68 of 75 rows" in words
    assert "is its unit mL?" in words
    assert "mmse is beyond" not in words


def test_training_twice_gives_the_same_model(trained: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app,
        ["train", "gmlvq", "-t", str(trained.parent / "table.csv"),
         "-c", str(trained.parent / "config.yaml"), "-o", str(tmp_path / "again"), "--json"],
    )  # fmt: skip

    assert told.exit_code == 0, told.output
    for name in ("model.safetensors", "metrics.json", "model.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()


def test_a_case_is_scored_with_its_reasons(trained: Path) -> None:
    found = load_prognosis(trained)
    prototypes = found.model.prototypes_original_
    row = prototypes.mean(0)
    hole, without_required, nearly_empty = row.copy(), row.copy(), row.copy()
    hole[1] = np.nan
    without_required[0] = np.nan
    nearly_empty[1:] = np.nan

    declining, filled, refused, too_few = found.score(
        np.array([prototypes[1], hole, without_required, nearly_empty])
    )

    assert declining.projection == pytest.approx(1.0)
    assert declining.above == ("declining",)
    assert declining.contributions.sum() == pytest.approx(declining.projection)
    low, high = declining.projection_interval
    assert low < high
    assert 0.5 < declining.probability_interval[1] <= 1
    assert filled.imputed == ("hippocampus",)
    assert [reason.code for reason in filled.reasons] == ["imputed"]
    assert np.isfinite(filled.projection)
    assert [reason.code for reason in refused.reasons] == ["required_missing"]
    assert "mmse" in refused.reasons[0].sentence
    assert np.isnan(refused.projection)
    assert [reason.code for reason in too_few.reasons] == ["too_few_values"]


def test_imputation_uses_the_reference_cohort_only() -> None:
    reference = np.array([[0.0, 1.0], [1.0, 3.0], [10.0, 50.0]])
    rows = np.array([[0.4, np.nan], [9.0, np.nan], [0.4, -999.0]])

    filled = impute(rows, reference, neighbours=2)

    np.testing.assert_allclose(filled, [[0.4, 2.0], [9.0, 26.5], [0.4, -999.0]])


def test_rows_and_values_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "patient;outcome;mmse;hippocampus;noise\na;sMCI;28;3,4;1\n".replace("3,4", "3.4")
        + "b;sMCI;29;NA;1\n"
        "c;pMCI;99;3;1\n"
        "d;pMCI;20;n/a;\n"
        "e;other;20;3;1\n"
        "f;pMCI;21;3;1\n"
        "g;pMCI;22;3;1\n"
        " ;pMCI;22;3;1\n"
        "\n"
    )
    config = load_training_config(write_config(tmp_path / "config.yaml"))

    table = read_table(path, config.features, config.outcome, config.group)

    assert table.declining.tolist() == [0, 0, 1, 1]
    assert np.isnan(table.x).sum() == 1
    assert table.left_out == {
        "of other classes": 1,
        "without a required value": 1,
        "with too few values": 1,
        "without a patient": 1,
        "values outside of their range": 1,
    }


def test_a_cell_may_hold_any_line_break(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = "P,sMCI,20,3,1\nQ,sMCI,21,3,1\nR,pMCI,22,3,1\nS,pMCI,23,3,1\n"
    path.write_text(NAMES + rows.replace("P", "P\u2028P").replace("Q", '"Q\nQ"'))
    config = load_training_config(write_config(tmp_path / "config.yaml"))

    assert len(read_table(path, config.features, config.outcome, config.group).x) == 4


NAMES = "patient,outcome,mmse,hippocampus,noise\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("patient,outcome,mmse\n", "no column hippocampus, noise"),
        ("a,a\n", "columns of the same name: a"),
        ("patient,outcome,mmse,hippocampus,noise\nP,sMCI,Meier,3,1\n", "line 2: mmse is no number"),
        ("patient,outcome,mmse,hippocampus,noise\nP,sMCI,1e999,3,1\n", "no finite number"),
        ("patient,outcome,mmse,hippocampus,noise\nP,sMCI\n", "line 2: 2 cells"),
        (f"{NAMES}P,sMCI,2_0,3,1\n", "line 2: mmse is no number"),
        (f"{NAMES}P,sMCI,\u0662\u0660,3,1\n", "line 2: mmse is no number"),
        (f"{NAMES}P,sMCI,{'1' * 200_000},3,1\n", "line 2 is no CSV"),
        (
            f"{NAMES}P,sMCI,x,3,1\nP,sMCI,20,3,1\nP,sMCI\nP,sMCI,20,3,y\n",
            "line 2: mmse is no number; line 4: 2 cells, .*; line 5: noise is no number",
        ),
        (NAMES + "P,sMCI,x,3,1\n" * 30, "line 21: mmse is no number; and 10 more lines"),
        ("patient,outcome,mmse,hippocampus,noise\nP,sMCI,20,3,1\n", "fewer than two usable rows"),
        (
            NAMES + "P,stable,20,3,1\nP,decliner,20,3,1\nP,sMCI,31,3,1\n",
            "of class sMCI; left out: 2 of other classes, 1 without a required value, 1 values",
        ),
    ],
)
def test_a_bad_table_is_refused_without_its_content(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    config = load_training_config(write_config(tmp_path / "config.yaml"))

    with pytest.raises(BadTable, match=told) as caught:
        read_table(path, config.features, config.outcome, config.group)

    assert "Meier" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("group: patient", "group: mmse"), "used twice: mmse"),
        (("family: test-prognosis\n", ""), "family: Field required"),
        (("version: 1.2.3", "version: new"), "version"),
        (("outer_folds: 3", "outer_folds: 1\ncolour: red"), "colour.*|outer_folds.*"),
        (("intended_use: demonstration", "intended_use: clinical"), "intended_use"),
        (("stable: sMCI", "stable: pMCI"), "are the same"),
        (("family:", "family: ["), "is not YAML"),
        (("1.2.3", "2024-99-99"), "number or date that makes no sense"),
        (("1.2.3", "9" * 5000), "number or date that makes no sense"),
        (("1.2.3", "[" * 5000), "nested"),
        (("[0, 30]", "[30, 0]"), "features.0: .* lowest value is above the highest"),
        (
            ("{name: noise}", "{name: x, unit: '%', regions: [frontal_left, frontal_left]}"),
            "features.2: .* regions are named twice: frontal_left",
        ),
        (
            ("bootstrap: 20", "thresholds: [{name: a, projection: 0}, {name: a, projection: 1}]"),
            "thresholds have the same name: a",
        ),
        (("bootstrap: 20", "seed: -1"), "seed"),
    ],
)
def test_a_bad_description_is_refused(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(BadTable, match=told):
        load_training_config(write_config(tmp_path / "c.yaml", CONFIG.replace(*change)))


def test_visits_of_a_patient_are_never_on_both_sides(tmp_path: Path) -> None:
    """Twins of one patient share a coin's label: only a leak could tell it."""
    random = np.random.default_rng(0)
    lines = ["patient,outcome,mmse,hippocampus,noise"]
    for patient in range(60):
        label = "pMCI" if random.random() < 0.5 else "sMCI"
        values = ",".join(f"{value:.4f}" for value in random.standard_normal(3) + 10)
        lines += [f"{patient},{label},{values}"] * 3
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    text = CONFIG.replace("beta: [0, 2]", "beta: [10]")
    config = load_training_config(write_config(tmp_path / "c.yaml", text))
    table = read_table(tmp_path / "table.csv", config.features, config.outcome, config.group)

    found = cross_validate(table, config, lambda done, note: None)

    assert measure(found.scores, 0.5).auc < 0.7
    assert len(found.scores.declining) == 180


def test_metrics_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    y = np.arange(200) % 2
    projection = np.round(random.standard_normal(200) + y, 1)
    p = np.clip(projection / 4 + 0.5, 0, 1)

    found = measure(Scores(y, projection, p, np.arange(200)), 0.5)

    assert found.auc == pytest.approx(roc_auc_score(y, projection))
    assert found.brier == pytest.approx(brier_score_loss(y, p))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(y, projection > 0.5))


def test_intervals_of_metrics_hold_the_truth_of_a_known_score() -> None:
    """AUC of two Gaussians one standard deviation apart is 0.760."""
    held = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        y = np.arange(100) % 2
        scores = Scores(y, random.standard_normal(100) + y, np.full(100, 0.5), np.arange(100))
        _, low, high = with_intervals(scores, 0.5, 200, seed)["auc"]
        held += low <= 0.7602 <= high
    assert held >= 35


def alter_manifest(folder: Path, **changes: Any) -> None:
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load((folder / "model.yaml").read_text())
    with (folder / "model.yaml").open("w") as file:
        yaml.dump(content | changes, file)


def reseal(folder: Path, key: str) -> None:
    yaml = YAML(typ="safe", pure=True)
    files = yaml.load((folder / "model.yaml").read_text())["files"]
    data = (folder / files[key]["path"]).read_bytes()
    files[key]["sha256"] = hashlib.sha256(data).hexdigest()
    alter_manifest(folder, files=files)


def test_an_altered_package_is_refused(package: Path) -> None:
    data = bytearray((package / "reference.safetensors").read_bytes())
    data[-1] ^= 1
    (package / "reference.safetensors").write_bytes(data)

    with pytest.raises(BrokenPackage, match="not the file of the manifest"):
        load_prognosis(package)


def test_a_package_whose_test_vector_comes_out_differently_is_refused(package: Path) -> None:
    path = package / "test_vector.safetensors"
    arrays = {name: array.copy() for name, array in load(path.read_bytes()).items()}
    arrays["projection"] += 1e-3
    path.write_bytes(save(arrays))
    reseal(package, "test_vector")

    with pytest.raises(BrokenPackage, match="comes out differently"):
        load_prognosis(package)


def test_a_package_with_a_pickle_or_an_unknown_key_is_refused(package: Path) -> None:
    (package / "extra.pkl").write_bytes(b"")
    with pytest.raises(BrokenPackage, match="can run code"):
        load_prognosis(package)
    (package / "extra.pkl").unlink()
    alter_manifest(package, colour="red")
    with pytest.raises(BrokenPackage, match="colour"):
        load_prognosis(package)


def test_features_of_the_manifest_must_be_those_of_the_model(package: Path) -> None:
    alter_manifest(package, features=[{"name": "mmse"}])

    with pytest.raises(BrokenPackage, match="these features"):
        load_prognosis(package)


def toolbox_struct() -> dict[str, Any]:
    run = toolbox_run.STANDARDISED
    mean, std = np.array(toolbox_run.MEAN), np.array(toolbox_run.STD)
    return {
        "protos": (run.prototypes - mean) / std,
        "lambda": run.relevances,
        "plbl": np.array([1, 2, 3]),
        "mean_features": mean,
        "std_features": std,
    }


def test_a_system_of_the_toolbox_scores_as_what_we_learn_ourselves(tmp_path: Path) -> None:
    savemat(tmp_path / "system.mat", {"gmlvq_system": toolbox_struct(), "other": 1.0})
    x, y = toolbox_run.flowers()
    first = toolbox_run.first_prototypes((x - x.mean(0)) / x.std(0, ddof=1), y)
    ours = GMLVQClassifier(
        solver="waypoint",
        activation="identity",
        regularization=0.0,
        init=first * x.std(0, ddof=1) + x.mean(0),
        max_iter=toolbox_run.STEPS,
    ).fit(x, y)

    theirs = read_toolbox(tmp_path / "system.mat")
    named = read_toolbox(tmp_path / "system.mat", ["setosa", "versicolor", "ape"])

    np.testing.assert_allclose(theirs.decision_function(x), ours.decision_function(x), atol=1e-8)
    assert theirs.classes_.tolist() == [1, 2, 3]
    names = np.array(["setosa", "versicolor", "ape"])
    np.testing.assert_array_equal(named.predict(x), names[theirs.predict(x) - 1])
    told = CliRunner().invoke(
        app, ["models", "import-toolbox", str(tmp_path / "system.mat"), "-o", str(tmp_path / "m")]
    )
    assert told.exit_code == 0, told.output
    again = GMLVQClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(x), theirs.predict(x))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lambda": np.eye(3)}, "do not fit"),
        ({"lambda": -np.eye(4)}, "no relevance matrix"),
        ({"lambda": np.zeros((4, 4))}, "no relevance matrix"),
        ({"lambda": np.eye(4) * 1e308}, "no relevance matrix"),
        ({"plbl": [1.0, 1.5, 2.0]}, "whole numbers"),
        ({"plbl": [1.0, 2.0, 1e300]}, "whole numbers"),
        ({"std_features": np.zeros(4)}, "not positive"),
        ({"protos": np.full((3, 4), np.nan)}, "what is no number"),
        ({"plbl": "abc"}, "real numbers"),
    ],
)
def test_a_struct_that_is_no_system_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    savemat(tmp_path / "system.mat", {"s": toolbox_struct() | changes})

    with pytest.raises(BrokenPackage, match=told):
        read_toolbox(tmp_path / "system.mat")


def test_a_file_that_is_no_mat_or_holds_no_system_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "system.mat"
    with pytest.raises(BrokenPackage, match="cannot be read"):
        read_toolbox(path)
    path.write_bytes(b"\x80\x04K\x01." * 100)
    with pytest.raises(BrokenPackage, match="no MATLAB file"):
        read_toolbox(path)
    savemat(path, {"x": 1.0})
    with pytest.raises(BrokenPackage, match="holds 0 structs"):
        read_toolbox(path)
    savemat(path, {"s": toolbox_struct()})
    with pytest.raises(BrokenPackage, match="3 classes; 2 names"):
        read_toolbox(path, ["a", "b"])
    for names in (["a", "b", "b"], ["a", "b", "c", "b"], ["a", "b", " "]):
        with pytest.raises(BrokenPackage, match="each another"):
            read_toolbox(path, names)


def test_the_demonstration_is_shown_and_verified_as_any_other_package() -> None:
    shown = CliRunner().invoke(app, ["models", "show", "dementia-demo", "--json"])
    verified = CliRunner().invoke(app, ["models", "verify", "dementia-demo", "--json"])

    assert json.loads(shown.output)["features"][0]["name"] == "mmse"
    assert json.loads(verified.output) == {
        "ok": True,
        "sentences": ["dementia-demo 1.1.0 works here."],
    }


def test_a_recalled_prognosis_is_not_used(package: Path) -> None:
    before = load_identity(package).sha256
    with (package / "model.yaml").open("a") as file:
        file.write("status: recalled\nstatus_reason: wrong slopes\n")

    with pytest.raises(BrokenPackage, match="is recalled: wrong slopes"):
        load_prognosis(package)
    assert read_any(package).identity.sha256 == before
