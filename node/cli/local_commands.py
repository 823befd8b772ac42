"""Commands that show why, and those that work without a running node."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from node.cli.app import (
    ConfigOption,
    JsonOption,
    app,
    fail,
    load_config,
    make_folder,
)
from node.cli.model_commands import TrustOption, model_folder
from node.cli.output import console, errors, show

USAGE = 2
PipelineOption = Annotated[str, typer.Option("--pipeline", "-p", help="Name of a pipeline.")]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Name of a model package, or its folder.")
]
DEFAULT_MODELS = {"haemorrhage": "haemorrhage-demo", "dementia": "dementia-demo"}


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
def score(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where results go.")],
    folder: Annotated[Path | None, typer.Argument(help="A folder of DICOM files.")] = None,
    study: Annotated[str, typer.Option(help="In place of a folder: Study Instance UID.")] = "",
    peer: Annotated[str, typer.Option("--from", help="The peer that sends the study.")] = "",
    pipeline: PipelineOption = "haemorrhage",
    model: ModelOption = "",
    named: Annotated[
        list[str] | None,
        typer.Option("--input", help="A further input of the model: NAME=FOLDER of one series."),
    ] = None,
    trust_code: TrustOption = False,
    given: Annotated[
        list[str] | None,
        typer.Option("--with", help="A score in place of a table's: --with mmse=27; repeatable."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a folder or a study of a peer, with the code of the node: SEG, SR, PNG, JSON."""
    if (folder is None) == (not study) or bool(study) != bool(peer):
        raise fail(
            "Name a folder, or a study and the peer that sends it: --study UID --from X.", USAGE
        )
    scores = dict(map(_named_score, given or ()))
    make_folder(out)
    if folder is not None:
        wish = _Wish(out, pipeline, model, _named(named or []), scores, trust_code)
        _score(folder, wish, config, as_json=as_json)
        return
    from node.cli.query_commands import into_folder

    with tempfile.TemporaryDirectory(prefix="scorenode-") as scratch:
        into_folder(peer, study, Path(scratch) / "study", config)
        wish = _Wish(out, pipeline, model, _named(named or []), scores, trust_code)
        _score(Path(scratch) / "study", wish, config, as_json=as_json)


@dataclass(frozen=True)
class _Wish:
    """What is to be scored with, and where results go."""

    out: Path
    pipeline: str
    model: str
    named: dict[str, Path]
    scores: Mapping[str, float]
    trust_code: bool


def _named(given: list[str]) -> dict[str, Path]:
    found = dict(item.partition("=")[::2] for item in given)
    if not all(found.values()):
        raise fail("Write further inputs as --input NAME=FOLDER.", USAGE)
    return {name: Path(folder) for name, folder in found.items()}


def _named_score(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise fail(
            f"'{text[:64]}' is no score. Write a name and a number: mmse=27.", USAGE
        ) from None


def _score(folder: Path, wish: _Wish, config: Path | None, *, as_json: bool) -> None:
    from pipelines.base import Misconfigured
    from pipelines.catalogue import PIPELINES
    from pipelines.offline import in_runner, score_folder
    from pipelines.steps.run import run_step

    pipeline = wish.pipeline

    if not folder.is_dir():
        raise fail(f"There is no folder {folder}.", USAGE)
    if pipeline not in PIPELINES:
        raise fail(f"There is no pipeline {pipeline}; there are: {', '.join(PIPELINES)}.", USAGE)
    loaded = load_config(config) if config else None
    folders = loaded.models.folders if loaded else ()
    package = model_folder(wish.model or DEFAULT_MODELS.get(pipeline, ""), folders)
    trusted = wish.trust_code or bool(loaded and package.name in loaded.models.trust)
    try:
        with progress_bar("scoring") as move:
            outcomes = score_folder(
                folder,
                pipeline,
                package,
                wish.out,
                move,
                run=in_runner() if trusted else run_step,
                scores=wish.scores,
                named=wish.named,
                trust_code=trusted,
            )
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


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where NIfTI and JSON go.")],
    dicom2nifti: Annotated[
        bool, typer.Option(help="Keep the file of dicom2nifti where it is right.")
    ] = True,
    gzip: Annotated[bool, typer.Option(help="Write .nii.gz, or .nii.")] = True,
    deflated: Annotated[bool, typer.Option(help="Inflate deflated data sets.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a folder to NIfTI and a JSON of facts: every volume, and what is in none."""
    from pipelines.conversion import Options, convert_folder
    from pipelines.folders import content_of

    if not folder.is_dir():
        raise fail(f"There is no folder {folder}.", USAGE)
    make_folder(out)
    with progress_bar("converting") as move:
        content = content_of(folder)
        found = convert_folder(folder, out, move, Options(dicom2nifti, gzip, deflated), content)
    if content.passed_over:
        errors.print(content.passed_over)
    rows = [
        {
            "series_instance_uid": item.series_instance_uid,
            "modality": item.modality,
            "instances": item.instances,
            "images": item.images,
            "used": item.images_used,
            "files": ", ".join(name for volume in item.volumes for name in volume["files"]),
            "reason": item.reason,
            "sentence": item.sentence,
        }
        for item in found
    ]
    columns = ["modality", "instances", "images", "used", "files", "sentence"]
    show(rows, columns, as_json=as_json)
    if not any(item.volumes for item in found):
        raise typer.Exit(1)


@app.command()
def features(
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM files, searched to any depth.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file; a second run goes on.")],
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    priors: Annotated[
        Path | None,
        typer.Option(help="Folder of your own tissue maps: gm, wm and csf as .nii.gz."),
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder for voxel maps of 4 mm, one NIfTI a head.")
    ] = None,
) -> None:
    """Write volumes of grey matter of every T1 head of an archive, for training on own patients."""
    from pipelines.base import Misconfigured
    from pipelines.grey_features import write_features

    try:
        with progress_bar("Features") as move:
            count = write_features(folder, out, move, device=device, priors=priors, maps=maps)
    except Misconfigured as error:
        raise fail(str(error), USAGE) from None
    console.print(
        f"{count.measured} heads measured, {count.refused} series refused with their reason, "
        f"{count.known} known from an earlier run: {out}"
    )


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
