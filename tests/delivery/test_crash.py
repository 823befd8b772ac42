"""The sender's process is killed while it sends or proves: nothing is lost or there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pynetdicom import evt

from storage import reaper
from tests.delivery.bench import bench, configuration
from tests.delivery.faulty_pacs import FaultyPACS, Script

PROVE = """
import sys, time
from pathlib import Path
from node.config.file import load
from node.parts import open_parts
from node.tending import Tender
tender = Tender(open_parts(load(Path(sys.argv[1]))))
while True:
    tender.tick()
    time.sleep(0.05)
"""


SEND = """
import sys
from pathlib import Path
from node.config.file import load
from node.parts import open_parts
from node.sender import Sender
Sender(open_parts(load(Path(sys.argv[1])))).deliver(int(sys.argv[2]))
"""


class KillingPACS(FaultyPACS):
    """Kills whoever sends to it while its second object is on the way, and keeps that object."""

    sender: subprocess.Popen[bytes] | None = None

    def store(self, event: evt.Event) -> int:
        if self.sender is not None and len(self.held) == 1:
            self.sender.kill()
            self.sender.wait(60)
        return super().store(event)


@pytest.mark.slow
def test_a_sender_killed_in_the_midst_of_an_association_is_followed_by_another(
    tmp_path: Path,
) -> None:
    """Given that its second object is stored, and nobody is left who would hear of it."""
    port: list[int] = []
    pacs = KillingPACS(tmp_path / "pacs", Script(1, 0), lambda: ("127.0.0.1", port[0], "SCORENODE"))
    pacs.start()
    config = configuration(tmp_path / "node", peer(pacs.port))
    with bench(config) as node:
        port.append(node.receiver.port)
        try:
            job = node.new_job({"PACS": {"confirm": ["commitment", "find"]}})
            pacs.sender = subprocess.Popen([sys.executable, "-c", SEND, str(config.path), str(job)])
            assert pacs.sender.wait(120) == -signal.SIGKILL
            pacs.sender = None
            assert node.states() == {"confirming": 1, "sending": 2}
            with node.parts.database.transaction() as tx:
                assert reaper.expire_dead_leases(tx) == 1

            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

            assert node.states() == {"proved": 3}
            assert set(pacs.held) == set(node.uids)
            assert all(len(digests) == 1 for digests in pacs.arrived.values())
        finally:
            pacs.stop()


def peer(port: int) -> str:
    return f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    sends_as: [PACS]
    from_networks: [127.0.0.0/8]
    supports: {{ commitment: yes, find: yes }}
    takes_demonstration: yes
    timeout: 10s
"""


@pytest.mark.slow
def test_a_sender_killed_between_two_proofs_is_followed_by_another(tmp_path: Path) -> None:
    port: list[int] = []
    pacs = FaultyPACS(tmp_path / "pacs", Script(1, 0), lambda: ("127.0.0.1", port[0], "SCORENODE"))
    pacs.start()
    config = configuration(tmp_path / "node", peer(pacs.port))
    with bench(config) as node:
        port.append(node.receiver.port)
        try:
            job = node.new_job({"PACS": {"confirm": ["commitment", "find"]}})
            assert node.send_due()

            killed = subprocess.run(
                [sys.executable, "-c", PROVE, str(config.path)],
                env=os.environ | {"SCORENODE_CRASH_AT": f"CP8:{tmp_path / 'marker'}"},
                check=False,
                timeout=120,
            )
            assert killed.returncode == -signal.SIGKILL
            assert node.states() == {"confirming": 2, "proved": 1}
            with node.parts.database.transaction() as tx:
                assert reaper.expire_dead_leases(tx) == 1

            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

            assert node.states() == {"proved": 3}
            assert {row["attempt"] for row in node.deliveries()} == {1}
        finally:
            pacs.stop()
