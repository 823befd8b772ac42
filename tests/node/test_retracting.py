"""Results are taken back from whoever has them, once, and with a note that says why."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.retracting import NotRetractable, retract
from sr_templates.check import problems
from sr_templates.part10 import to_bytes
from storage import deliveries, delivery_admin, jobs, new_jobs, results
from storage.base import Delivery, DeliveryState, JobState, NewResult
from storage.database import Database
from storage.deliveries import RetrySchedule
from storage.intake import Intake
from storage.job_admin import requeue
from storage.jobs import STEP_ORDER, RetryPolicy
from storage.objects import FileObjects
from storage.retraction import RETRACTED
from storage.tables import Delivery as DeliveryRow
from storage.tables import Job
from tests.sr_templates.objects import ROOT, Case, case
from tests.storage.samples import close, new_job, push, received

DESTINATIONS = {"PACS": ["seg", "sr"], "RIS": ["sr"], "ARCHIVE": ["seg", "sr"]}
LABELS = {slot: {"number": number, "description": "x"} for slot, number in (("sr", 9101),)}


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


@pytest.fixture
def intake(database: Database, objects: FileObjects) -> Iterator[Intake]:
    found = Intake(database, objects, lambda error: None)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def job_id(database: Database, objects: FileObjects, intake: Intake, made: Case) -> int:
    """A job whose results are made, and nothing of it sent yet."""
    push(intake, received(1))
    [closed] = close(database, quiet=0, max_wait=0)
    snapshot = {
        "destinations": {name: {} for name in DESTINATIONS},
        "uid_root": ROOT,
        "labels": LABELS,
    }
    new = new_job("a" * 64)
    with database.transaction() as tx:
        found = new_jobs.insert(tx, closed, type(new)(**{**vars(new), "snapshot": snapshot}))
    assert found is not None
    for step in STEP_ORDER[:-1]:
        with database.transaction() as tx:
            job = jobs.claim(tx, found, step, "me", RetryPolicy())
            assert job is not None
            jobs.finish_step(tx, job)
    with database.transaction() as tx:
        job = jobs.claim(tx, found, STEP_ORDER[-1], "me", RetryPolicy())
        assert job is not None
        kept = [_keep(objects, slot, ds) for slot, ds in (("seg", made.seg), ("sr", made.sr))]
        jobs.fix_results(tx, job, kept, DESTINATIONS)
    return found


def _keep(objects: FileObjects, slot: str, ds: Dataset | None) -> NewResult:
    assert ds is not None
    data, key = to_bytes(ds), f"results/aa/{slot}.dcm"
    objects.put(key, data)
    return NewResult(
        slot,
        str(ds.SOPInstanceUID),
        str(ds.SeriesInstanceUID),
        str(ds.SOPClassUID),
        "1.2.840.10008.1.2.1",
        key,
        "s" * 64,
        len(data),
    )


def send(database: Database, job_id: int, *names: str) -> None:
    """Let some destinations have what they are to get."""
    with database.transaction() as tx:
        claimed = deliveries.claim(tx, job_id, "me")
        for item in (item for name in names for item in claimed[name]):
            deliveries.finish(tx, item, "sent", 0, "", RetrySchedule())
        others = [DeliveryRow.state == DeliveryState.SENDING, DeliveryRow.attempt == 0]
        tx.execute(
            sa.update(DeliveryRow)
            .where(*others)
            .values(state=DeliveryState.PENDING, lease_owner=None, lease_until=None)
        )


def notes(database: Database, objects: FileObjects, job_id: int) -> dict[str, Dataset]:
    """Rejection notes by destination."""
    with database.snapshot() as tx:
        found: list[Delivery] = deliveries.find(tx, DeliveryRow.job_id == job_id)
    return {one.destination: dcmread(objects.path(one.object_key)) for one in found}


def rejected(note: Dataset) -> set[str]:
    return {
        str(reference.ReferencedSOPInstanceUID)
        for item in note.ContentSequence
        for reference in item.get("ReferencedSOPSequence", ())
    }


def test_who_has_results_gets_a_note_of_what_it_has_and_nobody_else(
    database: Database, objects: FileObjects, job_id: int, made: Case
) -> None:
    send(database, job_id, "PACS", "RIS")

    done = retract(database, objects, job_id, "Wrong model.")

    assert done.destinations == ("PACS", "RIS")
    assert done.told_by is not None
    found = notes(database, objects, done.told_by)
    seg, sr = str(made.segmentation.SOPInstanceUID), str(made.sr.SOPInstanceUID)
    assert {name: rejected(note) for name, note in found.items()} == {
        "PACS": {seg, sr},
        "RIS": {sr},
    }
    for note in found.values():
        assert problems(note, []) == []
        assert "Wrong model." in str(note)
        assert note.SeriesNumber == 9110
    with database.snapshot() as tx:
        job = jobs.get(tx, job_id)
        [cancelled] = {
            one.state
            for one in deliveries.find(tx, DeliveryRow.job_id == job_id)
            if one.destination == "ARCHIVE"
        }
    assert job is not None
    assert (job.state, job.reason) == (JobState.CANCELLED, RETRACTED)
    assert cancelled == DeliveryState.CANCELLED


def test_results_that_nobody_has_are_only_stopped(
    database: Database, objects: FileObjects, job_id: int
) -> None:
    done = retract(database, objects, job_id, "Wrong model.")

    assert (done.told_by, done.destinations) == (None, ())


def test_a_job_is_taken_back_once_and_never_sent_again(
    database: Database, objects: FileObjects, job_id: int
) -> None:
    send(database, job_id, "PACS")
    told_by = retract(database, objects, job_id, "Wrong model.").told_by
    assert told_by is not None

    for number, words in ((job_id, "before"), (told_by, "takes results back"), (999, "no job")):
        with pytest.raises(NotRetractable, match=words):
            retract(database, objects, number, "Again.")
    with database.transaction() as tx:
        assert not requeue(tx, job_id)


class SendsMeanwhile(FileObjects):
    """Objects of a node whose sender sends to RIS while the first note is being made."""

    def __init__(self, root: Path, database: Database, job_id: int) -> None:
        super().__init__(root)
        self._left = [(database, job_id)]

    def path(self, key: str) -> Path:
        while self._left:
            send(*self._left.pop(), "RIS")
        return super().path(key)


def test_who_gets_a_result_while_the_notes_are_made_is_told_too(
    database: Database, objects: FileObjects, job_id: int
) -> None:
    send(database, job_id, "PACS")

    done = retract(database, SendsMeanwhile(objects.root, database, job_id), job_id, "Wrong model.")

    assert done.destinations == ("PACS", "RIS")
    assert done.told_by is not None
    assert set(notes(database, objects, done.told_by)) == {"PACS", "RIS"}


@pytest.mark.parametrize("state", [DeliveryState.UNPROVED, DeliveryState.CANCELLED])
def test_what_was_taken_back_is_not_tried_again_by_itself(
    database: Database, objects: FileObjects, job_id: int, state: DeliveryState
) -> None:
    send(database, job_id, "PACS")
    retract(database, objects, job_id, "Wrong model.")
    with database.transaction() as tx:
        [item, *_] = deliveries.find(tx, DeliveryRow.job_id == job_id)
        tx.execute(sa.update(DeliveryRow).where(DeliveryRow.id == item.id).values(state=state))

        assert not delivery_admin.retry(tx, item.id)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (" ", "this has 0"),
        ("x" * 1025, "this has 1025"),
        ("Wrong\0model", "control character"),
        ("Half a \ud800", "control character"),
        ("Wrong model ????", "question marks in place of letters"),
        ("HÃ¤morrhagie", "UTF-8 that was encoded twice"),
    ],
)
def test_a_reason_nobody_could_read_is_refused(
    database: Database, objects: FileObjects, job_id: int, reason: str, words: str
) -> None:
    send(database, job_id, "PACS")

    with pytest.raises(NotRetractable, match=words):
        retract(database, objects, job_id, reason)

    assert retract(database, objects, job_id, " Why? Wrong side,\nfalsche Höhe. ").told_by


def test_a_note_needs_the_bytes_of_what_it_rejects(
    database: Database, objects: FileObjects, job_id: int
) -> None:
    send(database, job_id, "PACS")
    objects.remove("results/aa/sr.dcm")

    with pytest.raises(NotRetractable, match="not kept any more"):
        retract(database, objects, job_id, "Wrong model.")


def test_a_job_without_results_is_cancelled_instead(
    database: Database, objects: FileObjects, intake: Intake
) -> None:
    push(intake, received(1))
    [closed] = close(database, quiet=0, max_wait=0)
    with database.transaction() as tx:
        job_id = new_jobs.insert(tx, closed, new_job("b" * 64))
    assert job_id is not None

    with pytest.raises(NotRetractable, match="jobs cancel"):
        retract(database, objects, job_id, "Wrong model.")


def test_a_later_job_of_the_same_rule_and_images_knows_what_it_replaces(
    database: Database, intake: Intake, job_id: int, made: Case
) -> None:
    push(intake, received(2))
    [closed] = close(database, quiet=0, max_wait=0)
    with database.transaction() as tx:
        second = new_jobs.insert(tx, closed, new_job("c" * 64))
        other = new_jobs.insert(
            tx, closed, type(new_job(""))(**{**vars(new_job("d" * 64)), "rule": "other"})
        )
        assert second is not None
        assert other is not None
        found = {
            number: results.earlier_results(tx, job)
            for number in (job_id, second, other)
            if (job := jobs.get(tx, number)) is not None
        }

    assert {row["slot"]: row["sop_instance_uid"] for row in found[second]} == {
        "seg": made.segmentation.SOPInstanceUID,
        "sr": made.sr.SOPInstanceUID,
    }
    assert found[job_id] == found[other] == []


def test_a_result_tells_its_origin(database: Database, job_id: int, made: Case) -> None:
    with database.snapshot() as tx:
        [row] = results.results_named(tx, str(made.sr.SOPInstanceUID))
        found = results.origin(tx, row)
        same = results.results_named(tx, str(made.sr.SeriesInstanceUID))
        image = results.received_in(tx, received(1).sop_instance_uid)
        nothing = results.results_named(tx, "1.2.3.999")

    assert found["job"]["id"] == job_id
    assert found["inputs"][0]["series_instance_uid"] == received(1).series_instance_uid
    assert len(found["inputs"][0]["input_digest"]) == 64
    assert {one["destination"] for one in found["deliveries"]} == set(DESTINATIONS)
    assert [one["id"] for one in same] == [row["id"]]
    assert image == received(1).series_instance_uid
    assert nothing == []


def test_every_note_can_be_read_from_its_bytes(
    database: Database, objects: FileObjects, job_id: int
) -> None:
    send(database, job_id, "PACS")
    told_by = retract(database, objects, job_id, "Wrong model.").told_by
    assert told_by is not None
    with database.snapshot() as tx:
        count = tx.execute(sa.select(sa.func.count()).select_from(Job)).scalar_one()
    [note] = notes(database, objects, told_by).values()

    assert count == 2
    assert dcmread(BytesIO(to_bytes(note))).SOPInstanceUID == note.SOPInstanceUID
