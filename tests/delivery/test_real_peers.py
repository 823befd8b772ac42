"""Delivery and its proof with PACS of other people: Orthanc, DCMTK's dcmqrscp and storescp."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from node.destinations import destination_of
from node.scu import Destination, echo, send
from tests.certificates import authority
from tests.delivery.bench import bench, configuration
from tests.end_to_end.harness import until
from tests.end_to_end.pacs import orthanc
from tests.peers import ct_image, part10
from tests.ports import free_port
from tests.tools import tool

QUICK = {"after_seconds": [0.2, 0.4], "give_up_seconds": 86400.0, "send": ["capture", "seg", "sr"]}


def peer(port: int, more: str = "") -> str:
    return f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    sends_as: [PACS]
    from_networks: [127.0.0.0/8]
    supports: {{ commitment: yes, find: yes }}
    takes_demonstration: yes
    timeout: 10s
    {more}
"""


@contextlib.contextmanager
def program(
    command: Sequence[str], port: int, log: Path, there: Destination | None = None
) -> Iterator[None]:
    """Run a server of DCMTK until it answers C-ECHO, and end it afterwards."""
    there = there or Destination("127.0.0.1", port, "PACS", "SCORENODE")
    with log.open("w") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            until(lambda: echo(there).kind == "sent", f"{command[0]} to answer C-ECHO", 60)
            yield
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
def test_orthanc_commits_and_finds_what_it_was_sent(tmp_path: Path) -> None:
    port = free_port()
    with orthanc(tmp_path / "orthanc", port) as pacs:
        config = configuration(tmp_path / "node", peer(pacs.port))
        with bench(config, port=port) as node:
            job = node.new_job({"PACS": QUICK | {"confirm": ["commitment", "find"]}})

            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

            assert sorted(pacs.instance_uids()) == sorted(node.uids)
            assert [row["proof"] for row in node.deliveries()] == ["commitment, find"] * 3
            assert node.alerts() == []


@pytest.mark.slow
def test_what_orthanc_lost_before_it_was_asked_is_sent_again(tmp_path: Path) -> None:
    port = free_port()
    with orthanc(tmp_path / "orthanc", port) as pacs:
        config = configuration(tmp_path / "node", peer(pacs.port))
        with bench(config, port=port) as node:
            node.new_job({"PACS": QUICK | {"confirm": ["commitment", "find"]}})
            assert node.send_due()
            assert node.states() == {"confirming": 3}
            pacs.delete(f"/instances/{pacs.get('/instances')[0]}")

            node.work_until(lambda: node.states() == {"proved": 3}, "everything to be proved")

            assert sorted(pacs.instance_uids()) == sorted(node.uids)
            assert sorted(row["attempt"] for row in node.deliveries()) == [1, 1, 2]


@pytest.mark.slow
def test_orthanc_gets_a_report_on_what_it_asks_of_us(tmp_path: Path) -> None:
    port = free_port()
    with orthanc(tmp_path / "orthanc", port) as pacs:
        config = configuration(tmp_path / "node", peer(pacs.port), node="storage_commitment: yes")
        with bench(config, port=port) as node:
            files = [part10(ct_image(), tmp_path / f"{number}.dcm") for number in range(3)]
            ours = Destination("127.0.0.1", port, "SCORENODE", "PACS")
            assert {outcome.kind for outcome in send(ours, files[:2])} == {"sent"}

            asked = [[file.sop_class_uid, file.sop_instance_uid] for file in files]
            place = pacs.post("/modalities/node/storage-commitment", {"DicomInstances": asked})
            found: dict[str, Any] = {}

            def reported() -> bool:
                found.update(pacs.get(place["Path"]))
                return bool(found["Status"] != "Pending")

            node.work_until(reported, "Orthanc to get the report")

            assert found["Status"] == "Failure"
            held = {one["SOPInstanceUID"] for one in found["Success"]}
            assert held == {file.sop_instance_uid for file in files[:2]}
            (failed,) = found["Failures"]
            assert failed["SOPInstanceUID"] == files[2].sop_instance_uid
            assert failed["FailureReason"] == 0x0112


@pytest.mark.slow
def test_dcmqrscp_proves_by_find_alone_and_it_is_said_so(tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "store"
    store.mkdir()
    settings = tmp_path / "dcmqrscp.cfg"
    settings.write_text(f"""\
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
PACS {store} RW (200, 1024mb) ANY
AETable END
""")
    command = [tool("dcmqrscp"), "-c", str(settings), str(port)]
    with program(command, port, tmp_path / "log"):
        config = configuration(tmp_path / "node", peer(port))
        with bench(config) as node:
            node.new_job({"PACS": QUICK | {"confirm": ["commitment", "find"]}})

            node.work_until(lambda: node.states() == {"proved": 3}, "everything to be proved")

            proofs = {row["proof"] for row in node.deliveries()}
            assert proofs == {"commitment not offered, find"}


@pytest.mark.slow
def test_storescp_proves_nothing_so_nothing_is_called_proved(tmp_path: Path) -> None:
    port, store = free_port(), tmp_path / "store"
    store.mkdir()
    command = [tool("storescp"), "-od", str(store), "-aet", "PACS", str(port)]
    with program(command, port, tmp_path / "log"):
        config = configuration(tmp_path / "node", peer(port))
        with bench(config) as node:
            node.new_job({"PACS": QUICK | {"confirm": ["commitment", "find"]}})

            node.work_until(lambda: len(node.alerts()) == 3, "an alert for each object")

            assert node.states() == {"confirming": 3}
            assert len(list(store.iterdir())) == 3
            assert "offers none of commitment, find" in node.deliveries()[0]["sentence"]


@pytest.mark.slow
def test_storescp_gets_results_over_tls_from_who_shows_a_certificate(tmp_path: Path) -> None:
    port, store, ca = free_port(), tmp_path / "store", authority(tmp_path)
    store.mkdir()
    theirs, ours = ca.issue("pacs", address="127.0.0.1"), ca.issue("node")
    command = [
        tool("storescp"), "+tls", str(theirs.key), str(theirs.certificate),
        "+cf", str(ca.certificate), "-od", str(store), "-aet", "PACS", str(port),
    ]  # fmt: skip
    files = f"ca: '{ca.certificate}', cert: '{ours.certificate}', key: '{ours.key}'"
    config = configuration(
        tmp_path / "node", peer(port, f"tls: {{ {files} }}"), deliver="{ to: PACS }"
    )
    there = destination_of(config.peers["PACS"], "SCORENODE")
    with program(command, port, tmp_path / "log", there), bench(config) as node:
        job = node.new_job({"PACS": QUICK | {"confirm": []}})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        assert len(list(store.iterdir())) == 3
