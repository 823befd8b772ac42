"""Databases for tests: the schema of this version, migrated once in each process of a run."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from storage.database import Database
from storage.migrate import migrate


def new_sqlite(path: Path) -> str:
    """Put an empty database of this version in a place, unless one is there; its URL."""
    if not path.exists():
        shutil.copyfile(_migrated(), path)
    return f"sqlite:///{path}"


@cache
def _migrated() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="scorenode-schema-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    database = Database(f"sqlite:///{folder / 'node.db'}")
    migrate(database)
    database.close()
    assert not (folder / "node.db-wal").exists()
    return folder / "node.db"
