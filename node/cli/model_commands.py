"""Commands about model packages."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import (
    PROBLEM,
    USAGE,
    ConfigOption,
    JsonOption,
    fail,
    load_config,
    models_app,
    store,
)
from node.cli.output import console, print_json, show

VERIFY_SECONDS = 900
NameArgument = Annotated[str, typer.Argument(help="Name of a model package, or its folder.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; readers of the log see it.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-code", help="Let the package run code of its own.")
]


def model_folder(name: str, folders: Sequence[Path]) -> Path:
    """Folder of a package, given its name or the folder itself."""
    from models.base import BrokenPackage
    from models.catalogue import find_package

    if name and Path(name, "model.yaml").is_file():
        return Path(name)
    try:
        return find_package(name, folders)
    except BrokenPackage as error:
        raise fail(str(error), USAGE) from None


def _folders(config: Path | None) -> tuple[Path, ...]:
    return tuple(load_config(config).models.folders) if config else ()


@models_app.command("ls")
def models_ls(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the model packages there are, with what is wrong with them."""
    from models.catalogue import list_packages

    found = sorted(list_packages(_folders(config)).items())
    rows = [_row(name, folder) for name, folder in found]
    show(rows, ["name", "version", "intended_use", "status", "title", "trouble"], as_json=as_json)
    if any(row["trouble"] for row in rows):
        raise typer.Exit(PROBLEM)


def _row(name: str, folder: Path) -> dict[str, str]:
    from models.base import BrokenPackage
    from models.loading import load_identity
    from models.status import status_of

    row = dict.fromkeys(("version", "intended_use", "status", "title", "sha256", "trouble"), "")
    row |= {"name": name, "folder": str(folder)}
    try:
        row["status"] = status_of(folder)[0]
        identity = load_identity(folder)
    except BrokenPackage as error:
        return row | {"trouble": str(error)}
    keys = ("version", "intended_use", "title", "sha256")
    return row | {key: getattr(identity, key) for key in keys}


