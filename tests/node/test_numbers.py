"""Numbers of jobs and deliveries that no database could hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli.app import LARGEST
from node.cli.main import app
from node.config.default import default_config
from storage.database import Database
from storage.migrate import migrate

COMMANDS = (
    ["jobs", "show"],
    ["jobs", "retry"],
    ["jobs", "replay"],
    ["jobs", "cancel"],
    ["deliveries", "retry"],
    ["deliveries", "hold"],
    ["deliveries", "release"],
    ["retract", "--reason", "wrong"],
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "scorenode.yaml"
    path.write_text(default_config(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    database = Database(f"sqlite:///{tmp_path / 'data' / 'node.db'}")
    migrate(database)
    database.close()
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_largest_number_is_looked_for_and_a_larger_one_refused(
    config: Path, command: list[str]
) -> None:
    largest = CliRunner().invoke(app, [*command, str(LARGEST), "--config", str(config)])
    assert largest.exit_code == 1
    assert str(LARGEST) in largest.output

    larger = CliRunner().invoke(app, [*command, str(LARGEST + 1), "--config", str(config)])
    assert larger.exit_code == 2
    assert "Traceback" not in larger.output
