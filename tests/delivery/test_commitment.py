"""Storage commitment on our own port and in our own associations, with peers that try things."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_role, evt
from pynetdicom.association import Association

from node.commitment import (
    ALL_COMMITTED,
    COMMITMENT,
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_EVENT,
    NO_SUCH_INSTANCE,
    NOT_AUTHORIZED,
    RESOURCE_LIMITATION,
    SUCCESS,
    WELL_KNOWN_INSTANCE,
    report_of,
    request_of,
)
from node.pacs import StandInPACS
from node.scu import CallingAE, Destination, send
from storage import commitment_requests, deliveries, proofs
from storage.commitment_requests import Judged
from tests.delivery.bench import Bench, bench, configuration
from tests.peers import AE_TITLE, ct_image, part10, running
from tests.ports import free_port

TERMS: dict[str, Any] = {
    "send": ["seg", "sr"],
    "after_seconds": [0.1, 0.2],
    "give_up_seconds": 86400.0,
    "confirm": ["commitment"],
}
REFERENCE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5")


class CommittingPACS(StandInPACS):
    """Reports in the very association in which it was asked."""

    def add_contexts(self) -> None:
        super().add_contexts()
        self.ae.add_supported_context(COMMITMENT)

    def handlers(self) -> list[Any]:
        return [
            *super().handlers(),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_DIMSE_SENT, self._answered),
        ]

    def _action(self, event: evt.Event) -> tuple[int, None]:
        self._asked = event.action_information
        return SUCCESS, None

    def _answered(self, event: evt.Event) -> None:
        if type(event.message).__name__ != "N_ACTION_RSP":
            return
        asked = self._asked
        references = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in asked.ReferencedSOPSequence
        ]
        kind, information = report_of(str(asked.TransactionUID), Judged(tuple(references), ()))
        threading.Thread(
            target=event.assoc.send_n_event_report,
            args=(information, kind, COMMITMENT, WELL_KNOWN_INSTANCE),
            daemon=True,
        ).start()


def peers(port: int) -> str:
    return f"""\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    sends_as: [PACS_OUT]
    from_networks: [127.0.0.0/8]
    supports: {{ commitment: yes }}
    takes_demonstration: yes
    timeout: 10s
  OTHER:
    sends_as: [OTHER]
    from_networks: [127.0.0.0/8]