@models_app.command("show")
def models_show(
    name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show what a package is, takes and says."""
    from models.base import BrokenPackage
    from models.loading import read_any

    folder = model_folder(name, _folders(config))
    try:
        package = read_any(folder)
    except BrokenPackage as error:
        raise fail(str(error)) from None
    manifest = package.manifest.model_dump(by_alias=True, mode="json")
    if as_json:
        print_json(manifest | {"folder": str(folder), "sha256": package.identity.sha256})
        return
    for key in ("title", "family", "version", "status", "intended_use", "licence"):
        console.print(f"[bold]{key}[/] {manifest[key]}", highlight=False)
    console.print(f"[bold]sha256[/] {package.identity.sha256}", highlight=False)
    console.print(f"[bold]runtime[/] {package.manifest.runtime.kind}\n", highlight=False)
    show([_input_row(k, v) for k, v in package.manifest.channels.items()], _INPUT, as_json=False)
    console.print()
    if "features" in manifest:
        show(manifest["features"], _FEATURE, as_json=False)
    else:
        show([vars(segment) for segment in package.segments], _SEGMENT, as_json=False)


_INPUT = ["input", "modality", "plane", "slices", "slice_step_mm", "coverage_mm"]
_FEATURE = ["name", "label", "unit", "range", "required", "regions"]
_SEGMENT = ["number", "label", "side", "category", "type", "color"]


def _input_row(name: str, wanted: Any) -> dict[str, str]:
    limits = {
        key: f"{getattr(wanted, key).min:g} to {getattr(wanted, key).max:g}"
        for key in ("slices", "slice_step_mm", "coverage_mm")
    }
    return {"input": name, "modality": wanted.modality, "plane": wanted.plane, **limits}


@models_app.command("verify")
def models_verify(
    name: NameArgument,
    config: ConfigOption = None,
    trust_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a package completely: every mistake of its manifest, digests, test vector."""
    from models.base import BrokenPackage
    from models.loading import read_any

    loaded = load_config(config) if config else None
    folder = model_folder(name, loaded.models.folders if loaded else ())
    try:
        read_any(folder)
    except BrokenPackage as error:
        _tell(False, error.mistakes or [str(error)], as_json=as_json)
        raise typer.Exit(PROBLEM) from None
    trusted = trust_code or bool(loaded and folder.name in loaded.models.trust)
    answer = _verified(folder, trust_code=trusted)
    _tell(answer["ok"], [answer["sentence"]], as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(PROBLEM)


def _tell(ok: bool, sentences: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": ok, "sentences": list(sentences)})
        return
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _verified(folder: Path, *, trust_code: bool) -> dict[str, Any]:
    """Load a package in a process of its own: code of others does not run in this one."""
    return _child("models.verifying", str(folder), *(["--trust-code"] if trust_code else []))


def _child(module: str, *arguments: str) -> dict[str, Any]:
    """Have a process of its own say in one line of JSON how something went."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=VERIFY_SECONDS)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return _failed(f"It did not load within {VERIFY_SECONDS} s.")
    except (ValueError, IndexError):
        return _failed(f"Loading ended its process ({done.returncode}).")
    return found


def _failed(sentence: str) -> dict[str, Any]:
    return {"ok": False, "sentence": sentence, "sentences": [sentence]}


@models_app.command("package")
def models_package(
    folder: Annotated[Path, typer.Argument(help="Weights and a model.yaml without digests.")],
    sample: Annotated[
        list[str] | None,
        typer.Option(help="An image (NIfTI) for the test vector; NAME=FILE for further inputs."),
    ] = None,
    trust_code: TrustOption = False,
) -> None:
    """Finish a package: digests, test vector, and the proof that it loads."""
    volume = _sample(sample or ())
    digest = _packaged_apart(folder, volume) if trust_code else _packaged(folder, volume)
    console.print(f"{folder} is a package: {digest}", highlight=False)


def _packaged(folder: Path, sample: Any) -> str:
    from models.base import BrokenPackage
    from models.packaging import finish_package

    try:
        return finish_package(folder, sample).identity.sha256
    except BrokenPackage as error:
        raise fail("\n".join(error.mistakes or [str(error)])) from None
    except OSError as error:
        raise fail(f"{error.filename or folder} cannot be used: {error.strerror}.") from None


def _packaged_apart(folder: Path, sample: Any) -> str:
    """Finish a package in a process of its own: code of others does not run in this one."""
    from models.packaging import save_sample

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "sample.npz")
        if sample is not None:
            save_sample(path, sample)
        given = [] if sample is None else [str(path)]
        answer = _child("models.packaging_child", str(folder), *given)
    if not answer["ok"]:
        raise fail("\n".join(answer["sentences"]))
    digest: str = answer["sentences"][0]
    return digest


def _sample(given: Sequence[str]) -> Any:
    """Volume of NIfTI files; further ones by name."""
    from pipelines.steps.nifti import volume_of_files

    if not given:
        return None
    named = dict(item.partition("=")[::2] for item in given if "=" in item)
    first = [item for item in given if "=" not in item]
    if len(first) != 1:
        raise fail("Name one image without a name, and further ones as NAME=FILE.", USAGE)
    try:
        return volume_of_files(Path(first[0]), {name: Path(path) for name, path in named.items()})
    except (OSError, ValueError) as error:
        raise fail(f"The sample cannot be read: {error}", USAGE) from None


def _set_status(name: str, status: str, reason: str, config: Path | None) -> None:
    """Write a status into a package, and stop or release the jobs of the node at once."""
    from models.base import BrokenPackage
    from models.status import set_status, stopped_models
    from storage import job_admin, recalls

    folders = tuple(load_config(config).models.folders)
    folder = model_folder(name, folders)
    try:
        set_status(folder, status, reason)
    except BrokenPackage as error:
        raise fail(str(error)) from None
    with store(config) as database:
        with database.transaction() as tx:
            if status == "active":
                jobs = job_admin.release_held(tx, "config")
            else:
                sentence = stopped_models(folders).get(folder.name, f"{name} is {status}.")
                jobs = recalls.stop(tx, folder.name, sentence)
        with database.snapshot() as tx:
            left = recalls.sent(tx, folder.name)
    word = "released" if status == "active" else "stopped"
    console.print(f"{folder.name} is {status}; {jobs} jobs {word}.", highlight=False)
    if status != "active":
        console.print(f"\n{len(left)} results of it have been sent:")
        show(left, _LEFT, as_json=False)


_LEFT = ["sent_at", "destination", "slot", "study_instance_uid", "sop_instance_uid"]


@models_app.command("recall")
def models_recall(name: NameArgument, reason: ReasonOption, config: ConfigOption = None) -> None:
    """Stop a model that is found to be unsafe; list which of its results have been sent."""
    _set_status(name, "recalled", reason, config)


@models_app.command("withdraw")
def models_withdraw(name: NameArgument, reason: ReasonOption, config: ConfigOption = None) -> None:
    """Stop a model that is no longer to be used; list which of its results have been sent."""
    _set_status(name, "withdrawn", reason, config)


@models_app.command("restore")
def models_restore(name: NameArgument, config: ConfigOption = None) -> None:
    """Let a model that was recalled or withdrawn be used again."""
    _set_status(name, "active", "", config)


@models_app.command("sent")
def models_sent(
    name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the results of a model that have been sent, and where they went."""
    from storage import recalls

    with store(config) as database, database.snapshot() as tx:
        rows = recalls.sent(tx, Path(name).name)
    show(rows, _LEFT, as_json=as_json)


@models_app.command("import")
def models_import(
    source: Annotated[
        Path,
        typer.Argument(
            help="A MONAI bundle, an nnU-Net v2 folder, a file of weights, or, on an MLflow server,"
            " models:/NAME@ALIAS or models:/NAME/VERSION."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new package.")],
    modality: Annotated[str, typer.Option(help="DICOM Modality, where it is not told.")] = "",
    orient: Annotated[str, typer.Option(help="How the model's images lay, such as RAS.")] = "",
    fold: Annotated[
        str, typer.Option(help="Of nnU-Net: 0 to 4, or all; else the mean of those there are.")
    ] = "",
    codes: Annotated[Path | None, typer.Option(help="YAML: keys of each structure.")] = None,
    sample: Annotated[
        list[str] | None, typer.Option(help="An image (NIfTI) of its training; NAME=FILE for more.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option("--mlflow", envvar="MLFLOW_TRACKING_URI", help="The MLflow server."),
    ] = None,
) -> None:
    """Make a package of somebody's model; nothing in its files is run."""
    from models.base import BrokenPackage
    from models.importing import Wishes, import_file, import_model, read_codes

    if str(source).startswith("models:"):
        _fetch(str(source), mlflow, out)
        return
    try:
        if source.is_file():
            tensors = import_file(source, out)
            console.print(f"{out}/weights.safetensors has {len(tensors)} tensors. Next: arch.json")
            console.print("and model.yaml (docs/models.md), then scorenode models package.")
            return
        wishes = Wishes(modality, orient, fold, read_codes(codes) if codes else None)
        package, remarks = import_model(source, out, wishes, _sample(sample or ()))
    except BrokenPackage as error:
        raise fail("\n".join(error.mistakes or [str(error)])) from None
    except OSError as error:
        raise fail(f"{error.filename or out} cannot be used: {error.strerror}.") from None
    console.print(f"{out} is a package: {package.identity.sha256}", highlight=False)
    for remark in remarks:
        console.print(f"- {remark}.", soft_wrap=True, highlight=False, markup=False)


def _fetch(model: str, uri: str | None, out: Path) -> None:
    """Fetch a package that is registered at an MLflow server."""
    from models.base import BrokenPackage
    from node.mlflow_packages import fetch_package
    from node.mlflow_server import MLflowError, MLflowServer

    if not uri:
        raise fail("Name the MLflow server: --mlflow http://host:5000.", USAGE)
    try:
        digest = fetch_package(MLflowServer(uri), model, out)
    except (BrokenPackage, MLflowError) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or out} cannot be used: {error.strerror}.") from None
    console.print(f"{out} is a package: {digest}", highlight=False)
