"""Rows of instances that are on disk: a whole batch in one transaction.

Most batches hold only instances that nobody has seen: for those three prepared statements for each
series are enough. A batch in which the database finds one that is known is written again, slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from storage.base import Acceptance, OnConflict, ReceivedInstance, SeriesState, StoreUnavailable
from storage.database import Database, Transaction, Writer
from storage.place import Place
from storage.prepared import Prepared
from storage.tables import Conflict, Instance, Series, Study

_MOST_OF_ONE_DIGEST = 100
_MOST_STUDIES = 1024
_STUDY_IS_TOLD = timedelta(seconds=1)
SameData = Callable[[str | Place, str, int], bool | None]


@dataclass
class Named:
    """An instance whose bytes are durable under a key; what became of it, once it has a row."""

    received: ReceivedInstance
    key: str
    acceptance: Acceptance | None = None
    is_unused: bool = False
    """Whether no row refers to the key."""
    compared: dict[str, bool | None] = field(default_factory=dict)
    """Keys whose bytes were compared with these, and whether they are the same."""

    @property
    def series(self) -> tuple[str, str]:
        """Study and Series Instance UID."""
        return self.received.study_instance_uid, self.received.series_instance_uid


class IntakeRows:
    """Writes rows of instances.

    Parameters
    ----------
    database : Database
    same_data : callable
        Whether two objects, given by key or place, end in the same so many bytes; None: the
        second cannot be read.
    on_conflict : callable
        What to do with other bytes under a known UID; asked each time, so that it can change.
    """

    def __init__(
        self, database: Database, same_data: SameData, on_conflict: Callable[[], OnConflict]
    ) -> None:
        self._database = database
        self._writer = Writer(database)
        self._same_data = same_data
        self._on_conflict = on_conflict
        self._studies: dict[str, tuple[int, datetime]] = {}
        self._told: dict[str, tuple[int, datetime]] = {}
        self._study = Prepared(_study_upsert(database), database)
        self._series = Prepared(_series_upsert(database), database)
        self._instance = Prepared(_instance_insert(database), database)

    def record(self, batch: list[Named]) -> None:
        """Write the rows of a batch and say what became of each instance.

        Raises
        ------
        StoreUnavailable
            The database is away.
        """
        for item in batch:
            item.acceptance, item.is_unused = None, False
        self._told = {}
        try:
            with self._writer.in_driver_words() as tx:
                for (study_uid, series_uid), items in _by_series(batch):
                    self._record_new(tx, study_uid, series_uid, items)
        except sa.exc.IntegrityError:
            with self._writer.transaction() as tx:
                _record(tx, batch, self._same_data, self._on_conflict())
            return
        self._remember_studies()
        for item in batch:
            item.acceptance = Acceptance.STORED

    def compare(self, item: Named, place: Place) -> None:
        """Compare an instance, whose bytes lie somewhere, with the one we hold under its UID.

        For large ones: the others would wait for it in the transaction that writes the rows.
        """
        study_uid, series_uid = item.series
        with self._database.snapshot() as tx:
            row = tx.execute(
                sa.select(
                    Instance.digest,
                    Instance.size,
                    Instance.transfer_syntax_uid,
                    Instance.object_key,
                )
                .join(Series, Series.id == Instance.series_id)
                .join(Study, Study.id == Series.study_id)
                .where(
                    Study.study_instance_uid == study_uid,
                    Series.series_instance_uid == series_uid,
                    Instance.sop_instance_uid == item.received.sop_instance_uid,
                )
            ).first()
        if row is not None:
            _Known(*row).is_same(item, lambda _, key, size: self._same_data(place, key, size))

    def close(self) -> None:
        """Give the connection back."""
        self._writer.close()

    def _study_id(self, tx: Transaction, study_uid: str) -> int:
        """Id of a study, which is told at most once a second that something came."""
        known = self._studies.get(study_uid)
        if known is not None and timedelta() <= tx.now - known[1] < _STUDY_IS_TOLD:
            return known[0]
        [study_id] = self._study.one(tx, {"uid": study_uid, "now": tx.now})
        self._told[study_uid] = study_id, tx.now
        return int(study_id)

    def _remember_studies(self) -> None:
        """Know the studies of a transaction from now on; it is committed."""
        if len(self._studies) + len(self._told) > _MOST_STUDIES:
            self._studies.clear()
        self._studies |= self._told

    def _record_new(
        self, tx: Transaction, study_uid: str, series_uid: str, items: list[Named]
    ) -> None:
        """Write rows as if none of the instances were known; the database says if one is."""
        now = tx.now
        study_id = self._study_id(tx, study_uid)
        series_id, generation = self._series.one(
            tx,
            {
                "study_id": study_id,
                "uid": series_uid,
                "now": now,
                "modality": _modality(items[0].received),
                "n": len(items),
                "size": sum(item.received.size for item in items),
            },
        )
        self._instance.many(tx, [_instance_row(tx, item, series_id, generation) for item in items])


def _instance_insert(database: Database) -> sa.sql.dml.Insert:
    """Every column but the id, which the database makes: PostgreSQL takes no NULL for it."""
    table = Instance.__table__
    return database.insert(table).values(
        {
            column.name: sa.bindparam(column.name, type_=column.type)
            for column in table.columns
            if column.name != "id"
        }
    )


def _study_upsert(database: Database) -> sa.sql.dml.Insert:
    now = sa.bindparam("now", type_=Study.last_at.type)
    insert = database.insert(Study.__table__).values(
        study_instance_uid=sa.bindparam("uid"), first_at=now, last_at=now
    )
    return insert.on_conflict_do_update(
        index_elements=["study_instance_uid"], set_={"last_at": now}
    ).returning(Study.__table__.c.id)


def _series_upsert(database: Database) -> sa.sql.dml.Insert:
    """Count new instances in; a closed series opens its next generation."""
    table = Series.__table__
    now = sa.bindparam("now", type_=Series.last_at.type)
    count, size = sa.bindparam("n", type_=sa.Integer), sa.bindparam("size", type_=sa.BigInteger)
    insert = database.insert(table).values(
        study_id=sa.bindparam("study_id"),
        series_instance_uid=sa.bindparam("uid"),
        state=SeriesState.OPEN.value,
        generation=1,
        n_instances=count,
        bytes=size,
        modality=sa.bindparam("modality"),
        first_at=now,
        opened_at=now,
        last_at=now,
    )
    closed = table.c.state == SeriesState.CLOSED.value
    return insert.on_conflict_do_update(
        index_elements=["study_id", "series_instance_uid"],
        set_={
            "opened_at": sa.case((closed, now), else_=table.c.opened_at),
            "generation": table.c.generation + sa.case((closed, 1), else_=0),
            "state": SeriesState.OPEN.value,
            "last_at": now,
            "n_instances": table.c.n_instances + count,
            "bytes": table.c.bytes + size,
        },
    ).returning(table.c.id, table.c.generation)


def _by_series(batch: list[Named]) -> Iterator[tuple[tuple[str, str], list[Named]]]:
    """Group a batch; series in one order everywhere, so that nobody deadlocks."""
    key = attrgetter("series")
    for series, items in groupby(sorted(batch, key=key), key=key):
        yield series, list(items)


@dataclass(frozen=True)
class _Known:
    """An instance that has a row."""

    digest: str
    size: int
    transfer_syntax_uid: str
    key: str

    @classmethod
    def of(cls, item: Named) -> _Known:
        received = item.received
        return cls(received.digest, received.size, received.transfer_syntax_uid, item.key)

    def is_same(self, item: Named, same_data: SameData) -> bool | None:
        """Whether the same bytes came again: compared, not believed of a digest.

        None: what we held cannot be read any more.
        """
        received = item.received
        if (self.size, self.transfer_syntax_uid) != (received.size, received.transfer_syntax_uid):
            return False
        known_kind = self.digest.partition(":")[0] == received.digest.partition(":")[0]
        if known_kind and self.digest != received.digest:
            return False
        if self.key not in item.compared:
            item.compared[self.key] = same_data(item.key, self.key, self.size)
        return item.compared[self.key]


_IN_CONFLICT = {
    OnConflict.KEEP_FIRST: Acceptance.CONFLICT,
    OnConflict.REFUSE: Acceptance.REFUSED,
    OnConflict.REPLACE: Acceptance.REPLACED,
}


def _record(
    tx: Transaction, batch: list[Named], same_data: SameData, on_conflict: OnConflict
) -> None:
    """Write the rows of a batch in which there may be duplicates and conflicts."""
    for (study_uid, series_uid), items in _by_series(batch):
        _record_series(tx, study_uid, series_uid, items, same_data, on_conflict)


def _record_series(
    tx: Transaction,
    study_uid: str,
    series_uid: str,
    items: list[Named],
    same_data: SameData,
    on_conflict: OnConflict,
) -> None:
    series_id, generation = _lock_series(tx, study_uid, series_uid, items[0].received)
    wanted = {item.received.sop_instance_uid for item in items}
    rows = tx.execute(
        sa.select(
            Instance.sop_instance_uid,
            Instance.digest,
            Instance.size,
            Instance.transfer_syntax_uid,
            Instance.object_key,
        ).where(Instance.series_id == series_id, Instance.sop_instance_uid.in_(wanted))
    )
    known = {row.sop_instance_uid: _Known(*row[1:]) for row in rows}
    new = []
    for item in items:
        uid = item.received.sop_instance_uid
        if uid not in known:
            known[uid] = _Known.of(item)
            new.append(_instance_row(tx, item, series_id, generation))
            item.acceptance = Acceptance.STORED
            continue
        same = known[uid].is_same(item, same_data)
        if same:
            item.acceptance, item.is_unused = Acceptance.DUPLICATE, True
            _count_duplicate(tx, series_id, uid)
        else:
            # Whatever the policy: what can be read takes the place of what cannot.
            item.acceptance = Acceptance.REPLACED if same is None else _IN_CONFLICT[on_conflict]
            item.is_unused = item.acceptance is Acceptance.REFUSED
            if item.acceptance is Acceptance.REPLACED:
                known[uid] = _Known.of(item)
    if new:
        tx.execute(sa.insert(Instance), new)
        _grow(tx, series_id, len(new), sum(row["size"] for row in new))
    for item in items:
        if item.acceptance is Acceptance.CONFLICT:
            _set_aside(tx, series_id, item, same_data)
        elif item.acceptance is Acceptance.REPLACED:
            _replace(tx, series_id, item, same_data)


def _lock_series(
    tx: Transaction, study_uid: str, series_uid: str, first: ReceivedInstance
) -> tuple[int, int]:
    """Find or make the series and lock its row; its id and the generation that is open next."""
    now = tx.now
    study = tx.insert(Study).values(study_instance_uid=study_uid, first_at=now, last_at=now)
    study_id = tx.execute(
        study.on_conflict_do_update(
            index_elements=["study_instance_uid"], set_={"last_at": now}
        ).returning(Study.id)
    ).scalar_one()
    insert = tx.insert(Series).values(
        study_id=study_id,
        series_instance_uid=series_uid,
        state=SeriesState.OPEN,
        generation=1,
        n_instances=0,
        bytes=0,
        modality=_modality(first),
        first_at=now,
        opened_at=now,
        last_at=now,
    )
    row = tx.execute(
        insert.on_conflict_do_update(
            index_elements=["study_id", "series_instance_uid"],
            # A sender that starts over first repeats what we have: that is not quiet.
            set_={
                "last_at": sa.case(
                    (Series.state == SeriesState.OPEN.value, now), else_=Series.last_at
                )
            },
        ).returning(Series.id, Series.state, Series.generation)
    ).one()
    closed = row.state == SeriesState.CLOSED
    return row.id, row.generation + closed


def _modality(received: ReceivedInstance) -> str:
    values = received.header.get("Modality") or [""]
    return str(values[0]).replace("\0", "\ufffd")[:16]


def _grow(tx: Transaction, series_id: int, n: int, size: int) -> None:
    """Count new instances; a closed series opens its next generation."""
    closed = Series.state == SeriesState.CLOSED
    tx.execute(
        sa.update(Series)
        .where(Series.id == series_id)
        .values(
            opened_at=sa.case((closed, tx.now), else_=Series.opened_at),
            generation=Series.generation + sa.case((closed, 1), else_=0),
            state=SeriesState.OPEN,
            last_at=tx.now,
            n_instances=Series.n_instances + n,
            bytes=Series.bytes + size,
        )
    )


def _instance_row(tx: Transaction, item: Named, series_id: int, generation: int) -> dict[str, Any]:
    received = item.received
    return {
        "series_id": series_id,
        "sop_instance_uid": received.sop_instance_uid,
        "generation": generation,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "digest": received.digest,
        "size": received.size,
        "object_key": item.key,
        "peer": received.peer,
        "association_id": received.association_id,
        "received_at": tx.now,
        "duplicates": 0,
        "header": dict(received.header),
    }


def _count_duplicate(tx: Transaction, series_id: int, uid: str) -> None:
    tx.execute(
        sa.update(Instance)
        .where(Instance.series_id == series_id, Instance.sop_instance_uid == uid)
        .values(duplicates=Instance.duplicates + 1)
    )


def _set_aside(tx: Transaction, series_id: int, item: Named, same_data: SameData) -> None:
    """Keep other bytes under a known UID beside the first."""
    instance_id = tx.execute(
        sa.select(Instance.id).where(
            Instance.series_id == series_id,
            Instance.sop_instance_uid == item.received.sop_instance_uid,
        )
    ).scalar_one()
    values = {
        "instance_id": instance_id,
        "digest": item.received.digest,
        "object_key": item.key,
        "peer": item.received.peer,
        "received_at": tx.now,
    }
    item.is_unused = not _keep_aside(tx, values, item.received.size, same_data)


def _keep_aside(tx: Transaction, values: dict[str, Any], size: int, same_data: SameData) -> bool:
    """Write the row of an object that is set aside; False when the same bytes are there already.

    A digest is a label: bytes that were made to have the digest of others are kept, too.
    """
    digest = values["digest"]
    for number in range(_MOST_OF_ONE_DIGEST):
        values["digest"] = f"{digest}#{number}" if number else digest
        insert = tx.insert_or_ignore(Conflict, values, ["instance_id", "digest"])
        if tx.execute(insert.returning(Conflict.id)).first() is not None:
            return True
        there = tx.execute(
            sa.select(Conflict.object_key).where(
                Conflict.instance_id == values["instance_id"], Conflict.digest == values["digest"]
            )
        ).scalar_one()
        if values["object_key"] == there or same_data(values["object_key"], there, size):
            return False
    raise StoreUnavailable("too many objects of one digest were set aside")


def _replace(tx: Transaction, series_id: int, item: Named, same_data: SameData) -> None:
    """Put other bytes in the place of the first, which are set aside; the series changes by that.

    The instance stays in its generation: a job that has not read it yet finds the new bytes, and
    none finds an instance less.
    """
    first = tx.execute(
        sa.select(*sa.inspect(Instance).columns).where(
            Instance.series_id == series_id,
            Instance.sop_instance_uid == item.received.sop_instance_uid,
        )
    ).one()
    aside = {
        "instance_id": first.id,
        "digest": first.digest,
        "object_key": first.object_key,
        "peer": first.peer,
        "received_at": first.received_at,
    }
    if same_data(item.key, first.object_key, min(item.received.size, first.size)) is not None:
        _keep_aside(tx, aside, first.size, same_data)
    row = _instance_row(tx, item, series_id, first.generation)
    tx.execute(sa.update(Instance).where(Instance.id == first.id).values(row))
    _grow(tx, series_id, 0, item.received.size - first.size)
