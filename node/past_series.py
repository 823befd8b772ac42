"""Series that came before, as facts that rules look at, study by study."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from node.candidates import SeriesFacts
from node.deciding import facts_of
from node.receive.header import StartTooShort, scan
from node.routing_keys import ROUTING_KEYS
from storage import retrievals, studies
from storage.base import ClosedSeries, StoredInstance
from storage.database import Database
from storage.objects import FileObjects

START_BYTES = 1 << 16


def past_studies(
    database: Database, objects: FileObjects, since: timedelta, keys: Collection[str]
) -> Iterator[list[SeriesFacts]]:
    """Give every study of which a series was completed within a while.

    Series that this node retrieved start no rule, and are left out.

    Parameters
    ----------
    since : timedelta
        How far back.
    keys : collection of str
        What rules look at, as `with_headers` takes it.
    """
    with database.snapshot() as tx:
        ids = studies.completed_since(tx, tx.now - since)
    for series_id in ids:
        with database.snapshot() as tx:
            found = [
                facts_of(tx, with_headers(one, objects, keys))
                for one in studies.study_of(tx, series_id).closed
                if one.instances and not retrievals.is_retrieved(tx, one.series_instance_uid)
            ]
        if found:
            yield found


def with_headers(closed: ClosedSeries, objects: FileObjects, keys: Collection[str]) -> ClosedSeries:
    """Give a series with what rules look at in its headers.

    Parameters
    ----------
    keys : collection of str
        As `routing.header_keys` names them. Rules may have been others when the instances came:
        what was not collected then is read from the stored objects. Images that retention has
        deleted are not there any more.
    """
    names = frozenset(keys) - ROUTING_KEYS
    instances = tuple(_with_header(one, objects, names) for one in closed.instances)
    return replace(closed, instances=instances)


def _with_header(
    instance: StoredInstance, objects: FileObjects, names: Collection[str]
) -> StoredInstance:
    missing = sorted(name for name in names if name not in instance.header)
    if not missing:
        return instance
    try:
        found = _scanned(instance, objects, missing)
    except (OSError, ValueError):
        return instance
    return replace(instance, header={**instance.header, **found})


def _scanned(instance: StoredInstance, objects: FileObjects, names: list[str]) -> dict[str, Any]:
    """Read values from the start of an object, or from all of it where that is too short."""
    place, syntax = objects.place(instance.object_key), instance.transfer_syntax_uid
    with place.path.open("rb") as file:
        file.seek(place.offset + place.size - instance.size)
        data = file.read(min(START_BYTES, instance.size))
        try:
            return dict(scan(data, syntax, names, instance.size).values)
        except StartTooShort:
            data += file.read(instance.size - len(data))
            return dict(scan(data, syntax, names).values)
