"""A model is recalled while its results are on their way."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.scu import OutgoingObject, SendOutcome
from storage import recalls, retraction
from tests.delivery.bench import Bench, bench, configuration

PEER = """\
  PACS:
    address: { host: 127.0.0.1, port: 9, ae_title: PACS }
    supports: { commitment: yes, find: yes }
    takes_demonstration: yes
"""


class RecalledMeanwhile:
    """A way to a PACS that takes everything; the model is recalled while the first one arrives."""

    failure = None

    def __init__(self, node: Bench) -> None:
        self.node, self.arrived = node, list[str]()

    def store(self, item: OutgoingObject) -> SendOutcome:
        self.arrived.append(item.sop_instance_uid)
        if len(self.arrived) == 1:
            with self.node.parts.database.transaction() as tx:
                assert recalls.stop(tx, "haemorrhage-demo", "It is recalled.") == 1
        return SendOutcome("sent", 0, "")

    def end(self) -> None:
        """Nothing is open."""


def test_what_arrived_at_a_recall_is_listed_and_the_rest_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bench(configuration(tmp_path / "node", PEER)) as node:
        call = RecalledMeanwhile(node)
        monkeypatch.setattr("node.sender.open_call", lambda *given: call)
        job_id = node.new_job({"PACS": {"send": ["capture", "seg", "sr"]}})

        assert node.send_due()

        assert len(call.arrived) == 1
        assert node.states() == {"cancelled": 3}
        with node.parts.database.snapshot() as tx:
            listed = [row["sop_instance_uid"] for row in recalls.sent(tx, "haemorrhage-demo")]
            known = [one for one in retraction.sent_results(tx, job_id) if one.destinations]
        assert listed == call.arrived
        assert [one.sop_instance_uid for one in known] == call.arrived
