"""The tables. Times are UTC by the database's clock; states move only as `base` allows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UTCDateTime(TypeDecorator[datetime]):
    """A timezone-aware datetime in UTC, on SQLite (naive text) and PostgreSQL (timestamptz)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime was given; times are timezone-aware here")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")
UID = sa.String(64)


class Base(DeclarativeBase):
    """Common to all tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way to say it
        datetime: UTCDateTime(),
        dict[str, Any]: sa.JSON(),
        list[Any]: sa.JSON(),
    }


class Meta(Base):
    """Facts about this store: schema notes, the salt of result UIDs."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    value: Mapped[str] = mapped_column(sa.Text)


ObjectKey = sa.String(160).with_variant(sa.String(160, collation="C"), "postgresql")
"""Compared byte by byte: ranges of names are ranges of a segment, whatever the locale."""


class Node(Base):
    """A process of a node, as it last said it was alive."""

    __tablename__ = "node"
    owner: Mapped[str] = mapped_column(sa.String(160), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    role: Mapped[str] = mapped_column(sa.String(32))
    version: Mapped[str] = mapped_column(sa.String(32))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    facts: Mapped[dict[str, Any]]


class Association(Base):
    """An association that a peer opened with us."""

    __tablename__ = "association"
    __table_args__ = (sa.Index("association_closed", "closed_at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(160))
    peer: Mapped[str] = mapped_column(sa.String(64))
    address: Mapped[str] = mapped_column(sa.String(64))
    calling_ae_title: Mapped[str] = mapped_column(sa.String(16))
    called_ae_title: Mapped[str] = mapped_column(sa.String(16))
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    end_reason: Mapped[str] = mapped_column(sa.String(32), default="")
    stored: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    bytes: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class Study(Base):
    """A study we have instances of."""

    __tablename__ = "study"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class Series(Base):
    """A series; instances that arrive after it was closed open its next generation."""

    __tablename__ = "series"
    __table_args__ = (
        sa.UniqueConstraint("study_id", "series_instance_uid"),
        sa.Index("series_due", "state", "last_at"),
        sa.Index("series_uid", "series_instance_uid"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("study.id"))
    series_instance_uid: Mapped[str] = mapped_column(UID)
    state: Mapped[str] = mapped_column(sa.String(16))
    generation: Mapped[int]
    n_instances: Mapped[int]
    bytes: Mapped[int] = mapped_column(sa.BigInteger)
    modality: Mapped[str] = mapped_column(sa.String(16))
    first_at: Mapped[datetime]
    opened_at: Mapped[datetime]
    last_at: Mapped[datetime]
    counted: Mapped[int | None]
    counted_at: Mapped[datetime | None]


class Instance(Base):
    """An instance whose bytes we hold; the row is the promise behind status 0x0000."""

    __tablename__ = "instance"
    __table_args__ = (sa.UniqueConstraint("series_id", "sop_instance_uid"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    series_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    generation: Mapped[int]
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    digest: Mapped[str] = mapped_column(sa.String(64))
    size: Mapped[int] = mapped_column(sa.BigInteger)
    object_key: Mapped[str] = mapped_column(ObjectKey, index=True)
    peer: Mapped[str] = mapped_column(sa.String(64))
    association_id: Mapped[int | None] = mapped_column(BigId)
    received_at: Mapped[datetime]
    duplicates: Mapped[int] = mapped_column(default=0)
    header: Mapped[dict[str, Any]]


class Conflict(Base):
    """Other bytes that came under the UID of an instance we hold."""

    __tablename__ = "conflict"
    __table_args__ = (sa.UniqueConstraint("instance_id", "digest"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    instance_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("instance.id"))
    digest: Mapped[str] = mapped_column(sa.String(64))
    object_key: Mapped[str] = mapped_column(ObjectKey, index=True)
    peer: Mapped[str] = mapped_column(sa.String(64))
    received_at: Mapped[datetime]


class Generation(Base):
    """One closing of a series, and why it was closed."""

    __tablename__ = "generation"
    series_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("series.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    closed_at: Mapped[datetime]
    verdict: Mapped[str] = mapped_column(sa.String(24))
    n_instances: Mapped[int]
    input_digest: Mapped[str] = mapped_column(sa.String(64))
    evidence: Mapped[str] = mapped_column(sa.Text, default="", server_default="")


class Decision(Base):
    """What one rule said of one generation, with values found and wanted."""

    __tablename__ = "decision"
    __table_args__ = (sa.Index("decision_series", "series_id", "generation"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    series_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("series.id"))
    generation: Mapped[int]
    rule: Mapped[str] = mapped_column(sa.String(64))
    outcome: Mapped[str] = mapped_column(sa.String(16))
    sentence: Mapped[str] = mapped_column(sa.Text)
    data: Mapped[dict[str, Any]]
    config_digest: Mapped[str] = mapped_column(sa.String(64))
    decided_at: Mapped[datetime]


class Job(Base):
    """One run of one pipeline over one generation of a series."""

    __tablename__ = "job"
    __table_args__ = (
        sa.Index("job_due", "state", "priority", "next_at"),
        sa.Index("job_lease", "lease_until"),
        sa.Index("job_series", "series_id", "generation"),
        sa.Index("job_tell", "tell_at"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    idem_key: Mapped[str] = mapped_column(sa.String(64), unique=True)
    series_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("series.id"))
    generation: Mapped[int]
    rule: Mapped[str] = mapped_column(sa.String(64))
    mode: Mapped[str] = mapped_column(sa.String(16))
    pipeline: Mapped[str] = mapped_column(sa.String(64))
    model: Mapped[str] = mapped_column(sa.String(128))
    config_digest: Mapped[str] = mapped_column(sa.String(64))
    snapshot: Mapped[dict[str, Any]]
    priority: Mapped[int]
    state: Mapped[str] = mapped_column(sa.String(16))
    step: Mapped[str] = mapped_column(sa.String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    deliveries: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(sa.String(160))
    lease_until: Mapped[datetime | None]
    lease_token: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(sa.String(64), default="")
    sentence: Mapped[str] = mapped_column(sa.Text, default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    progress_note: Mapped[str] = mapped_column(sa.String(64), default="")
    frozen_at: Mapped[datetime]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    tell_at: Mapped[datetime | None]
    notice_of: Mapped[int | None] = mapped_column(BigId)


class JobInput(Base):
    """Which generations of which series a job reads, by role."""

    __tablename__ = "job_input"
    job_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("job.id"), primary_key=True)
    role: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    series_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("series.id"), primary_key=True)
    generation: Mapped[int]


class StepRun(Base):
    """One attempt at one step."""

    __tablename__ = "step_run"
    __table_args__ = (sa.Index("step_run_job", "job_id"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("job.id"))
    step: Mapped[str] = mapped_column(sa.String(16))
    attempt: Mapped[int]
    owner: Mapped[str] = mapped_column(sa.String(160))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    outcome: Mapped[str] = mapped_column(sa.String(16))
    reason: Mapped[str] = mapped_column(sa.String(64), default="")
    sentence: Mapped[str] = mapped_column(sa.Text, default="")
    seconds: Mapped[float]
    facts: Mapped[dict[str, Any]]


class Result(Base):
    """An instance we made; fixed for ever once the row is there."""

    __tablename__ = "result"
    __table_args__ = (sa.UniqueConstraint("job_id", "slot"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("job.id"))
    slot: Mapped[str] = mapped_column(sa.String(16))
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    object_key: Mapped[str] = mapped_column(sa.String(160), index=True)
    sha256: Mapped[str] = mapped_column(sa.String(64))
    size: Mapped[int] = mapped_column(sa.BigInteger)
    made_at: Mapped[datetime]


class Delivery(Base):
    """One result on its way to one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        sa.UniqueConstraint("result_id", "destination"),
        sa.Index("delivery_due", "state", "destination", "next_at"),
        sa.Index("delivery_job", "job_id"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("job.id"))
    result_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("result.id"))
    destination: Mapped[str] = mapped_column(sa.String(64))
    position: Mapped[int]
    state: Mapped[str] = mapped_column(sa.String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(sa.String(160))
    lease_until: Mapped[datetime | None]
    lease_token: Mapped[int] = mapped_column(default=0)
    status: Mapped[int | None]
    sentence: Mapped[str] = mapped_column(sa.Text, default="")
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    proved_at: Mapped[datetime | None]
    transaction_uid: Mapped[str | None] = mapped_column(UID, index=True)
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Destination(Base):
    """Run-time state of a destination; what it is stands in the configuration."""

    __tablename__ = "destination"
    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    suspended: Mapped[bool] = mapped_column(default=False)
    last_ok_at: Mapped[datetime | None]
    last_failure_at: Mapped[datetime | None]
    last_sentence: Mapped[str] = mapped_column(sa.Text, default="")
    open_until: Mapped[datetime | None]
    """Until then nothing is tried; then one C-ECHO tells. None: it is not known to be away."""
    capabilities: Mapped[dict[str, Any]] = mapped_column(default=dict)
    checked_at: Mapped[datetime | None]


class Commitment(Base):
    """A storage commitment that we asked for."""

    __tablename__ = "commitment"
    transaction_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    destination: Mapped[str] = mapped_column(sa.String(64))
    state: Mapped[str] = mapped_column(sa.String(16))
    deadline_at: Mapped[datetime]


class CommitmentRequest(Base):
    """A storage commitment that a peer asked for, and the report that is owed to it."""

    __tablename__ = "commitment_request"
    peer: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    state: Mapped[str] = mapped_column(sa.String(16), index=True)
    instances: Mapped[list[Any]]
    attempt: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    asked_at: Mapped[datetime]


class Retrieval(Base):
    """A series that we retrieved from a peer, or are about to."""

    __tablename__ = "retrieval"
    series_instance_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID)
    peer: Mapped[str] = mapped_column(sa.String(64))
    state: Mapped[str] = mapped_column(sa.String(16))
    instances: Mapped[int]
    asked_at: Mapped[datetime]


class Task(Base):
    """A wake-up for a worker: the row is the message. Its id is ``<queue>:<job id>``."""

    __tablename__ = "task"
    __table_args__ = (sa.Index("task_due", "queue", "state", "eta"),)
    message_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    queue: Mapped[str] = mapped_column(sa.String(32))
    job_id: Mapped[int] = mapped_column(BigId)
    priority: Mapped[int]
    eta: Mapped[datetime]
    state: Mapped[str] = mapped_column(sa.String(16))
    owner: Mapped[str | None] = mapped_column(sa.String(160))
    lease_until: Mapped[datetime | None]
    deliveries: Mapped[int] = mapped_column(default=0)


class Alert(Base):
    """Something a person should look at, once per key."""

    __tablename__ = "alert"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(160), unique=True)
    state: Mapped[str] = mapped_column(sa.String(16))
    sentence: Mapped[str] = mapped_column(sa.Text)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    count: Mapped[int] = mapped_column(default=1)
    told_at: Mapped[datetime | None]


class Event(Base):
    """What happened, append-only."""

    __tablename__ = "event"
    __table_args__ = (sa.Index("event_at", "at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    node: Mapped[str] = mapped_column(sa.String(64))
    kind: Mapped[str] = mapped_column(sa.String(48))
    series_id: Mapped[int | None] = mapped_column(BigId)
    job_id: Mapped[int | None] = mapped_column(BigId)
    data: Mapped[dict[str, Any]]
