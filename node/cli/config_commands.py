"""Commands about the configuration file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.app import (
    PROBLEM,
    USAGE,
    ConfigOption,
    JsonOption,
    app,
    config_app,
    config_path,
    fail,
    load_config,
    store,
)
from node.cli.output import console, print_json
from node.roles import SILENT_SECONDS

if TYPE_CHECKING:
    from node.config.file import Config
    from node.config.problems import Problem

SOON_DAYS = 30
RELOAD_SECONDS = 30.0


@config_app.command("check")
def config_check(
    path: Annotated[Path, typer.Argument(help="The file to check.")],
    as_json: JsonOption = False,
) -> None:
    """Report every mistake in a configuration file at once."""
    from models.catalogue import list_packages
    from node.config.file import check, model_folders
    from node.job_opening import model_cards
    from pipelines.catalogue import PIPELINES

    packages = list_packages(model_folders(path))
    problems = check(
        path, pipelines=set(PIPELINES), models=set(packages), cards=model_cards(packages)
    )
    problems = [*problems, *_unmet(path, problems)]
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            console.print(str(problem), soft_wrap=True, highlight=False, markup=False)
    wrong = [problem for problem in problems if problem.severity == "error"]
    if wrong:
        raise typer.Exit(PROBLEM if path.is_file() else USAGE)
    if _show_certificates(path, quiet=as_json):
        raise typer.Exit(PROBLEM)
    if not as_json:
        console.print(f"{path} can be used.", highlight=False)


def _unmet(path: Path, problems: Sequence[Problem]) -> Sequence[Problem]:
    """Warn of what peers were seen not to offer; nothing of a file that cannot be used."""
    from node.config.file import load
    from node.peer_check import unmet

    if any(problem.severity == "error" for problem in problems):
        return ()
    config = load(path)
    return tuple(unmet(config, _seen_at_peers(config)))


def _seen_at_peers(config: Config) -> Mapping[str, Mapping[str, Any]]:
    """Read what `peers check` kept; nothing where there is no database, or it does not answer."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from node.parts import database_url
    from storage import destinations
    from storage.base import StoreUnavailable
    from storage.database import Database

    url = make_url(database_url(config))
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return {}
    database = Database(database_url(config))
    try:
        with database.snapshot() as tx:
            return {name: destinations.capabilities(tx, name) for name in config.peers}
    except (StoreUnavailable, SQLAlchemyError):
        return {}
    finally:
        database.close()


def _show_certificates(path: Path, *, quiet: bool) -> bool:
    """Say what is wrong with certificates, or soon will be; whether they cannot be used."""
    from node.certificates import certificates
    from node.config.file import load

    rows = certificates(load(path))
    for row in () if quiet else rows:
        if row["trouble"] or row["days_left"] < SOON_DAYS:
            sentence = row["trouble"] or f"It ends in {row['days_left']} days."
            console.print(f"{path}: node.tls: {row['file']}: {sentence}", highlight=False)
    return any(row["trouble"] for row in rows)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the file: editors complete and check it with this."""
    from node.config.reference import json_schema

    print_json(json_schema())


@config_app.command("reference")
def config_reference() -> None:
    """Print what every key means, in Markdown."""
    from node.config.reference import markdown

    print(markdown(), end="")  # noqa: T201 - what it is for


@config_app.command("reload")
def config_reload(config: ConfigOption = None) -> None:
    """Check the file, and have the running node use it; a bad file leaves the old one in use."""
    from node.config.file import load
    from node.config.problems import ConfigError
    from node.reload import active_copy, successor, supervisor_of

    try:
        loaded = load(config_path(config))
        process = supervisor_of(loaded.node.data_folder)
        if process is None:
            folder = loaded.node.data_folder
            raise fail(f"No node runs here on the data folder {folder}.")
        successor(load(active_copy(loaded.node.data_folder, process), loaded.path))
    except ConfigError as error:
        told = "\n".join(str(problem) for problem in error.problems)
        raise fail(f"{told}\nThe node goes on with the old configuration.", USAGE) from None
    os.kill(process, signal.SIGHUP)
    end = time.monotonic() + RELOAD_SECONDS
    while loaded.digest not in _digests_in_use(config):
        if time.monotonic() > end:
            raise fail(f"The node did not take the file within {RELOAD_SECONDS:g} s; see its log.")
        time.sleep(0.2)
    console.print(f"The node uses {loaded.path} now ({loaded.digest[:12]}).", highlight=False)


def _digests_in_use(config: Path | None) -> set[str]:
    """Digests of the configurations that living coordinators use."""
    from storage import queries

    with store(config) as database, database.snapshot() as tx:
        rows = queries.nodes(tx)
    return {row["facts"].get("config", "") for row in rows if row["seconds_ago"] < SILENT_SECONDS}


@app.command()
def conformance(config: ConfigOption = None) -> None:
    """Print the DICOM conformance statement of this configuration, in Markdown."""
    from node.conformance import statement

    console.print(
        statement(load_config(config)), soft_wrap=True, markup=False, highlight=False, end=""
    )
