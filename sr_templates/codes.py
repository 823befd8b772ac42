"""The coded concepts of our results; a test compares each with the tables of PS3.16."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from models.base import Code
from sr_templates.base import MANUFACTURER
from sr_templates.code_tables import meanings_of

PRIVATE_SCHEME: Final = "99SCORENODE"

PROCESSING_EQUIPMENT: Final[Code] = ("DCM", "109102", "Processing Equipment")
DEVICE: Final[Code] = ("DCM", "121007", "Device")
FINDING: Final[Code] = ("DCM", "121071", "Finding")
FINDINGS: Final[Code] = ("DCM", "121070", "Findings")
CONCLUSIONS: Final[Code] = ("DCM", "121076", "Conclusions")
DIAGNOSTIC_REPORT: Final[Code] = ("LN", "18748-4", "Diagnostic Imaging Report")
REJECTED: Final[Code] = ("DCM", "113001", "Rejected for Quality Reasons")
CONCLUSION: Final[Code] = ("DCM", "121077", "Conclusion")
PROCEDURE_REPORTED: Final[Code] = ("DCM", "121058", "Procedure reported")
MINUTE: Final[Code] = ("UCUM", "min", "minute")
COMMENT: Final[Code] = ("DCM", "121106", "Comment")
SUBJECT_AGE: Final[Code] = ("DCM", "121033", "Subject Age")
PRESENCE: Final[Code] = ("DCM", "121052", "Presence of property")
PROBABILITY: Final[Code] = ("DCM", "122157", "Probability")
SUM_OF_VOXELS: Final[Code] = ("DCM", "126030", "Sum of segmented voxel method for volume")
ARTIFICIAL_INTELLIGENCE: Final[Code] = ("DCM", "123110", "Artificial Intelligence")
VOLUME: Final[Code] = ("SCT", "118565006", "Volume")
AREA: Final[Code] = ("SCT", "42798000", "Area")
PRESENT: Final[Code] = ("SCT", "52101004", "Present")
ABSENT: Final[Code] = ("SCT", "272519000", "Absent")
UNDETERMINED: Final[Code] = ("SCT", "373068000", "Undetermined")
LEFT: Final[Code] = ("SCT", "7771000", "Left")
RIGHT: Final[Code] = ("SCT", "24028007", "Right")
RIGHT_AND_LEFT: Final[Code] = ("SCT", "51440002", "Right and left (qualifier value)")
LOWER_LIMIT: Final[Code] = ("SCT", "385524004", "Normal Range Lower Limit")
UPPER_LIMIT: Final[Code] = ("SCT", "371933006", "Normal Range Upper Limit")
GREY_MATTER: Final[Code] = ("SCT", "389081007", "Gray Matter")
CRANIAL_CAVITY: Final[Code] = ("SCT", "1101003", "Cranial Cavity")
INTRACRANIAL: Final[Code] = ("SCT", "128319008", "Intracranial structure")
ANATOMICAL_STRUCTURE: Final[Code] = ("SCT", "91723000", "Anatomical Structure")
HEAD: Final[Code] = ("SCT", "69536005", "Head")
BRAIN: Final[Code] = ("SCT", "12738006", "Brain")
CT_HEAD: Final[Code] = ("SCT", "303653007", "Computed tomography of head (procedure)")
CT_UNSPECIFIED: Final[Code] = ("LN", "25045-6", "CT unspecified body region")
MR_UNSPECIFIED: Final[Code] = ("LN", "25056-3", "MRI unspecified body region")
IMAGING_PROCEDURE: Final[Code] = ("SCT", "363679005", "Imaging procedure")
NO_UNITS: Final[Code] = ("UCUM", "1", "no units")
PERCENT: Final[Code] = ("UCUM", "%", "Percent")
YEAR: Final[Code] = ("UCUM", "a", "year")
MILLILITER: Final[Code] = ("UCUM", "ml", "milliliter")
MM2: Final[Code] = ("UCUM", "mm2", "square millimeter")
CUBIC_CENTIMETER: Final[Code] = ("UCUM", "cm3", "cubic centimeter")
BRITISH_ENGLISH: Final[Code] = ("RFC5646", "en-GB", "English (United Kingdom)")

PRIVATE_SCHEME_UID: Final = "2.25.331684130112984093737546523156442684009"
"""Ours for good: the name-based UUID (version 5) of "scorenode coding scheme 99SCORENODE"."""

NUMBER_OF_LESIONS: Final[Code] = ("SCT", "246206008", "Number of lesions (observable entity)")
PRIORITY: Final[Code] = ("SCT", "260870009", "Priority (attribute)")
LARGEST_LESION: Final[Code] = (PRIVATE_SCHEME, "largest-lesion", "Volume of the largest lesion")
ABC2: Final[Code] = (PRIVATE_SCHEME, "lesion-abc2", "ABC/2 of the largest lesion")
OVER_THRESHOLD: Final[Code] = (PRIVATE_SCHEME, "over-threshold", "Over threshold")
NOT_OVER_THRESHOLD: Final[Code] = (PRIVATE_SCHEME, "below-threshold", "Not over threshold")

OUTSIDE_PS3_16: Final = frozenset(
    {MILLILITER, BRITISH_ENGLISH, LARGEST_LESION, ABC2, OVER_THRESHOLD, NOT_OVER_THRESHOLD}
)
"""Valid in their own scheme (UCUM, RFC 5646, ours), yet in none of the tables of PS3.16."""

QUANTITIES: Final[dict[str, Code]] = {
    "volume": VOLUME,
    "probability": PROBABILITY,
    "lesions": NUMBER_OF_LESIONS,
    "largest": LARGEST_LESION,
    "abc2": ABC2,
}
"""Words of `models.base.Number.name`."""
UNITS: Final[dict[str, Code]] = {
    "ml": MILLILITER,
    "cm3": CUBIC_CENTIMETER,
    "1": NO_UNITS,
}
"""Words of `models.base.Number.unit`."""
DIGITS: Final[dict[str, int]] = {
    "volume": 2,
    "probability": 4,
    "lesions": 0,
    "largest": 2,
    "abc2": 2,
}
"""Decimal places written for a quantity."""
METHODS: Final[dict[str, Code]] = {"volume": SUM_OF_VOXELS, "largest": SUM_OF_VOXELS}
"""How a quantity of a segment was measured."""
PRESENCES: Final[dict[bool | None, Code]] = {True: PRESENT, False: ABSENT, None: UNDETERMINED}
SIDES: Final[dict[str, Code]] = {"left": LEFT, "right": RIGHT, "both": RIGHT_AND_LEFT}
"""Words of `models.base.Segment.side`."""
PROCEDURES: Final[dict[str, Code]] = {"CT": CT_UNSPECIFIED, "MR": MR_UNSPECIFIED}
HEAD_PARTS: Final = frozenset({"HEAD", "BRAIN"})
"""Defined Terms of Body Part Examined that mean a procedure of the head."""
BRITISH: Final[dict[str, str]] = {
    "hemorrhag": "haemorrhag",
    "hematoma": "haematoma",
    "ischemi": "ischaemi",
    "edema": "oedema",
    "tumor": "tumour",
}
"""Beginnings of words whose spelling differs between Code Meanings and what we display."""


def private(value: str, meaning: str) -> Code:
    """Return a code of our private scheme, for what no table has."""
    return PRIVATE_SCHEME, value, meaning


def private_scheme() -> CodingSchemeIdentificationItem:
    """Identify our private scheme in an object that uses it."""
    return CodingSchemeIdentificationItem(
        PRIVATE_SCHEME,
        name="scorenode private codes",
        uid=PRIVATE_SCHEME_UID,
        responsible_organization=MANUFACTURER,
    )


def concept(code: Code) -> CodedConcept:
    """Return a code as highdicom's coded concept."""
    scheme, value, meaning = code
    return CodedConcept(value, scheme, meaning)


