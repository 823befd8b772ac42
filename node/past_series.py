"""Series that came before, as facts that rules look at, study by study."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any

from node.candidates import SeriesFacts
from node.deciding import facts_of
from node.receive.header import scan
from storage import studies
from storage.base import ClosedSeries, StoredInstance, StoreUnavailable
from storage.database import Database
from storage.objects import FileObjects


def past_studies(
    database: Database, objects: FileObjects, since: timedelta, missing: Collection[str]
) -> Iterator[list[SeriesFacts]]:
    """Give every study of which a series was completed within a while.

    Parameters
    ----------
    since : timedelta
        How far back.
    missing : collection of str
        Keys that the header scan did not collect when the instances came: they are read from
        the stored objects. Images that retention has deleted are not there any more.
    """
    with database.snapshot() as tx:
        ids = studies.completed_since(tx, tx.now - since)
    for series_id in ids:
        with database.snapshot() as tx:
            closed = studies.study_of(tx, series_id).closed
            facts = [(one, facts_of(tx, one)) for one in closed if one.instances]
        yield [_complemented(one, fact, objects, missing) for one, fact in facts]


def _complemented(
    closed: ClosedSeries, facts: SeriesFacts, objects: FileObjects, missing: Collection[str]
) -> SeriesFacts:
    if not missing:
        return facts
    headers = [_header(instance, objects, missing) for instance in closed.instances]
    return SeriesFacts(
        facts.study_instance_uid,
        facts.series_instance_uid,
        facts.modality,
        headers,
        facts.instances,
        facts.verdict,
        facts.own_result,
        facts.evidence,
    )


def _header(
    instance: StoredInstance, objects: FileObjects, missing: Collection[str]
) -> dict[str, Any]:
    """Header of an instance with what is read from its bytes now; those may be gone."""
    header = dict(instance.header)
    try:
        data = objects.read(instance.object_key)[-instance.size :]
        return header | scan(data, instance.transfer_syntax_uid, missing).values
    except (StoreUnavailable, ValueError):
        return header
