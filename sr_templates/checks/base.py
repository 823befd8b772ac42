"""The words of the checks: what is judged, what was found, and how bad that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from models.base import Code
from sr_templates.checks.rules import RULES, Severity

LABEL_MAP = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage, which pydicom does not name."""
SEGMENTATIONS = frozenset({SegmentationStorage, LABEL_MAP})
DOCUMENTS = frozenset(
    {BasicTextSRStorage, EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage}
)
CAPTURES = frozenset({SecondaryCaptureImageStorage})
STRUCTURE_SETS = frozenset({RTStructureSetStorage})
ENCAPSULATED = frozenset({EncapsulatedPDFStorage})
KEY_OBJECTS = frozenset({KeyObjectSelectionDocumentStorage})
CHECKED = SEGMENTATIONS | DOCUMENTS | CAPTURES | STRUCTURE_SETS | ENCAPSULATED | KEY_OBJECTS
"""SOP Classes whose content is checked."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One object to judge, and what it is compared with.

    Parameters
    ----------
    ds : Dataset
        As it was read from bytes.
    sources : tuple of Dataset
        The images it was made from, as `normalised` returns them; empty when they are not known.
    seg : Dataset or None
        The Segmentation a document refers to, as it was read from bytes.
    own : bool
        Whether this node made it, which is judged by more than the Standard.
    complete : bool
        Whether `sources` are all images it was made from; of some, only what they have in
        common with all is compared.
    reviewed : frozenset of Code
        Codes outside the tables that somebody looked up for this object.
    """

    ds: Dataset
    sources: tuple[Dataset, ...] = ()
    seg: Dataset | None = None
    own: bool = True
    complete: bool = True
    reviewed: frozenset[Code] = frozenset()

    @property
    def images(self) -> tuple[Dataset, ...]:
        """The sources where all of them are known."""
        return self.sources if self.complete else ()

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID, empty where there is none."""
        return str(self.ds.get("SOPClassUID", ""))


class Found(NamedTuple):
    """Something a check saw.

    `rule` is a key of `RULES`; `where` names the place by keywords, numbers and UIDs; `sentence`
    goes on from there, or stands alone where `where` is empty. None of them holds patient data.
    """

    rule: str
    where: str
    sentence: str


@dataclass(frozen=True)
class Defect:
    """What is wrong with an object.

    Parameters
    ----------
    rule : str
        Reason code, a short stable word.
    where : str
        Attribute, segment, frame or content item; empty for the object as a whole.
    sentence : str
        What is there, without patient data; it goes on from `where`.
    severity : str
        ``error``: it may not leave; ``warning``: someone should look.
    cure : str
        What to do about it.
    """

    rule: str
    where: str
    sentence: str
    severity: Severity
    cure: str

    def __str__(self) -> str:
        return f"{self.where} {self.sentence}" if self.where else self.sentence


def judged(found: Found, *, own: bool) -> Defect | None:
    """Say how bad it is; None where the Standard leaves it to who made the object."""
    rule = RULES[found.rule]
    severity = rule.own if own else rule.others
    if severity is None:
        return None
    return Defect(found.rule, found.where, found.sentence, severity, rule.cure)
