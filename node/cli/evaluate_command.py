"""The command that measures a packaged model on labelled volumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import ConfigOption, JsonOption, app, fail, load_config
from node.cli.local_commands import progress_bar
from node.cli.model_commands import TrustOption, model_folder
from node.cli.output import console, show


@app.command()
def evaluate(
    model: Annotated[str, typer.Option("--model", "-m", help="Name of a package, or its folder.")],
    data: Annotated[
        Path, typer.Option("--data", "-d", help="images and labels, nnU-Net, Decathlon or CT-ICH.")
    ],
    config: ConfigOption = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on labelled volumes: Dice, surface, volumes, lesions of each structure."""
    loaded = load_config(config) if config else None
    folder = model_folder(model, loaded.models.folders if loaded else ())
    trusted = trust_code or bool(loaded and folder.name in loaded.models.trust)
    metrics = _metrics(folder, data, trust_code=trusted)
    if as_json:
        print(json.dumps(metrics))  # noqa: T201 - one line, for programs
        return
    rows = [{"structure": name, **_figures(one)} for name, one in metrics["structures"].items()]
    show(rows, list(rows[0]), as_json=False)
    for name, why in metrics["refused"].items():
        console.print(f"{name} was not scored: {why}", highlight=False, markup=False)
    console.print(f"{metrics['held_out']} cases of {metrics['patients']} patients.")


def _metrics(folder: Path, data: Path, *, trust_code: bool) -> dict[str, Any]:
    """Evaluate in a process of its own, so that a model's code does not run in this one."""
    command = [sys.executable, "-m", "models.package_evaluation", str(folder), str(data)]
    command += ["--trust-code"] if trust_code else []
    found: dict[str, Any] = {}
    with (
        progress_bar("evaluating") as move,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child,
    ):
        assert child.stdout is not None  # noqa: S101 - we opened it
        for line in child.stdout:
            found = json.loads(line)
            if "done" in found:
                move(found["done"], found["note"])
    if "error" in found:
        raise fail(found["error"])
    if "metrics" not in found:
        raise fail(f"The evaluation ended its process ({child.returncode}).")
    metrics: dict[str, Any] = found["metrics"]
    return metrics


def _figures(one: dict[str, Any]) -> dict[str, Any]:
    """First value of each figure; the rest of a list is its interval."""
    return {name: value[0] if isinstance(value, list) else value for name, value in one.items()}
