"""Tables that lie beside labelled volumes: who the patient is, and what kind of case it is."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path


def read_csv(path: Path, mistakes: list[str]) -> list[dict[str, str]]:
    """Read the rows of a table, keys in small letters; what is wrong is added to `mistakes`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        mistakes.append(f"{path.name} cannot be read as CSV in UTF-8 ({type(error).__name__})")
        return []
    if not rows:
        mistakes.append(f"{path.name} has no rows")
    return [
        {(k or "").strip().lower(): (v or "").strip() for k, v in row.items() if isinstance(v, str)}
        for row in rows
    ]


_CT_ICH_KINDS = {
    "intraventricular": "ivh",
    "intraparenchymal": "iph",
    "subarachnoid": "sah",
    "epidural": "edh",
    "subdural": "sdh",
}


def ct_ich_rows(folder: Path, mistakes: list[str]) -> dict[str, dict[str, str]]:
    """Kind of each patient of CT-ICH: the kind that most of the slices show."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted(folder.glob("*diagnosis*.csv")):
        rows = read_csv(path, mistakes)
        numbers = [_patient_of(row) for row in rows]
        is_ours = (folder / "ct_scans").is_dir()
        if is_ours and rows and not any(number.isdecimal() for number in numbers):
            mistakes.append(f"{path.name} has no row with a patient's number, after commas")
        for number, row in zip(numbers, rows, strict=True):
            if not number.isdecimal():
                continue
            name = f"{int(number):03d}"
            found[name]["none"] += 0
            for column, kind in _CT_ICH_KINDS.items():
                if row.get(column) == "1":
                    found[name][kind] += 1
    return {
        name: {"patient": name, "kind": max(kinds, key=lambda kind: kinds[kind])}
        for name, kinds in found.items()
    }


def _patient_of(row: Mapping[str, str]) -> str:
    return next((value for key, value in row.items() if key.startswith("patient")), "")
