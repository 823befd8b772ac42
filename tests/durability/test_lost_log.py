"""Somebody deletes the write-ahead log of the database under a running node."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.tables import Instance
from tests.end_to_end.harness import NodeUnderTest, until
from tests.end_to_end.studies import head_with_bleed, write_study

pytestmark = pytest.mark.slow


def test_rows_in_a_deleted_log_are_saved_and_the_node_goes_on(tmp_path: Path) -> None:
    sources = write_study(head_with_bleed(), tmp_path / "study")
    node = NodeUnderTest(tmp_path / "node", destination_port=104, when="{ Modality: MR }")
    node.start()
    try:
        node.push(tmp_path / "study")
        (tmp_path / "node" / "node-data" / "node.db-wal").unlink()
        until(lambda: "database.log_lost" in node.log_text, "the loss to be seen", 30)
        until(lambda: node.log_text.count("receiver.ready") == 2, "the receiver to come again", 90)
        node.push(tmp_path / "study")
    finally:
        node.kill()  # what is not on disk now is lost

    database = node.store()
    with database.snapshot() as tx:
        rows = tx.execute(sa.select(Instance.sop_instance_uid, Instance.duplicates)).all()
    database.close()
    assert len(rows) == len(sources)
    assert {row.duplicates for row in rows} == {1}
    assert "process.crashed" not in node.log_text
