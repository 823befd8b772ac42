"""Whether an object may leave: the defects no public validator sees, found before it is sent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pydicom import config
from pydicom.dataset import Dataset

from models.base import Code
from sr_templates.base import MANUFACTURER, UNDECODABLE, UnfitSource
from sr_templates.checks.agreement import agreement
from sr_templates.checks.attributes import attributes
from sr_templates.checks.base import (
    CAPTURES,
    CHECKED,
    DOCUMENTS,
    ENCAPSULATED,
    KEY_OBJECTS,
    SEGMENTATIONS,
    STRUCTURE_SETS,
    Defect,
    Found,
    Subject,
    judged,
)
from sr_templates.checks.belonging import belonging
from sr_templates.checks.captures import captures
from sr_templates.checks.coded import codes
from sr_templates.checks.documents import documents
from sr_templates.checks.encapsulated import encapsulated
from sr_templates.checks.key_objects import key_objects
from sr_templates.checks.measurements import is_measurement_report, measurements
from sr_templates.checks.places import places
from sr_templates.checks.segments import segments
from sr_templates.checks.structures import structures
from sr_templates.checks.texts import changes, texts
from sr_templates.checks.tree import name
from sr_templates.normalise import normalised
from sr_templates.part10 import Unwritable, reread

Check = Callable[[Subject], Iterable[Found]]

EVERY: tuple[Check, ...] = (
    attributes,
    lambda subject: texts(subject.ds),
    belonging,
    codes,
)
OF_A_CLASS: tuple[tuple[frozenset[str], tuple[Check, ...]], ...] = (
    (SEGMENTATIONS, (segments, places)),
    (DOCUMENTS, (documents,)),
    (CAPTURES, (captures,)),
    (STRUCTURE_SETS, (structures,)),
    (ENCAPSULATED, (encapsulated,)),
    (KEY_OBJECTS, (key_objects,)),
)
OTHER_TITLES = frozenset({"STATUS_REPORT", "18748-4"})
"""Titles of the notices of `sr_templates.notice`, in our private scheme, and of reports in
sentences."""
MOST = 5
"""Defects of one kind that are told one by one."""
OF_A_REPORT: tuple[Check, ...] = (measurements, agreement)


def problems(
    result: Dataset,
    sources: Iterable[Dataset],
    seg: Dataset | None = None,
    reviewed: frozenset[Code] = frozenset(),
) -> list[str]:
    """Say what keeps a result from leaving, one sentence each; an empty list lets it leave.

    The result is written and read back first, so that what is judged is what would be sent.

    Parameters
    ----------
    result : Dataset
        An object of this node.
    sources : iterable of Dataset
        The images it was made from, normalised or as received; of a rejection note none.
    seg : Dataset or None
        The Segmentation an SR refers to.
    reviewed : frozenset of Code
        Codes of its template that no table has, yet somebody looked up.

    Returns
    -------
    list of str
        Without patient data: a differing attribute is named, not shown.
    """
    found = examine_own(result, sources, seg, reviewed)
    return [str(defect) for defect in found if defect.severity == "error"]


def examine_own(
    result: Dataset,
    sources: Iterable[Dataset],
    seg: Dataset | None = None,
    reviewed: frozenset[Code] = frozenset(),
) -> list[Defect]:
    """Find everything wrong with a result of this node, as `problems` does, with cures."""
    try:
        is_note = result.get("SOPClassUID") in KEY_OBJECTS
        ordered = () if is_note else tuple(normalised(sources))
        written = reread(result)
        segmentation = None if seg is None else reread(seg)
    except UnfitSource as error:
        return _defects([Found("unfit_source", "", str(error))], own=True)
    except Unwritable as error:
        return _defects([Found("unwritable", "", str(error))], own=True)
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        altered = list(changes(result, written))
    subject = Subject(written, ordered, segmentation, reviewed=reviewed)
    return [*_defects(altered, own=True), *examine(subject)]


def examine(subject: Subject) -> list[Defect]:
    """Find everything wrong with an object.

    Parameters
    ----------
    subject : Subject

    Returns
    -------
    list of Defect
        Errors and warnings, each once, in the order of the checks.

    References
    ----------
    DICOM PS3.3 A.8.1, A.35, A.51; PS3.5 6; PS3.16 TID 1500; IHE AIR 6.5.3.1.
    """
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pydicom would warn of is judged here
        found = [item for check in _checks_of(subject) for item in _guarded(check, subject)]
    return _defects(dict.fromkeys(found), own=subject.own)


def is_own(ds: Dataset) -> bool:
    """Whether this project made an object, going by its Manufacturer."""
    return str(ds.get("Manufacturer", "")) == MANUFACTURER


def _checks_of(subject: Subject) -> Iterator[Check]:
    yield from EVERY
    if subject.sop_class_uid not in CHECKED:
        yield _not_ours
    for classes, checks in OF_A_CLASS:
        if subject.sop_class_uid in classes:
            yield from checks
    if subject.sop_class_uid in DOCUMENTS:
        yield from OF_A_REPORT if is_measurement_report(subject.ds) else (_title,)


def _not_ours(subject: Subject) -> Iterator[Found]:
    sentence = f"SOP Class {subject.sop_class_uid} is none that this node makes"
    yield Found("not_ours", "", sentence)


def _title(subject: Subject) -> Iterator[Found]:
    """Whatever of ours is no measurement report says that it is a notice, or a text."""
    if subject.own and name(subject.ds) not in OTHER_TITLES:
        yield Found("title", "", "the document is no Imaging Measurement Report")


def _guarded(check: Check, subject: Subject) -> list[Found]:
    """Run a check; an attribute it cannot do without is a defect, not a crash."""
    found: list[Found] = []
    try:
        found.extend(check(subject))
    except UnfitSource as error:
        found.append(Found("frame_group", "", str(error)))
    except UNDECODABLE as error:
        # The message of a foreign error may hold patient data, so only its kind is told.
        sentence = f"an attribute is missing or cannot be read ({type(error).__name__})"
        found.append(Found("missing", "", sentence))
    return found


def _defects(found: Iterable[Found], *, own: bool) -> list[Defect]:
    """Judge what was found; of what many places share, a few are told and the rest counted."""
    defects: dict[str, list[Defect]] = {}
    for item in found:
        defect = judged(item, own=own)
        if defect is not None:
            defects.setdefault(defect.rule, []).append(defect)
    told: list[Defect] = []
    for same in defects.values():
        told += same[:MOST]
        if len(same) > MOST:
            sentence = f"{len(same) - MOST} more places have the defect {same[0].rule}"
            told.append(replace(same[0], where="", sentence=sentence))
    return told
