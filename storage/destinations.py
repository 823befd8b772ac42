"""Run-time state of destinations: who is away, who is suspended, what each was seen to offer.

A destination that could not be reached several times in a row rests: nothing is tried until one
C-ECHO is answered again (a circuit breaker). An admin may suspend one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from storage import tasks
from storage.base import DeliveryState
from storage.database import Transaction
from storage.events import raise_alert, record, resolve_alert
from storage.tables import Delivery, Destination, Job

FAILURES_TO_REST = 5


@dataclass(frozen=True)
class Rest:
    """How long a destination that is away is left alone; seconds, doubling up to the longest."""

    first_seconds: float = 30.0
    longest_seconds: float = 900.0

    def wait(self, failures: int) -> timedelta:
        """Wait before the next C-ECHO."""
        doublings = max(0, min(failures - FAILURES_TO_REST, 30))
        return timedelta(seconds=min(self.first_seconds * 2.0**doublings, self.longest_seconds))


@dataclass(frozen=True)
class Door:
    """What the configuration says of calling a destination, as of now.

    Parameters
    ----------
    associations : int
        Most at a time, of all senders together.
    opens_in : timedelta
        Until its time window opens; zero: it is open.
    """

    associations: int = 1
    opens_in: timedelta = timedelta(0)


Doors = Mapping[str, Door]
"""By destination; one that is not there has the defaults."""


def may_go() -> sa.ColumnElement[bool]:
    """Condition on a delivery: its destination is neither suspended nor resting."""
    stands_still = sa.or_(Destination.suspended.is_(True), Destination.open_until.is_not(None))
    return ~sa.exists().where(Destination.name == Delivery.destination, stands_still)


def reached(tx: Transaction, name: str, remark: str = "") -> None:
    """Note that a destination answered; `remark` is what it had to complain of."""
    stamp = {"last_failure_at": tx.now, "last_sentence": remark} if remark else {
        "last_ok_at": tx.now, "last_sentence": "",
    }  # fmt: skip
    rested = _is_resting(tx, name)
    _upsert(tx, name, stamp | {"failures": 0, "open_until": None}, failures=0)
    if rested:
        resolve_alert(tx, f"destination.away:{name}")
        record(tx, "destination.back", destination=name)
        _wake_all(tx, name)


def missed(tx: Transaction, name: str, sentence: str, rest: Rest) -> int:
    """Note that a destination could not be reached; how often in a row that was.

    After several times it rests.
    """
    stamp = {"last_failure_at": tx.now, "last_sentence": sentence}
    _upsert(tx, name, stamp | {"failures": Destination.failures + 1}, failures=1)
    failures = int(
        tx.execute(sa.select(Destination.failures).where(Destination.name == name)).scalar_one()
    )
    if failures >= FAILURES_TO_REST:
        tx.execute(
            sa.update(Destination)
            .where(Destination.name == name)
            .values(open_until=tx.now + rest.wait(failures))
        )
        raise_alert(
            tx,
            f"destination.away:{name}",
            f"{sentence}; {failures} times in a row. It is asked again by C-ECHO from time to "
            "time, and what waits goes as soon as it answers.",
        )
    return failures


def is_any_to_probe(tx: Transaction) -> bool:
    """Whether a destination rested long enough."""
    due = sa.and_(Destination.open_until <= tx.now, Destination.suspended.is_(False))
    return tx.execute(sa.select(Destination.name).where(due).limit(1)).first() is not None


def to_probe(tx: Transaction, rest: Rest) -> list[str]:
    """Destinations that rested long enough; each is given to one caller only."""
    due = sa.and_(Destination.open_until <= tx.now, Destination.suspended.is_(False))
    rows = tx.execute(
        sa.update(Destination)
        .where(due)
        .values(open_until=tx.now + rest.wait(0))
        .returning(Destination.name)
    )
    return sorted(rows.scalars())


def suspend(tx: Transaction, name: str) -> None:
    """Send nothing there until `resume`."""
    _upsert(tx, name, {"suspended": True}, failures=0)
    record(tx, "destination.suspended", destination=name)


def resume(tx: Transaction, name: str) -> None:
    """Send there again, at once, also where it rested."""
    _upsert(tx, name, {"suspended": False, "open_until": None, "failures": 0}, failures=0)
    resolve_alert(tx, f"destination.away:{name}")
    record(tx, "destination.resumed", destination=name)
    _wake_all(tx, name)


def keep_capabilities(tx: Transaction, name: str, found: Mapping[str, Any]) -> None:
    """Keep what `peers check` saw."""
    _upsert(tx, name, {"capabilities": dict(found), "checked_at": tx.now}, failures=0)


def capabilities(tx: Transaction, name: str) -> Mapping[str, Any]:
    """Give what `peers check` saw last; empty: it was never checked."""
    found = tx.execute(sa.select(Destination.capabilities).where(Destination.name == name)).scalar()
    return found or {}


def _is_resting(tx: Transaction, name: str) -> bool:
    query = sa.select(Destination.open_until).where(Destination.name == name)
    return tx.execute(query).scalar() is not None


def _wake_all(tx: Transaction, name: str) -> None:
    """Try everything for a destination now: what stood in the way is gone."""
    waiting = [DeliveryState.PENDING, DeliveryState.RETRY_WAIT]
    rows = tx.execute(
        sa.update(Delivery)
        .where(Delivery.destination == name, Delivery.state.in_(waiting))
        .values(next_at=tx.now)
        .returning(Delivery.job_id)
    )
    ids = sorted(set(rows.scalars()))
    for row in tx.execute(sa.select(Job.id, Job.priority).where(Job.id.in_(ids))).all():
        tasks.enqueue(tx, "deliver", row.id, row.priority)


def _upsert(tx: Transaction, name: str, values: dict[str, Any], *, failures: int) -> None:
    first = {"name": name, "failures": failures, "suspended": False, "capabilities": {}}
    given = {key: value for key, value in values.items() if key != "failures"}
    insert = tx.insert(Destination).values(**(first | given))
    tx.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))


def lock(tx: Transaction, name: str) -> None:
    """Hold the row of a destination, so that two senders never count its associations at once."""
    first = {"name": name, "failures": 0, "suspended": False, "capabilities": {}}
    insert = tx.insert(Destination).values(**first)
    tx.execute(insert.on_conflict_do_nothing(index_elements=["name"]))
    tx.execute(sa.select(Destination.name).where(Destination.name == name).with_for_update())
