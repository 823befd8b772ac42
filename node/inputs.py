"""Fetches what a job needs beside the images that came: one input at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from node.config.file import Config
from node.table_base import TableAway, TableRefused
from node.table_rows import Chosen, Missing, Unfit, choose_row, dicom_day
from node.tables import rows_of
from storage.base import ClosedSeries

DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class Ready:
    """An input that is there: JSON values, or a series by id and generation."""

    values: Any = None
    series: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Later:
    """An input that is not there yet, or cannot be asked for now; the sentence says why."""

    sentence: str


@dataclass(frozen=True)
class Absent:
    """An input that is not there, or must not be used; the sentence says why."""

    sentence: str


Outcome = Ready | Later | Absent


def table_row(want: Mapping[str, Any], closed: ClosedSeries, config: Config) -> Outcome:
    """Read the row of a table for the patient of a series.

    Parameters
    ----------
    want : mapping
        A `node.config.inputs.TableInput`, as the job's snapshot has it.
    closed : ClosedSeries
    config : Config
        Where the tables are.
    """
    table = config.tables.get(want["table"])
    if table is None:
        return Later(f"The table {want['table']} is not in the configuration any more.")
    keys = _told(closed, want["key"])
    if len(keys) != 1:
        has = "no" if not keys else "more than one"
        return Absent(f"The images have {has} {want['key']}, which names the row.")
    if len(_told(closed, "PatientBirthDate")) > 1:
        return Absent("The images have more than one PatientBirthDate: whose they are is unclear.")
    try:
        rows = rows_of(table, keys.pop())
    except (TableAway, TableRefused) as error:
        return Later(str(error))
    within = want["newest_within_seconds"]
    found = choose_row(
        table,
        rows,
        _day_of(closed, "StudyDate"),
        _day_of(closed, "PatientBirthDate"),
        within / DAY_SECONDS if within is not None else None,
    )
    match found:
        case Chosen():
            values = asdict(found) | {"date": found.date.isoformat() if found.date else None}
            return Ready({"table": table.name, **values})
        case Missing():
            return Absent(found.sentence)
        case Unfit():
            return Absent(found.sentence)


def _values(closed: ClosedSeries, key: str) -> list[Sequence[Any]]:
    return [values for i in closed.instances if (values := i.header.get(key))]


def _told(closed: ClosedSeries, key: str) -> set[str]:
    """Gather what the images of a series say, each word once."""
    return {word for values in _values(closed, key) if (word := str(values[0]).strip())}


def _day_of(closed: ClosedSeries, key: str) -> Any:
    found = _values(closed, key)
    return dicom_day(found[0]) if found else None
