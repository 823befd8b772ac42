"""Which row of a table is the input of a job: rows in, values or a reason out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from node.config.tables import Table
from node.table_base import Row


@dataclass(frozen=True)
class Chosen:
    """The values of a row.

    Parameters
    ----------
    values : mapping
        Field to number, or to text where it is none.
    units : mapping
        Field to its unit, where the table says.
    date : date or None
        Of the row.
    age_days : int or None
        From the row to the study; negative: the row is younger.
    """

    values: Mapping[str, float | str]
    units: Mapping[str, str]
    date: date | None
    age_days: int | None


@dataclass(frozen=True)
class Missing:
    """There is no such row yet; the sentence says which, without values."""

    sentence: str


@dataclass(frozen=True)
class Unfit:
    """There is a row and it must not be used; the sentence says why, without values."""

    sentence: str


def choose_row(
    table: Table,
    rows: Sequence[Row],
    study_date: date | None,
    birth_date: date | None,
    within_days: float | None,
) -> Chosen | Missing | Unfit:
    """Take the newest row that is complete and near enough to the study, and check it.

    Parameters
    ----------
    table : Table
    rows : sequence of Row
        Of one patient.
    study_date, birth_date : date or None
        Of the images.
    within_days : float or None
        How far the row may be from the study, before or after.
    """
    if not rows:
        return Missing(f"Table {table.name} has no row for this patient.")
    if table.birth_date_column:
        trouble = _other_person(table, rows, birth_date)
        if trouble:
            return Unfit(trouble)
    filled = [row for row in rows if all(row.get(column) for column in _value_columns(table))]
    if not filled:
        return Missing(f"Table {table.name} has no row for this patient with all values.")
    if any(_unreadable(row.get(table.date_column, "")) for row in filled):
        return Unfit(
            f"Table {table.name} has a date that is not written as 2026-01-31 for this patient."
        )
    dated = [(_day(row.get(table.date_column, "")), row) for row in filled]
    if within_days is not None:
        if study_date is None:
            return Unfit("The images have no Study Date to compare the row's date with.")
        dated = [
            (day, row)
            for day, row in dated
            if day is not None and abs((study_date - day).days) <= within_days
        ]
    if not dated:
        return Missing(f"Table {table.name} has no row within {within_days:g} days of the study.")
    day, row = max(dated, key=lambda item: item[0] or date.min)
    trouble = _ambiguous(table, [row for other, row in dated if other == day], day)
    trouble = trouble or _implausible(table, row)
    if trouble:
        return Unfit(trouble)
    age = (study_date - day).days if study_date is not None and day is not None else None
    return Chosen(_values(table, row), _units(table), day, age)


def _value_columns(table: Table) -> list[str]:
    return [field.column or name for name, field in table.fields.items()]


def _other_person(table: Table, rows: Sequence[Row], birth_date: date | None) -> str:
    found = {_day(row[table.birth_date_column]) for row in rows if row.get(table.birth_date_column)}
    if birth_date is None:
        return f"The images have no birth date to compare with table {table.name}."
    if found != {birth_date}:
        return f"The birth date in table {table.name} is not that of the images."
    return ""


def _ambiguous(table: Table, newest: Sequence[Row], day: date | None) -> str:
    """Say when rows of one day do not agree: nothing tells which of them is right."""
    first = _values(table, newest[0])
    if all(_values(table, row) == first for row in newest):
        return ""
    which = "of its newest day" if day else "without a date"
    return f"Table {table.name} has two rows {which} for this patient, with different values."


def _implausible(table: Table, row: Row) -> str:
    for name, field in table.fields.items():
        if field.unit_column and row.get(field.unit_column, "") != field.unit:
            return f"Field {name} of table {table.name} is not in {field.unit or 'no unit'}."
        number = _number(row[field.column or name])
        if field.min is None and field.max is None:
            continue
        if number is None:
            return f"Field {name} of table {table.name} is not a number."
        low, high = field.min, field.max
        if (low is not None and number < low) or (high is not None and number > high):
            limits = " to ".join(f"{v:g}" if v is not None else "any" for v in (low, high))
            return f"Field {name} of table {table.name} is outside {limits}."
    return ""


def _values(table: Table, row: Row) -> dict[str, float | str]:
    columns = {name: field.column or name for name, field in table.fields.items()}
    if not columns:
        hidden = {table.id_column, table.date_column, table.birth_date_column}
        columns = {name: name for name in row if name not in hidden}
    found = {}
    for name, column in columns.items():
        number = _number(row.get(column, ""))
        found[name] = row.get(column, "") if number is None else number
    return found


def _units(table: Table) -> dict[str, str]:
    return {name: field.unit for name, field in table.fields.items() if field.unit}


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)", text) else None


def _day(text: str) -> date | None:
    """Read a date as ISO 8601 or DICOM writes it; a time behind it is passed over."""
    match = re.match(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})(?![0-9])", text)
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def _unreadable(text: str) -> bool:
    return bool(text) and _day(text) is None


def dicom_day(values: Sequence[object] | None) -> date | None:
    """Read a date of a header."""
    return _day(str(values[0])) if values else None
