"""Trainings written to a real MLflow server, and packages fetched from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from ruamel.yaml import YAML

from models.base import BrokenPackage
from models.package import load_package
from node.mlflow_packages import fetch_package
from node.mlflow_server import MLflowError, MLflowServer, flat
from tests.models.labelled import tiny_content, write_nnunet
from tests.ports import await_port, free_port
from tests.services import missing

pytestmark = pytest.mark.slow

VERSION = "3.17.2"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "scorenode"


class Tracking:
    """A server, and where its files lie."""

    def __init__(self, uri: str, files: Path) -> None:
        self.uri, self.files = uri, files

    def ask(self, method: str, what: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask its REST API, as its web page does."""
        url = f"{self.uri}/api/2.0/mlflow/{what}"
        answer = urllib3.request(method, url, json=content, timeout=30)
        assert answer.status == 200, answer.data
        found: dict[str, Any] = answer.json()
        return found

    def name(self, alias: str, version: str = "1", model: str = "balls") -> None:
        """Give a version an alias."""
        content = {"name": model, "alias": alias, "version": version}
        self.ask("POST", "registered-models/alias", content)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    program = CACHE / f"mlflow-{VERSION}" / "bin" / "mlflow"
    if not program.exists():
        missing(f"MLflow {VERSION} (deploy/install-test-tools.sh)")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    files = folder / "files"
    command = [str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(files)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
        )  # fmt: skip
    try:
        await_port(port, 120)
        yield Tracking(f"http://127.0.0.1:{port}", files)
    finally:
        os.killpg(server.pid, 9)
        server.wait(30)


def scorenode(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tracking: Tracking, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that was trained under the eyes of the server, and is registered there."""
    folder = tmp_path_factory.mktemp("trained")
    data, config, out = write_nnunet(folder / "data", 12), folder / "balls.yaml", folder / "balls"
    with config.open("w") as file:
        content = json.loads(json.dumps(tiny_content(steps=12)))
        YAML(typ="safe", pure=True).dump(content, file)
    done = scorenode(
        "train", "segmentation", "-d", data, "-c", config, "-o", out, "--mlflow", tracking.uri
    )
    assert done.returncode == 0, done.stderr
    assert "Registered as models:/balls/1." in done.stdout
    tracking.name("champion")
    return out


def test_a_training_is_told_with_its_figures(tracking: Tracking, trained: Path) -> None:
    found = tracking.ask("POST", "runs/search", {"experiment_ids": ["1"]})

    [run] = found["runs"]
    assert run["info"]["status"] == "FINISHED"
    params = {item["key"]: item["value"] for item in run["data"]["params"]}
    assert (params["steps"], params["fold"]) == ("12", "0")
    told = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    assert 0 < told["loss"] < 5
    assert told.items() >= flat(json.loads((trained / "metrics.json").read_text())).items()


def test_a_model_is_fetched_by_its_alias(tracking: Tracking, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "balls"

    done = scorenode(
        "models", "import", "models:/balls@champion", "-o", out, "--mlflow", tracking.uri
    )

    assert done.returncode == 0, done.stderr
    assert load_package(out).identity == load_package(trained).identity
    assert scorenode("models", "verify", out).returncode == 0


def test_what_is_not_what_its_manifest_says_is_not_kept(
    tracking: Tracking, trained: Path, tmp_path: Path
) -> None:
    [weights] = tracking.files.rglob("weights.safetensors")
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\0")
    try:
        with pytest.raises(BrokenPackage, match=r"weights\.safetensors"):
            fetch_package(MLflowServer(tracking.uri), "models:/balls/1", tmp_path / "balls")
    finally:
        weights.write_bytes(good)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_only_its_own_loader_could_read_is_refused(
    tracking: Tracking, trained: Path, tmp_path: Path
) -> None:
    server = MLflowServer(tracking.uri)
    flavour = tmp_path / "flavour"
    flavour.mkdir()
    (flavour / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}")
    (flavour / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    run = server.begin("scorenode", "other", {})
    server.register("other", run, server.put(run, flavour, "model"))

    done = scorenode(
        "models", "import", "models:/other/1", "-o", tmp_path / "x", "--mlflow", tracking.uri
    )

    assert done.returncode == 1
    assert "refuses model.yaml (status 404" in " ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("models:/balls@nobody", "has no model balls with alias nobody"),
        ("models:/nothing/1", "refuses get-download-uri"),
        ("models:/balls", "names no model"),
    ],
)
def test_what_is_not_there_ends_in_a_sentence(
    tracking: Tracking, trained: Path, tmp_path: Path, model: str, sentence: str
) -> None:
    with pytest.raises(MLflowError, match=sentence):
        fetch_package(MLflowServer(tracking.uri), model, tmp_path / "x")


def test_a_server_that_is_not_there_stops_a_training_before_it_begins(tmp_path: Path) -> None:
    data = write_nnunet(tmp_path / "data", 2)

    done = scorenode(
        "train", "segmentation", "-d", data, "-c", "hippocampus", "-o", tmp_path / "x",
        "--mlflow", f"http://127.0.0.1:{free_port()}",
    )  # fmt: skip

    assert done.returncode == 1
    assert "MLflow at 127.0.0.1 does not answer" in " ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()
