"""The words of `storage`: states with their allowed moves, and the values it hands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

DISK_FAILED = 70
LOG_LOST = 71
"""Exit status after a failed flush: the supervisor starts the process anew."""


class StoreUnavailable(Exception):
    """Raised when the database or the disk cannot be used now; trying again later may help."""


class StoreFull(StoreUnavailable):
    """Raised when there is no room for another instance."""


class StoreBroken(Exception):
    """Raised when a flush to disk failed: what is on disk is unknown and the process must end.

    References
    ----------
    PostgreSQL's "fsyncgate": after a failed fsync the kernel drops the dirty pages, so trying
    again reports success for bytes that are gone.
    """


class LogLost(StoreBroken):
    """Raised when the database's write-ahead log was deleted or replaced under us.

    Rows go to a file without a name. They reach the database when all processes that use it end
    in order, and are lost when one is killed before.
    """


class LeaseLost(Exception):
    """Raised when somebody else owns the row by now; what we did is to be discarded."""


class SeriesState(StrEnum):
    """Whether instances are still awaited."""

    OPEN = "open"
    CLOSED = "closed"


class CompletionVerdict(StrEnum):
    """Why a generation of a series was closed."""

    PROVED_COMPLETE = "proved_complete"
    QUIET = "quiet"
    PROVED_INCOMPLETE = "proved_incomplete"
    FORCED = "forced"


@dataclass(frozen=True)
class Completeness:
    """Whether all of a series has come, as far as something other than time tells.

    Parameters
    ----------
    verdict : CompletionVerdict
        Proved complete, or proved incomplete.
    sentence : str
        What was counted. No patient data.
    """

    verdict: CompletionVerdict
    sentence: str


@dataclass(frozen=True)
class SenderCount:
    """How many instances of a series, or of a study, the peer that sent it says to hold."""

    peer: str
    instances: int


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRY_WAIT = "retry_wait"
    HELD = "held"
    DELIVERING = "delivering"
    DONE = "done"
    NOT_SCORED = "not_scored"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


FINAL_JOB_STATES = frozenset(
    {
        JobState.DONE,
        JobState.NOT_SCORED,
        JobState.FAILED,
        JobState.QUARANTINED,
        JobState.CANCELLED,
        JobState.SUPERSEDED,
    }
)

JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    # from: to. An expired lease lets RUNNING be claimed again.
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.HELD, JobState.CANCELLED, JobState.SUPERSEDED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.RETRY_WAIT,
            JobState.HELD,
            JobState.DELIVERING,
            JobState.DONE,
            JobState.NOT_SCORED,
            JobState.FAILED,
            JobState.QUARANTINED,
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.RETRY_WAIT: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.HELD,
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.HELD: frozenset(
        {JobState.QUEUED, JobState.NOT_SCORED, JobState.CANCELLED, JobState.SUPERSEDED}
    ),
    JobState.DELIVERING: frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.DELIVERING}),
    JobState.QUARANTINED: frozenset({JobState.QUEUED}),
    JobState.NOT_SCORED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.DELIVERING}),
    JobState.DONE: frozenset(),
    JobState.SUPERSEDED: frozenset(),
}


def sources_of(target: JobState) -> list[JobState]:
    """States from which a job may move to `target`."""
    return [state for state, targets in JOB_MOVES.items() if target in targets]


class DeliveryState(StrEnum):
    """Where one result stands on its way to one destination."""

    PENDING = "pending"
    SENDING = "sending"
    RETRY_WAIT = "retry_wait"
    HELD = "held"
    """By an admin."""
    SENT = "sent"
    """The destination said that it holds it, and no more is asked for."""
    CONFIRMING = "confirming"
    """Sent; that the destination holds it is to be proved."""
    PROVED = "proved"
    UNPROVED = "unproved"
    """Sent, and in all the time there was it was not proved."""
    REPLACED = "replaced"
    """Another result went in its place: the destination does not take this one."""
    REFUSED = "refused"
    CANCELLED = "cancelled"


TO_SEND = frozenset({DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.RETRY_WAIT})
FINAL_DELIVERY_STATES = frozenset(
    {
        DeliveryState.SENT,
        DeliveryState.PROVED,
        DeliveryState.UNPROVED,
        DeliveryState.REPLACED,
        DeliveryState.REFUSED,
        DeliveryState.CANCELLED,
    }
)


class Acceptance(StrEnum):
    """What became of an instance that was handed to the intake; all but REFUSED are on disk."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """Other bytes under a known UID, kept beside the first."""
    REPLACED = "replaced"
    """Other bytes under a known UID, in the place of the first, which is kept beside them."""
    REFUSED = "refused"
    """Other bytes under a known UID, not kept."""


class OnConflict(StrEnum):
    """What to do with other bytes under the UID of an instance that we hold."""

    KEEP_FIRST = "keep_first"
    REFUSE = "refuse"
    REPLACE = "replace"


@dataclass(frozen=True)
class ReceivedInstance:
    """Identity of an instance and the keys of its header that rules look at.

    `digest` (``xxh3:`` and 32 hexadecimal digits of XXH3-128) and `size` are of the data set as
    received, without the Part 10 header. `header`
    maps DICOM keywords (or paths) to the list of their values; an absent element has no entry,
    an empty one an empty list.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    peer: str
    header: Mapping[str, Any]
    association_id: int | None = None


