"""The command that measures a packaged model on labelled volumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import USAGE, ConfigOption, JsonOption, app, fail, load_config
from node.cli.local_commands import progress_bar
from node.cli.model_commands import TrustOption, model_folder
from node.cli.output import console, show
from node.cli.table_commands import evaluate_on_table


@app.command()
def evaluate(
    prognosis: Annotated[
        Path | None, typer.Argument(help="Folder of a prognosis package; with --table.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", "-t", help="CSV of known outcome, for a prognosis.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name of a segmentation package, or its folder.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="images and labels, nnU-Net, Decathlon or CT-ICH."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Of a prognosis: where pictures go.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Of a prognosis: column that tells patients apart.")
    ] = None,
    config: ConfigOption = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model: on labelled volumes (--model, --data), or on a table (FOLDER --table)."""
    if prognosis is not None and table is not None and not model and data is None:
        evaluate_on_table(prognosis, table, out, group, as_json=as_json)
    elif model and data is not None and prognosis is None and table is None:
        _on_volumes(model, data, config, trust_code=trust_code, as_json=as_json)
    else:
        raise fail("Say --model NAME --data FOLDER, or FOLDER --table CSV.", USAGE)


def _on_volumes(
    model: str, data: Path, config: Path | None, *, trust_code: bool, as_json: bool
) -> None:
    """Measure Dice, surface distances, volumes and lesions of each structure."""
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
