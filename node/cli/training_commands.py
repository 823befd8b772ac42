"""Commands that train models that label voxels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from node.cli.app import USAGE, JsonOption, fail, train_app
from node.cli.local_commands import progress_bar
from node.cli.output import console, print_json

if TYPE_CHECKING:
    from node.mlflow_packages import LoggedTraining

MLflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        envvar="MLFLOW_TRACKING_URI",
        help="Write the training to this MLflow server, and register the model there.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="The new model package.")]
Move = Callable[[float, str], None]


@train_app.command("segmentation")
def train_segmentation(
    data: Annotated[Path, typer.Option("--data", "-d", help="Labelled volumes: docs/training.md.")],
    config: Annotated[
        str, typer.Option("--config", "-c", help="A recipe: a file, or haemorrhage, hippocampus.")
    ],
    out: OutOption,
    fold: Annotated[
        str, typer.Option(help="Fold of patients that is held out and measured; or none.")
    ] = "0",
    mlflow: MLflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a segmentation on your own labelled volumes; killed, the same command goes on."""
    from models.fitting import Diverged
    from models.labelled_cases import BadData
    from models.recipe import BadRecipe, load_recipe, recipe_path
    from models.training import Unusable
    from models.training import train_segmentation as train
    from node.mlflow_server import MLflowError

    if fold != "none" and not fold.isdecimal():
        raise fail(f"--fold is a number or none, not {fold}.", USAGE)
    try:
        recipe = load_recipe(recipe_path(config))
        params = {**recipe.training.model_dump(mode="json"), "recipe": config, "fold": fold}
        with _bar() as move, _logged(mlflow, recipe.package.family, params, move) as (log, told):
            folder = _as_files(data, out, recipe.names, told)
            metrics = train(folder, recipe, out, told, fold=None if fold == "none" else int(fold))
            registered = log.finish(out, metrics) if log else ""
    except MLflowError as error:
        done = f" The package is in {out}." if out.exists() else ""
        raise fail(f"{error}{done}") from None
    except (BadData, BadRecipe, Unusable) as error:
        raise fail(str(error), USAGE) from None
    except Diverged as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise _no_room(error, out) from None
    _show(metrics, out, as_json=as_json)
    if registered and not as_json:
        console.print(f"Registered as {registered}.", highlight=False)


@train_app.command("haemorrhage")
def train_haemorrhage(
    out: OutOption,
    phantoms: Annotated[int, typer.Option(min=30, help="How many head CT phantoms.")] = 300,
    steps: Annotated[int, typer.Option(min=0, help="Training steps; 0: as the recipe says.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed trains the same weights.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the demonstration model for haemorrhage on our own phantoms; nobody is held out."""
    from models.phantom_training import train_on_phantoms
    from models.training import Unusable

    try:
        with _bar() as move:
            metrics = train_on_phantoms(
                out, phantoms=phantoms, steps=steps or None, seed=seed, progress=move
            )
    except Unusable as error:
        raise fail(str(error), USAGE) from None
    except OSError as error:
        raise _no_room(error, out) from None
    _show(metrics, out, as_json=as_json)


def _no_room(error: OSError, out: Path) -> typer.Exit:
    """Say which file could not be read or written; the checkpoint stays."""
    return fail(
        f"{error.filename or out}: {error.strerror or error}. When that is mended, the same "
        "command goes on where this one stopped."
    )


def _as_files(data: Path, out: Path, names: Sequence[str], move: Move) -> Path:
    """Write DICOM series and SEG objects as files to train on; other folders are as they are."""
    from models.training import first_makes, work_folder
    from pipelines.labelled_series import has_segmentations, write_labelled

    if not has_segmentations(data):
        return data
    folder = work_folder(out) / "from-dicom"
    first_makes(folder / "cases.csv", lambda: write_labelled(data, folder, names, move))
    return folder


@contextmanager
def _logged(
    uri: str | None, name: str, params: dict[str, Any], move: Move
) -> Iterator[tuple[LoggedTraining | None, Move]]:
    """Write a training to an MLflow server, if one is named; of several processes the first does.

    A training that ends badly ends as FAILED there.
    """
    from node.mlflow_packages import LoggedTraining
    from node.mlflow_server import MLflowError, MLflowServer

    if not uri or os.environ.get("RANK", "0") != "0":
        yield None, move
        return
    log = LoggedTraining.begin(MLflowServer(uri), name, params)
    try:
        yield log, log.following(move)
    except BaseException:
        with suppress(MLflowError):
            log.server.end(log.run, failed=True)
        raise


@contextmanager
def _bar() -> Iterator[Move]:
    """Show a bar; of several processes only the first does."""
    if os.environ.get("RANK", "0") != "0":
        yield lambda done, note: None
        return
    with progress_bar("training") as move:
        yield move


def _show(metrics: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print_json(metrics)
        return
    if metrics:
        table = Table("structure", "Dice", "surface Dice", "HD95 mm", "volume off ml", "CCC")
        for name, found in metrics["structures"].items():
            keys = ("dice", "nsd", "hd95_mm", "volume_mae_ml", "volume_ccc")
            table.add_row(name, *(_figure(found[key]) for key in keys))
        console.print(f"{metrics['held_out']} cases held out", highlight=False)
        console.print(table)
    console.print(f"The package is in {out}; read its MODEL_CARD.md.", highlight=False)


def _figure(found: list[float | None]) -> str:
    value, low, high = found
    if value is None:
        return "-"
    return f"{value:.3g}" if low is None else f"{value:.3g} ({low:.3g} to {high:.3g})"
