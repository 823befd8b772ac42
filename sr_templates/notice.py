"""A report that says whether a study was scored, for readers who would else wait for a result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from highdicom.sr import (
    CodeContentItem,
    ComprehensiveSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    LanguageOfContentItemAndDescendants,
    NumContentItem,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset

from models.base import Code
from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity, UnfitSource
from sr_templates.codes import private
from sr_templates.normalise import normalised
from sr_templates.report import observation_context, procedure_of

Status = Literal["not_scored", "failed", "running", "scored"]

TITLE = private("STATUS_REPORT", "Status of automatic analysis")
STATUS = private("STATUS", "Status")
LOOKED_FOR = private("LOOKED_FOR", "Looked for")
REASON_CODE = private("REASON_CODE", "Reason code")
REASON = private("REASON", "Reason")
ADVICE = private("ADVICE", "What can be done")
MEANING = private("MEANING", "What this means")
WAITED = private("WAITED", "Time since the analysis began")
STATUSES: dict[Status, Code] = {
    "not_scored": private("NOT_SCORED", "Not scored"),
    "failed": private("FAILED", "Failed"),
    "running": private("RUNNING", "Still running"),
    "scored": private("SCORED", "Scored"),
}
STATEMENTS: dict[Status, str] = {
    "not_scored": "{what}: NOT SCORED. These images were not analysed by the software.",
    "failed": "{what}: NOT SCORED. The analysis of these images failed.",
    "running": "{what}: NOT YET SCORED. The analysis is still running after {minutes} min.",
    "scored": "{what}: SCORED. The result is in a report of its own.",
}
MEANINGS: dict[Status, str] = {
    "not_scored": "No result is not a negative result: read the study as if no software saw it.",
    "failed": "No result is not a negative result: read the study as if no software saw it.",
    "running": "There is no result yet; do not wait for it. A report follows when it is done.",
    "scored": "This replaces an earlier notice that there was no result yet.",
}
MARKS: dict[Status, str] = {
    "not_scored": "NOT SCORED",
    "failed": "NOT SCORED",
    "running": "NOT YET SCORED",
    "scored": "SCORED",
}
"""What a reader sees in the list of series."""


@dataclass(frozen=True)
class Notice:
    """What became of a job.

    Parameters
    ----------
    status : str
        ``not_scored``: it was refused for a reason; ``failed``: it broke; ``running``: it has
        no result yet; ``scored``: a result exists by now.
    reason : str
        A short stable word, such as ``missing_slices``; empty when there is none.
    sentence : str
        What was found and what was wanted; without patient data.
    advice : str
        What somebody can do about it; may be empty.
    minutes : int
        How long it has been running; of meaning to ``running`` only.
    """

    status: Status
    reason: str = ""
    sentence: str = ""
    advice: str = ""
    minutes: int = 0


def status_report(
    notice: Notice,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
    previous: Dataset | None = None,
) -> Dataset:
    """Write a notice as a Comprehensive SR document of full sentences.

    Its title is none of CID 7021, so that no reader takes it for measurements, and viewers that
    know no template show its sentences as text.

    Parameters
    ----------
    notice : Notice
    sources : sequence of Dataset
        The images it is about, as `fit_sources` or `normalised` returns them; its evidence.
    identity : ObjectIdentity
    maker : Maker
        The model that would have scored them.
    previous : Dataset or None
        An earlier notice of the same study that this one replaces.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        A study that was not scored is given no reason.

    References
    ----------
    DICOM PS3.3 A.35.3, C.17.2 (Predecessor Documents Sequence).
    """
    if notice.status in ("not_scored", "failed") and not notice.sentence:
        raise ValueError(f"a study that is {notice.status} needs a sentence that says why")
    description = f"{MARKS[notice.status]}: {identity.series_description}"
    marked = replace(identity, series_description=description)
    result = ComprehensiveSR(
        evidence=stamp.anonymous(sources),
        content=_root(notice, sources[0], maker),
        is_complete=notice.status != "running",
        content_qualification=stamp.content_qualification(maker),
        specific_character_set="ISO_IR 192",
        coding_schemes=[codes.private_scheme()],
        previous_versions=None if previous is None else [previous],
        **stamp.general(sources[0], marked, maker),
    )
    stamp.stamp(result, sources[0], maker)
    return result


def fit_sources(given: Iterable[Dataset]) -> list[Dataset]:
    """Normalise as many images as can be, where all of them together cannot.

    A series that is refused because it is a mixture still gets its notice.

    Raises
    ------
    UnfitSource
        Not even one image can carry a notice, and the sentence says why.
    """
    everything = list(given)
    try:
        return normalised(everything)
    except UnfitSource as error:
        reason = error
    groups: dict[tuple[str, ...], list[Dataset]] = {}
    for ds in everything:
        key = tuple(str(ds.get(word, "")) for word in ("StudyInstanceUID", "FrameOfReferenceUID"))
        groups.setdefault(key, []).append(ds)
    largest = sorted(groups.values(), key=len, reverse=True)
    for some in (*largest, *([ds] for ds in everything)):
        try:
            return normalised(some)
        except UnfitSource:
            continue
    raise reason


def _root(notice: Notice, source: Dataset, maker: Maker) -> ContainerContentItem:
    root = ContainerContentItem(codes.concept(TITLE))
    content = ContentSequence(is_root=False)
    content.extend(LanguageOfContentItemAndDescendants(codes.concept(codes.BRITISH_ENGLISH)))
    content.extend(observation_context(maker))
    procedure = CodeContentItem(
        codes.concept(codes.PROCEDURE_REPORTED),
        procedure_of((), source),
        RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    content.append(procedure)
    content.extend(_statements(notice, maker))
    root.ContentSequence = content
    return root


def _statements(notice: Notice, maker: Maker) -> list[ContentItem]:
    what = codes.display(maker.model.finding)
    statement = STATEMENTS[notice.status].format(what=what, minutes=notice.minutes)
    texts = [
        (codes.CONCLUSION, statement),
        (REASON, notice.sentence),
        (REASON_CODE, notice.reason),
        (MEANING, MEANINGS[notice.status]),
        (ADVICE, notice.advice),
        (codes.COMMENT, f"{maker.model.title}, version {maker.model.version}"),
        (codes.COMMENT, stamp.caution(maker)),
    ]
    items: list[ContentItem] = [
        CodeContentItem(codes.concept(name), codes.concept(value), RelationshipTypeValues.CONTAINS)
        for name, value in ((STATUS, STATUSES[notice.status]), (LOOKED_FOR, maker.model.finding))
    ]
    if notice.status == "running":
        items.append(
            NumContentItem(
                codes.concept(WAITED),
                notice.minutes,
                codes.concept(codes.MINUTE),
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
        )
    items += [
        TextContentItem(codes.concept(name), text, RelationshipTypeValues.CONTAINS)
        for name, text in texts
        if text
    ]
    return items
