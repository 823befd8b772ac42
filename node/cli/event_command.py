"""What happened, and who did it."""

from __future__ import annotations

from typing import Annotated

import typer

from node.cli.app import LARGEST, ConfigOption, JsonOption, LimitOption, app, store
from node.cli.output import print_json, show


@app.command()
def events(
    config: ConfigOption = None,
    job: Annotated[int | None, typer.Option(max=LARGEST, help="Only of this job.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as job.cancelled.")] = (
        None
    ),
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List what happened, the latest first; acts of admins say who."""
    from storage.events import events_list

    with store(config) as database, database.snapshot() as tx:
        rows = events_list(tx, limit, job, kind)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["what"] = ", ".join(f"{key}: {value}" for key, value in row["data"].items() if value)
    show(rows, ["at", "kind", "job_id", "series_id", "what"], as_json=False)
