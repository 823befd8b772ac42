"""``scorenode watch``: what the node is doing, looked at every second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from node.cli.app import ConfigOption, JsonOption, app, load_config, store
from node.cli.output import console, print_json

MOST_ROWS = 12
ACTIVE = ("queued", "running", "retry_wait", "held", "delivering")

Look = dict[str, Any]


@app.command()
def watch(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, help="Between two looks.")] = 1.0,
) -> None:
    """Show associations, series, jobs and deliveries as they come and go; Ctrl-C ends."""
    completion = load_config(config).completion
    quiet = timedelta(seconds=completion.quiet_seconds)
    with store(config) as database:
        last = look(database, quiet, {})
        if once or as_json:
            while True:
                print_json(last) if as_json else console.print(page(last))
                if once:
                    return
                time.sleep(seconds)
                last = look(database, quiet, last)
        with Live(page(last), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                last = look(database, quiet, last)
                live.update(page(last), refresh=True)


def look(database: Any, quiet: timedelta, last: Mapping[str, Any]) -> Look:
    """Read once; rates are against the last time.

    Parameters
    ----------
    database : Database
    quiet : timedelta
        After which an open series is closed.
    last : mapping
        What was read before; empty the first time.
    """
    from storage import queries

    with database.snapshot() as tx:
        now = tx.now
        associations = queries.associations_now(tx)
        series = queries.series_list(tx, MOST_ROWS, "open")
        jobs = [job for job in queries.jobs_list(tx, 200) if job["state"] in ACTIVE]
        counts = queries.counts(tx)
    before = {row["id"]: row for row in last.get("associations", ())}
    for row in associations:
        earlier = before.get(row["id"])
        row["per_second"] = 0.0
        if earlier is not None and now > last["at"]:
            since = (now - last["at"]).total_seconds()
            row["per_second"] = (row["stored"] - earlier["stored"]) / since
    for row in series:
        row["closes_in_seconds"] = max(0.0, (row["last_at"] + quiet - now).total_seconds())
    return {
        "at": now,
        "associations": associations,
        "series": series,
        "jobs": jobs,
        "deliveries": counts["deliveries"],
        "instances": counts["instances"],
    }


def page(found: Look) -> RenderableType:
    """Make one screen."""
    deliveries = ", ".join(f"{n} {state}" for state, n in sorted(found["deliveries"].items()))
    head = Text(f"{found['instances']} instances held    deliveries: {deliveries or 'none'}")
    return Group(head, _associations(found), _series(found), _jobs(found))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, expand=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def _associations(found: Look) -> Table:
    rows = found["associations"]
    title = f"Receiving: {len(rows)} associations"
    table = _table(title, "peer", "AE title", "address", "objects", "refused", "MB", "/s", "open s")
    for row in rows[-MOST_ROWS:]:
        table.add_row(
            row["peer"],
            row["calling_ae_title"],
            row["address"],
            str(row["stored"]),
            str(row["refused"]),
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['per_second']:.0f}",
            f"{row['seconds']:.0f}",
        )
    return table


def _series(found: Look) -> Table:
    table = _table("Open series", "modality", "images", "MB", "closes in s", "series")
    for row in found["series"]:
        table.add_row(
            row["modality"],
            str(row["n_instances"]),
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['closes_in_seconds']:.0f}",
            row["series_instance_uid"],
        )
    return table


def _jobs(found: Look) -> Table:
    table = _table("Jobs", "job", "rule", "state", "step", "progress", "note")
    for row in found["jobs"][:MOST_ROWS]:
        bar = ProgressBar(total=1.0, completed=row["progress"], width=12)
        table.add_row(
            str(row["id"]), row["rule"], row["state"], row["step"], bar, row["progress_note"]
        )
    return table
