"""Destinations: what goes instead, when nothing goes, and the ways beside DIMSE."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from storage import delivery_admin, destinations
from tests.delivery.bench import Bench, bench, configuration
from tests.peers import ScriptedPACS, running

TERMS: dict[str, Any] = {
    "send": ["seg", "sr"],
    "after_seconds": [0.1, 0.2],
    "give_up_seconds": 86400.0,
    "confirm": [],
}
FALLBACKS = {"if_refused": {"seg": "capture", "sr": "capture", "capture": None}}


def peer(port: int, more: str = "") -> str:
    return f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    takes_demonstration: yes
    timeout: 5s
    {more}
"""


def rows_of(node: Bench) -> dict[str, dict[str, Any]]:
    return {row["slot"]: row for row in node.deliveries()}


def test_a_capture_goes_in_the_place_of_what_the_pacs_does_not_take(tmp_path: Path) -> None:
    taken = [SecondaryCaptureImageStorage, ComprehensiveSRStorage]
    with running(ScriptedPACS(tmp_path / "pacs", sop_classes=taken)) as pacs:
        with bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
            job = node.new_job({"PACS": TERMS | FALLBACKS})

            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

            rows = rows_of(node)
            assert {slot: row["state"] for slot, row in rows.items()} == {
                "seg": "replaced",
                "capture": "sent",
                "sr": "sent",
            }
            assert "the capture goes in its place" in rows["seg"]["sentence"]
            came = [arrival.sop_class_uid for arrival in pacs.arrivals]
            assert came == [SecondaryCaptureImageStorage, ComprehensiveSRStorage]
            assert pacs.associations == 1  # type: ignore[attr-defined]
            assert node.alerts() == []


TO = "{ to: PACS }"


def test_a_fallback_that_goes_anyway_goes_once(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=[SecondaryCaptureImageStorage])
    with running(pacs), bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
        job = node.new_job({"PACS": TERMS | FALLBACKS | {"send": ["seg", "capture", "sr"]}})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        states = {slot: row["state"] for slot, row in rows_of(node).items()}
        assert states == {"seg": "replaced", "sr": "replaced", "capture": "sent"}
        assert len(pacs.arrivals) == 1


def test_a_class_refused_by_status_falls_back_too(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", lambda number: 0x0122 if number == 0 else None)
    with running(pacs), bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
        job = node.new_job({"PACS": TERMS | FALLBACKS})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        assert rows_of(node)["seg"]["state"] == "replaced"


def test_without_a_fallback_what_is_not_taken_waits_and_an_admin_hears_of_it(
    tmp_path: Path,
) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=[ComprehensiveSRStorage])
    with running(pacs), bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
        node.new_job({"PACS": TERMS})

        node.work_until(lambda: rows_of(node)["sr"]["state"] == "sent", "the report to be sent")

        seg = rows_of(node)["seg"]
        assert seg["state"] == "retry_wait"
        assert SegmentationStorage in seg["sentence"]
        assert node.alerts() == [f"delivery.late:{seg['id']}"]


def test_a_warning_is_kept(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", lambda number: 0xB007 if number == 0 else None)
    with running(pacs), bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
        job = node.new_job({"PACS": TERMS})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        seg = rows_of(node)["seg"]
        assert seg["status"] == 0xB007
        assert "0xB007" in seg["evidence"]["store"]["warning"]


def test_nothing_goes_to_a_suspended_peer_and_all_of_it_when_it_is_resumed(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    with running(pacs), bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
        with node.parts.database.transaction() as tx:
            destinations.suspend(tx, "PACS")
        job = node.new_job({"PACS": TERMS})
        assert node.send_due()
        assert pacs.associations == 0

        with node.parts.database.transaction() as tx:
            destinations.resume(tx, "PACS")
        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        assert len(pacs.arrivals) == 2


def test_a_held_delivery_waits_until_it_is_released(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    with running(pacs), bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node:
        job = node.new_job({"PACS": TERMS})
        seg = rows_of(node)["seg"]["id"]
        with node.parts.database.transaction() as tx:
            assert delivery_admin.hold(tx, seg)
            assert not delivery_admin.hold(tx, seg)
        assert node.send_due()
        assert {s: r["state"] for s, r in rows_of(node).items()} == {"seg": "held", "sr": "sent"}
        assert node.job_state(job) == "delivering"

        with node.parts.database.transaction() as tx:
            assert delivery_admin.release(tx, seg)
        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")


def test_our_own_ae_title_towards_a_peer_is_what_its_entry_says(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    pacs.ae.require_calling_aet = ["AI_OUT"]
    with running(pacs):
        config = configuration(
            tmp_path / "node", peer(pacs.port, "sending: { ae_title: AI_OUT }"), deliver=TO
        )
        with bench(config) as node:
            job = node.new_job({"PACS": TERMS})
            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")


def test_a_folder_gets_whole_files_and_proves_that_it_has_them(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    config = configuration(
        tmp_path / "node",
        f"  EXPORT: {{ folder: '{export}', takes_demonstration: yes }}\n",
        deliver="{ to: EXPORT, confirm: [find] }",
    )
    with bench(config) as node:
        node.new_job({"EXPORT": TERMS | {"confirm": ["find"]}})
        assert node.send_due()
        assert node.states() == {"confirming": 2}
        files = sorted(export.iterdir())
        files[0].write_bytes(files[0].read_bytes()[:-1])

        node.work_until(lambda: len(node.alerts()) == 1, "the damaged file to be found out")
        files[0].unlink()
        node.work_until(lambda: node.states() == {"proved": 2}, "both to be proved")

        found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        assert found == {row["sop_instance_uid"]: node.uids[row["sop_instance_uid"]]
                         for row in node.deliveries()}  # fmt: skip


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    export = tmp_path / "export"
    config = configuration(
        tmp_path / "node",
        f"  EXPORT: {{ folder: '{export}', takes_demonstration: yes }}\n",
        deliver="{ to: EXPORT }",
    )
    with bench(config) as node:
        job = node.new_job({"EXPORT": TERMS})
        assert node.send_due()
        assert node.states() == {"retry_wait": 2}

        export.mkdir()
        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")


@pytest.mark.parametrize("associations", [1, 2])
def test_no_more_associations_go_to_a_peer_than_it_may_have(
    tmp_path: Path, associations: int
) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    pacs._answer = pacs.hangs
    with running(pacs):
        more = f"sending: {{ associations: {associations}, answer_timeout: 30s }}"
        config = configuration(tmp_path / "node", peer(pacs.port, more), deliver=TO)
        with bench(config) as node:
            jobs = [node.new_job({"PACS": TERMS}) for _ in range(3)]
            most: list[int] = []

            def all_done() -> bool:
                sending = {r["job_id"] for r in node.deliveries() if r["state"] == "sending"}
                most.append(len(sending))
                if len(sending) == associations:
                    pacs.go_on.set()
                return all(node.job_state(job) == "done" for job in jobs)

            node.work_until(all_done, "all jobs to be done", threads=3)

            assert max(most) == associations
