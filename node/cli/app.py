"""What all commands share. Exit codes: 0 ok, 1 problem, 2 usage, 3 store away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import console, errors

OK, PROBLEM, USAGE, STORE_AWAY = 0, 1, 2, 3
CONFIG_PLACES = (Path("scorenode.yaml"), Path("/etc/scorenode/scorenode.yaml"))

app = typer.Typer(
    help="A DICOM node that scores studies and returns SEG and SR to the PACS.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
series_app = typer.Typer(help="Series that arrived.", no_args_is_help=True)
jobs_app = typer.Typer(help="Jobs: one run of one pipeline.", no_args_is_help=True)
deliveries_app = typer.Typer(help="Results on their way.", no_args_is_help=True)
peers_app = typer.Typer(help="Other Application Entities.", no_args_is_help=True)
models_app = typer.Typer(help="Model packages.", no_args_is_help=True)
rules_app = typer.Typer(help="Rules that are not in use yet.", no_args_is_help=True)
train_app = typer.Typer(help="Train a model package.", no_args_is_help=True)
report_app = typer.Typer(help="Templates of reports.", no_args_is_help=True)
for name, group in (
    ("config", config_app),
    ("series", series_app),
    ("jobs", jobs_app),
    ("deliveries", deliveries_app),
    ("peers", peers_app),
    ("models", models_app),
    ("rules", rules_app),
    ("train", train_app),
    ("report", report_app),
):
    app.add_typer(group, name=name)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="SCORENODE_CONFIG", help="The configuration file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
LARGEST = 2**63 - 1
"""What a database takes as a number."""
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=LARGEST, help="At most so many.")]
JobArgument = Annotated[
    int, typer.Argument(metavar="JOB", min=1, max=LARGEST, help="Number of the job.")
]
DeliveryArgument = Annotated[
    int, typer.Argument(metavar="DELIVERY", min=1, max=LARGEST, help="Number of the delivery.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"scorenode {version('scorenode')}", highlight=False)
        raise typer.Exit


@app.callback()
def callback(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Score studies that arrive, and return SEG and SR to the PACS."""


def fail(sentence: str, code: int = PROBLEM) -> typer.Exit:
    """Print a sentence for people; raise what this returns."""
    errors.print(sentence, style="red", soft_wrap=True, highlight=False, markup=False)
    return typer.Exit(code)


def make_folder(path: Path) -> None:
    """Make the folder that results go into, or end with why that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise fail(f"The folder {path} cannot be made: {error.strerror}.", USAGE) from None


def config_path(path: Path | None) -> Path:
    """Name the configuration file: the one given, or where one usually is."""
    return path or next((p for p in CONFIG_PLACES if p.exists()), CONFIG_PLACES[0])


def load_config(path: Path | None) -> Any:
    """Read the configuration, or end with every mistake in it."""
    from node.config.file import load
    from node.config.problems import ConfigError

    try:
        return load(config_path(path))
    except ConfigError as error:
        raise fail("\n".join(str(problem) for problem in error.problems), USAGE) from None


@contextmanager
def store(path: Path | None) -> Iterator[Any]:
    """Open the database of a configuration for one command."""
    from sqlalchemy.engine import make_url

    from node.parts import database_url
    from storage.base import StoreUnavailable
    from storage.database import Database

    config = load_config(path)
    url = make_url(database_url(config))
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise fail(f"There is no database {url.database} yet; start the node first.", STORE_AWAY)
    database = Database(database_url(config))
    try:
        yield database
    except StoreUnavailable as error:
        raise fail(f"The store cannot be reached: {error}.", STORE_AWAY) from None
    finally:
        database.close()
