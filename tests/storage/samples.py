"""Small things to store, for tests."""

from __future__ import annotations

from datetime import timedelta

import xxhash

from storage import new_jobs, series
from storage.base import Acceptance, ClosedSeries, JobState, NewJob, NewResult, ReceivedInstance
from storage.database import Database
from storage.intake import Intake

STUDY, SERIES = "1.2.3", "1.2.3.4"


def received(number: int, content: bytes = b"", series_uid: str = SERIES) -> ReceivedInstance:
    """An instance of one series."""
    content = content or f"content {number}".encode()
    return ReceivedInstance(
        study_instance_uid=STUDY,
        series_instance_uid=series_uid,
        sop_instance_uid=f"{series_uid}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        digest=f"xxh3:{xxhash.xxh3_128_hexdigest(content)}",
        size=len(content),
        peer="CT1",
        header={"Modality": ["CT"]},
    )


def push(intake: Intake, instance: ReceivedInstance, content: bytes = b"") -> Acceptance:
    """Hand one instance to the intake, as a receiver does: its bytes, or those of `received`."""
    content = content or f"content {instance.sop_instance_uid.rpartition('.')[2]}".encode()
    spool = intake.objects.spool()
    spool.write_all([content])
    return intake.accept(instance, spool)


def close(database: Database, quiet: float = 45, max_wait: float = 1200) -> list[ClosedSeries]:
    """Close what is due."""
    with database.transaction() as tx:
        return series.close_due(
            tx, quiet=timedelta(seconds=quiet), max_wait=timedelta(seconds=max_wait)
        )


def new_job(key: str, destinations: dict[str, list[str]] | None = None) -> NewJob:
    """A job that is ready to run."""
    return NewJob(
        rule="head-ct",
        mode="live",
        pipeline="haemorrhage",
        model="haemorrhage-demo",
        priority=5,
        idem_key=key,
        config_digest="c" * 64,
        state=JobState.QUEUED,
        reason="",
        sentence="",
        snapshot={"destinations": destinations or {}},
    )


def result(slot: str) -> NewResult:
    """A result of a job."""
    return NewResult(slot, f"2.3.{len(slot)}", f"2.{len(slot)}", "1.2", "1.3", "k", "s" * 64, 1)


def open_job(database: Database, intake: Intake, key: str = "a" * 64) -> int:
    """A series of one instance, closed at once, with a job."""
    push(intake, received(1))
    with database.transaction() as tx:
        closed = series.close_due(tx, quiet=timedelta(0), max_wait=timedelta(0))[0]
        job_id = new_jobs.insert(tx, closed, new_job(key))
    assert job_id is not None
    return job_id
