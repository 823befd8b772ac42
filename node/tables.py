"""Reads rows of tables: text files, Parquet, databases, REDCap."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from node.config.tables import CSVSource, ParquetSource, REDCapSource, SQLSource, Table
from node.table_base import Row, TableAway, TableRefused


def rows_of(table: Table, key: str) -> list[Row]:
    """Read all rows of one patient.

    Parameters
    ----------
    table : Table
    key : str
        Value of the table's id column, compared as text without spaces around it.

    Raises
    ------
    TableAway
        The file, the database or the server cannot be read now.
    TableRefused
        A column is not there, or the server does not let us in.
    """
    source = table.source
    match source:
        case CSVSource():
            found = _csv(table, source, key)
        case ParquetSource():
            found = _parquet(table, source, key)
        case SQLSource():
            found = _sql(table, source, key)
        case REDCapSource():
            from node.redcap import records

            found = records(table, source, key)
    return found


def _csv(table: Table, source: CSVSource, key: str) -> list[Row]:
    try:
        with source.file.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=source.separator, restval="")
            _check_columns(table, reader.fieldnames or ())
            found: list[Row] = []
            for row in reader:
                if row[table.id_column].strip() == key:
                    _refuse_shifted(table, row, reader.line_num)
                    found.append({name: value.strip() for name, value in row.items() if name})
            return found
    except OSError as error:
        raise TableAway(f"The file of table {table.name} cannot be read.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableRefused(f"The file of table {table.name} is no CSV file in UTF-8.") from error


def _refuse_shifted(table: Table, row: Mapping[str | None, object], line: int) -> None:
    """Refuse a line with too many cells: one of them holds the separator, all later ones move."""
    if None in row:
        raise TableRefused(
            f"Line {line} of table {table.name} has more cells than its first; a number with a "
            "decimal comma needs quotes, or another separator between columns."
        )


def _parquet(table: Table, source: ParquetSource, key: str) -> list[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise TableRefused("Parquet needs: pip install scorenode[parquet].") from error
    try:
        found = parquet.read_table(source.file)
    except pyarrow.ArrowInvalid as error:
        raise TableRefused(f"The file of table {table.name} is no Parquet file.") from error
    except OSError as error:
        raise TableAway(f"The file of table {table.name} cannot be read.") from error
    _check_columns(table, found.column_names)
    rows = ({k: _text(v) for k, v in row.items()} for row in found.to_pylist())
    return [row for row in rows if row[table.id_column] == key]


def _sql(table: Table, source: SQLSource, key: str) -> list[Row]:
    schema, _, name = source.table.rpartition(".")
    engine = sa.create_engine(source.url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            reflected = sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=engine)
            _check_columns(table, reflected.columns.keys())
            column = reflected.columns[table.id_column]
            query = sa.select(reflected).where(sa.cast(column, sa.String) == key)
            rows = connection.execute(query).mappings().all()
            found = ({str(k): _text(v) for k, v in row.items()} for row in rows)
            # A collation may call ids equal that are not, such as ab1 and AB1.
            return [row for row in found if row[table.id_column] == key]
    except sa.exc.NoSuchTableError as error:
        raise TableRefused(f"The database of {table.name} has no table {source.table}.") from error
    except sa.exc.SQLAlchemyError as error:
        raise TableAway(f"The database of table {table.name} cannot be read.") from error
    finally:
        engine.dispose()


def _check_columns(table: Table, columns: Iterable[str]) -> None:
    known = list(columns)
    for name in table.columns:
        if name not in known:
            raise TableRefused(f"Table {table.name} has no column {name}.")
        if known.count(name) > 1:
            raise TableRefused(f"Table {table.name} has two columns {name}.")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