def quantity(name: str) -> CodedConcept:
    """Concept of a named number.

    Raises
    ------
    ValueError
        No concept is known under this name.
    """
    return concept(_known(QUANTITIES, name, "quantity"))


def unit(name: str) -> CodedConcept:
    """Concept of a UCUM unit: one of ours, or of the tables.

    Raises
    ------
    ValueError
        The unit is not known.
    """
    listed = sorted(meanings_of("UCUM", name))
    if name not in UNITS and listed:
        return concept(("UCUM", name, listed[0]))
    return concept(_known(UNITS, name, "unit"))


def procedure(modality: str, body_part: str = "", regions: Iterable[Code] = ()) -> CodedConcept:
    """Procedure Reported: computed tomography of the head where it is one, else in generic words.

    Parameters
    ----------
    modality : str
        Of the source.
    body_part : str
        Body Part Examined of the source, empty when it has none.
    regions : iterable of Code
        Anatomic regions of what the model looks for.
    """
    part = body_part.strip().upper()
    if modality == "CT" and (part in HEAD_PARTS or any(map(is_in_head, regions))):
        return concept(CT_HEAD)
    return concept(PROCEDURES.get(modality, IMAGING_PROCEDURE))


def is_in_head(region: Code) -> bool:
    """Whether an anatomic region is the head or the brain, whatever its meaning's wording."""
    return region[:2] in {HEAD[:2], BRAIN[:2]}


def display(code: Code) -> str:
    """Return a code's meaning as a reader sees it: in British spelling, without its semantic tag.

    What is coded keeps the meaning of its table.
    """
    text = code[2].partition(" (")[0]
    for american, british in BRITISH.items():
        text = re.sub(rf"\b{american}", british, text)
        text = re.sub(rf"\b{american.capitalize()}", british.capitalize(), text)
    return text


def _known(table: dict[str, Code], name: str, what: str) -> Code:
    if name not in table:
        raise ValueError(f"there is no code for the {what} {name!r}; known are {_list(table)}")
    return table[name]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
