"""What counts in headers prove, and series that are closed early by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from node.completeness import CompletenessJudge, by_header_counts
from node.config.file import Config, load
from node.coordinator import patience_of
from storage import series
from storage.associations import ClosedAssociation, OpenedAssociation, write_associations
from storage.base import ClosedSeries, CompletionVerdict, SenderCount
from storage.database import Database
from storage.early_closing import EarlyClosing
from storage.intake import Intake
from storage.objects import FileObjects
from storage.tables import Generation
from tests.conftest import TestClock
from tests.storage.samples import SERIES, push, received

CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
COMPLETE, INCOMPLETE = CompletionVerdict.PROVED_COMPLETE, CompletionVerdict.PROVED_INCOMPLETE
CONFIG = """\
schema: 1
node: { ae_title: SCORENODE }
completion: { evidence: [header_counts, pacs_count, geometry], quiet: 45s }
peers:
  CT1: { sends_as: [CT1] }
  TIMED: { sends_as: [TIMED], completion: { evidence: none, quiet: 2m } }
rules: []
"""


def _config() -> Config:
    with TemporaryDirectory() as folder:
        path = Path(folder, "scorenode.yaml")
        path.write_text(CONFIG)
        return load(path)


JUDGE = CompletenessJudge(_config())


def header(sop_class: str = CT, **values: object) -> dict[str, list[object]]:
    return {key: [value] for key, value in {"SOPClassUID": sop_class, **values}.items()}


def of_acquisition(number: object, wanted: object, have: int) -> list[dict[str, list[object]]]:
    return [header(AcquisitionNumber=number, ImagesInAcquisition=wanted)] * have


def judged(*headers: Mapping[str, list[object]]) -> tuple[CompletionVerdict | None, str]:
    found = by_header_counts(headers)
    return (found.verdict, found.sentence) if found else (None, "")


def test_as_many_images_as_the_headers_say_are_all() -> None:
    assert judged(*of_acquisition(1, 3, 3)) == (
        COMPLETE,
        "all 3 instances that the headers count have come",
    )


def test_fewer_are_not_and_it_says_how_many() -> None:
    assert judged(*of_acquisition(1, 200, 180)) == (
        INCOMPLETE,
        "180 of 200 images of acquisition 1 have come",
    )


def test_acquisitions_of_one_series_are_counted_each_by_itself() -> None:
    both = of_acquisition(1, 2, 2) + of_acquisition(2, 3, 3)
    assert judged(*both)[0] is COMPLETE
    assert judged(*both[:-1]) == (INCOMPLETE, "2 of 3 images of acquisition 2 have come")


@pytest.mark.parametrize("wanted", ["", "many", 0, 1, -3, "2.5", "٣"])
def test_a_count_that_is_none_proves_nothing(wanted: object) -> None:
    assert judged(*of_acquisition(1, wanted, 3)) == (None, "")


def test_headers_that_disagree_or_more_images_than_counted_prove_nothing() -> None:
    assert judged(*of_acquisition(1, 2, 1), *of_acquisition(1, 3, 2)) == (None, "")
    assert judged(*of_acquisition(1, 2, 3)) == (None, "")
    assert judged(*of_acquisition(1, 2, 2), header(AcquisitionNumber=2)) == (None, "")


def test_an_enhanced_instance_holds_all_frames_unless_it_is_part_of_a_concatenation() -> None:
    part = header(ENHANCED_MR, InConcatenationTotalNumber=3)
    assert judged(header(ENHANCED_MR, ImagesInAcquisition=170))[0] is COMPLETE
    assert judged(part, part) == (INCOMPLETE, "2 of 3 images have come")
    assert judged(part, part, part)[0] is COMPLETE


def counted(have: int, sender: int | None, peer: str = "CT1") -> tuple[str, str] | None:
    number = None if sender is None else SenderCount(peer, sender)
    found = JUDGE.judge(peer, [header()] * have, number)
    return (found.verdict.value, found.sentence) if found else None


def test_the_sender_s_own_count_proves_a_series_complete_or_not() -> None:
    assert counted(3, 3) == ("proved_complete", "all 3 instances that CT1 counts have come")
    assert counted(2, 3) == ("proved_incomplete", "2 of 3 instances that CT1 counts have come")
    assert counted(3, 2) is None, "it may have deleted some"
    assert counted(3, None) is None
    assert counted(3, 3, "TIMED") is None, "nothing is trusted of that peer"


def test_the_first_evidence_that_tells_is_trusted() -> None:
    wanted = of_acquisition(1, 5, 3)
    found = JUDGE.judge("CT1", wanted, SenderCount("CT1", 3))
    assert found is not None
    assert (found.verdict, found.sentence) == (
        INCOMPLETE,
        "3 of 5 images of acquisition 1 have come",
    )


def slices(*places: float, tilt: float = 0.0) -> list[dict[str, list[object]]]:
    return [
        {
            "SOPClassUID": [CT],
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "ImagePositionPatient": [0.0, tilt * place, place],
        }
        for place in places
    ]


def told_of(places: Sequence[float], tilt: float = 0.0) -> tuple[CompletionVerdict | None, str]:
    found = JUDGE.judge("CT1", slices(*places, tilt=tilt), None)
    return (found.verdict, found.sentence) if found else (None, "")


LADDER = [5.0 * n - 40.0 for n in range(20)]


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_slice_that_is_missing_between_others_proves_a_series_incomplete(tilt: float) -> None:
    assert told_of(LADDER, tilt) == (None, "")
    assert told_of(LADDER[:7] + LADDER[8:], tilt) == (
        INCOMPLETE,
        "no image at z = -5.0 mm: 1 missing between the others",
    )
    assert told_of(LADDER[:7] + LADDER[12:], tilt)[1] == (
        "no image at z = -5.0 mm, z = 0.0 mm, z = 5.0 mm, ...: 5 missing between the others"
    )


STEP_CHANGES = [2.5 * n for n in range(12)] + [27.5 + 5.0 * n for n in range(1, 8)]


@pytest.mark.parametrize(
    "places",
    [
        STEP_CHANGES,
        LADDER[:10] + [place + 2.0 for place in LADDER[10:]],
        [0.0, 5.0, 15.0],
        [*LADDER, *LADDER],
    ],
    ids=["the step changes", "two blocks", "too few", "two images at each place"],
)
def test_slices_as_they_were_scanned_prove_nothing(places: list[float]) -> None:
    assert told_of(places) == (None, "")


@given(st.integers(2, 400), st.integers(1, 400))
def test_one_header_and_the_number_tell_when_a_look_at_all_is_worth_it(
    wanted: int, have: int
) -> None:
    one = of_acquisition(1, wanted, 1)[0]
    verdict, _ = judged(*[one] * have)
    assert JUDGE.may_be_complete("CT1", one, have, None) == (wanted <= have)
    assert (verdict is INCOMPLETE) == (have < wanted)
    assert (verdict is COMPLETE) == (have == wanted)


class Arrival:
    """A peer that sends a series of three images in associations whose rows we write."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database, self._intake = database, intake
        self.early = EarlyClosing(JUDGE)

    def open(self, number: int) -> None:
        with self._database.transaction() as tx:
            opened = OpenedAssociation(number, "owner", "CT1", "127.0.0.1", "CT1", "NODE")
            write_associations(tx, [opened], [], {})

    def send(
        self, image: int, association: int | None, wanted: int = 3, series_uid: str = SERIES
    ) -> None:
        instance = replace(
            received(image, series_uid=series_uid),
            header=header(ImagesInAcquisition=wanted),
            association_id=association,
        )
        push(self._intake, instance)

    def end(self, number: int, reason: str = "released") -> None:
        with self._database.transaction() as tx:
            write_associations(tx, [], [ClosedAssociation(number, reason, 3, 0, 3)], {})

    def closed(self) -> ClosedSeries | None:
        with self._database.snapshot() as tx:
            found = self.early.find(tx)
        if not found:
            return None
        [series_id] = found
        with self._database.transaction() as tx:
            return self.early.close(tx, series_id)

    def quiet(self) -> list[ClosedSeries]:
        with self._database.transaction() as tx:
            return series.close_due(
                tx,
                quiet=timedelta(seconds=45),
                max_wait=timedelta(seconds=1200),
                judge=JUDGE,
            )


