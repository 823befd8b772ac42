"""Section 7 of the conformance statement: each Application Entity, and every status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node import commitment, proving, statuses
from node.config.file import Config
from node.markdown import Row, table
from node.receive import access
from node.receive.connection import GuardSettings
from node.receive.settings import ReceiverSettings
from node.scu import Destination
from sr_templates.base import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


@dataclass(frozen=True)
class Entity:
    """One Application Entity.

    Parameters
    ----------
    name, does, activity : str
        What it does, and what a remote activity has to do with it.
    sequence : tuple of str
        Sequencing of Real-World Activities.
    initiation, acceptance : str
        When it opens associations, and when it takes them; empty: never.
    """

    name: str
    does: str
    activity: str
    sequence: tuple[str, ...]
    initiation: str = ""
    acceptance: str = ""


ENTITIES = (
    Entity(
        "Intake",
        "waits for associations; keeps what is sent",
        "modalities and archives send images, ask for commitment, report on commitment",
        (
            "C-STORE is answered with success when bytes, name and database row are on disk.",
            "A series is complete after a quiet time or when its evidence says so "
            "(`completion`); then rules decide, and jobs are opened.",
            "N-ACTION is answered when it is written down; the report is sent by Delivery.",
        ),
        acceptance=(
            "Where one entry of `peers` names the calling AE title, the address and, over TLS, the "
            "certificate, and the called AE title is ours."
        ),
    ),
    Entity(
        "Query",
        "asks peers for earlier studies and for the number of images",
        "archives answer C-FIND, and send by C-STORE in answer to C-MOVE or C-GET",
        (
            "C-FIND of earlier studies, then of their series, before a job that wants them.",
            "C-MOVE or C-GET of the series that a rule picks.",
        ),
        initiation="One association for each request, released after the answer.",
    ),
    Entity(
        "Delivery",
        "sends results to the destinations of a rule; proves that they are there",
        "archives and viewers keep results",
        (
            "All results of a job for one destination in one association, the report last.",
            "Where `confirm` says so: N-ACTION, then C-FIND at level IMAGE, in associations of "
            "their own.",
            "C-ECHO where a destination was away, before it is sent to again.",
        ),
        initiation=(
            "When a job has results, and again as `retry` says, until they are sent or given up; a "
            "destination is never called by more associations than `sending.associations`."
        ),
    ),
)
REJECTIONS = (
    (access.CALLED_AE_TITLE_NOT_RECOGNIZED, "Called AE title is another"),
    (access.CALLING_AE_TITLE_NOT_RECOGNIZED, "No peer of this title, address and certificate"),
    (access.USER_NOT_AUTHENTICATED, "Username or passcode is another, or not over TLS"),
    (access.APPLICATION_CONTEXT_NOT_SUPPORTED, "Another application context"),
    (access.PROTOCOL_VERSION_NOT_SUPPORTED, "Another protocol version"),
    (access.TEMPORARY_CONGESTION, "Disk below its mark"),
    (access.LOCAL_LIMIT_EXCEEDED, "Too many associations, in all or of this peer"),
    (access.NO_REASON_GIVEN, "Internal error"),
)
STORE_ANSWERS = (
    (statuses.SUCCESS, "Kept, durably; also what is there with the same bytes"),
    (statuses.DUPLICATE_SOP_INSTANCE, "Other bytes under a known UID, with `on_conflict: refuse`"),
    (statuses.SOP_CLASS_NOT_SUPPORTED, "Another SOP Class than its presentation context's"),
    (statuses.OUT_OF_RESOURCES, "Disk or database; nothing is kept"),
    (
        statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        "A UID is missing, malformed, or another than in the request",
    ),
    (statuses.CANNOT_UNDERSTAND, "Not readable; Error Comment says where"),
)
STORE_STATUSES = (
    0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0110, 0x0111, 0x0116, 0x0117, 0x0118, 0x0122, 0x0124,
    0x0210, 0x0211, 0x0212, 0xA700, 0xA900, 0xC000,
)  # fmt: skip
"""Those of PS3.2 table N.7-42, and others of PS3.7 that destinations are known to answer."""
BEHAVIOUR = {
    "sent": "The destination holds the object",
    "retry": "Sent again, as `retry` says",
    "refused": "An alert; tried again after the longest wait, or what `if_refused` names goes",
}
ACTION_ANSWERS = (
    (commitment.SUCCESS, "Written down; a report follows"),
    (commitment.PROCESSING_FAILURE, "Internal error"),
    (
        commitment.INVALID_ARGUMENT,
        "No valid Transaction UID, one that was used before, or no instances",
    ),
    (commitment.NO_SUCH_ACTION, "Another Action Type ID than 1"),
    (commitment.NOT_AUTHORIZED, "Switched off, or the peer has no address to report to"),
    (
        commitment.RESOURCE_LIMITATION,
        f"More than {commitment.MOST_INSTANCES} instances, or the database is away",
    ),
)
EVENT_ANSWERS = (
    (commitment.SUCCESS, "Written down; also where the same report comes again"),
    (commitment.PROCESSING_FAILURE, "It could not be written down; report again"),
    (commitment.NO_SUCH_INSTANCE, "Nobody asked for this Transaction UID, or not this peer"),
    (commitment.NO_SUCH_EVENT, "Another Event Type ID than 1 and 2"),
    (commitment.INVALID_ARGUMENT, "No valid Transaction UID"),
)


def details(config: Config) -> Iterator[str]:
    """Yield the lines of section 7 but for its heading."""
    yield "### 7.1 Common parameters"
    yield ""
    yield from table(
        ("Parameter", "Value"),
        (
            ("Application Context Name", "1.2.840.10008.3.1.1.1"),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Asynchronous operations", "not supported: 1 and 1"),
            ("SOP Class extended and common extended negotiation", "not supported"),
        ),
    )
    yield "### 7.2 Specifications"
    yield ""
    for number, entity in enumerate(ENTITIES, start=1):
        yield from _entity(f"7.2.{number}", entity, config)
    yield "### 7.3 Status Codes"
    yield ""
    yield from _statuses()


def _entity(number: str, entity: Entity, config: Config) -> Iterator[str]:
    yield f"#### {number} {entity.name} Application Entity"
    yield ""
    yield f"##### {number}.1 Sequencing of Real-World Activities"
    yield ""
    yield from (f"{place}. {step}" for place, step in enumerate(entity.sequence, start=1))
    yield ""
    yield f"##### {number}.2 Association Parameters"
    yield ""
    parameters = _accepting(config) if entity.acceptance else _calling(config)
    yield from table(("Parameter", "Value"), parameters)
    yield f"##### {number}.3 Association Initiation"
    yield ""
    yield entity.initiation or "It opens no association."
    yield ""
    yield f"##### {number}.4 Association Acceptance"
    yield ""
    yield entity.acceptance or "It takes no association."
    yield ""
    if entity.acceptance:
        rows = ((one.result, one.source, one.diagnostic, when) for one, when in REJECTIONS)
        yield from table(("Result", "Source", "Reason", "When rejected"), rows)


def _accepting(config: Config) -> Iterator[Row]:
    settings = ReceiverSettings(config.node.ae_title, (), "127.0.0.1", 0)
    guard = GuardSettings(is_listed=lambda address: True)
    yield "Maximum PDU length", f"{settings.max_pdu_bytes} bytes"
    yield "Associations at once", config.node.max_associations
    for peer in config.peers.values():
        if peer.sends_as:
            yield f"Associations at once of {peer.name}", peer.max_associations
    yield "TLS handshake within", f"{guard.handshake_seconds:g} s"
    yield "ARTIM timeout", f"{guard.request_seconds:g} s"
    yield "One PDU within", f"{guard.pdu_seconds:g} s"
    yield "Silence on an association", f"{settings.idle_seconds:g} s"
    yield "Longest association", f"{guard.longest_association_seconds:g} s"


def _calling(config: Config) -> Iterator[Row]:
    usual = Destination("host", 104, "THEM", "US")
    yield "Connection within", f"{usual.connect_seconds:g} s, unless the peer's `timeout` is less"
    for peer in config.peers.values():
        if peer.address is not None:
            yield f"Answers of {peer.name} within", f"{peer.timeout_seconds:g} s"
            yield f"Associations at once with {peer.name}", peer.sending.associations
    yield "Instances in one N-ACTION", f"at most {proving.MOST_IN_A_REQUEST}"
    yield "Open after N-ACTION", f"{proving.STAY_SECONDS:g} s"


def _statuses() -> Iterator[str]:
    yield "#### 7.3.2.5 Storage Service"
    yield ""
    yield "SCU of C-STORE; any other status counts as refused:"
    yield ""
    yield from table(
        ("Status", "Meaning", "Behavior"),
        (
            (f"{code:04X}", statuses.meaning_of(code), BEHAVIOUR[statuses.kind_of(code)])
            for code in STORE_STATUSES
        ),
    )
    yield "SCP of C-STORE; Error Comment (0000,0902) holds no patient data:"
    yield ""
    yield from _answers(STORE_ANSWERS)
    yield "#### 7.3.2.6 Storage Commitment Service"
    yield ""
    yield "SCP of N-ACTION:"
    yield ""
    yield from _answers(ACTION_ANSWERS)
    yield "SCU, answering N-EVENT-REPORT:"
    yield ""
    yield from _answers(EVENT_ANSWERS)


def _answers(answers: tuple[tuple[int, str], ...]) -> Iterator[str]:
    yield from table(("Status", "Condition"), ((f"{code:04X}", when) for code, when in answers))
