"""Destinations: what goes instead, when nothing goes, and the ways beside DIMSE."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage
from typer.testing import CliRunner

from node.cli.main import app
from node.config.file import Config
from storage import delivery_admin, destinations
from tests.certificates import authority
from tests.delivery.bench import Bench, bench, configuration
from tests.end_to_end.pacs import orthanc
from tests.peers import ScriptedPACS, running
from tests.ports import free_port

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
    taken: list[str] = [SecondaryCaptureImageStorage, ComprehensiveSRStorage]
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=taken)
    with running(pacs):
        config = configuration(tmp_path / "node", peer(pacs.port), deliver=TO)
        with bench(config) as node:
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
            assert pacs.associations == 1
            assert node.alerts() == []


TO = "{ to: PACS }"


def test_a_fallback_that_is_not_taken_either_falls_back_further(tmp_path: Path) -> None:
    taken: list[str] = [SecondaryCaptureImageStorage]
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=taken)
    with running(pacs):
        config = configuration(tmp_path / "node", peer(pacs.port), deliver=TO)
        with bench(config) as node:
            terms = {"send": ["seg"], "if_refused": {"seg": "sr"}}
            job = node.new_job({"PACS": TERMS | terms})

            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

            states = {slot: row["state"] for slot, row in rows_of(node).items()}
            assert states == {"seg": "replaced", "sr": "replaced", "capture": "sent"}
            assert pacs.associations == 1


def test_a_fallback_that_goes_anyway_goes_once(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=[SecondaryCaptureImageStorage])
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
        job = node.new_job({"PACS": TERMS | FALLBACKS | {"send": ["seg", "capture", "sr"]}})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        states = {slot: row["state"] for slot, row in rows_of(node).items()}
        assert states == {"seg": "replaced", "sr": "replaced", "capture": "sent"}
        assert len(pacs.arrivals) == 1


@pytest.mark.parametrize("send", [["capture"], ["capture", "sr"], ["sr"]])
def test_two_that_stand_for_each_other_are_not_both_silently_replaced(
    tmp_path: Path, send: list[str]
) -> None:
    """Given a destination that takes neither."""
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=[SegmentationStorage])
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
        terms = {"send": send, "if_refused": {"capture": "sr", "sr": "capture"}}
        job = node.new_job({"PACS": TERMS | terms})

        assert node.send_due()

        states = [row["state"] for row in node.deliveries()]
        assert sorted(states) == ["replaced", "retry_wait"]
        assert len(node.alerts()) == 1
        assert node.job_state(job) == "delivering"


def test_a_class_refused_by_status_falls_back_too(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", lambda number: 0x0122 if number == 0 else None)
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
        job = node.new_job({"PACS": TERMS | FALLBACKS})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        assert rows_of(node)["seg"]["state"] == "replaced"


def test_without_a_fallback_what_is_not_taken_waits_and_an_admin_hears_of_it(
    tmp_path: Path,
) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", sop_classes=[ComprehensiveSRStorage])
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
        node.new_job({"PACS": TERMS})

        node.work_until(lambda: rows_of(node)["sr"]["state"] == "sent", "the report to be sent")

        seg = rows_of(node)["seg"]
        assert seg["state"] == "retry_wait"
        assert SegmentationStorage in seg["sentence"]
        assert node.alerts() == [f"delivery.late:{seg['id']}"]


def test_a_warning_is_kept(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs", lambda number: 0xB007 if number == 0 else None)
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
        job = node.new_job({"PACS": TERMS})

        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        seg = rows_of(node)["seg"]
        assert seg["status"] == 0xB007
        assert "0xB007" in seg["evidence"]["store"]["warning"]


def test_nothing_goes_to_a_suspended_peer_and_all_of_it_when_it_is_resumed(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
        with node.parts.database.transaction() as tx:
            destinations.suspend(tx, "PACS")
        job = node.new_job({"PACS": TERMS})
        assert node.send_due()
        assert pacs.associations == 0

        with node.parts.database.transaction() as tx:
            destinations.resume(tx, "PACS")
        node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

        assert len(pacs.arrivals) == 2


def test_the_list_says_what_a_delivery_waits_for(tmp_path: Path) -> None:
    now = datetime.now().astimezone()
    hours = [f"{now + timedelta(hours=n):%H}:00" for n in (3, 4)]
    window = f"{hours[0]}-{hours[1]}"
    config = configuration(
        tmp_path / "node", peer(free_port(), f"sending: {{ window: '{window}' }}"), deliver=TO
    )

    def told(command: str, key: str) -> set[str]:
        said = CliRunner().invoke(app, [command, "ls", "--json", "--config", str(config.path)])
        return {row[key] for row in json.loads(said.stdout)}

    with bench(config) as node:
        node.new_job({"PACS": TERMS})
        assert node.send_due()

        assert told("deliveries", "sentence") == {f"waits for the window of PACS, {window}"}
        assert told("peers", "standing") == {"shut"}
        with node.parts.database.transaction() as tx:
            destinations.suspend(tx, "PACS")
        assert told("deliveries", "sentence") == {"PACS is suspended: scorenode peers resume PACS"}
        assert told("peers", "standing") == {"suspended"}


def test_a_held_delivery_waits_until_it_is_released(tmp_path: Path) -> None:
    pacs = ScriptedPACS(tmp_path / "pacs")
    with (
        running(pacs),
        bench(configuration(tmp_path / "node", peer(pacs.port), deliver=TO)) as node,
    ):
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


def test_a_peer_whose_certificates_are_gone_is_away_and_it_is_said_why(tmp_path: Path) -> None:
    files = authority(tmp_path)
    config = configuration(
        tmp_path / "node", peer(free_port(), f"tls: {{ ca: '{files.certificate}' }}"), deliver=TO
    )
    with bench(config) as node:
        node.new_job({"PACS": TERMS})
        files.certificate.unlink()

        node.work_until(lambda: "destination.away:PACS" in node.alerts(), "an alert")

        sentence = rows_of(node)["seg"]["sentence"]
        assert "PACS cannot be called: a file under its tls cannot be used" in sentence
        assert rows_of(node)["seg"]["state"] == "retry_wait"


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

        node.work_until(lambda: bool(node.alerts()), "the damaged file to be found out")
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_orthanc_gets_results_by_stow_rs_and_finds_them_by_qido_rs(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc", dicom_web=True) as pacs:
        config = web(tmp_path, pacs.http_port, "/dicom-web")
        with bench(config) as node:
            node.new_job({"WEB": TERMS | {"confirm": ["find"]}})
            assert node.send_due()
            assert node.states() == {"confirming": 2}
            pacs.delete(f"/instances/{pacs.get('/instances')[0]}")

            node.work_until(lambda: node.states() == {"proved": 2}, "both to be proved")

            sent = [row["sop_instance_uid"] for row in node.deliveries()]
            assert sorted(pacs.instance_uids()) == sorted(sent)
            assert sorted(row["attempt"] for row in node.deliveries()) == [1, 2]


def web(folder: Path, port: int, path: str = "") -> Config:
    return configuration(
        folder / "node",
        f"  WEB: {{ dicomweb: {{ url: 'http://127.0.0.1:{port}{path}' }}, timeout: 5s,"
        " takes_demonstration: yes }\n",
        deliver="{ to: WEB, confirm: [find] }",
    )


Answer = tuple[int, dict[str, Any] | str | None] | None
"""Status of HTTP, and what is said of the object, or a text; None: it is stored."""


@dataclass
class WebServer:
    """A DICOMweb server that answers as a test wants; None: it stores and says so."""

    answer: Callable[[int], Answer]
    bodies: list[bytes]
    port: int = 0


@contextlib.contextmanager
def web_server(
    answer: Callable[[int], Answer],
) -> Iterator[WebServer]:
    found = WebServer(answer, [])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            uid = uid_in(body)
            status, said = found.answer(len(found.bodies)) or (200, {})
            found.bodies.append(body)
            if isinstance(said, dict) and "00081198" in said:
                said["00081198"]["Value"][0]["00081155"] = {"vr": "UI", "Value": [uid]}
            elif isinstance(said, dict):
                item = {"00081155": {"vr": "UI", "Value": [uid]}}
                said = {"00081199": {"vr": "SQ", "Value": [item]}}
            data = (said if isinstance(said, str) else json.dumps(said) if said else "").encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def uid_in(body: bytes) -> str:
    start = body.index(b"\r\n\r\n") + 4
    ds = pydicom.dcmread(BytesIO(body[start : body.rindex(b"\r\n--")]))
    return str(ds.SOPInstanceUID)


def failed(*reason: int | str) -> dict[str, Any]:
    return {"00081198": {"Value": [{"00081197": {"vr": "US", "Value": list(reason)}}]}}


@pytest.mark.parametrize(
    ("status", "said", "state"),
    [
        (200, {}, "sent"),
        (202, failed(0xA700), "retry_wait"),
        (409, failed(0x0122), "replaced"),
        (409, failed(0xC000), "refused at first"),
        (503, None, "retry_wait"),
        (403, None, "refused at first"),
        (415, None, "replaced"),
        (200, failed(), "refused at first"),
        (409, failed("full"), "refused at first"),
        (200, '{"00081199": [], "00081198": {"Value": "none"}}', "sent"),
        (409, '{"00081198": [1, null]}', "refused at first"),
        (503, "[" * 100_000, "retry_wait"),
    ],
)
def test_what_an_answer_to_stow_rs_means(
    tmp_path: Path, status: int, said: dict[str, Any] | str | None, state: str
) -> None:
    with web_server(lambda number: (status, said) if number == 0 else None) as server:
        config = web(tmp_path, server.port)
        with bench(config) as node:
            node.new_job({"WEB": TERMS | FALLBACKS | {"after_seconds": [3600.0]}})
            assert node.send_due()

            seg = rows_of(node)["seg"]
            refused = f"delivery.late:{seg['id']}" in node.alerts()
            assert refused == (state == "refused at first")
            assert seg["state"] == ("retry_wait" if refused else state)
            if state == "replaced":
                assert rows_of(node)["capture"]["state"] == "sent"
            rest = "retry_wait" if state == "retry_wait" else "sent"
            assert rows_of(node)["sr"]["state"] == rest
