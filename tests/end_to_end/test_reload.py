"""A new configuration for a running node."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import events
from storage.database import Database
from tests.end_to_end.harness import NodeUnderTest, until

pytestmark = pytest.mark.slow


def _alerts(database: Database) -> list[str]:
    with database.snapshot() as tx:
        return [alert["key"] for alert in events.open_alerts(tx)]


def test_a_good_file_is_taken_and_a_bad_one_leaves_the_old_in_use(tmp_path: Path) -> None:
    node = NodeUnderTest(tmp_path / "node", destination_port=104)
    node.start()
    database = node.store()
    try:
        first = node.config.read_text()
        before = node.started("coordinator")

        node.config.write_text(first.replace("quiet: 1s", "quiet: soon"))
        refused = node.cli("config", "reload", check=False)
        assert refused.returncode == 2
        assert "'soon' is not a duration" in refused.stderr
        assert "goes on with the old configuration" in refused.stderr

        node.hang_up()
        until(lambda: "config.refused" in node.log_text, "the node to refuse the file")
        until(lambda: _alerts(database) == ["config.refused"], "the alert of it")
        assert node.pids("coordinator") == before
        node.end("coordinator")
        until(lambda: set(node.pids("coordinator")) - set(before) != set(), "a new coordinator")
        assert node.answers()

        node.config.write_text(first.replace("quiet: 1s", "quiet: 2s"))
        done = node.cli("config", "reload")
        assert "The node uses" in done.stdout
        until(lambda: _alerts(database) == [], "the alert to go")

    finally:
        database.close()
        node.config.write_text(first)
        node.stop()

    assert list((tmp_path / "node" / "node-data" / "config").iterdir()) == []
