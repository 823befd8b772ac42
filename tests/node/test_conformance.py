"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node import commitment, proving, statuses
from node.config.sections import NodeSection
from node.finding import FIND
from node.query import RETRIEVED_CLASSES
from node.receive.connection import GuardSettings
from node.receive.settings import ReceiverSettings
from node.receive.storage_scp import TRANSFER_SYNTAXES
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from storage import commitment_requests

STATEMENT = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """Cells of every table row."""
    lines = STATEMENT.read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]


def section(name: str) -> str:
    text = STATEMENT.read_text()
    start = text.index(f"### {name}")
    end = text.find("\n#", start + 1)
    return text[start:end]


def test_the_transfer_syntaxes_are_those_that_are_accepted_in_their_order() -> None:
    listed = [
        line.strip("| ").rpartition("| ")[2]
        for line in section("2.2").splitlines()
        if line.endswith(" |") and "| 1.2.840" in line
    ]
    assert listed == [str(one) for one in TRANSFER_SYNTAXES]


def test_implementation_and_limits_are_ours(rows: list[list[str]]) -> None:
    said = {row[0]: row[1] for row in rows if len(row) == 2}
    settings, guard = (
        ReceiverSettings("A", (), "127.0.0.1", 0),
        GuardSettings(is_listed=lambda address: True),
    )
    assert said["Implementation Class UID"] == IMPLEMENTATION_CLASS_UID
    assert said["Implementation Version Name"] == IMPLEMENTATION_VERSION_NAME
    assert said["Longest P-DATA-TF that is taken"] == f"{settings.max_pdu_bytes:,} bytes".replace(
        ",", " "
    )
    assert said["Silence on an association"] == f"{settings.idle_seconds:g}"
    assert said["A-ASSOCIATE-RQ (ARTIM)"] == f"{guard.request_seconds:g}"
    assert said["One PDU, from first to last byte"] == f"{guard.pdu_seconds:g}"
    assert said["TLS handshake"] == f"{guard.handshake_seconds:g}"
    assert said["Whole association"] == f"{guard.longest_association_seconds:.0f}"
    assert f"({settings.max_associations})" in said["Associations at once"]


def test_every_status_that_we_answer_is_there() -> None:
    text = section("2.4")
    for status in (
        statuses.SUCCESS,
        statuses.DUPLICATE_SOP_INSTANCE,
        statuses.SOP_CLASS_NOT_SUPPORTED,
        statuses.OUT_OF_RESOURCES,
        statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        statuses.CANNOT_UNDERSTAND,
    ):
        assert f"| {status:04X} " in text


def test_answers_of_destinations_are_classified_as_it_says() -> None:
    assert statuses.kind_of(0x0111) == "sent"
    assert statuses.kind_of(0xA702) == "retry"
    assert {statuses.kind_of(code) for code in (0xB000, 0xB123, 0x0001, 0x0107, 0x0116)} == {"sent"}
    assert {statuses.kind_of(code) for code in (0x0110, 0x0117, 0x0124, 0xA900, 0xC001)} == {
        "refused"
    }


def test_the_sop_classes_of_query_and_retrieve_are_those_that_are_asked_for() -> None:
    listed = set(re.findall(r"1\.2\.840\.10008[0-9.]*[0-9]", section("7.1")))

    models = {
        str(StudyRootQueryRetrieveInformationModelFind),
        str(StudyRootQueryRetrieveInformationModelMove),
        str(StudyRootQueryRetrieveInformationModelGet),
    }
    assert listed == models
    assert f"| {len(RETRIEVED_CLASSES)} Storage SOP Classes" in section("7.1")


def test_the_statuses_and_failure_reasons_of_storage_commitment_are_those_of_the_code() -> None:
    text = section("2.6")
    listed = set(re.findall(r"^\| ([0-9A-F]{4}) ", text, re.MULTILINE))

    assert listed == {
        f"{code:04X}"
        for code in (
            commitment.SUCCESS,
            commitment.PROCESSING_FAILURE,
            commitment.NO_SUCH_INSTANCE,
            commitment.NO_SUCH_EVENT,
            commitment.INVALID_ARGUMENT,
            commitment.NO_SUCH_ACTION,
            commitment.NOT_AUTHORIZED,
            commitment.RESOURCE_LIMITATION,
            commitment_requests.NO_SUCH_INSTANCE,
            commitment_requests.CLASS_INSTANCE_CONFLICT,
        )
    }
    assert f"More than {commitment.MOST_INSTANCES} instances" in text
    assert f"{commitment_requests.MOST_OWED} reports owed" in text
    assert timedelta(hours=24) == commitment_requests.KEEP_TRYING
    assert not NodeSection(ae_title="A").storage_commitment


def test_what_delivery_asks_for_is_what_the_statement_says() -> None:
    text = section("3.1")

    assert f"| {commitment.COMMITMENT} |" in text
    assert f"| {FIND} |" in text
    assert f"up to {proving.MOST_IN_A_REQUEST} instances" in text
    assert f"open for {proving.STAY_SECONDS:g} s" in text
    assert commitment.COMMITMENT in section("2.1")
