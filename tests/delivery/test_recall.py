"""A model is recalled while its results are on their way."""

from __future__ import annotations

from pathlib import Path

from node.pacs import Arrival, StandInPACS
from storage import recalls, retraction
from tests.delivery.bench import bench, configuration


def test_what_arrived_at_a_recall_is_listed_and_the_rest_does_not_leave(tmp_path: Path) -> None:
    """Given a PACS that has the first of three results, and has not answered yet."""
    stopped: list[int] = []

    def recall(arrival: Arrival) -> None:
        if not stopped:
            with node.parts.database.transaction() as tx:
                stopped.append(recalls.stop(tx, "haemorrhage-demo", "It is recalled."))

    pacs = StandInPACS(tmp_path / "pacs", on_arrival=recall)
    pacs.start()
    peer = f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {pacs.port}, ae_title: PACS }}
    supports: {{ commitment: yes, find: yes }}
    takes_demonstration: yes
"""
    with bench(configuration(tmp_path / "node", peer)) as node:
        job_id = node.new_job({"PACS": {"send": ["capture", "seg", "sr"]}})
        try:
            assert node.send_due()
        finally:
            pacs.stop()

        arrived = [one.sop_instance_uid for one in pacs.arrivals]
        assert stopped == [1]
        assert len(arrived) == 1
        assert node.states() == {"cancelled": 3}
        with node.parts.database.snapshot() as tx:
            listed = [row["sop_instance_uid"] for row in recalls.sent(tx, "haemorrhage-demo")]
            known = [one for one in retraction.sent_results(tx, job_id) if one.destinations]
        assert listed == arrived
        assert [one.sop_instance_uid for one in known] == arrived
