"""The coded concepts of our results; a test compares each with the tables of PS3.16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from highdicom.sr import CodedConcept

from models.base import Code

PROCESSING_EQUIPMENT: Final[Code] = ("DCM", "109102", "Processing Equipment")
DEVICE: Final[Code] = ("DCM", "121007", "Device")
FINDING: Final[Code] = ("DCM", "121071", "Finding")
COMMENT: Final[Code] = ("DCM", "121106", "Comment")
PRESENCE: Final[Code] = ("DCM", "121052", "Presence of property")
PROBABILITY: Final[Code] = ("DCM", "122157", "Probability")
SUM_OF_VOXELS: Final[Code] = ("DCM", "126030", "Sum of segmented voxel method for volume")
ARTIFICIAL_INTELLIGENCE: Final[Code] = ("DCM", "123110", "Artificial Intelligence")
VOLUME: Final[Code] = ("SCT", "118565006", "Volume")
PRESENT: Final[Code] = ("SCT", "52101004", "Present")
ABSENT: Final[Code] = ("SCT", "272519000", "Absent")
UNDETERMINED: Final[Code] = ("SCT", "373068000", "Undetermined")
HEAD: Final[Code] = ("SCT", "69536005", "Head")
CT_UNSPECIFIED: Final[Code] = ("LN", "25045-6", "CT unspecified body region")
MR_UNSPECIFIED: Final[Code] = ("LN", "25056-3", "MRI unspecified body region")
IMAGING_PROCEDURE: Final[Code] = ("SCT", "363679005", "Imaging procedure")
NO_UNITS: Final[Code] = ("UCUM", "1", "no units")
MILLILITER: Final[Code] = ("UCUM", "ml", "milliliter")
CUBIC_CENTIMETER: Final[Code] = ("UCUM", "cm3", "cubic centimeter")
BRITISH_ENGLISH: Final[Code] = ("RFC5646", "en-GB", "English (United Kingdom)")

OUTSIDE_PS3_16: Final = frozenset({MILLILITER, BRITISH_ENGLISH})
"""Valid in their own scheme (UCUM, RFC 5646), yet in none of the tables of PS3.16."""

QUANTITIES: Final[dict[str, Code]] = {"volume": VOLUME, "probability": PROBABILITY}
"""Words of `models.base.Number.name`."""
UNITS: Final[dict[str, Code]] = {
    "ml": MILLILITER,
    "cm3": CUBIC_CENTIMETER,
    "1": NO_UNITS,
}
"""Words of `models.base.Number.unit`."""
DIGITS: Final[dict[str, int]] = {"volume": 2, "probability": 3}
"""Decimal places written for a quantity."""
METHODS: Final[dict[str, Code]] = {"volume": SUM_OF_VOXELS}
"""How a quantity of a segment was measured."""
PRESENCES: Final[dict[bool | None, Code]] = {True: PRESENT, False: ABSENT, None: UNDETERMINED}
PROCEDURES: Final[dict[str, Code]] = {"CT": CT_UNSPECIFIED, "MR": MR_UNSPECIFIED}


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
    """Concept of a UCUM unit.

    Raises
    ------
    ValueError
        The unit is not known.
    """
    return concept(_known(UNITS, name, "unit"))


def procedure(modality: str) -> CodedConcept:
    """Procedure Reported, in the generic words of CID 100, for a source modality."""
    return concept(PROCEDURES.get(modality, IMAGING_PROCEDURE))


def _known(table: dict[str, Code], name: str, what: str) -> Code:
    if name not in table:
        raise ValueError(f"there is no code for the {what} {name!r}; known are {_list(table)}")
    return table[name]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
