"""A step that takes more memory than it may: the job waits for an admin, and is never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.harness import NodeUnderTest, until
from tests.end_to_end.pacs import SC, SEG, SR, remembering_pacs
from tests.end_to_end.studies import head_with_bleed, write_study

pytestmark = pytest.mark.slow

TOO_LITTLE = "150MB"
"""Less than torch takes to be loaded."""


def test_a_job_that_lacks_memory_is_set_aside_and_runs_when_there_is_more(tmp_path: Path) -> None:
    write_study(head_with_bleed(), tmp_path / "study")
    with remembering_pacs(tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs.port)
        enough = node.config.read_text()
        node.config.write_text(
            enough.replace("  broker:", f"  memory: {{ step: {TOO_LITTLE} }}\n  broker:")
        )
        node.start()
        try:
            node.push(tmp_path / "study")
            until(lambda: _states(node) == ["quarantined"], "the job to be set aside")
            [set_aside] = node.jobs()
            alerts = node.json("status")["alerts"]
            sent = pacs.objects()
            node.config.write_text(enough)
            node.cli("jobs", "retry", str(set_aside["id"]))
            node.wait_idle()
            [job] = node.jobs()
        finally:
            node.stop()

    assert "MiB of node.memory.step" in set_aside["sentence"]
    assert any(set_aside["sentence"] in str(alert) for alert in alerts)
    assert not sent
    assert job["state"] == "done"
    assert pacs.objects().keys() == {SEG, SR, SC}


def _states(node: NodeUnderTest) -> list[str]:
    return [job["state"] for job in node.jobs()]
