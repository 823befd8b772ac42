"""The command line: what an admin types. Exit codes: 0 ok, 1 problem, 2 usage, 3 store away."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from node.output import console, errors, print_json, show

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
models_app = typer.Typer(help="Model packages.", no_args_is_help=True)
train_app = typer.Typer(help="Train a model package.", no_args_is_help=True)
for name, group in (
    ("config", config_app),
    ("series", series_app),
    ("jobs", jobs_app),
    ("deliveries", deliveries_app),
    ("models", models_app),
    ("train", train_app),
):
    app.add_typer(group, name=name)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="SCORENODE_CONFIG", help="The configuration file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many.")]
StateOption = Annotated[str | None, typer.Option("--state", help="Only those in this state.")]


def fail(sentence: str, code: int = PROBLEM) -> typer.Exit:
    """Print a sentence for people; raise what this returns."""
    errors.print(sentence, style="red", soft_wrap=True, highlight=False, markup=False)
    return typer.Exit(code)


def load_config(path: Path | None) -> Any:
    """Read the configuration, or end with every mistake in it."""
    from node.config import load
    from node.problems import ConfigError

    path = path or next((p for p in CONFIG_PLACES if p.exists()), CONFIG_PLACES[0])
    try:
        return load(path)
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


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = CONFIG_PLACES[0],
    data: Annotated[Path, typer.Option(help="The data folder.")] = Path("node-data"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 11112,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration file to start from."""
    from node.default_config import default_config

    if path.exists() and not force:
        raise fail(f"{path} is there already; use --force to replace it.")
    path.write_text(default_config(data, port))
    console.print(f"Wrote {path}. Next: scorenode config check {path}, then scorenode serve.")


@app.command()
def serve(
    config: ConfigOption = None,
    role: Annotated[
        list[str] | None, typer.Option(help="Only this role here; may be repeated.")
    ] = None,
) -> None:
    """Run the node until it is stopped."""
    from node import log
    from node.parts import database_url
    from node.supervisor import ROLES, AlreadyRunning, Supervisor, lock_data_folder
    from storage.base import StoreUnavailable
    from storage.database import Database
    from storage.migrate import NewerSchema, migrate

    loaded = load_config(config)
    roles = role or list(ROLES)
    unknown = [name for name in roles if name not in ROLES]
    if unknown:
        raise fail(f"There is no role {unknown[0]}; there are {', '.join(ROLES)}.", USAGE)
    log.configure(sys.stdout, loaded.node.log_level)
    try:
        loaded.node.data_folder.mkdir(parents=True, exist_ok=True)
        lock = lock_data_folder(loaded.node.data_folder) if len(roles) == len(ROLES) else -1
        database = Database(database_url(loaded))
        migrate(database)
        database.close()
    except (AlreadyRunning, StoreUnavailable) as error:
        raise fail(str(error), STORE_AWAY) from None
    except OSError as error:
        raise fail(f"The data folder cannot be used: {error}.", STORE_AWAY) from None
    except NewerSchema as error:
        raise fail(str(error)) from None
    supervisor = Supervisor(loaded, roles)
    supervisor.handle_signals()
    supervisor.run()
    if lock >= 0:
        os.close(lock)


@config_app.command("check")
def config_check(
    path: Annotated[Path, typer.Argument(help="The file to check.")],
    as_json: JsonOption = False,
) -> None:
    """Report every mistake in a configuration file at once."""
    from models.catalogue import list_packages
    from node.config import check
    from pipelines.catalogue import PIPELINES

    problems = check(path, pipelines=set(PIPELINES), models=set(list_packages(_folders(path))))
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            console.print(str(problem), soft_wrap=True, highlight=False, markup=False)
    wrong = [problem for problem in problems if problem.severity == "error"]
    if wrong:
        raise typer.Exit(PROBLEM)
    if not as_json:
        console.print(f"{path} can be used.", highlight=False)


def _folders(path: Path) -> tuple[Path, ...]:
    """Folders of model packages that a configuration names, if it can be read at all."""
    from node.config import load
    from node.problems import ConfigError

    try:
        return load(path).models.folders
    except (ConfigError, OSError):
        return ()


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show on one screen whether the node lives and what it is doing."""
    from storage import events, queries

    with store(config) as database, database.snapshot() as tx:
        found: dict[str, Any] = {
            "processes": queries.nodes(tx),
            "counts": queries.counts(tx),
            "destinations": queries.destinations(tx),
            "alerts": events.open_alerts(tx),
        }
    if as_json:
        print_json(found)
        return
    counts = found["counts"]
    console.print("[bold]Processes[/]")
    show(found["processes"], ["role", "name", "version", "seconds_ago"], as_json=False)
    console.print(f"\n[bold]Instances[/] {counts['instances']}")
    for kind in ("series", "jobs", "deliveries", "tasks"):
        states = ", ".join(f"{n} {state}" for state, n in sorted(counts[kind].items())) or "none"
        console.print(f"[bold]{kind.capitalize()}[/] {states}")
    console.print(f"[bold]Oldest waiting job[/] {counts['oldest_waiting_seconds']:.0f} s")
    if found["destinations"]:
        console.print("\n[bold]Destinations[/]")
        show(
            found["destinations"],
            ["name", "failures", "suspended", "last_ok_at", "last_sentence"],
            as_json=False,
        )
    if found["alerts"]:
        console.print("\n[bold red]Alerts[/]")
        show(found["alerts"], ["last_at", "count", "sentence"], as_json=False)


@series_app.command("ls")
def series_ls(
    config: ConfigOption = None,
    state: StateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List series, the latest first."""
    from storage import queries

    with store(config) as database, database.snapshot() as tx:
        rows = queries.series_list(tx, limit, state)
    columns = ["series_instance_uid", "modality", "state", "generation", "n_instances", "last_at"]
    show(rows, columns, as_json=as_json)


