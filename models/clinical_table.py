"""A table of patients: numbers by feature, class, group; and imputation from a reference cohort."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import KNNImputer

from models.ageing import Ageing, fit_ageing
from models.gmlvq_config import ICV, BadTable, Feature, Outcome
from models.gmlvq_start import mean_and_scale

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "."})
PRIORS = "priors"
"""Column that says which tissue maps volumes were measured with."""
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
MOST_TOLD = 20
"""Lines whose mistakes are told at once."""
LEAST_SHARE = 0.5
"""Rows with a smaller share of their features are not imputed."""


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Rows that can be used.

    Parameters
    ----------
    x : NDArray[np.float64]
        Shape (rows, features), in the units of the features; NaN where a value is missing. What
        was measured in images is as at the age of the row.
    declining : NDArray[np.intp]
        Shape (rows,), 1 for the class that declines.
    group : NDArray[np.intp]
        Shape (rows,), a number for each patient; each row its own where there is no such column.
    left_out : dict
        Why how many rows or values were left out.
    features : tuple of Feature
    age : NDArray[np.float64] or None
        Shape (rows,), years; None where no feature is measured in images.
    """

    x: NDArray[np.float64]
    declining: NDArray[np.intp]
    group: NDArray[np.intp]
    left_out: dict[str, int]
    features: tuple[Feature, ...] = ()
    age: NDArray[np.float64] | None = None

    def ageing(self, rows: NDArray[np.intp]) -> Ageing | None:
        """Learn what age does to measured features from the stable people among some rows.

        Raises
        ------
        BadTable
            They are too few, or of one age.
        """
        if self.age is None:
            return None
        measured = [k for k, feature in enumerate(self.features) if feature.regions]
        whole = np.isfinite(self.x[rows][:, measured]).all(axis=1)
        stable = rows[whole & (self.declining[rows] == 0)]
        lines = [{self.features[k].name: float(self.x[i, k]) for k in measured} for i in stable]
        try:
            return fit_ageing(lines, self.age[stable].tolist())
        except ValueError as error:
            raise BadTable(f"What age does cannot be learned: {error}.") from error

    def at_mean_age(self, ageing: Ageing | None) -> NDArray[np.float64]:
        """Every row's features, those measured in images brought to the mean age."""
        if ageing is None or self.age is None:
            return self.x
        return self.x - ageing.change([feature.name for feature in self.features], self.age)

    def known_to(self, ageing: Ageing) -> ClinicalTable:
        """Leave out rows of an age that the pipeline refuses, too."""
        if self.age is None:
            return self
        low, high = ageing.ages
        kept = (low <= self.age) & (self.age <= high)
        return replace(
            self,
            x=self.x[kept],
            declining=self.declining[kept],
            group=np.unique(self.group[kept], return_inverse=True)[1],
            age=self.age[kept],
            left_out=self.left_out | {"of an age the model does not know": int((~kept).sum())},
        )


def read_table(
    path: Path,
    features: Sequence[Feature],
    outcome: Outcome,
    group: str | None,
    age: str | None = None,
) -> ClinicalTable:
    """Read CSV with a line of names; separated by comma, semicolon or tab.

    Raises
    ------
    BadTable
        A column is missing, cells are no numbers, or a class has too few rows; lines are told by
        number, never by content, and all of them at once.
    """
    header, lines = _lines(path)
    place = _places(path, header, features, [outcome.column, group, age])
    kept = _Kept(tuple(features), outcome, group, age)
    mistakes = []
    for number, cells in lines:
        try:
            if len(cells) != len(header):
                raise BadTable(f"{len(cells)} cells, the first line has {len(header)}")
            kept.take(_Row(number, cells, place))
        except BadTable as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        rest = len(mistakes) - MOST_TOLD
        more = f"; and {rest} more lines" if rest > 0 else ""
        raise BadTable(f"{path}, {'; '.join(mistakes[:MOST_TOLD])}{more}.")
    table = kept.table()
    refuse_few(path, table, outcome)
    return table


def refuse_other_priors(path: Path, features: Sequence[Feature], source: str) -> None:
    """Refuse volumes that were measured with other tissue maps.

    Parameters
    ----------
    path : Path
        The table; one without the column ``priors`` is believed.
    features : sequence of Feature
    source : str
        As `models.tissue_priors.Priors.source`, which ``scorenode features`` writes.

    Raises
    ------
    BadTable
        A row says that it was measured with others.
    """
    header, lines = _lines(path)
    if PRIORS not in header or not any(feature.regions for feature in features):
        return
    place = header.index(PRIORS)
    for number, cells in lines:
        if len(cells) > place and cells[place].strip() not in ("", source):
            raise BadTable(
                f"{path}, line {number}: volumes were measured with the tissue maps "
                f"{cells[place].strip()[:12]}, wanted {source[:12]}."
            )


