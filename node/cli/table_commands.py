"""Commands about prognoses from tables: train, evaluate, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from node.cli.app import USAGE, JsonOption, fail, models_app, train_app
from node.cli.local_commands import progress_bar
from node.cli.output import console, print_json

TableOption = Annotated[
    Path, typer.Option("--table", "-t", help="CSV with a line of names; one row a visit.")
]


@train_app.command("gmlvq")
def train_gmlvq(
    table: TableOption,
    config: Annotated[
        Path, typer.Option("--config", "-c", help="What the columns are: docs/prognosis.md.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model package.")],
    as_json: JsonOption = False,
) -> None:
    """Train a prognosis on your own table, with nested cross-validation by patient."""
    from models.gmlvq_config import BadTable, load_training_config
    from models.prognosis_training import train_prognosis

    try:
        with progress_bar("training") as move:
            metrics = train_prognosis(table, load_training_config(config), out, move)
    except BadTable as error:
        raise fail(str(error), USAGE) from None
    _show(metrics, "cross_validation", as_json=as_json)
    if not as_json:
        console.print(f"The package is in {out}; read its MODEL_CARD.md.", highlight=False)


@train_app.command("dementia")
def train_dementia(
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model package.")],
    people: Annotated[int, typer.Option(min=60, help="How many synthetic people.")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same package.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the demonstration of the dementia pipeline on a synthetic cohort: no patient data."""
    from models.demo_cohort import train_demo
    from models.gmlvq_config import BadTable

    try:
        with progress_bar("training") as move:
            metrics = train_demo(out, people, seed, move)
    except BadTable as error:
        raise fail(str(error), USAGE) from None
    _show(metrics, "cross_validation", as_json=as_json)


def evaluate_on_table(
    model: Path, table: Path, out: Path | None, group: str | None, *, as_json: bool
) -> None:
    """Measure a prognosis on a second table of known outcome."""
    from models.base import BrokenPackage
    from models.gmlvq_config import BadTable
    from models.prognosis_training import evaluate_prognosis

    try:
        metrics = evaluate_prognosis(model, table, out, group)
    except (BadTable, BrokenPackage) as error:
        raise fail(str(error), USAGE) from None
    _show(metrics, "evaluation", as_json=as_json)
    if not as_json:
        _warn_of_units(metrics)


def _warn_of_units(metrics: dict[str, Any]) -> None:
    """Ask for the unit of what is mostly beyond the values of training."""
    rows = metrics["rows"]
    for name, count in metrics["rows_beyond_training"].items():
        if count > rows / 2:
            console.print(
                f"{name} is beyond what was trained on in {count} of {rows} rows: is its unit "
                f"{metrics['units'][name]}?",
                highlight=False,
                markup=False,
            )


@models_app.command("import-toolbox")
def import_toolbox(
    path: Annotated[Path, typer.Argument(help="A .mat file with the struct gmlvq_system.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    label: Annotated[
        list[str] | None, typer.Option(help="Name of class 1, then of class 2, and so on.")
    ] = None,
) -> None:
    """Convert a system of Biehl's MATLAB toolbox to model.safetensors and model.json."""
    from models.base import BrokenPackage
    from models.gmlvq_toolbox import read_toolbox

    try:
        found = read_toolbox(path, label or None)
    except BrokenPackage as error:
        raise fail(str(error), USAGE) from None
    if out.exists():
        raise fail(f"{out} is already there.", USAGE)
    found.save(out)
    console.print(
        f"{len(found.prototypes_)} prototypes of {found.n_features_in_} features are in {out}; "
        "the toolbox keeps no probabilities and no range of its training data.",
        highlight=False,
    )


def _show(metrics: dict[str, Any], which: str, *, as_json: bool) -> None:
    if as_json:
        print_json(metrics)
        return
    left_out = sum(metrics["left_out"].values())
    console.print(
        f"{metrics['rows']} rows of {metrics['patients']} patients, {metrics['declining']} "
        f"declining; {left_out} rows or values left out.",
        highlight=False,
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("", "value", "95 % interval"):
        table.add_column(heading)
    for name, (value, *ends) in metrics[which].items():
        told = " to ".join(f"{end:.3f}" for end in ends)
        table.add_row(name.replace("_", " "), f"{value:.3f}", told)
    console.print(table)
