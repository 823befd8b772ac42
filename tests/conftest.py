"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from node import log
from storage.database import Database
from storage.migrate import migrate
from storage.objects import FileObjects
from tests import privacy
from tests.databases import new_sqlite
from tests.services import postgresql_database

LAST = "test_no_log_line_of_the_whole_suite_holds_patient_data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search of all logs goes last."""
    items.sort(key=lambda item: item.name == LAST)


@pytest.fixture(scope="session", autouse=True)
def log_of_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Log as a node does, into a file that is searched at the end, in every process of a run."""
    path = tmp_path_factory.mktemp("log") / "tests.log"
    privacy.LOGS.append(path)
    with path.open("w") as stream:
        log.configure(stream, "debug")
        yield
    wanted = privacy.PLANTED | privacy.ALWAYS_PLANTED
    assert [path for path in privacy.LOGS if privacy.leaks(path, wanted)] == []


class TestClock:
    """A clock that a test moves."""

    __test__ = False

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self, connection: Connection) -> datetime:
        """The time the test set."""
        return self.time

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield new_sqlite(tmp_path / "node.db")
        return
    with postgresql_database() as url:
        yield url


@pytest.fixture
def database(database_url: str, clock: TestClock) -> Iterator[Database]:
    found = Database(database_url, clock)
    migrate(found)
    yield found
    found.close()


@pytest.fixture
def objects(tmp_path: Path) -> FileObjects:
    return FileObjects(tmp_path / "data")