@pytest.fixture
def arrival(database: Database, objects: FileObjects) -> Iterator[Arrival]:
    intake = Intake(database, objects, lambda error: None)
    intake.start()
    yield Arrival(database, intake)
    intake.stop()


def test_a_series_closes_as_soon_as_its_association_is_released(
    arrival: Arrival, database: Database
) -> None:
    arrival.open(1)
    for image in (1, 2):
        arrival.send(image, 1)
    assert arrival.closed() is None, "two of three have come"
    arrival.send(3, 1)
    assert arrival.closed() is None, "its peer may still send"
    arrival.end(1)

    closed = arrival.closed()

    assert closed is not None
    assert (closed.verdict, len(closed.instances)) == (COMPLETE, 3)
    assert closed.evidence == "all 3 instances that the headers count have come"
    with database.snapshot() as tx:
        assert tx.execute(sa.select(Generation.verdict)).scalars().all() == [COMPLETE]
    assert arrival.closed() is None, "it is closed once"


def test_a_sender_with_several_associations_may_be_in_the_midst_of_a_scan(
    arrival: Arrival, clock: TestClock
) -> None:
    for image in (1, 2, 3):
        arrival.open(image)
        arrival.send(image, image)
        arrival.end(image)
    assert arrival.closed() is None
    clock.forward(46)
    assert [closed.verdict for closed in arrival.quiet()] == [COMPLETE]