@series_app.command("show")
def series_show(uid: str, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show everything known of a series."""
    from storage import queries

    with store(config) as database, database.snapshot() as tx:
        found = [queries.series_show(tx, item) for item in queries.series_ids(tx, uid)]
    if not found:
        raise fail(f"There is no series {uid}.")
    if as_json:
        print_json(found)
        return
    for item in found:
        for key in ("study_instance_uid", "series_instance_uid", "modality", "state"):
            console.print(f"[bold]{key}[/] {item[key]}", highlight=False)
        for key in ("instances", "duplicates", "conflicts", "first_at", "last_at"):
            console.print(f"[bold]{key}[/] {item[key]}", highlight=False)
        console.print("\n[bold]Generations[/]")
        show(
            item["generations"],
            ["generation", "verdict", "n_instances", "closed_at"],
            as_json=False,
        )
        console.print("\n[bold]Decisions[/]")
        show(item["decisions"], ["rule", "outcome", "sentence"], as_json=False)
        console.print("\n[bold]Jobs[/]")
        show(item["jobs"], ["id", "rule", "state", "step", "sentence"], as_json=False)


@jobs_app.command("ls")
def jobs_ls(
    config: ConfigOption = None,
    state: StateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the latest first."""
    from storage import queries

    with store(config) as database, database.snapshot() as tx:
        rows = queries.jobs_list(tx, limit, state)
    columns = ["id", "rule", "state", "step", "progress", "created_at", "next_at", "sentence"]
    show(rows, columns, as_json=as_json)


@jobs_app.command("show")
def jobs_show(job_id: int, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one job with its steps, results and deliveries."""
    from storage import queries

    with store(config) as database, database.snapshot() as tx:
        job = queries.job_show(tx, job_id)
    if job is None:
        raise fail(f"There is no job {job_id}.")
    if as_json:
        print_json(job)
        return
    for key in ("rule", "mode", "model", "state", "sentence", "series_instance_uid"):
        console.print(f"[bold]{key}[/] {job[key]}", highlight=False)
    console.print("\n[bold]Steps[/]")
    show(job["steps"], ["step", "attempt", "outcome", "seconds", "sentence"], as_json=False)
    console.print("\n[bold]Results[/]")
    show(job["results"], ["slot", "sop_instance_uid", "size"], as_json=False)
    console.print("\n[bold]Deliveries[/]")
    show(
        job["deliveries"],
        ["id", "destination", "slot", "state", "status", "sentence"],
        as_json=False,
    )


@jobs_app.command("retry")
def jobs_retry(job_id: int, config: ConfigOption = None) -> None:
    """Start a job again where it stopped; one with results only sends what was not sent."""
    from storage import jobs

    with store(config) as database, database.transaction() as tx:
        done = jobs.requeue(tx, job_id)
    if not done:
        raise fail(f"Job {job_id} is not there, or does not wait for anything.")
    console.print(f"Job {job_id} is queued.")


@jobs_app.command("cancel")
def jobs_cancel(job_id: int, config: ConfigOption = None) -> None:
    """Stop a job; what was not sent stays in the node."""
    from storage import jobs

    with store(config) as database, database.transaction() as tx:
        done = jobs.cancel(tx, job_id)
    if not done:
        raise fail(f"Job {job_id} is not there, or has ended.")
    console.print(f"Job {job_id} is cancelled.")


@deliveries_app.command("ls")
def deliveries_ls(
    config: ConfigOption = None,
    state: StateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, those of the latest job first."""
    from storage import queries

    with store(config) as database, database.snapshot() as tx:
        rows = queries.deliveries_list(tx, limit, state)
    columns = ["id", "job_id", "destination", "slot", "state", "attempt", "next_at", "sentence"]
    show(rows, columns, as_json=as_json)


@deliveries_app.command("retry")
def deliveries_retry(delivery_id: int, config: ConfigOption = None) -> None:
    """Try one delivery again now."""
    from storage import deliveries

    with store(config) as database, database.transaction() as tx:
        done = deliveries.retry(tx, delivery_id)
    if not done:
        raise fail(f"Delivery {delivery_id} is not there, or does not wait.")
    console.print(f"Delivery {delivery_id} is tried again.")


def main() -> None:
    """Run the command line."""
    import node.cli_local  # noqa: F401 - commands that work without a running node

    app()