@dataclass(frozen=True)
class StoredInstance:
    """An instance we hold."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    object_key: str
    generation: int
    header: Mapping[str, Any]


@dataclass(frozen=True)
class ClosedSeries:
    """One generation of a series, just closed."""

    series_id: int
    study_instance_uid: str
    series_instance_uid: str
    generation: int
    verdict: CompletionVerdict
    instances: tuple[StoredInstance, ...]
    input_digest: str
    peers: tuple[str, ...]
    evidence: str = ""
    """What was counted, where something other than time told; no patient data."""


@dataclass(frozen=True)
class NewJob:
    """A job to be inserted.

    `snapshot` is what the rule said when it was decided (model folder and digest, labels,
    destinations with their retries, timeout): later changes of the file do not touch it.
    `inputs` maps the name of each received input to the id and generation of its series; empty:
    the one series. `next_at_seconds` is when to look after a held job first; None: never.
    `notice_of` is the job that a notice is about.
    """

    rule: str
    mode: str
    pipeline: str
    model: str
    priority: int
    idem_key: str
    config_digest: str
    state: JobState
    reason: str
    sentence: str
    snapshot: Mapping[str, Any]
    inputs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    next_at_seconds: float | None = None
    notice_of: int | None = None


@dataclass(frozen=True)
class Job:
    """A job as the database has it."""

    id: int
    series_id: int
    generation: int
    study_instance_uid: str
    series_instance_uid: str
    rule: str
    mode: str
    pipeline: str
    model: str
    priority: int
    idem_key: str
    state: JobState
    step: str
    attempt: int
    deliveries: int
    next_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None
    lease_token: int
    reason: str
    sentence: str
    progress: float
    progress_note: str
    frozen_at: datetime
    created_at: datetime
    ended_at: datetime | None
    snapshot: Mapping[str, Any]
    notice_of: int | None = None
    """The job that a notice is about; None: it is no notice."""


@dataclass(frozen=True)
class NewResult:
    """A result whose bytes are durable in the object store."""

    slot: str
    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    object_key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Delivery:
    """One result on its way to one destination.

    `evidence` maps a rung of the ladder (``store``, ``commitment``, ``find``) to what was seen:
    ``state`` and ``at``, and what belongs to the rung.
    """

    id: int
    job_id: int
    destination: str
    slot: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    object_key: str
    sha256: str
    position: int
    state: DeliveryState
    attempt: int
    lease_token: int
    next_at: datetime | None = None
    status: int | None = None
    sentence: str = ""
    created_at: datetime | None = None
    sent_at: datetime | None = None
    transaction_uid: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
