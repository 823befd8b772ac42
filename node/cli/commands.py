"""Commands about a running node: what it is, what came, what it does."""

from __future__ import annotations

import gc
import os
import signal
import sys
from functools import partial
from getpass import getuser
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import (
    CONFIG_PLACES,
    PROBLEM,
    STORE_AWAY,
    USAGE,
    ConfigOption,
    JobArgument,
    JsonOption,
    LimitOption,
    app,
    fail,
    jobs_app,
    load_config,
    series_app,
    store,
)
from node.cli.output import console, print_json, show
from node.roles import ROLES, SILENT_SECONDS
from storage.base import JobState, SeriesState

SOON_DAYS = 30


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = CONFIG_PLACES[0],
    data: Annotated[Path, typer.Option(help="The data folder.")] = Path("node-data"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 11112,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration file to start from."""
    from node.config.default import default_config

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
    gc.disable()  # until all is imported: a third of the time to listening
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the file is still to be read
    from node import log
    from node.parts import database_url
    from node.supervisor import AlreadyRunning, Supervisor, lock_data_folder
    from storage.base import StoreUnavailable
    from storage.database import Database
    from storage.migrate import NewerSchema, migrate

    os.umask(0o077)  # patient data: for this account only
    loaded = load_config(config)
    troubles = [row["trouble"] for row in certificates_of(config) if row["trouble"]]
    if troubles:
        raise fail(f"TLS cannot be used: {troubles[0]}", USAGE)
    roles = [str(name) for name in role or ROLES]
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
    except AlreadyRunning as error:
        raise fail(str(error), USAGE) from None
    except StoreUnavailable as error:
        raise fail(str(error), STORE_AWAY) from None
    except OSError as error:
        raise fail(f"The data folder cannot be used: {error}.", STORE_AWAY) from None
    except NewerSchema as error:
        raise fail(str(error)) from None
    supervisor = Supervisor(loaded, roles, lock)
    supervisor.handle_signals()
    supervisor.run()
    if lock >= 0:
        os.close(lock)


def certificates_of(path: Path | None) -> list[dict[str, Any]]:
    """When certificates end, for the status."""
    from node.certificates import certificates

    return certificates(load_config(path))


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
            "certificates": certificates_of(config),
        }
    alive = {row["role"] for row in found["processes"] if row["seconds_ago"] < SILENT_SECONDS}
    found["running"] = not set(ROLES) - alive
    if as_json:
        print_json(found)
    else:
        _show_status(found, sorted(set(ROLES) - alive))
    if not found["running"]:
        raise typer.Exit(PROBLEM)


def _show_status(found: dict[str, Any], missing: list[str]) -> None:
    if missing:
        what = "The node does not run" if len(missing) == len(ROLES) else "Not running"
        console.print(f"[bold red]{what}: {', '.join(missing)}[/]\n")
    counts = found["counts"]
    console.print("[bold]Processes[/]")
    show(found["processes"], ["role", "name", "version", "seconds_ago"], as_json=False)
    console.print(f"\n[bold]Instances[/] {counts['instances']}")
    console.print(f"[bold]Ballast[/] {_ballast(found['processes'])}")
    for kind in ("series", "jobs", "deliveries", "tasks"):
        states = ", ".join(f"{n} {state}" for state, n in sorted(counts[kind].items())) or "none"
        console.print(f"[bold]{kind.capitalize()}[/] {states}")
    console.print(f"[bold]Oldest waiting job[/] {counts['oldest_waiting_seconds']:.0f} s")
    if found["certificates"]:
        console.print("\n[bold]Certificates[/]")
        show(found["certificates"], ["file", "ends", "days_left", "trouble"], as_json=False)
    if found["destinations"]:
        console.print("\n[bold]Destinations[/]")
        show(
            found["destinations"],
            ["name", "standing", "failures", "last_ok_at", "last_sentence"],
            as_json=False,
        )
    if found["alerts"]:
        console.print("\n[bold red]Alerts[/]")
        show(found["alerts"], ["last_at", "count", "sentence"], as_json=False)


def _ballast(processes: list[dict[str, Any]]) -> str:
    """Say how much room is kept for a full disk."""
    held = [row["facts"]["ballast_bytes"] for row in processes if "ballast_bytes" in row["facts"]]
    if not held:
        return "unknown"
    return f"{max(held) >> 20} MiB kept" if max(held) else "none: given up, or switched off"


@series_app.command("ls")
def series_ls(
    config: ConfigOption = None,
    state: Annotated[SeriesState | None, typer.Option(help="Only those in this state.")] = None,
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
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
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
def jobs_show(
    job_id: JobArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
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
        ["id", "destination", "slot", "state", "status", "proof", "sentence"],
        as_json=False,
    )


@jobs_app.command("retry")
def jobs_retry(job_id: JobArgument, config: ConfigOption = None) -> None:
    """Start a job again where it stopped; one with results only sends what was not sent."""
    from node.job_opening import limits_of
    from storage import job_admin, jobs

    loaded = load_config(config)
    with store(config) as database, database.transaction() as tx:
        job = jobs.get(tx, job_id)
        limits = limits_of(loaded, job.rule) if job else {}
        done = job_admin.requeue(tx, job_id, getuser(), limits)
        sentence = "" if done else job_admin.why_not(tx, job_id)
    if not done:
        raise fail(sentence)
    console.print(f"Job {job_id} is queued.")


@jobs_app.command("replay")
def jobs_replay(job_id: JobArgument, config: ConfigOption = None) -> None:
    """Decide a job's rule again, with today's file and models; a new result replaces the old."""
    from node.deciding import replay
    from node.job_opening import Models
    from node.past_series import with_headers
    from node.routing import header_keys
    from storage import jobs
    from storage.objects import FileObjects

    loaded = load_config(config)
    objects, keys = FileObjects(loaded.node.data_folder), header_keys(loaded.rules)
    complete = partial(with_headers, objects=objects, keys=keys)
    with store(config) as database, database.transaction() as tx:
        job = jobs.get(tx, job_id)
        if job is None:
            raise fail(f"There is no job {job_id}.")
        decision, opened = replay(tx, job, loaded, Models(loaded.models.folders), complete)
    if decision is None:
        raise fail(f"Job {job_id} cannot be replayed: its rule or its images are not there.")
    console.print(decision.sentence, highlight=False, markup=False)
    if not opened:
        raise fail("No job was opened: the same images, rule and model have been a job before.")
    console.print(f"Opened job {', '.join(map(str, opened))}.", highlight=False)


@jobs_app.command("cancel")
def jobs_cancel(job_id: JobArgument, config: ConfigOption = None) -> None:
    """Stop a job; what was not sent stays in the node."""
    from storage import job_admin

    with store(config) as database, database.transaction() as tx:
        done = job_admin.cancel(tx, job_id, getuser())
    if not done:
        raise fail(f"Job {job_id} is not there, or has ended.")
    console.print(f"Job {job_id} is cancelled.")
