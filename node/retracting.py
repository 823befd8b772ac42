"""Taking the results of a job back: rejection notes for whoever has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import uuid4

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from pipelines.base import SLOTS
from storage import jobs, retraction
from storage.base import FINAL_JOB_STATES, Job, JobState, NewResult
from storage.database import Database
from storage.objects import FileObjects, object_key
from storage.retraction import RETRACTED, Changed, Sent

MOST_TRIES = 10
LONGEST_REASON = 1024


class NotRetractable(ValueError):
    """Raised when the results of a job cannot be taken back; the sentence says why."""


@dataclass(frozen=True)
class Retracted:
    """What was done.

    Parameters
    ----------
    told_by : int or None
        Id of the job that delivers the notes; None: nobody has any of the results.
    destinations : tuple of str
        Who is told.
    results : tuple of str
        SOP Instance UIDs that are taken back.
    """

    told_by: int | None
    destinations: tuple[str, ...]
    results: tuple[str, ...]


def retract(database: Database, objects: FileObjects, job_id: int, reason: str) -> Retracted:
    """Stop what is not sent, and send a rejection note to everybody who has any of the results.

    Parameters
    ----------
    reason : str
        For the reader of the note; without patient data.

    Raises
    ------
    NotRetractable
        There is no such job, it has no results, their bytes were deleted, or it was done before;
        or the reason is none.
    """
    reason = _sentence(reason)
    for _ in range(MOST_TRIES):
        try:
            return _retract(database, objects, job_id, reason)
        except Changed:
            continue  # something was sent meanwhile: whoever has it by now is told, too
    raise NotRetractable(
        f"Results of job {job_id} are being sent all the time. Suspend its destinations "
        "(scorenode peers suspend NAME), then try again."
    )


def _sentence(reason: str) -> str:
    from sr_templates.checks.texts import unfit

    text = reason.strip()
    if not text or len(text) > LONGEST_REASON:
        raise NotRetractable(
            f"A reason is a sentence of at most {LONGEST_REASON} characters, for the reader of the "
            f"note; this has {len(text)}."
        )
    if why := unfit(text):
        raise NotRetractable(f"The reason {why}: no note that says it would leave.")
    return text


def _retract(database: Database, objects: FileObjects, job_id: int, reason: str) -> Retracted:
    with database.snapshot() as tx:
        job = _retractable(job_id, jobs.get(tx, job_id))
        sent = retraction.sent_results(tx, job_id)
        now = tx.now.astimezone()
    if not sent:
        raise NotRetractable(
            f"Job {job_id} has no results. To stop it: scorenode jobs cancel {job_id}."
        )
    notes = _notes(job, sent, objects, reason, now)
    with database.transaction() as tx:
        told_by = retraction.retract(tx, job, sent, notes, reason)
    destinations = {name for one in sent for name in one.destinations}
    return Retracted(
        told_by, tuple(sorted(destinations)), tuple(one.sop_instance_uid for one in sent)
    )


def _retractable(job_id: int, job: Job | None) -> Job:
    if job is None:
        raise NotRetractable(f"There is no job {job_id}.")
    if job.reason == RETRACTED:
        raise NotRetractable(f"Job {job_id} was taken back before: {job.sentence}")
    if job.pipeline == retraction.PIPELINE:
        raise NotRetractable(f"Job {job_id} takes results back; it has none of its own.")
    if job.state not in FINAL_JOB_STATES | {JobState.DELIVERING}:
        raise NotRetractable(
            f"Job {job_id} is {job.state} and has no results yet. To stop it: "
            f"scorenode jobs cancel {job_id}."
        )
    return job


def _notes(
    job: Job, sent: Sequence[Sent], objects: FileObjects, reason: str, now: datetime
) -> dict[str, tuple[NewResult, list[str]]]:
    """Make one note for all destinations that have the same results."""
    have: dict[frozenset[str], list[str]] = {}
    for destination in sorted({name for one in sent for name in one.destinations}):
        slots = frozenset(one.slot for one in sent if destination in one.destinations)
        have.setdefault(slots, []).append(destination)
    notes = {}
    for number, (slots, destinations) in enumerate(have.items(), start=1):
        results = [_read(one, objects) for one in sent if one.slot in slots]
        slot = f"rejection-{number}"
        data, ds = _note(job, results, reason, slot, now)
        notes[slot] = (_keep(job, slot, ds, data, objects), destinations)
    return notes


def _read(one: Sent, objects: FileObjects) -> Dataset:
    try:
        return dcmread(objects.path(one.object_key), stop_before_pixels=True)
    except (OSError, InvalidDicomError, ValueError):
        raise NotRetractable(
            f"The bytes of the {one.slot} {one.sop_instance_uid} are not kept any more "
            "(retention.results): reject it at the destination itself."
        ) from None


def _note(
    job: Job, results: Sequence[Dataset], reason: str, slot: str, now: datetime
) -> tuple[bytes, Dataset]:
    from sr_templates.base import ObjectIdentity
    from sr_templates.check import problems
    from sr_templates.part10 import to_bytes
    from sr_templates.rejection import maker_of_result, rejection_note

    entropy = (retraction.note_key(job), slot)
    root = job.snapshot["uid_root"]
    number = min(label["number"] for label in job.snapshot["labels"].values()) + len(SLOTS)
    identity = ObjectIdentity(
        sop_instance_uid=str(generate_uid(prefix=root, entropy_srcs=[*entropy, "instance"])),
        series_instance_uid=str(generate_uid(prefix=root, entropy_srcs=[*entropy, "series"])),
        series_number=number,
        series_description=f"Rejected: {job.rule}",
        uid_root=root,
        entropy=entropy,
    )
    ds = rejection_note(results, reason, identity, maker_of_result(results[0], now))
    found = problems(ds, [])
    if found:
        raise NotRetractable(f"The rejection note failed its own check: {'; '.join(found)}.")
    return to_bytes(ds), ds


def _keep(job: Job, slot: str, ds: Dataset, data: bytes, objects: FileObjects) -> NewResult:
    digest = sha256(data).hexdigest()
    key = object_key("results", retraction.note_key(job), slot, digest, uuid4().hex)
    objects.put(key, data)
    return NewResult(
        slot=slot,
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
        object_key=key,
        sha256=digest,
        size=len(data),
    )