"""


TO = "{ to: PACS, confirm: [commitment] }"


def test_a_report_in_the_same_association_counts(tmp_path: Path) -> None:
    with running(CommittingPACS(tmp_path / "pacs")) as pacs:
        config = configuration(tmp_path / "node", peers(pacs.port), deliver=TO)
        with bench(config, stay_seconds=20.0) as node:
            job = node.new_job({"PACS": TERMS})

            node.work_until(lambda: node.job_state(job) == "done", "the job to be done")

            assert {row["proof"] for row in node.deliveries()} == {"commitment"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    config = configuration(
        tmp_path / "node", peers(free_port()), node="storage_commitment: yes", deliver=TO
    )
    with bench(config) as found:
        yield found


@contextmanager
def calling(node: Bench, title: str, *, as_scp: bool) -> Iterator[Association]:
    ae = CallingAE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 20
    ae.add_requested_context(COMMITMENT)
    roles: Any = [build_role(COMMITMENT, scp_role=True)] if as_scp else []
    assoc = ae.associate("127.0.0.1", node.receiver.port, ae_title=AE_TITLE, ext_neg=roles)
    assert assoc.is_established
    try:
        yield assoc
    finally:
        assoc.release()


def report(node: Bench, title: str, information: Dataset, kind: int = ALL_COMMITTED) -> int:
    with calling(node, title, as_scp=True) as assoc:
        answer, _ = assoc.send_n_event_report(information, kind, COMMITMENT, WELL_KNOWN_INSTANCE)
    return int(answer.Status)


def ask(node: Bench, title: str, information: Dataset, kind: int = 1) -> int:
    with calling(node, title, as_scp=False) as assoc:
        answer, _ = assoc.send_n_action(information, kind, COMMITMENT, WELL_KNOWN_INSTANCE)
    return int(answer.Status)


def sent_and_asked(node: Bench) -> tuple[str, Judged]:
    """Deliveries that wait for the report of a transaction."""
    job = node.new_job({"PACS": TERMS})
    uid = str(generate_uid())
    with node.parts.database.transaction() as tx:
        for item in deliveries.claim(tx, job, "me")["PACS"]:
            deliveries.finish(tx, item, "sent", 0, "", deliveries.RetrySchedule(), ["commitment"])
    with node.parts.database.transaction() as tx:
        items = [item for found in proofs.due(tx, "me").values() for item in found]
        proofs.asked(tx, items, uid, timedelta(days=1))
    held = tuple((item.sop_class_uid, item.sop_instance_uid) for item in items)
    return uid, Judged(held, ())


@pytest.mark.parametrize("title", ["PACS_OUT"])
def test_a_report_in_an_association_of_the_destination_counts(node: Bench, title: str) -> None:
    uid, judged = sent_and_asked(node)

    assert report(node, title, report_of(uid, judged)[1]) == SUCCESS

    assert node.states() == {"proved": 2}
    assert report(node, title, report_of(uid, judged)[1]) == SUCCESS  # it may come twice


def test_a_report_of_somebody_else_counts_for_nothing(node: Bench) -> None:
    uid, judged = sent_and_asked(node)

    assert report(node, "OTHER", report_of(uid, judged)[1]) == NO_SUCH_INSTANCE

    assert node.states() == {"confirming": 2}


def test_a_report_on_what_nobody_asked_for_is_refused(node: Bench) -> None:
    unknown = report_of(str(generate_uid()), Judged((REFERENCE,), ()))[1]
    assert report(node, "PACS_OUT", unknown) == NO_SUCH_INSTANCE
    without_uid = report_of(str(generate_uid()), Judged((REFERENCE,), ()))[1]
    del without_uid.TransactionUID
    assert report(node, "PACS_OUT", without_uid) == INVALID_ARGUMENT
    assert report(node, "PACS_OUT", unknown, kind=7) == NO_SUCH_EVENT


def test_what_is_asked_of_us_is_noted_once_and_only_where_we_can_report(node: Bench) -> None:
    uid = str(generate_uid())

    assert ask(node, "PACS_OUT", request_of(uid, [REFERENCE])) == SUCCESS
    assert ask(node, "PACS_OUT", request_of(uid, [REFERENCE])) == INVALID_ARGUMENT
    assert ask(node, "OTHER", request_of(str(generate_uid()), [REFERENCE])) == NOT_AUTHORIZED
    assert ask(node, "PACS_OUT", request_of(str(generate_uid()), [])) == INVALID_ARGUMENT
    without_uid = request_of(str(generate_uid()), [REFERENCE])
    del without_uid.TransactionUID
    assert ask(node, "PACS_OUT", without_uid) == INVALID_ARGUMENT
    other = request_of(str(generate_uid()), [REFERENCE])
    assert ask(node, "PACS_OUT", other, kind=2) == NO_SUCH_ACTION


def test_a_peer_that_takes_no_report_may_not_ask_for_ever(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_requests, "MOST_OWED", 2)
    answers = [
        ask(node, "PACS_OUT", request_of(str(generate_uid()), [REFERENCE])) for _ in range(3)
    ]
    assert answers == [SUCCESS, SUCCESS, RESOURCE_LIMITATION]


def test_where_it_is_not_switched_on_we_vouch_for_nothing(tmp_path: Path) -> None:
    config = configuration(tmp_path / "node", peers(free_port()), deliver=TO)
    with bench(config) as node:
        request = request_of(str(generate_uid()), [REFERENCE])
        assert ask(node, "PACS_OUT", request) == NOT_AUTHORIZED


def test_a_report_says_what_we_hold_and_of_the_rest_why_not(node: Bench, tmp_path: Path) -> None:
    file = part10(ct_image(), tmp_path / "held.dcm")
    there = Destination("127.0.0.1", node.receiver.port, AE_TITLE, "PACS_OUT")
    assert send(there, [file])[0].kind == "sent"
    held = (file.sop_class_uid, file.sop_instance_uid)
    other_class = ("1.2.840.10008.5.1.4.1.1.4", file.sop_instance_uid)

    with node.parts.database.snapshot() as tx:
        judged = commitment_requests.judge(tx, [held, other_class, REFERENCE])

    assert judged.held == (held,)
    assert judged.failed == ((other_class, 0x0119), (REFERENCE, 0x0112))
