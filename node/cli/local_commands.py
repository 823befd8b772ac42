"""Commands that show why, and those that work without a running node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from node.cli.app import (
    ConfigOption,
    JsonOption,
    app,
    fail,
    load_config,
    models_app,
    store,
    train_app,
)
from node.cli.output import console, print_json, show

USAGE = 2
PipelineOption = Annotated[str, typer.Option("--pipeline", "-p", help="Name of a pipeline.")]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Name of a model package, or its folder.")
]
DEFAULT_MODELS = {"haemorrhage": "haemorrhage-demo"}


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, str], None]]:
    """Show a bar on a terminal; give a function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(what, total=1.0)

        def move(fraction: float, note: str) -> None:
            bars.update(bar, completed=fraction, description=f"{what}: {note}")

        yield move


@app.command()
def explain(
    what: Annotated[str, typer.Argument(help="Series Instance UID, or a folder of DICOM files.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a series was or was not scored: every rule, value wanted, value found."""
    from node.explain import as_json as to_json
    from node.explain import render

    folder = Path(what)
    is_folder = folder.is_dir()
    answers = _explain_folder(folder, config) if is_folder else _explain_series(what, config)
    if not answers:
        raise fail(f"There is no series {what} in this node, and no folder of that name.")
    if as_json:
        print_json([to_json(*answer) for answer in answers])
        return
    for answer in answers:
        console.print(render(*answer))
        console.print()


Answer = tuple[Any, Any, Any]
"""Decisions, series and jobs, as `node.explain` takes them."""


def _explain_folder(folder: Path, config: Path | None) -> list[Answer]:
    from node.cli.folders import series_of
    from node.explain import SeriesSummary
    from node.routing import SeriesFacts, decide, header_keys

    rules = load_config(config).rules
    found, passed_over = series_of(folder, header_keys(rules))
    if passed_over:
        console.print(f"{passed_over} files are not DICOM or damaged, and were passed over.")
    answers: list[Answer] = []
    for item in found:
        facts = SeriesFacts(
            item.study_instance_uid,
            item.series_instance_uid,
            item.modality,
            item.headers,
            len(item.headers),
            "quiet",
        )
        summary = SeriesSummary(
            item.study_instance_uid,
            item.series_instance_uid,
            item.modality,
            "folder",
            0,
            len(item.headers),
        )
        answers.append((decide(rules, facts), summary, ()))
    return answers


def _explain_series(uid: str, config: Path | None) -> list[Answer]:
    from storage import queries

    loaded = load_config(config)
    with store(config) as database, database.snapshot() as tx:
        shown = [queries.series_show(tx, item) for item in queries.series_ids(tx, uid)]
        jobs = {
            job["id"]: queries.job_show(tx, job["id"]) for item in shown for job in item["jobs"]
        }
        return [_answer(item, jobs, loaded, tx.now) for item in shown]


def _answer(item: dict[str, Any], jobs: dict[int, Any], config: Any, now: Any) -> Answer:
    from node.explain import DeliverySummary, JobSummary, SeriesSummary
    from node.routing import Decision

    is_open = item["state"] == "open"
    quiet = config.completion.quiet_seconds
    summary = SeriesSummary(
        item["study_instance_uid"],
        item["series_instance_uid"],
        item["modality"],
        item["state"],
        item["generation"],
        item["instances"],
        item["generations"][-1]["verdict"] if item["generations"] and not is_open else "",
        quiet - (now - item["last_at"]).total_seconds() if is_open else None,
    )
    summaries = [
        JobSummary(
            job["id"],
            job["rule"],
            job["pipeline"],
            job["state"],
            job["step"],
            job["sentence"],
            tuple(
                DeliverySummary(d["destination"], d["slot"], d["state"], d["sentence"])
                for d in jobs[job["id"]]["deliveries"]
            ),
        )
        for job in item["jobs"]
    ]
    return [Decision.from_json(row["data"]) for row in item["decisions"]], summary, summaries


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where results go.")],
    pipeline: PipelineOption = "haemorrhage",
    model: ModelOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a folder offline, with the code of the node: SEG, SR, PNG, findings.json."""
    from pipelines.base import Misconfigured
    from pipelines.catalogue import PIPELINES
    from pipelines.offline import score_folder

    if not folder.is_dir():
        raise fail(f"There is no folder {folder}.", USAGE)
    if pipeline not in PIPELINES:
        raise fail(f"There is no pipeline {pipeline}; there are: {', '.join(PIPELINES)}.", USAGE)
    folders = load_config(config).models.folders if config else ()
    model_folder = _model_folder(model or DEFAULT_MODELS.get(pipeline, ""), folders)
    try:
        with progress_bar("scoring") as move:
            outcomes = score_folder(folder, pipeline, model_folder, out, move)
    except Misconfigured as error:
        raise fail(str(error), USAGE) from None
    rows = [
        {
            "series_instance_uid": item.series_instance_uid,
            "modality": item.modality,
            "instances": item.instances,
            "outcome": item.verdict.outcome,
            "reason": item.verdict.reason,
            "sentence": item.verdict.sentence,
            "folder": str(item.folder or ""),
        }
        for item in outcomes
    ]
    show(rows, ["modality", "instances", "outcome", "sentence", "folder"], as_json=as_json)
    if not any(item.verdict.outcome == "ok" for item in outcomes):
        raise typer.Exit(1)


def _model_folder(name: str, folders: Sequence[Path]) -> Path:
    from models.base import BrokenPackage
    from models.catalogue import find_package

    if Path(name, "model.yaml").is_file():
        return Path(name)
    try:
        return find_package(name, folders)
    except BrokenPackage as error:
        raise fail(str(error), USAGE) from None


@app.command()
def demo(
    study: Annotated[
        Path | None, typer.Option(help="A folder of DICOM files instead of the phantom.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep everything in this new folder.")] = None,
) -> None:
    """Run the main job once: node, PACS, a study in, results back."""
    from node.cli.demo import DemoFailed
    from node.cli.demo import demo as run_demo

    try:
        arrived = run_demo(study, keep, console)
    except DemoFailed as error:
        raise fail(str(error)) from None
    if not arrived:
        raise typer.Exit(1)


@models_app.command("ls")
def models_ls(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the model packages there are, with what is wrong with them."""
    from models.catalogue import list_packages

    folders = load_config(config).models.folders if config else ()
    rows = [_model_row(name, folder) for name, folder in sorted(list_packages(folders).items())]
    show(rows, ["name", "version", "intended_use", "title", "trouble"], as_json=as_json)
    if any(row["trouble"] for row in rows):
        raise typer.Exit(1)


def _model_row(name: str, folder: Path) -> dict[str, str]:
    from models.base import BrokenPackage
    from models.package import load_package

    row = dict.fromkeys(("version", "intended_use", "title", "sha256", "trouble"), "")
    row |= {"name": name, "folder": str(folder)}
    try:
        identity = load_package(folder).identity
    except BrokenPackage as error:
        return row | {"trouble": str(error)}
    keys = ("version", "intended_use", "title", "sha256")
    return row | {key: getattr(identity, key) for key in keys}


@train_app.command("haemorrhage")
def train_haemorrhage(
    out: Annotated[Path, typer.Option("--out", "-o", help="The new model package.")],
    phantoms: Annotated[int, typer.Option(min=30, help="How many head CT phantoms.")] = 240,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 600,
    seed: Annotated[int, typer.Option(help="The same seed trains the same weights.")] = 1,
) -> None:
    """Train the demonstration model for haemorrhage on our own phantoms."""
    from models import training

    with progress_bar("training") as move:
        metrics = training.train_haemorrhage(
            out, phantoms=phantoms, steps=steps, seed=seed, progress=move
        )
    print_json(metrics)