class _Kept:
    """Rows that can be used, as they are read, and why others cannot."""

    def __init__(
        self, features: tuple[Feature, ...], outcome: Outcome, group: str | None, age: str | None
    ) -> None:
        self.features, self.outcome, self.group, self.age = features, outcome, group, age
        self.classes = {outcome.stable: 0, outcome.declining: 1}
        self.x: list[NDArray[np.float64]] = []
        self.declining: list[int] = []
        self.groups: list[str] = []
        self.ages: list[float] = []
        reasons = ["of other classes", "without a required value", "with too few values"]
        reasons += ["without a patient"] if group else []
        reasons += ["without an age"] if age else []
        self.left_out = dict.fromkeys(reasons, 0)
        self.outside = 0

    def take(self, line: _Row) -> None:
        """Keep a row, or count why not."""
        label = self.classes.get(line.text(self.outcome.column))
        if label is None:
            self.left_out["of other classes"] += 1
            return
        row = np.array([line.feature(feature) for feature in self.features])
        odd = _impossible(row, self.features)
        self.outside += int(odd.sum())
        row[odd] = np.nan
        years = line.cell(self.age) if self.age else np.nan
        if self.group and not line.text(self.group):
            self.left_out["without a patient"] += 1
        elif self.age and np.isnan(years):
            self.left_out["without an age"] += 1
        elif any(f.required and np.isnan(v) for f, v in zip(self.features, row, strict=True)):
            self.left_out["without a required value"] += 1
        elif np.mean(~np.isnan(row)) < LEAST_SHARE:
            self.left_out["with too few values"] += 1
        else:
            self.x.append(row)
            self.declining.append(label)
            self.ages.append(years)
            self.groups.append(line.text(self.group) if self.group else str(line.line))

    def table(self) -> ClinicalTable:
        """Give what was kept."""
        return ClinicalTable(
            np.array(self.x),
            np.array(self.declining),
            np.unique(self.groups, return_inverse=True)[1],
            {**self.left_out, "values outside of their range": self.outside},
            self.features,
            np.array(self.ages) if self.age else None,
        )


def _places(
    path: Path, header: Sequence[str], features: Sequence[Feature], others: Sequence[str | None]
) -> Mapping[str, int]:
    """Column to its place in a line."""
    wanted = [column for feature in features for column in feature.columns]
    wanted += [name for name in others if name]
    absent = [name for name in dict.fromkeys(wanted) if name not in header]
    if absent:
        raise BadTable(f"{path} has no column {', '.join(absent)}.")
    return {name: header.index(name) for name in wanted}


@dataclass(frozen=True)
class _Row:
    """One line of a table."""

    line: int
    cells: Sequence[str]
    place: Mapping[str, int]

    def text(self, name: str) -> str:
        """Read a column as it is written."""
        return self.cells[self.place[name]].strip()

    def cell(self, name: str) -> float:
        """Read the number in a column, NaN where it is missing."""
        return _number(self.text(name), name)

    def feature(self, feature: Feature) -> float:
        """Value of a feature; of regions, in percent of the intracranial volume."""
        if not feature.regions:
            return self.cell(feature.name)
        whole = self.cell(ICV)
        if whole <= 0:
            raise BadTable(f"{ICV} is not above 0")
        parts = [self.cell(column) for column in feature.columns if column != ICV]
        return 100 * sum(parts) / whole


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadTable(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadTable(f"{path} is not UTF-8.") from error
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise BadTable(f"{path}, line {reader.line_num} is no CSV: {error}.") from error
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise BadTable(f"{path} has columns of the same name: {', '.join(twice)}.")
    return header, lines


def _number(word: str, name: str) -> float:
    if word.casefold() in MISSING:
        return float("nan")
    if not NUMBER.fullmatch(word):
        raise BadTable(f"{name} is no number")
    value = float(word)
    if not np.isfinite(value):
        raise BadTable(f"{name} is no finite number")
    return value


def _impossible(row: NDArray[np.float64], features: Sequence[Feature]) -> NDArray[np.bool_]:
    lowest = np.array([f.range[0] if f.range else -np.inf for f in features])
    highest = np.array([f.range[1] if f.range else np.inf for f in features])
    return (row < lowest) | (row > highest)


def refuse_few(path: Path, table: ClinicalTable, outcome: Outcome) -> None:
    """Refuse a table with fewer than two rows of a class.

    Raises
    ------
    BadTable
        Names the class.
    """
    for label, name in ((0, outcome.stable), (1, outcome.declining)):
        if np.count_nonzero(table.declining == label) < 2:
            reasons = [f"{count} {why}" for why, count in table.left_out.items() if count]
            rest = f"; left out: {', '.join(reasons)}" if reasons else ""
            raise BadTable(f"{path} has fewer than two usable rows of class {name}{rest}.")


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
