"""The ladder of proof: what counts, what is sent again, what is told whom, and when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from storage import (
    deliveries,
    delivery_admin,
    destinations,
    events,
    job_admin,
    jobs,
    new_jobs,
    proofs,
    series,
)
from storage.base import Delivery, JobState, LeaseLost, NewResult
from storage.database import Database
from storage.deliveries import RetrySchedule
from storage.destinations import Door, Rest
from storage.intake import Intake
from storage.jobs import RetryPolicy
from storage.ladder import Ladder, shown
from storage.objects import FileObjects
from storage.tables import Delivery as DeliveryRow
from storage.tables import Destination, Task
from tests.conftest import TestClock
from tests.storage.samples import new_job, push, received

ME, OTHER = "me/a/b/1/2/x", "other/a/b/1/2/x"
TERMS: dict[str, Any] = {
    "send": ["seg", "sr"],
    "after_seconds": [10.0, 60.0],
    "give_up_seconds": 86400.0,
    "confirm": ["commitment", "find"],
}
DAY = timedelta(days=1)
TRANSACTION = "2.25.77"


@pytest.fixture
def intake(database: Database, objects: FileObjects) -> Iterator[Intake]:
    found = Intake(database, objects, lambda error: None)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def job_id(database: Database, intake: Intake) -> int:
    """A job whose two results wait to be sent to PACS."""
    push(intake, received(1))
    return _open(database, TERMS, "a")


def _open(database: Database, terms: dict[str, Any], key: str) -> int:
    with database.transaction() as tx:
        closed = series.close_due(tx, quiet=timedelta(0), max_wait=timedelta(0))[0]
        opened = new_jobs.insert(tx, closed, new_job(key * 64, {"PACS": terms}))  # type: ignore[dict-item]
    assert opened is not None
    policy = RetryPolicy()
    for step in ("convert", "infer"):
        with database.transaction() as tx:
            job = jobs.claim(tx, opened, step, ME, policy)
            assert job is not None
            jobs.finish_step(tx, job)
    results = [
        NewResult(slot, f"2.3.{slot_number}", "2.3", "1.2.9", "1.2.1", "k", "s" * 64, 1)
        for slot_number, slot in enumerate(("seg", "sr", "capture"))
    ]
    with database.transaction() as tx:
        job = jobs.claim(tx, opened, "report", ME, policy)
        assert job is not None
        jobs.fix_results(tx, job, results, {"PACS": terms["send"]})
    return opened


def send_all(database: Database, job_id: int) -> None:
    with database.transaction() as tx:
        for item in deliveries.claim(tx, job_id, ME)["PACS"]:
            schedule = RetrySchedule.of(TERMS)
            deliveries.finish(tx, item, "sent", 0, "", schedule, TERMS["confirm"])


def due(database: Database, owner: str = ME) -> list[Delivery]:
    with database.transaction() as tx:
        found = proofs.due(tx, owner)
    return [item for items in found.values() for item in items]


def ask(database: Database, uid: str = TRANSACTION) -> list[Delivery]:
    with database.transaction() as tx:
        items = [i for items in proofs.due(tx, ME).values() for i in items]
        return proofs.asked(tx, items, uid, DAY)


def report(database: Database, committed: set[str], failed: dict[str, int]) -> int:
    with database.transaction() as tx:
        return proofs.reported(tx, TRANSACTION, committed, failed)


def rows(database: Database, job_id: int) -> dict[str, Delivery]:
    with database.snapshot() as tx:
        return {item.slot: item for item in deliveries.find(tx, DeliveryRow.job_id == job_id)}


def states(database: Database, job_id: int) -> dict[str, str]:
    return {slot: str(item.state) for slot, item in rows(database, job_id).items()}


def alerts(database: Database) -> list[str]:
    with database.snapshot() as tx:
        return sorted(alert["key"] for alert in events.open_alerts(tx))


def job_state(database: Database, job_id: int) -> JobState:
    with database.snapshot() as tx:
        job = jobs.get(tx, job_id)
    assert job is not None
    return job.state


def climb(database: Database, item: Delivery) -> None:
    with database.transaction() as tx:
        proofs.climbed(tx, item, "find")


def test_a_job_is_done_when_every_rung_of_every_object_was_climbed(
    database: Database, job_id: int
) -> None:
    send_all(database, job_id)
    ask(database)
    assert report(database, {"2.3.0", "2.3.1"}, {}) == 2
    assert states(database, job_id) == {"seg": "confirming", "sr": "confirming"}

    first, second = due(database)
    climb(database, first)
    assert job_state(database, job_id) is JobState.DELIVERING
    climb(database, second)

    assert states(database, job_id) == {"seg": "proved", "sr": "proved"}
    assert job_state(database, job_id) is JobState.DONE
    assert shown(rows(database, job_id)["sr"].evidence) == "commitment, find"


def test_what_a_report_denies_is_sent_again_and_the_rest_goes_on(
    database: Database, job_id: int, clock: TestClock
) -> None:
    send_all(database, job_id)
    ask(database)

    report(database, {"2.3.1"}, {"2.3.0": 0x0112})

    assert states(database, job_id) == {"seg": "retry_wait", "sr": "confirming"}
    seg = rows(database, job_id)["seg"]
    assert "0x0112, no such object instance" in seg.sentence
    assert alerts(database) == [f"delivery.unproved:{seg.id}"]
    clock.forward(12)
    with database.transaction() as tx:
        (again,) = deliveries.claim(tx, job_id, ME)["PACS"]
    assert again.slot == "seg"


def test_a_report_on_what_was_sent_again_since_proves_nothing(
    database: Database, job_id: int, clock: TestClock
) -> None:
    send_all(database, job_id)
    ask(database)
    report(database, set(), {"2.3.0": 0x0112, "2.3.1": 0x0112})
    clock.forward(12)
    send_all(database, job_id)

    assert report(database, {"2.3.0", "2.3.1"}, {}) == 0

    assert states(database, job_id) == {"seg": "confirming", "sr": "confirming"}
    assert "commitment" not in rows(database, job_id)["sr"].evidence


def test_what_a_cancelled_job_lost_is_not_sent_again(database: Database, job_id: int) -> None:
    send_all(database, job_id)
    ask(database)
    with database.transaction() as tx:
        assert job_admin.cancel(tx, job_id)

    report(database, {"2.3.1"}, {"2.3.0": 0x0112})

    assert states(database, job_id) == {"seg": "cancelled", "sr": "confirming"}


def test_an_object_that_a_report_does_not_name_is_still_awaited(
    database: Database, job_id: int
) -> None:
    send_all(database, job_id)
    ask(database)

    report(database, {"2.3.0"}, {})

    assert rows(database, job_id)["sr"].evidence["commitment"]["state"] == "asked"
    assert [item.slot for item in due(database)] == ["seg"]


def test_without_a_report_in_time_everything_is_sent_again(
    database: Database, job_id: int, clock: TestClock
) -> None:
    send_all(database, job_id)
    ask(database)
    assert due(database) == []

    clock.forward(DAY.total_seconds() - 1)
    assert due(database) == []
    clock.forward(2)
    items = due(database)
    with database.transaction() as tx:
        proofs.expired(tx, items)

    assert set(states(database, job_id).values()) == {"unproved"}  # a day is all this rule gives
    assert job_state(database, job_id) is JobState.FAILED
    with database.transaction() as tx:
        assert delivery_admin.retry(tx, items[0].id)
    assert job_state(database, job_id) is JobState.DELIVERING


def test_an_object_that_is_found_missing_three_times_is_sent_again(
    database: Database, job_id: int, clock: TestClock
) -> None:
    send_all(database, job_id)
    ask(database)
    report(database, {"2.3.0", "2.3.1"}, {})
    for wait in (12.0, 70.0, 70.0):
        assert states(database, job_id)["seg"] == "confirming"
        for item in due(database):
            with database.transaction() as tx:
                proofs.absent(tx, item, "find", "it is not there")
        clock.forward(wait)

    assert states(database, job_id) == {"seg": "retry_wait", "sr": "retry_wait"}


def test_a_rung_that_is_not_offered_is_left_out_and_said_so(
    database: Database, job_id: int
) -> None:
    send_all(database, job_id)
    for item in due(database):
        with database.transaction() as tx:
            proofs.not_offered(tx, item, "commitment", "PACS does not offer commitment")
    for item in due(database):
        climb(database, item)

    assert states(database, job_id) == {"seg": "proved", "sr": "proved"}
    assert shown(rows(database, job_id)["sr"].evidence) == "commitment not offered, find"


def test_where_nothing_is_offered_nothing_is_proved_and_an_admin_is_told(
    database: Database, job_id: int
) -> None:
    send_all(database, job_id)
    for rung in ("commitment", "find"):
        for item in due(database):
            with database.transaction() as tx:
                proofs.not_offered(tx, item, rung, "no")

    assert set(states(database, job_id).values()) == {"confirming"}
    assert len(alerts(database)) == 2


def test_an_object_that_stays_unproved_becomes_an_alert_once(
    database: Database, job_id: int, clock: TestClock
) -> None:
    send_all(database, job_id)
    ask(database)
    with database.transaction() as tx:
        assert proofs.raise_alerts(tx) == 0

    clock.forward(3700)
    with database.transaction() as tx:
        assert proofs.raise_alerts(tx) == 2
    with database.transaction() as tx:
        assert proofs.raise_alerts(tx) == 0

    report(database, {"2.3.0", "2.3.1"}, {})
    for item in due(database):
        climb(database, item)
    assert alerts(database) == []


def test_who_proves_something_loses_it_to_a_report_that_came_meanwhile(
    database: Database, job_id: int
) -> None:
    send_all(database, job_id)
    asked = ask(database)
    report(database, {"2.3.0", "2.3.1"}, {})

    with pytest.raises(LeaseLost), database.transaction() as tx:
        proofs.unknown(tx, asked[0], "commitment", "no answer")

    assert rows(database, job_id)["seg"].evidence["commitment"]["state"] == "proved"


def test_nobody_proves_what_another_is_proving(database: Database, job_id: int) -> None:
    send_all(database, job_id)

    assert len(due(database)) == 2
    assert due(database, OTHER) == []


def test_the_ladder_is_a_pure_function_of_what_was_seen() -> None:
    ladder = Ladder(("commitment", "find"), RetrySchedule())
    proved, left_out = {"state": "proved"}, {"state": "not_offered"}

    assert ladder.next_rung({}) == "commitment"
    assert ladder.next_rung({"commitment": {"state": "asked"}}) == "commitment"
    assert ladder.next_rung({"commitment": proved}) == "find"
    assert not ladder.is_proved({"commitment": proved, "find": {"state": "absent"}})
    assert not ladder.is_proved({"commitment": left_out, "find": left_out})
    assert ladder.is_proved({"commitment": left_out, "find": proved})


# -- destinations ------------------------------------------------------------------------------


def miss(database: Database, times: int) -> None:
    for _ in range(times):
        with database.transaction() as tx:
            destinations.missed(tx, "PACS", "PACS cannot be reached", Rest())


def test_after_five_failures_a_destination_rests_and_one_echo_wakes_all(
    database: Database, job_id: int, clock: TestClock
) -> None:
    miss(database, 4)
    with database.transaction() as tx:
        claimed = deliveries.claim(tx, job_id, ME)
        for item in claimed["PACS"]:
            deliveries.finish(tx, item, "retry", None, "away", RetrySchedule())
    miss(database, 1)
    clock.forward(40)
    with database.transaction() as tx:
        assert deliveries.claim(tx, job_id, ME) == {}
        assert destinations.to_probe(tx, Rest()) == ["PACS"]
    with database.transaction() as tx:
        assert destinations.to_probe(tx, Rest()) == []  # somebody is at it
    assert alerts(database) == ["destination.away:PACS"]

    with database.transaction() as tx:
        destinations.reached(tx, "PACS")

    assert alerts(database) == []
    with database.transaction() as tx:
        assert len(deliveries.claim(tx, job_id, ME)["PACS"]) == 2


def test_a_destination_rests_longer_each_time_up_to_a_quarter_of_an_hour() -> None:
    waits = [Rest().wait(failures).total_seconds() for failures in (5, 6, 7, 9, 10, 100)]
    assert waits == [30, 60, 120, 480, 900, 900]


def test_outside_its_window_a_destination_gets_nothing_until_it_opens(
    database: Database, job_id: int
) -> None:
    doors = {"PACS": Door(opens_in=timedelta(hours=3))}
    with database.transaction() as tx:
        assert deliveries.claim(tx, job_id, ME, doors) == {}
        deliveries.settle(tx, job_id, doors)
        now = tx.now

    with database.snapshot() as tx:
        eta = tx.execute(sa.select(Task.eta).where(Task.message_id == f"deliver:{job_id}"))
        assert eta.scalar_one() == now + timedelta(hours=3)


def test_what_is_given_up_soon_is_an_alert_too(
    database: Database, job_id: int, clock: TestClock
) -> None:
    clock.forward(120)
    with database.transaction() as tx:
        for item in deliveries.claim(tx, job_id, ME)["PACS"]:
            deliveries.finish(tx, item, "retry", None, "away", RetrySchedule((1.0,), 60.0))

    assert set(states(database, job_id).values()) == {"refused"}
    assert len(alerts(database)) == 2


def test_what_a_check_saw_is_kept(database: Database) -> None:
    with database.transaction() as tx:
        destinations.keep_capabilities(tx, "PACS", {"find": True})
    with database.snapshot() as tx:
        assert destinations.capabilities(tx, "PACS") == {"find": True}
        assert tx.execute(sa.select(Destination.checked_at)).scalar_one() is not None
