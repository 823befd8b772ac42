"""Commands that ask a peer for studies, and have them sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import USAGE, ConfigOption, JsonOption, app, fail, load_config, make_folder
from node.cli.output import console, print_json, show

FromOption = Annotated[str, typer.Option("--from", help="Name of the peer under peers:.")]
StudyOption = Annotated[str, typer.Option("--study", help="Study Instance UID.")]


def _peer(name: str, config: Path | None) -> tuple[Any, Any]:
    """Give the peer and where it is called."""
    from node.destinations import destination_of

    loaded = load_config(config)
    peer = loaded.peers.get(name)
    if peer is None or peer.address is None:
        raise fail(f"There is no peer {name} with an address in {loaded.path}.", USAGE)
    return peer, destination_of(peer, loaded.node.ae_title)


@app.command("find")
def find_command(
    peer: FromOption,
    patient: Annotated[str, typer.Option(help="Patient ID; * and ? stand for anything.")] = "",
    name: Annotated[str, typer.Option(help="Patient's Name; * and ? stand for anything.")] = "",
    date: Annotated[str, typer.Option(help="Study Date, such as 20260101-20260131.")] = "",
    modality: Annotated[str, typer.Option(help="A modality in the study.")] = "",
    study: StudyOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a peer for studies; with --study, for the series of one."""
    from node.query import QueryFailed, find

    _, there = _peer(peer, config)
    level = "SERIES" if study else "STUDY"
    keys = {"StudyInstanceUID": study} if study else {
        "PatientID": patient, "PatientName": name, "StudyDate": date,
        "ModalitiesInStudy": modality,
    }  # fmt: skip
    keys = {keyword: value for keyword, value in keys.items() if value}
    if not keys:
        raise fail("Say what to look for: --patient, --name, --date, --modality or --study.", USAGE)
    try:
        found = find(there, level, keys)
    except QueryFailed as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(found)
        return
    columns = (
        ["SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription",
         "NumberOfSeriesRelatedInstances"]
        if study
        else ["StudyInstanceUID", "StudyDate", "PatientID", "ModalitiesInStudy",
              "StudyDescription"]
    )  # fmt: skip
    rows = [{name: _text(row.get(name)) for name in columns} for row in found]
    show(rows, columns, as_json=False)


def _text(values: Any) -> str:
    return "\\".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values or ())


def into_folder(peer: str, study: str, folder: Path, config: Path | None) -> None:
    """Retrieve a whole study into a folder, or end with what went wrong."""
    from node.query import QueryFailed
    from node.retrieving import get_into_folder

    _, there = _peer(peer, config)
    try:
        counted = get_into_folder(there, study, "", folder)
    except QueryFailed as error:
        raise fail(str(error)) from None
    if not counted.is_complete:
        raise fail(_incomplete(counted))


def _incomplete(counted: Any) -> str:
    some = f"{counted.failed} images could not be sent."
    return some if counted.failed else "There is no image."


@app.command()
def retrieve(
    peer: FromOption,
    study: StudyOption,
    series: Annotated[str, typer.Option(help="Series Instance UID; all where left out.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Into this folder (C-GET).")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a peer send a study to this node (C-MOVE), or into a folder (C-GET).

    What is sent to the node by this command is received like anything else: rules apply.
    """
    from node.query import QueryFailed, move
    from node.retrieving import get_into_folder

    _, there = _peer(peer, config)
    if out is not None:
        make_folder(out)
    try:
        counted = get_into_folder(there, study, series, out) if out else move(there, study, series)
    except QueryFailed as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(vars(counted))
    else:
        where = f"in {out}" if out else "sent to this node"
        console.print(f"{counted.completed + counted.warned} images {where}.", highlight=False)
    if not counted.is_complete:
        why = (
            f"{counted.failed} images could not be sent."
            if counted.failed
            else "There is no image."
        )
        raise fail(why)
