"""kill -9 at every commit point, of every process: nothing lost, one of each result."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.base import StoreUnavailable
from storage.objects import FileObjects
from storage.tables import Instance
from tests.end_to_end.harness import NodeUnderTest, until
from tests.end_to_end.pacs import SC, SEG, SR, RememberingPACS, remembering_pacs
from tests.end_to_end.studies import head_with_bleed, write_study

pytestmark = pytest.mark.slow


def _check_outcome(node: NodeUnderTest, pacs: RememberingPACS, sent: int) -> None:
    """Every acknowledged instance is there with its bytes; the PACS has one of each result."""
    database = node.store()
    with database.snapshot() as tx:
        keys = list(tx.execute(sa.select(Instance.object_key)).scalars())
    database.close()
    assert node.data is not None
    assert len(keys) == sent
    objects = FileObjects(node.data)
    assert all(objects.read(key)[128:132] == b"DICM" for key in keys)
    assert list((node.data / "incoming").iterdir()) == []
    assert pacs.objects().keys() == {SEG, SR, SC}
    assert len(pacs.digests) == 3
    assert pacs.every_object_came_with_one_content()


@pytest.mark.parametrize("point", ["CP1", "CP2", "CP3", "CP4", "CP5", "CP6", "CP7"])
def test_a_process_killed_at_a_commit_point_loses_and_doubles_nothing(
    tmp_path: Path, point: str
) -> None:
    sources = write_study(head_with_bleed(), tmp_path / "study")
    marker = tmp_path / "marker"
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        node.start(SCORENODE_CRASH_AT=f"{point}:{marker}")
        try:
            status = node.push(tmp_path / "study", check=False)
            if status:
                # The sender heard of a failure and keeps its copy: it sends again.
                assert point in ("CP1", "CP2")
                until(node.answers, "the receiver to be back")
                node.push(tmp_path / "study")
            node.wait_idle()
        finally:
            node.stop()

        assert marker.exists(), f"{point} was not reached"
        assert "process.ended" in node.log_text
        _check_outcome(node, pacs, len(sources))


@pytest.mark.parametrize(
    ("point", "store"),
    [
        *((f"CP{number}", "files") for number in range(1, 8)),
        ("CP1", "arena"),
        ("CP2", "arena"),
    ],
)
def test_a_whole_node_killed_at_a_commit_point_goes_on_after_a_restart(
    tmp_path: Path, point: str, store: str
) -> None:
    sources = write_study(head_with_bleed(), tmp_path / "study")
    marker = tmp_path / "marker"
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port, store_kind=store)
        node.start(SCORENODE_CRASH_AT=f"{point}:{marker}")
        try:
            status = node.push(tmp_path / "study", check=False)
            until(marker.exists, f"{point} to be reached")
            node.kill()
            node.start()
            if status:
                assert point in ("CP1", "CP2")
                node.push(tmp_path / "study")
            node.wait_idle()
        finally:
            node.stop()

        _check_outcome(node, pacs, len(sources))


@pytest.mark.parametrize("role", ["receiver", "coordinator", "worker", "infer", "sender"])
def test_a_process_killed_while_it_works_is_replaced_and_the_job_ends_well(
    tmp_path: Path, role: str
) -> None:
    sources = write_study(head_with_bleed(), tmp_path / "study")
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        node.start()
        try:
            node.push(tmp_path / "study")
            until(lambda: bool(_states(node)), "a job to be opened")
            before = node.started(role)
            assert before
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            until(lambda: set(node.pids(role)) - set(before) != set(), f"a new {role}")
            node.wait_idle()
        finally:
            node.stop()

        _check_outcome(node, pacs, len(sources))


def _states(node: NodeUnderTest) -> list[str]:
    try:
        return [job["state"] for job in node.jobs()]
    except StoreUnavailable:
        return []
