"""Storage commitment: requests and reports as data sets, and what we do when one comes.

Both come to our own port: the N-EVENT-REPORT of a destination that we asked (it opens an
association and proposes to be the SCP), and the N-ACTION of a peer that asks us. What we vouch
for is written down first; the report goes out from the sender.

References
----------
DICOM PS3.4 annex J; PS3.7 D.3.3.4 (role selection).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from node.config.file import Config
from storage import commitment_requests, proofs
from storage.base import LeaseLost, StoreUnavailable
from storage.commitment_requests import Judged, Reference
from storage.database import Database

log = structlog.get_logger(__name__)

COMMITMENT = str(StorageCommitmentPushModel)
WELL_KNOWN_INSTANCE = str(StorageCommitmentPushModelInstance)
REQUEST_ACTION = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
MOST_INSTANCES = 10_000

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
NO_SUCH_EVENT = 0x0113
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
RESOURCE_LIMITATION = 0x0213


class InvalidCommitment(ValueError):
    """Raised when a request or report lacks what it must have."""


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT: what is committed, and what is not, with its Failure Reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: dict[str, int]


def request_of(transaction_uid: str, references: Iterable[Reference]) -> Dataset:
    """Make the Action Information of an N-ACTION."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [_item(one) for one in references]
    return ds


def report_of(transaction_uid: str, judged: Judged) -> tuple[int, Dataset]:
    """Make the Event Type ID and Event Information of an N-EVENT-REPORT."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    if judged.held:
        ds.ReferencedSOPSequence = [_item(one) for one in judged.held]
    if judged.failed:
        ds.FailedSOPSequence = [_item(one, reason) for one, reason in judged.failed]
    return (SOME_FAILED if judged.failed else ALL_COMMITTED), ds


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    if reason is not None:
        item.FailureReason = reason
    return item


def read_report(information: Dataset) -> Report:
    """Read Event Information.

    Raises
    ------
    InvalidCommitment
    """
    failed = {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", PROCESSING_FAILURE))
        for item in information.get("FailedSOPSequence", [])
    }
    committed = {
        str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", [])
    }
    return Report(_transaction_of(information), frozenset(committed - failed.keys()), failed)


def read_request(information: Dataset) -> tuple[str, list[Reference]]:
    """Read Action Information.

    Raises
    ------
    InvalidCommitment
    """
    references = [
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in information.get("ReferencedSOPSequence", [])
    ]
    if not references or not all(UID(uid).is_valid for pair in references for uid in pair):
        raise InvalidCommitment("a commitment request lists no valid instances")
    return _transaction_of(information), references


def _transaction_of(information: Dataset) -> str:
    uid = UID(str(information.get("TransactionUID", "")))
    if not uid or not uid.is_valid:
        raise InvalidCommitment("a storage commitment has no valid Transaction UID")
    return str(uid)


def take_report(database: Database, information: Dataset, is_from: Callable[[str], bool]) -> int:
    """Write an N-EVENT-REPORT down; the status it is answered with.

    Parameters
    ----------
    database : Database
    information : Dataset
        Event Information.
    is_from : callable
        Whether the report came from a destination, by its name.
    """
    try:
        report = read_report(information)
    except (InvalidCommitment, AttributeError, TypeError, ValueError):
        log.warning("commitment.refused", reason="malformed")
        return INVALID_ARGUMENT
    for last_try in (False, False, True):
        try:
            with database.transaction() as tx:
                name = proofs.asked_of(tx, report.transaction_uid)
                if name is None or not is_from(name):
                    reason = "not_asked_for" if name is None else "wrong_peer"
                    log.warning(
                        "commitment.refused",
                        reason=reason,
                        transaction_uid=report.transaction_uid,
                    )
                    return NO_SUCH_INSTANCE
                count = proofs.reported(tx, report.transaction_uid, report.committed, report.failed)
        except (LeaseLost, StoreUnavailable) as error:
            if last_try:
                log.warning("commitment.postponed", error=type(error).__name__)
                return PROCESSING_FAILURE
        else:
            log.info(
                "commitment.reported",
                destination=name,
                transaction_uid=report.transaction_uid,
                deliveries=count,
                instances=len(report.committed),
                failed=len(report.failed),
            )
            return SUCCESS
    raise AssertionError("the last try returns")


class CommitmentService:
    """What comes to our port under the Storage Commitment Push Model SOP Class.

    Parameters
    ----------
    database : Database
    config : callable
        The configuration in use now.
    """

    def __init__(self, database: Database, config: Callable[[], Config]) -> None:
        self._database = database
        self._config = config

    def handlers(self) -> list[Any]:
        """Give pynetdicom what to call on which event."""
        return [
            (evt.EVT_N_EVENT_REPORT, self.on_report),
            (evt.EVT_N_ACTION, self.on_request),
        ]

    def on_report(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Take in what a destination reports on what we asked."""
        try:
            if event.event_type not in (ALL_COMMITTED, SOME_FAILED):
                return NO_SUCH_EVENT, None
            session = event.assoc.session  # type: ignore[attr-defined]
            titles = {session.request.calling_ae_title.strip()}

            def is_from(name: str) -> bool:
                peer = self._config().peers.get(name)
                address = peer.address if peer is not None else None
                return session.peer.name == name or bool(address and address.ae_title in titles)

            return take_report(self._database, event.event_information, is_from), None
        except Exception as error:  # noqa: BLE001 - a DIMSE handler: the peer must hear something
            log.error("commitment.failed", error=type(error).__name__)
            return PROCESSING_FAILURE, None

    def on_request(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Write down what a peer asks us to vouch for; the sender reports."""
        try:
            return self._note(event), None
        except (InvalidCommitment, AttributeError, TypeError, ValueError):
            log.warning("commitment.refused", reason="malformed")
            return INVALID_ARGUMENT, None
        except StoreUnavailable as error:
            log.warning("commitment.postponed", error=type(error).__name__)
            return RESOURCE_LIMITATION, None
        except Exception as error:  # noqa: BLE001 - a DIMSE handler: the peer must hear something
            log.error("commitment.failed", error=type(error).__name__)
            return PROCESSING_FAILURE, None

    def _note(self, event: evt.Event) -> int:
        if event.action_type != REQUEST_ACTION:
            return NO_SUCH_ACTION
        config = self._config()
        name = event.assoc.session.peer.name  # type: ignore[attr-defined]
        peer = config.peers.get(name)
        if not config.node.storage_commitment or peer is None or peer.address is None:
            # Without an address there is nobody to report to.
            log.warning("commitment.refused", reason="not_offered", peer=name)
            return NOT_AUTHORIZED
        transaction_uid, references = read_request(event.action_information)
        if len(references) > MOST_INSTANCES:
            return RESOURCE_LIMITATION
        with self._database.transaction() as tx:
            if commitment_requests.owes_too_much(tx, name):
                return RESOURCE_LIMITATION
            is_new = commitment_requests.ask(tx, name, transaction_uid, references)
        log.info(
            "commitment.asked",
            peer=name,
            transaction_uid=transaction_uid,
            instances=len(references),
        )
        return SUCCESS if is_new else INVALID_ARGUMENT
