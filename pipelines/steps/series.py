"""The files of one series as instances: each opened, or set aside with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from pipelines.base import NotScored
from pipelines.steps.head_reader import HeadReader
from pipelines.steps.headers import Head, Kin
from pipelines.steps.instances import Instance, open_instance
from pipelines.steps.read import read_instance, refuse_too_much, third_party_warnings_off
from pipelines.steps.split import Unused, plan_series
from pipelines.steps.volume_facts import Facts, facts_of
from storage.place import Place

SAME_BYTES = "same_bytes"
"""Reason of an instance that is there twice: the other one is used."""
CONFLICT = "conflicting_instances"


def open_series(
    files: Sequence[Path | Place],
    heads: Mapping[Path, Head] | None = None,
    *,
    deflated: bool = False,
) -> tuple[list[Instance], list[Unused]]:
    """Open the files of one series; nothing is left out without a reason.

    Two instances of different content under one SOP Instance UID are both opened.

    Parameters
    ----------
    files : sequence of Path or Place
        Part 10 files.
    heads : mapping or None
        Heads of whole files that have been read already.
    deflated : bool
        Whether to inflate deflated data sets, whose size is not known before.

    Returns
    -------
    list of Instance
    list of Unused
        Files that cannot be read or hold what another one holds.

    Raises
    ------
    NotScored
        There is nothing to read, or too much of it.
    Transient
        The store does not answer.
    """
    places = [Place.of(file) for file in files]
    refuse_too_much(places)
    known: dict[Kin, Instance] = {}
    first: dict[str, Place] = {}
    instances, unused = [], []
    with HeadReader() as reader:
        for number, place in enumerate(places, start=1):
            try:
                head = heads.get(place.path) if heads else None
                instance = open_instance(place, number, known, head, reader, deflated=deflated)
            except NotScored as error:
                unused.append(Unused("", None, error.reason, error.sentence))
                continue
            uid = instance.sop_instance_uid
            if uid in first and first[uid].read() == place.read():
                sentence = f"Instance {uid} is there twice; it is used once."
                unused.append(Unused(uid, None, SAME_BYTES, sentence))
                continue
            first.setdefault(uid, place)
            instances.append(instance)
    return instances, unused


def open_whole_series(files: Sequence[Path | Place]) -> list[Instance]:
    """Open the files of a series that is to be scored.

    Raises
    ------
    NotScored
        There is nothing to read, too much of it, a file is not DICOM or damaged, or two
        instances of different content share a SOP Instance UID.
    Transient
        The store does not answer.
    """
    instances, unused = open_series(files)
    for item in unused:
        if item.reason != SAME_BYTES:
            raise NotScored(item.reason, item.sentence)
    seen: set[str] = set()
    for instance in instances:
        uid = instance.sop_instance_uid
        if uid in seen:
            raise NotScored(
                CONFLICT, f"Two instances of different content share SOP Instance UID {uid}."
            )
        seen.add(uid)
    return instances


def image_facts(files: Sequence[Path | Place]) -> list[Facts]:
    """Describe the volumes of a series from headers alone, for rules.

    Parameters
    ----------
    files : sequence of Path or Place
        Part 10 files.

    Returns
    -------
    list of mapping
        As `volume_facts.facts_of` makes them, one for each volume in the order of acquisition;
        none where the series holds none.

    Raises
    ------
    Transient
        The store does not answer.
    """
    try:
        instances, _ = open_series(files)
    except NotScored:
        return []
    with third_party_warnings_off():
        plan = plan_series(instances)
        return [facts_of(instances[s.frames[0].instance].header, s) for s in plan.stacks]


def whole_datasets(instances: Sequence[Instance]) -> list[Dataset]:
    """Read instances with their pixels."""
    return [
        instance.header if instance.place is None else read_instance(instance.place)
        for instance in instances
    ]
