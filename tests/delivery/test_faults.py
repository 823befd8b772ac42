"""Everything that may go wrong on the way to a PACS: each result is there once, and proved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.delivery.bench import Bench, bench, configuration
from tests.delivery.faulty_pacs import FAULTS, BadLine, FaultyPACS, Script

MOST = int(os.environ.get("SCORENODE_DELIVERY_FAULTS", "40"))
TERMS = {
    "send": ["capture", "seg", "sr"],
    "after_seconds": [0.1, 0.2, 0.3],
    "give_up_seconds": 86400.0,
    "confirm": ["commitment", "find"],
}


def all_proved(node: Bench, pacs: FaultyPACS) -> bool:
    """Whether all is proved; at no time may something be that the PACS does not hold."""
    rows = node.deliveries()
    proved = {row["sop_instance_uid"] for row in rows if row["state"] == "proved"}
    assert proved <= pacs.held.keys()
    return len(proved) == len(rows)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_after_every_fault_each_result_is_in_the_pacs_once_and_proved(tmp_path: Path) -> None:
    """Given a PACS and a line to it that fail again and again, and an outage in the midst."""
    script = Script(seed=7, times=-(-MOST // len(FAULTS)))
    receiver_port: list[int] = []
    pacs = FaultyPACS(
        tmp_path / "pacs", script, lambda: ("127.0.0.1", receiver_port[0], "SCORENODE")
    )
    pacs.ae.acse_timeout = pacs.ae.dimse_timeout = pacs.ae.network_timeout = 10
    pacs.start()
    with BadLine(script, pacs.port) as line:
        config = configuration(
            tmp_path / "node",
            f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {line.port}, ae_title: PACS }}
    sends_as: [PACS]
    from_networks: [127.0.0.0/8]
    supports: {{ commitment: yes, find: yes }}
    takes_demonstration: yes
    timeout: 2s
    sending: {{ associations: 3, report_within: 6s }}
""",
        )
        with bench(config) as node:
            receiver_port.append(node.receiver.port)
            try:
                jobs = 0
                while not script.is_over or jobs < 10:
                    for _ in range(5):
                        node.new_job({"PACS": TERMS})
                    jobs += 5
                    if jobs == 10:
                        line.go_down()
                        node.work_until(
                            lambda: "destination.away:PACS" in node.alerts(),
                            "the destination to be found away",
                            seconds=300,
                            threads=3,
                        )
                        line.come_back()
                    node.work_until(
                        lambda: all_proved(node, pacs),
                        "every delivery to be proved",
                        seconds=600,
                        threads=3,
                    )
            finally:
                pacs.stop()

            assert set(pacs.held) == set(node.uids)
            assert all(len(digests) == 1 for digests in pacs.arrived.values())
            assert node.states() == {"proved": 3 * jobs}
            assert node.alerts() == []
            assert script.happened.total() >= MOST
            print(f"{script.happened.total()} faults, {3 * jobs} results: {dict(script.happened)}")
