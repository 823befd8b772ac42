"""Commands about objects as files: whether they may leave, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import PROBLEM, USAGE, JsonOption, app, fail
from node.cli.output import print_json, show


@app.command()
def validate(
    files: Annotated[
        list[Path],
        typer.Argument(help="DICOM files or folders: results, and the images they were made from."),
    ],
    strict: Annotated[
        bool, typer.Option("--strict", help="Judge others' objects by the rules for ours.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge SEG, SR, captures and the like as the node does before they leave."""
    from node.validation import validate as judge

    missing = [path for path in files if not path.exists()]
    if missing:
        raise fail(f"There is no file or folder {missing[0]}.", USAGE)
    found = judge(files, strict=strict)
    if not found:
        raise fail("There is nothing among these files of a kind that we make.", USAGE)
    if as_json:
        print_json([_as_json(item) for item in found])
    else:
        rows = [row for item in found for row in _rows(item)]
        show(rows, ["file", "verdict", "reason", "sentence"], as_json=False)
    if any(item.verdict == "error" for item in found):
        raise typer.Exit(PROBLEM)


def _rows(item: Any) -> list[dict[str, str]]:
    """Table rows of one file: one for each defect, or one that says what was looked at."""
    if not item.defects:
        sentence = f"{item.kind}{', ours' if item.own else ''}; {_compared(item)}."
        return [{"file": str(item.file), "verdict": "good", "reason": "", "sentence": sentence}]
    return [
        {
            "file": str(item.file),
            "verdict": defect.severity,
            "reason": defect.rule,
            "sentence": f"{defect}. {defect.cure}",
        }
        for defect in item.defects
    ]


def _compared(item: Any) -> str:
    with_what = []
    if item.images:
        with_what.append(f"{item.images} image{'' if item.images == 1 else 's'}")
    if item.segmentation:
        with_what.append("its segmentation")
    return f"compared with {' and '.join(with_what)}" if with_what else "compared with nothing"


def _as_json(item: Any) -> dict[str, Any]:
    return {
        "file": str(item.file),
        "kind": item.kind,
        "verdict": item.verdict,
        "own": item.own,
        "images": item.images,
        "segmentation": item.segmentation,
        "defects": [
            {
                "severity": defect.severity,
                "reason": defect.rule,
                "where": defect.where,
                "sentence": str(defect),
                "cure": defect.cure,
            }
            for defect in item.defects
        ],
    }