def test_an_image_that_comes_between_finding_and_closing_is_not_left_out(
    arrival: Arrival, database: Database
) -> None:
    arrival.open(1)
    for image in (1, 2, 3):
        arrival.send(image, 1)
    arrival.end(1)
    with database.snapshot() as tx:
        [series_id] = arrival.early.find(tx)
    arrival.open(2)
    arrival.send(4, 2)
    with database.transaction() as tx:
        assert arrival.early.close(tx, series_id) is None
    arrival.end(2)
    assert arrival.closed() is None, "more have come than the headers count"


def test_many_open_series_cost_one_look_each(arrival: Arrival, database: Database) -> None:
    arrival.open(1)
    for number in range(100):
        for image in (1, 2):
            arrival.send(image, 1, wanted=2, series_uid=f"1.2.9.{number}")
    looks: list[str] = []
    for _ in range(3):
        with database.snapshot() as tx:
            assert arrival.early.find(tx) == []
    sa.event.listen(
        database.engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *rest: looks.append(statement),
    )
    with database.snapshot() as tx:
        assert arrival.early.find(tx) == []
    assert sum(one.lstrip().upper().startswith("SELECT") for one in looks) <= 2


@pytest.mark.parametrize("reason", ["aborted", "timeout"])
def test_an_association_that_broke_off_proves_nothing_early(
    arrival: Arrival, clock: TestClock, reason: str
) -> None:
    arrival.open(1)
    for image in (1, 2, 3):
        arrival.send(image, 1)
    arrival.end(1, reason)
    assert arrival.closed() is None
    clock.forward(46)

    [closed] = arrival.quiet()

    assert closed.verdict is COMPLETE, "all are there, though"


def test_an_association_without_a_row_is_waited_for(arrival: Arrival, clock: TestClock) -> None:
    for image in (1, 2, 3):
        arrival.send(image, 7 if image == 3 else None)
    assert arrival.closed() is None
    clock.forward(46)
    assert [closed.verdict for closed in arrival.quiet()] == [COMPLETE]


def test_a_series_of_which_images_are_missing_is_closed_as_incomplete(
    arrival: Arrival, clock: TestClock
) -> None:
    arrival.open(1)
    arrival.send(1, 1, wanted=200)
    arrival.end(1)
    assert arrival.closed() is None
    clock.forward(46)

    [closed] = arrival.quiet()

    assert (closed.verdict, closed.evidence) == (INCOMPLETE, "1 of 200 images have come")


def test_late_images_are_judged_anew(arrival: Arrival, clock: TestClock) -> None:
    arrival.open(1)
    arrival.send(1, 1)
    arrival.send(2, 1)
    arrival.end(1)
    clock.forward(46)
    assert [one.verdict for one in arrival.quiet()] == [INCOMPLETE]
    arrival.open(2)
    arrival.send(3, 2)
    arrival.end(2)

    closed = arrival.closed()

    assert closed is not None
    assert (closed.generation, closed.verdict) == (2, COMPLETE)


def test_a_series_of_a_patient_peer_waits_longer(arrival: Arrival, clock: TestClock) -> None:
    def due() -> list[ClosedSeries]:
        with arrival._database.transaction() as tx:
            return series.close_due(
                tx,
                quiet=timedelta(seconds=45),
                max_wait=timedelta(seconds=1200),
                by_peer=patience_of(_config()) | {"CT1": PATIENCE},
            )

    arrival.send(1, None)
    clock.forward(119)
    assert due() == []
    clock.forward(2)
    assert [closed.verdict for closed in due()] == [CompletionVerdict.QUIET]


PATIENCE = series.Patience(timedelta(minutes=2), timedelta(minutes=20))
