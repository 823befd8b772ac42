"""Tables that rules read: cognitive scores and the like, in a file, a database or REDCap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.base import CLOSED, INNER, Name, Seconds, Text
from node.config.image import UpperBound
from node.config.peers import FilePath
from node.config.quantities import number, shape, text, whole
from node.config.secrets import secret, url

SOURCES = ("csv", "parquet", "sql", "redcap")
_DATABASES = ("sqlite", "postgresql+psycopg")


def _database(value: object, info: ValidationInfo) -> str:
    return url(_DATABASES, value, info)


def _https(value: object, info: ValidationInfo) -> str:
    return url(("https",), value, info)


def _separator(value: object) -> str:
    written = str(value)
    written = {"tab": "\t", "\\t": "\t"}.get(written, written)
    if len(written) != 1:
        raise ValueError("A separator is one character, such as ',' or ';', or the word tab.")
    return written


def _sql_name(value: object) -> str:
    written = text(value)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?", written):
        raise ValueError(f"'{written[:64]}' is no name of a table: letters, digits and _.")
    return written


@dataclass(frozen=True)
class CSVSource:
    """A text file with a line of column names; read again whenever it is asked for."""

    __pydantic_config__ = CLOSED

    file: FilePath
    separator: Annotated[str, BeforeValidator(_separator)] = ","


@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file; needs the extra ``parquet``."""

    __pydantic_config__ = CLOSED

    file: FilePath


@dataclass(frozen=True)
class SQLSource:
    """A table or view of a database."""

    __pydantic_config__ = CLOSED

    url: Annotated[str, BeforeValidator(_database)] = field(repr=False)
    table: Annotated[str, BeforeValidator(_sql_name)]


@dataclass(frozen=True)
class REDCapSource:
    """A project in REDCap, read by its record export API.

    Parameters
    ----------
    url : str
        Of the API: ``https://redcap.hospital.lan/api/``.
    token : str
        Of a user with the right to export; from a file or the environment.
    form : str
        Instrument; empty: all fields.
    event : str
        Unique name of the event in a longitudinal project; empty: all.
    authorities : Path or None
        Who signs the server's certificate; None: those of the system.
    """

    __pydantic_config__ = CLOSED

    url: Annotated[str, BeforeValidator(_https)]
    token: Annotated[str, BeforeValidator(secret)] = field(repr=False)
    form: Text = ""
    event: Text = ""
    authorities: Annotated[FilePath | None, Field(alias="ca")] = None
    page: Annotated[int, BeforeValidator(whole(1, 100_000))] = 500


@dataclass(frozen=True)
class TableField:
    """One value of a row, and what it must be.

    Parameters
    ----------
    column : str
        In the source; empty: as the field is called.
    unit : str
        Of the values.
    unit_column : str
        Column that holds the unit, which must be `unit`; empty: all are in `unit`.
    min, max : float or None
    """

    __pydantic_config__ = CLOSED

    column: Text = ""
    unit: Text = ""
    unit_column: Text = ""
    min: Annotated[float | None, BeforeValidator(number)] = None
    max: Annotated[float | None, BeforeValidator(UpperBound(number))] = None


def _fields(value: object) -> object:
    if isinstance(value, dict):
        return {key: {} if str(spec) in ("", "~") else _field(spec) for key, spec in value.items()}
    return value


def _field(spec: object) -> object:
    return spec if isinstance(spec, dict) else {"column": spec}


@dataclass(frozen=True)
class Table:
    """A table that rules read.

    Parameters
    ----------
    name : str
        Its key in the file.
    csv, parquet, sql, redcap : the source, one of them
    id_column : str
        Holds what names the patient or the study.
    date_column : str
        Holds the date of a row; empty: rows have none.
    birth_date_column : str
        Holds the patient's birth date, which must be that of the images; empty: not compared.
    fields : mapping
        Name to `TableField`; empty: all columns, as they are.
    timeout_seconds : float
    """

    __pydantic_config__ = CLOSED

    name: Annotated[str, Field(alias=f"{INNER}name")]
    id_column: Annotated[Text, Field(alias="id")]
    csv: CSVSource | None = None
    parquet: ParquetSource | None = None
    sql: SQLSource | None = None
    redcap: REDCapSource | None = None
    date_column: Annotated[Text, Field(alias="date")] = ""
    birth_date_column: Annotated[Text, Field(alias="birth_date")] = ""
    fields: Annotated[Mapping[Name, TableField], BeforeValidator(_fields)] = field(
        default_factory=dict
    )
    timeout_seconds: Annotated[Seconds, Field(alias="timeout")] = 20.0

    @property
    def source(self) -> CSVSource | ParquetSource | SQLSource | REDCapSource:
        """Where its rows are."""
        found = self.csv or self.parquet or self.sql or self.redcap
        if found is None:
            raise ValueError(f"table {self.name} has no source")
        return found

    @property
    def columns(self) -> list[str]:
        """Columns that it must have, because a setting names them."""
        named = [self.id_column, self.date_column, self.birth_date_column]
        for name, field_ in self.fields.items():
            named += [field_.column or name, field_.unit_column]
        return list(dict.fromkeys(column for column in named if column))


def one_source(value: object) -> object:
    """Check that a table has exactly one source."""
    if not isinstance(value, dict):
        raise ValueError(f"This wants a section of keys, not {shape(value)}.")
    found = [kind for kind in SOURCES if kind in value]
    if len(found) != 1:
        has = " and ".join(found) or "none"
        raise ValueError(f"A table has one source: csv, parquet, sql or redcap; this has {has}.")
    return value


TableLines = Annotated[Table, BeforeValidator(one_source)]
