"""Statements that are compiled once: for the few that run for every instance.

SQLAlchemy spends several times what the database does on a statement that it looks up, binds and
wraps each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.sql.dml import Insert

from storage.database import Database, Transaction


class Prepared:
    """An INSERT with named parameters, in the words of one database's driver.

    Parameters
    ----------
    statement : Insert
        Its parameters are all that `one` and `many` are given.
    database : Database
    """

    def __init__(self, statement: Insert, database: Database) -> None:
        dialect = database.engine.dialect
        compiled: Any = statement.compile(dialect=dialect)
        self._text = str(compiled)
        self._order: list[str] | None = compiled.positiontup
        self._constants = dict(compiled.params)
        self._processors = {
            name: processor
            for name, parameter in compiled.binds.items()
            if (processor := parameter.type.dialect_impl(dialect).bind_processor(dialect))
        }

    def one(self, tx: Transaction, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run it and give back the row it returns."""
        [row] = tx.driver_sql(self._text, self._bound(values))
        found: Sequence[Any] = row
        return found

    def many(self, tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each mapping."""
        tx.driver_sql(self._text, [self._bound(values) for values in rows])

    def _bound(self, values: Mapping[str, Any]) -> Any:
        """Values as the driver wants them."""
        bound = {**self._constants, **values}
        for name, processor in self._processors.items():
            if name in bound:
                bound[name] = processor(bound[name])
        return bound if self._order is None else tuple(bound[name] for name in self._order)
