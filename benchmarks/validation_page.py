"""The page that shows which validator saw which defect."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.planted import Defect
from node.validation import Judged

KINDS = {
    "seg": "SEG",
    "sr": "SR",
    "capture": "SC",
    "labelmap": "Label Map",
    "sr3d": "SR 3D",
    "outlines": "SR outlines",
    "text": "Text SR",
    "pdf": "PDF",
    "rtstruct": "RTSTRUCT",
    "rejection": "KOS",
}
KNOWN = 43
TRUE_ALARMS = {("sr_document.dcm", "uid_of_source")}
"""Others' objects that are not good after all: an SR under the Series Instance UID of its CT."""


@dataclass(frozen=True)
class Row:
    """What became of one defect, by validator; an empty word: unnoticed."""

    defect: Defect
    seen: Mapping[str, str]


def page(
    rows: Sequence[Row],
    good: Sequence[Judged],
    others: Sequence[Judged],
    folder: Path,
    when: date,
) -> tuple[str, bool]:
    """Write the page, and say whether ours missed something or raised a false alarm.

    Parameters
    ----------
    rows : sequence of Row
        The 43 known defects first.
    good : sequence of Judged
        What we say of our own good objects.
    others : sequence of Judged
        What we say of objects that other programs made.
    folder : Path
        Where those are, to ask dciodvfy about them too.
    when : date
    """
    names = list(rows[0].seen)
    missed = [row for row in rows if not row.seen["ours"]]
    alarms = [item for item in (*good, *others) if _false_alarms(item)]
    text = [
        "# Validators side by side",
        "",
        f"Measured on {when} by `python -m benchmarks.validation`: {len(rows)} defects, planted "
        "one at a time in good objects of our own. *error*, *warning*: the program says something "
        "it does not say of the good object; for ours it must be the reason that fits the defect. "
        "Bold: the twelve that no public validator saw when the list was made.",
        "",
        f"{_versions()}",
        "",
        *_summary(rows, names),
        "",
        "## Defect by defect",
        "",
        "| in | defect | our reason | " + " | ".join(names) + " |",
        "| --- " * (3 + len(names)) + "|",
        *(_line(row, names) for row in rows),
        "",
        "## Good objects",
        "",
        "What ours says of good objects without looking at who made them; errors are alarms.",
        "",
        "| object | compared with | ours: errors | warnings | dciodvfy: errors |",
        "| --- | --- | --- | --- | --- |",
        *_goods(good, others, folder),
        "",
        "Warnings name codes of the retired scheme SRT and meanings that PS3.16 words differently. "
        "The one error is true: that report bears the Series Instance UID of the CT series beside "
        "it. dciodvfy's errors on the label map come from its age: it does not know that class.",
        "",
    ]
    return "\n".join(text), bool(missed or alarms)


def _summary(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    yield "| defects | " + " | ".join(names) + " |"
    yield "| --- " * (1 + len(names)) + "|"
    for title, some in (
        ("the 43 known", rows[:KNOWN]),
        ("of these, the twelve seen by no public validator", _unseen(rows)),
        ("further ones, of objects together and of other classes", rows[KNOWN:]),
    ):
        counts = [
            f"{sum(bool(row.seen.get(name)) for row in some)} of {len(some)}" for name in names
        ]
        yield f"| {title} | " + " | ".join(counts) + " |"


def _unseen(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.defect.unseen]


def _line(row: Row, names: Sequence[str]) -> str:
    name = f"**{row.defect.name}**" if row.defect.unseen else row.defect.name
    seen = " | ".join(row.seen.get(validator, "n/a") or "-" for validator in names)
    return f"| {KINDS[row.defect.kind]} | {name} | `{row.defect.rule}` | {seen} |"


def _false_alarms(item: Judged) -> list[str]:
    return [
        defect.rule
        for defect in item.defects
        if defect.severity == "error" and (item.file.name, defect.rule) not in TRUE_ALARMS
    ]


def _goods(good: Sequence[Judged], others: Sequence[Judged], folder: Path) -> Iterator[str]:
    for item in (*good, *others):
        ours = item in good
        name = f"our {item.file.stem}" if ours else str(item.file.relative_to(folder))
        counts = [
            sum(defect.severity == severity for defect in item.defects)
            for severity in ("error", "warning")
        ]
        noun = "image" if item.images == 1 else "images"
        with_what = f"{item.images} {noun}" if item.images else "nothing"
        theirs = _dciodvfy_errors(item.file)
        yield f"| {name} | {with_what} | {counts[0]} | {counts[1]} | {theirs} |"


def _dciodvfy_errors(path: Path) -> int | str:
    try:
        done = subprocess.run(
            ["dciodvfy", "-new", str(path)],
            capture_output=True,
            check=False,
            timeout=60,
            encoding="latin-1",
        )
    except OSError:
        return "n/a"
    return sum(line.startswith("Error") for line in done.stderr.splitlines())


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("pydicom", "highdicom", "dcmqi"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"With {', '.join(found)} and dicom3tools as Debian 12 has it (1.00~20220618)."
