"""A table of patients: numbers by feature, class, group; and imputation from a reference cohort."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import KNNImputer

from models.gmlvq_config import BadTable, Feature, Outcome
from models.gmlvq_start import mean_and_scale

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "."})
LEAST_SHARE = 0.5
"""Rows with a smaller share of their features are not imputed."""


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Rows that can be used.

    Parameters
    ----------
    x : NDArray[np.float64]
        Shape (rows, features), in the units of the features; NaN where a value is missing.
    declining : NDArray[np.intp]
        Shape (rows,), 1 for the class that declines.
    group : NDArray[np.intp]
        Shape (rows,), a number for each patient; each row its own where there is no such column.
    left_out : dict
        Why how many rows or values were left out.
    """

    x: NDArray[np.float64]
    declining: NDArray[np.intp]
    group: NDArray[np.intp]
    left_out: dict[str, int]


def read_table(
    path: Path, features: Sequence[Feature], outcome: Outcome, group: str | None
) -> ClinicalTable:
    """Read CSV with a line of names; separated by comma, semicolon or tab.

    Raises
    ------
    BadTable
        A column is missing, a cell is no number, or a class has too few rows; lines are told by
        number, never by content.
    """
    header, lines = _lines(path)
    wanted = [feature.name for feature in features] + [outcome.column] + ([group] if group else [])
    absent = [name for name in wanted if name not in header]
    if absent:
        raise BadTable(f"{path} has no column {', '.join(absent)}.")
    place = {name: header.index(name) for name in wanted}
    classes = {outcome.stable: 0, outcome.declining: 1}
    x, declining, groups = [], [], []
    left_out = dict.fromkeys(
        ("of other classes", "without a required value", "with too few values"), 0
    )
    outside = 0
    for number, cells in lines:
        if len(cells) != len(header):
            raise BadTable(
                f"{path}, line {number}: {len(cells)} cells, the first line has {len(header)}."
            )
        label = classes.get(cells[place[outcome.column]].strip())
        if label is None:
            left_out["of other classes"] += 1
            continue
        row = np.array([_number(path, number, cells[place[f.name]], f.name) for f in features])
        odd = _impossible(row, features)
        outside += int(odd.sum())
        row[odd] = np.nan
        if any(f.required and np.isnan(v) for f, v in zip(features, row, strict=True)):
            left_out["without a required value"] += 1
        elif np.mean(~np.isnan(row)) < LEAST_SHARE:
            left_out["with too few values"] += 1
        else:
            x.append(row)
            declining.append(label)
            groups.append(cells[place[group]].strip() if group else str(number))
    left_out["values outside of their range"] = outside
    _refuse_few(path, declining, outcome)
    codes = np.unique(groups, return_inverse=True)[1]
    return ClinicalTable(np.array(x), np.array(declining), codes, left_out)


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadTable(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadTable(f"{path} is not UTF-8.") from error
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=separator)
    header = [name.strip() for name in next(reader, [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise BadTable(f"{path} has columns of the same name: {', '.join(twice)}.")
    return header, [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]


def _number(path: Path, line: int, cell: str, name: str) -> float:
    word = cell.strip()
    if word.casefold() in MISSING:
        return float("nan")
    try:
        value = float(word)
    except ValueError:
        raise BadTable(f"{path}, line {line}: {name} is no number.") from None
    if not np.isfinite(value):
        raise BadTable(f"{path}, line {line}: {name} is no finite number.")
    return value


def _impossible(row: NDArray[np.float64], features: Sequence[Feature]) -> NDArray[np.bool_]:
    lowest = np.array([f.range[0] if f.range else -np.inf for f in features])
    highest = np.array([f.range[1] if f.range else np.inf for f in features])
    return (row < lowest) | (row > highest)


def _refuse_few(path: Path, declining: Sequence[int], outcome: Outcome) -> None:
    for label, name in ((0, outcome.stable), (1, outcome.declining)):
        if declining.count(label) < 2:
            raise BadTable(f"{path} has fewer than two usable rows of class {name}.")


def impute(
    x: NDArray[np.float64], reference: NDArray[np.float64], neighbours: int
) -> NDArray[np.float64]:
    """Fill what is missing with the mean of the nearest rows of a reference cohort.

    Nearest by the standardised features that both rows have. Rows of `x` never fill each other,
    unless they are the reference themselves.

    Parameters
    ----------
    x : NDArray[np.float64]
        Shape (rows, features).
    reference : NDArray[np.float64]
        Shape (rows, features); may have holes.
    neighbours : int

    Raises
    ------
    ValueError
        A feature is missing in all of the reference.
    """
    if not np.isnan(x).any():
        return x
    mean, scale = mean_and_scale(reference, standardize=True)
    imputer = KNNImputer(n_neighbors=neighbours).fit((reference - mean) / scale)
    filled: NDArray[np.float64] = imputer.transform((x - mean) / scale) * scale + mean
    return np.where(np.isnan(x), filled, x)
