"""People are told of what they should look at: each alert once, by webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from node.alerting import Alerter
from node.config.file import load
from storage import events, job_admin
from tests.conftest import TestClock
from tests.node.samples import SmallNode, small_node

CONFIG = """\
rules:
  - name: head
    mode: shadow
    when: {{ Modality: CT, PatientAge: {{ min: 18y, if_missing: hold }} }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo }}
alerts:
  webhook: http://127.0.0.1:{port}/hook
  send_when: [{when}]
  silence: [ {{ rule: head, longer_than: 2h }}, {{ peer: LOCAL, longer_than: 1h }} ]
"""


@dataclass
class Hook:
    """A server that takes what is posted, or answers with another status."""

    status: int = 200
    posted: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def hooked(folder: Path, clock: TestClock, when: str = "held") -> Iterator[tuple[SmallNode, Hook]]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status == 200:
                hook.posted.append(json.loads(body))
            self.send_response(hook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        text = CONFIG.format(port=server.server_address[1], when=when)
        with small_node(folder, clock, text) as node:
            yield node, hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_held_job_is_told_once_without_patient_data(tmp_path: Path, clock: TestClock) -> None:
    with hooked(tmp_path, clock) as (node, hook):
        node.arrive("1", Modality=["CT"], PatientName=["Planted^Name"])
        node.turn(11)
        alerter = Alerter(node.parts)

        assert (alerter.tell(), alerter.tell()) == (1, 0)

        (told,) = hook.posted
        assert told["occasion"] == "held"
        assert told["sentence"] == "Held: rule head needs PatientAge, which is missing."
        assert told["alert"] == "job.held:1"
        assert "Planted" not in json.dumps(told)


def test_what_an_admin_looked_at_is_no_alert_any_more(tmp_path: Path, clock: TestClock) -> None:
    with hooked(tmp_path, clock) as (node, _):
        for series in ("1", "2"):
            node.arrive(series, Modality=["CT"])
        node.turn(11)
        with node.parts.database.transaction() as tx:
            assert job_admin.requeue(tx, 1, "anna")
            assert job_admin.cancel(tx, 2, "anna")
        with node.parts.database.snapshot() as tx:
            assert events.open_alerts(tx) == []
            acts = [(row["kind"], row["data"]["by"]) for row in events.events_list(tx, 2)]
        assert acts == [("job.cancelled", "anna"), ("job.requeued", "anna")]


def test_a_held_job_that_grows_is_no_alert_any_more(tmp_path: Path, clock: TestClock) -> None:
    with hooked(tmp_path, clock) as (node, _):
        node.arrive("1", Modality=["CT"])
        node.turn(11)
        node.arrive("1", 3, Modality=["CT"])
        node.turn(11)
        with node.parts.database.snapshot() as tx:
            assert [alert["key"] for alert in events.open_alerts(tx)] == ["job.held:2"]


def test_an_alert_that_was_not_taken_is_told_later(tmp_path: Path, clock: TestClock) -> None:
    with hooked(tmp_path, clock) as (node, hook):
        node.arrive("1", Modality=["CT"])
        node.turn(11)
        hook.status = 503
        assert Alerter(node.parts).tell() == 0
        hook.status = 200
        assert Alerter(node.parts).tell() == 1


def test_only_what_is_asked_for_is_told(tmp_path: Path, clock: TestClock) -> None:
    with hooked(tmp_path, clock, "failed, disk_low") as (node, hook):
        node.arrive("1", Modality=["CT"])
        node.turn(11)
        with node.parts.database.transaction() as tx:
            events.raise_alert(tx, "job.failed:9", "It failed.")
        Alerter(node.parts).tell()

        assert [told["alert"] for told in hook.posted] == ["job.failed:9"]


def test_an_alert_that_comes_again_after_it_was_closed_is_told_again(
    tmp_path: Path, clock: TestClock
) -> None:
    with hooked(tmp_path, clock, "failed") as (node, hook):
        alerter = Alerter(node.parts)
        for step in ("raise", "raise", "close", "raise"):
            with node.parts.database.transaction() as tx:
                if step == "raise":
                    events.raise_alert(tx, "job.failed:9", "It failed.")
                else:
                    events.resolve_alert(tx, "job.failed:9")
            alerter.tell()

        assert [told["count"] for told in hook.posted] == [1, 3]


def test_a_silence_is_told_and_is_over_when_something_comes(
    tmp_path: Path, clock: TestClock
) -> None:
    with hooked(tmp_path, clock) as (node, hook):
        alerter = Alerter(node.parts)
        alerter.look()
        clock.forward(7201)
        alerter.look()
        alerter.tell()
        assert [(told["occasion"], told["sentence"]) for told in hook.posted] == [
            ("silence", "The rule head matched nothing for more than 2 h."),
            ("silence", "The peer LOCAL sent nothing for more than 1 h."),
        ]

        node.arrive("1", Modality=["CT"])
        node.turn(11)
        alerter.look()

        with node.parts.database.snapshot() as tx:
            keys = {alert["key"] for alert in events.open_alerts(tx)}
        assert "silence:rule:head" not in keys


@pytest.mark.parametrize(("mark", "keys"), [("99.99%", ["disk.low"]), ("1B", [])])
def test_a_disk_that_fills_up_is_told(
    tmp_path: Path, clock: TestClock, mark: str, keys: list[str]
) -> None:
    with small_node(tmp_path, clock, "rules: []\n") as node:
        path = node.parts.config.path
        path.write_text(path.read_text().replace("ballast:", f"warn_free: {mark}, ballast:"))
        Alerter(replace(node.parts, config=load(path))).look()

        with node.parts.database.snapshot() as tx:
            assert [alert["key"] for alert in events.open_alerts(tx)] == keys
