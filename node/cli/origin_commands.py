"""Commands about one result: where it came from, and taking it back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from node.cli.app import (
    ConfigOption,
    JobArgument,
    JsonOption,
    app,
    fail,
    load_config,
    store,
)
from node.cli.output import console, print_json, show


@app.command()
def why(
    uid: Annotated[
        str, typer.Argument(help="SOP Instance UID of a result, or its Series Instance UID.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what a result was made of: images, rule, model, software, times, destinations."""
    from storage import results

    with store(config) as database, database.snapshot() as tx:
        found = [results.origin(tx, one) for one in results.results_named(tx, uid)]
        received = None if found else results.received_in(tx, uid)
    if received is not None:
        raise fail(
            f"{uid} is an image that was sent to us, in series {received}. What became of it: "
            f"scorenode explain {received}."
        )
    if not found:
        raise fail(f"{uid} is no result of this node, and no image it keeps.")
    if as_json:
        print_json(found)
        return
    for item in found:
        _show_origin(item)


def _show_origin(item: dict[str, Any]) -> None:
    result, job, made = item["result"], item["job"], facts_of_report(item["steps"])
    model, template = made.get("model") or {}, made.get("template")
    decision = item["decision"]
    lines = {
        "Result": f"{result['slot']} {result['sop_instance_uid']}",
        "Made": f"{result['made_at'].astimezone():%Y-%m-%d %H:%M:%S}, SHA-256 {result['sha256']}",
        "Job": f"{job['id']}, {job['state']}: {job['sentence']}",
        "Rule": f"{job['rule']} ({job['mode']}), configuration {job['config_digest']}",
        "Decision": "not kept" if decision is None else decision["sentence"],
        "Model": f"{job['model']}: {model.get('name', '?')} {model.get('version', '?')}",
        "Manifest": model.get("sha256") or job["snapshot"].get("model_digest") or "not kept",
        "Weights": model.get("weights_sha256", "not kept"),
        "Pipeline": job["pipeline"],
        "Software": f"scorenode {made.get('software', '(not kept)')}",
        "Template": "the pipeline's own"
        if template is None
        else f"{template['name']} {template['version']}, SHA-256 {template['sha256']}",
    }
    for name, line in lines.items():
        console.print(f"[bold]{name:9}[/] ", end="")
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("\n[bold]Images[/]")
    columns = ["role", "series_instance_uid", "modality", "generation", "n_instances", "verdict"]
    show(item["inputs"], [*columns, "input_digest"], as_json=False)
    console.print("\n[bold]Steps[/]")
    show(item["steps"], ["step", "outcome", "started_at", "ended_at", "sentence"], as_json=False)
    console.print("\n[bold]Destinations[/]")
    show(
        item["deliveries"], ["destination", "state", "sent_at", "status", "sentence"], as_json=False
    )
    console.print()


def facts_of_report(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the last report step that ended well told of itself."""
    done = [row for row in steps if row["step"] == "report" and row["outcome"] == "ok"]
    return dict(done[-1]["facts"]) if done else {}


@app.command()
def retract(
    job_id: JobArgument,
    reason: Annotated[
        str,
        typer.Option(help="For the reader of the note, in a sentence; nothing about the patient."),
    ],
    config: ConfigOption = None,
) -> None:
    """Take the results of a job back: rejection notes go to whoever has any of them."""
    from node.retracting import NotRetractable
    from node.retracting import retract as take_back
    from storage.objects import FileObjects

    objects = FileObjects(load_config(config).node.data_folder)
    with store(config) as database:
        try:
            done = take_back(database, objects, job_id, reason)
        except NotRetractable as error:
            raise fail(str(error)) from None
    if done.told_by is None:
        console.print(f"Job {job_id} is taken back; nobody had any of its results.")
        return
    console.print(
        f"Job {job_id} is taken back: a rejection note of {len(done.results)} objects goes to "
        f"{', '.join(done.destinations)} (job {done.told_by}; scorenode jobs show "
        f"{done.told_by}).",
        soft_wrap=True,
        highlight=False,
    )
