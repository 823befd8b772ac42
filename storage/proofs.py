"""Proof of delivery: that a destination holds what it said it stored (CP8).

A delivery that is to be proved is ``confirming``. The ladder of its rule (``commitment``, then
``find``) is climbed rung by rung; what was seen of each rung is kept as evidence with the object.
An object that turns out not to be there is sent again. Nothing counts as proved because nothing
was said: a rung that the destination does not offer is no proof, only a rung that is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from storage import deliveries
from storage.base import Delivery, DeliveryState, JobState, LeaseLost
from storage.database import Transaction
from storage.deliveries import ALERT_AFTER, LEASE
from storage.destinations import may_go
from storage.events import raise_alert, record, resolve_alert
from storage.ladder import Ladder, Rung, reason_text, state_of
from storage.tables import Alert, Commitment, Job
from storage.tables import Delivery as DeliveryRow

MOST_AT_ONCE = 500
ABSENT_SEVERAL_TIMES = 3
"""A PACS may index what it stored a little later: so often an object must be found missing."""
OPEN, REPORTED, EXPIRED = "open", "reported", "expired"


def is_any_due(tx: Transaction) -> bool:
    """Whether something is to be proved now."""
    due_now = sa.and_(DeliveryRow.state == DeliveryState.CONFIRMING, DeliveryRow.next_at <= tx.now)
    return tx.execute(sa.select(DeliveryRow.id).where(due_now).limit(1)).first() is not None


def due(
    tx: Transaction, owner: str, not_now: Collection[str] = ()
) -> dict[tuple[int, str], list[Delivery]]:
    """Own what is to be proved now, by job and destination.

    Nothing of a job and destination is proved while something of them is being sent.

    Parameters
    ----------
    not_now : collection of str
        Destinations that are not to be called now.
    """
    ids = list(tx.execute(_pick(tx, not_now)).scalars())
    if not ids:
        return {}
    tx.execute(
        sa.update(DeliveryRow)
        .where(DeliveryRow.id.in_(ids))
        .values(
            lease_owner=owner,
            lease_until=tx.now + LEASE,
            lease_token=DeliveryRow.lease_token + 1,
        )
    )
    found: dict[tuple[int, str], list[Delivery]] = {}
    for item in deliveries.find(tx, DeliveryRow.id.in_(ids), limit=len(ids)):
        found.setdefault((item.job_id, item.destination), []).append(item)
    return found


def _pick(tx: Transaction, not_now: Collection[str]) -> sa.Select[int]:
    """Ids of what is to be proved now and nobody proves, the longest due first."""
    other = aliased(DeliveryRow)
    sending = sa.exists().where(
        other.job_id == DeliveryRow.job_id,
        other.destination == DeliveryRow.destination,
        other.state == DeliveryState.SENDING,
        other.lease_until > tx.now,
    )
    free = sa.or_(DeliveryRow.lease_until.is_(None), DeliveryRow.lease_until <= tx.now)
    return (
        sa.select(DeliveryRow.id)
        .where(
            DeliveryRow.state == DeliveryState.CONFIRMING,
            DeliveryRow.next_at <= tx.now,
            DeliveryRow.destination.not_in(list(not_now)),
            free,
            may_go(),
            ~sending,
        )
        .order_by(DeliveryRow.next_at)
        .limit(MOST_AT_ONCE)
        .with_for_update(skip_locked=True, of=DeliveryRow)
    )


# -- storage commitment ----------------------------------------------------------------------


def asked(
    tx: Transaction, items: Sequence[Delivery], transaction_uid: str, answer_within: timedelta
) -> list[Delivery]:
    """Note that a commitment is about to be asked for: the report may come before our answer does.

    Raises
    ------
    LeaseLost
        Somebody else proves one of them by now; nothing may be asked.
    """
    tx.execute(
        sa.insert(Commitment).values(
            transaction_uid=transaction_uid,
            destination=items[0].destination,
            state=OPEN,
            deadline_at=tx.now + answer_within,
        )
    )
    seen = {"state": "asked", "at": tx.now.isoformat(), "transaction_uid": transaction_uid}
    noted = []
    for item in items:
        evidence = dict(item.evidence) | {"commitment": seen}
        values = {"next_at": tx.now + answer_within, "evidence": evidence}
        _update(tx, item, values | {"transaction_uid": transaction_uid})
        noted.append(
            replace(
                item,
                transaction_uid=transaction_uid,
                evidence=evidence,
                lease_token=item.lease_token + 1,
            )
        )
    return noted


def expired(tx: Transaction, items: Sequence[Delivery]) -> None:
    """Send again what a destination never reported on."""
    for item in items:
        sentence = (
            f"{item.destination} accepted a storage commitment request for "
            f"{item.sop_instance_uid} and never reported on it"
        )
        _send_again(tx, item, "commitment", sentence)
    uids = {item.transaction_uid for item in items}
    tx.execute(
        sa.update(Commitment)
        .where(Commitment.transaction_uid.in_(uids), Commitment.state == OPEN)
        .values(state=EXPIRED)
    )


def reported(
    tx: Transaction, transaction_uid: str, committed: Collection[str], failed: Mapping[str, int]
) -> int:
    """Take in an N-EVENT-REPORT; how many deliveries waited for it.

    Parameters
    ----------
    transaction_uid : str
    committed : collection of str
        SOP Instance UIDs that the destination holds.
    failed : mapping
        SOP Instance UID to Failure Reason (0008,1197).

    Raises
    ------
    LeaseLost
        Somebody moved one of them at the same time; nothing was changed.
    """
    items = deliveries.find(
        tx,
        DeliveryRow.transaction_uid == transaction_uid,
        DeliveryRow.state == DeliveryState.CONFIRMING,
        limit=MOST_AT_ONCE,
    )
    waiting = [i for i in items if state_of(i.evidence, "commitment") in ("asked", "unknown")]
    for item in waiting:
        uid = item.sop_instance_uid
        if uid in failed:
            sentence = f"{item.destination} does not commit {uid}: {reason_text(failed[uid])}"
            _send_again(tx, item, "commitment", sentence)
        elif uid in committed:
            climbed(tx, item, "commitment", transaction_uid=transaction_uid)
    tx.execute(
        sa.update(Commitment)
        .where(Commitment.transaction_uid == transaction_uid)
        .values(state=REPORTED)
    )
    return len(waiting)


def asked_of(tx: Transaction, transaction_uid: str) -> str | None:
    """Whom we asked for a commitment; None: nobody."""
    query = sa.select(Commitment.destination).where(Commitment.transaction_uid == transaction_uid)
    found: str | None = tx.execute(query).scalar()
    return found


def awaits_report(tx: Transaction, transaction_uid: str) -> bool:
    """Whether a report is still to come."""
    query = sa.select(Commitment.state).where(Commitment.transaction_uid == transaction_uid)
    return bool(tx.execute(query).scalar() == OPEN)


# -- what a rung told ------------------------------------------------------------------------


def climbed(tx: Transaction, item: Delivery, rung: Rung, **facts: Any) -> None:
    """Note that a rung proved that an object is there; at the top the delivery is proved."""
    _go_on(tx, item, rung, {"state": "proved", "at": tx.now.isoformat(), **facts})


def not_offered(tx: Transaction, item: Delivery, rung: Rung, sentence: str) -> None:
    """Leave a rung out that the destination does not offer; where it was the last, wait."""
    seen = {"state": "not_offered", "at": tx.now.isoformat(), "sentence": sentence}
    _go_on(tx, item, rung, seen)


def unknown(tx: Transaction, item: Delivery, rung: Rung, sentence: str) -> None:
    """Ask again later: there was no answer."""
    _later(tx, item, rung, {"state": "unknown"}, sentence)


def absent(tx: Transaction, item: Delivery, rung: Rung, sentence: str) -> None:
    """Note that an object is not there; after several times it is sent again."""
    times = int(item.evidence.get(rung, {}).get("absent", 0)) + 1
    if times >= ABSENT_SEVERAL_TIMES:
        _send_again(tx, item, rung, sentence)
    else:
        _later(tx, item, rung, {"state": "absent", "absent": times}, sentence)


def _go_on(tx: Transaction, item: Delivery, rung: Rung, seen: Mapping[str, Any]) -> None:
    ladder = ladder_of(tx, item)
    evidence = dict(item.evidence) | {rung: dict(seen)}
    if ladder.is_proved(evidence):
        values = {"state": DeliveryState.PROVED, "proved_at": tx.now, "next_at": None}
        _update(tx, item, values | {"evidence": evidence, "sentence": ""})
        resolve_alert(tx, f"delivery.unproved:{item.id}")
        ways = ladder.climbed(evidence)
        record(tx, "delivery.proved", job_id=item.job_id, delivery_id=item.id, by=ways)
        deliveries.settle(tx, item.job_id)
    elif ladder.next_rung(evidence) is not None:
        _update(tx, item, {"evidence": evidence, "next_at": tx.now})
    else:
        _nothing_proves(tx, item, ladder)


def _nothing_proves(tx: Transaction, item: Delivery, ladder: Ladder) -> None:
    """Wait: the destination offers no way to prove anything, until somebody changes that."""
    sentence = f"{item.destination} offers none of {', '.join(ladder.rungs)}"
    if _given_up(tx, item, ladder, sentence):
        return
    _alert(tx, item, sentence)
    kept = {key: value for key, value in item.evidence.items() if key not in ladder.rungs}
    wait = timedelta(seconds=ladder.schedule.after_seconds[-1])
    _update(tx, item, {"evidence": kept, "next_at": tx.now + wait, "sentence": sentence})


def _later(
    tx: Transaction, item: Delivery, rung: Rung, seen: Mapping[str, Any], sentence: str
) -> None:
    ladder = ladder_of(tx, item)
    if _given_up(tx, item, ladder, sentence):
        return
    before = item.evidence.get(rung, {})
    times = int(before.get("times", 0)) + 1
    kept = {"absent": before["absent"]} if "absent" in before else {}
    found = {"times": times, "at": tx.now.isoformat(), "sentence": sentence}
    wait = ladder.schedule.wait("retry", times, f"{item.job_id}:{item.destination}:{rung}")
    evidence = dict(item.evidence) | {rung: kept | found | dict(seen)}
    _update(tx, item, {"evidence": evidence, "next_at": tx.now + wait, "sentence": sentence})


def _send_again(tx: Transaction, item: Delivery, rung: Rung, sentence: str) -> None:
    """Send an object again, the same bytes: its destination does not have it."""
    ladder = ladder_of(tx, item)
    record(tx, "delivery.lost", job_id=item.job_id, delivery_id=item.id, by=rung)
    if _given_up(tx, item, ladder, sentence):
        return
    if not _is_wanted(tx, item):
        _update(tx, item, {"state": DeliveryState.CANCELLED, "sentence": sentence})
        return
    _alert(tx, item, f"{sentence}; it is sent again")
    group = f"{item.job_id}:{item.destination}"
    next_at = tx.now + ladder.schedule.wait("retry", max(item.attempt, 1), group)
    values = {"state": DeliveryState.RETRY_WAIT, "next_at": next_at, "transaction_uid": None}
    _update(tx, item, values | {"sentence": f"{sentence}; it is sent again"})
    deliveries.settle(tx, item.job_id)


def _is_wanted(tx: Transaction, item: Delivery) -> bool:
    """Whether its job is still being delivered: nobody cancelled it or took its results back."""
    state = tx.execute(sa.select(Job.state).where(Job.id == item.job_id)).scalar_one()
    return bool(state == JobState.DELIVERING)


def _given_up(tx: Transaction, item: Delivery, ladder: Ladder, sentence: str) -> bool:
    """End a delivery that was tried for as long as its rule says; whether it was."""
    age = tx.now - (item.created_at or tx.now)
    if age < timedelta(seconds=ladder.schedule.give_up_seconds):
        return False
    _alert(tx, item, sentence)
    values = {"state": DeliveryState.UNPROVED, "next_at": None, "sentence": sentence}
    _update(tx, item, values)
    deliveries.settle(tx, item.job_id)
    return True


def _alert(tx: Transaction, item: Delivery, sentence: str) -> None:
    raise_alert(tx, f"delivery.unproved:{item.id}", sentence)


def raise_alerts(tx: Transaction) -> int:
    """Raise an alert for each object that is unproved for too long; how many are new."""
    key = sa.literal("delivery.unproved:").concat(sa.cast(DeliveryRow.id, sa.String))
    known = sa.exists().where(Alert.key == key, Alert.state == "open")
    old = deliveries.find(
        tx,
        DeliveryRow.state == DeliveryState.CONFIRMING,
        DeliveryRow.created_at <= tx.now - ALERT_AFTER,
        ~known,
        limit=MOST_AT_ONCE,
    )
    for item in old:
        said = item.sentence or "it has not reported yet"
        uid = item.sop_instance_uid
        _alert(tx, item, f"{item.destination} has not proved that it holds {uid}: {said}")
    return len(old)


def ladder_of(tx: Transaction, item: Delivery) -> Ladder:
    """How a delivery is to be proved, as its rule said when the job was opened."""
    snapshot = tx.execute(sa.select(Job.snapshot).where(Job.id == item.job_id)).scalar_one()
    return Ladder.of(snapshot.get("destinations", {}).get(item.destination, {}))


def _update(tx: Transaction, item: Delivery, values: dict[str, Any]) -> None:
    """Move a delivery that is being proved, if nobody moved it since it was read.

    Raises
    ------
    LeaseLost
        Somebody did: a report came, or another process proves it.
    """
    found = tx.execute(
        sa.update(DeliveryRow)
        .where(
            DeliveryRow.id == item.id,
            DeliveryRow.state == DeliveryState.CONFIRMING,
            DeliveryRow.lease_token == item.lease_token,
        )
        .values(
            **{"lease_owner": None, "lease_until": None} | values,
            lease_token=DeliveryRow.lease_token + 1,
        )
    )
    if found.rowcount == 0:
        raise LeaseLost(f"delivery {item.id} was moved by somebody else")
