"""Relationships between content items that the IODs allow: PS3.3 A.35.1 to A.35.3 and A.35.13."""

from __future__ import annotations

from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, EnhancedSRStorage

CONTEXT = frozenset({"TEXT", "CODE", "NUM", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME"})
OBJECTS = frozenset({"COMPOSITE", "IMAGE", "WAVEFORM"})
COORDINATES = frozenset({"SCOORD", "TCOORD"})
STATEMENTS = frozenset({"TEXT", "CODE", "NUM"})
INFERRED = CONTEXT | OBJECTS | COORDINATES | {"CONTAINER"}
CHOSEN_FROM = {
    "SCOORD": ("IMAGE",),
    "SCOORD3D": ("IMAGE",),
    "TCOORD": ("SCOORD", "SCOORD3D", "IMAGE", "WAVEFORM"),
}
"""What coordinates may be selected from."""
WITH_3D = frozenset({"SCOORD3D", "TABLE"})
"""Value Types that only Comprehensive 3D SR has."""


BASIC = (CONTEXT - {"NUM"}) | OBJECTS | {"CONTAINER"}
"""Value Types of a Basic Text SR."""


def is_allowed(sop_class_uid: str, parent: str, relationship: str, kind: str) -> bool:
    """Whether an IOD allows a content item below another.

    Parameters
    ----------
    sop_class_uid : str
        Basic Text, Enhanced, Comprehensive or Comprehensive 3D SR.
    parent, kind : str
        Value Types of the two.
    relationship : str
        Relationship Type.
    """
    if sop_class_uid != Comprehensive3DSRStorage and {parent, kind} & WITH_3D:
        return False
    if sop_class_uid == BasicTextSRStorage and not {parent, kind} <= BASIC:
        return False
    if relationship == "HAS CONCEPT MOD":
        return kind in {"TEXT", "CODE"}
    if relationship == "CONTAINS":
        return parent == "CONTAINER" and kind in INFERRED | WITH_3D
    if relationship == "HAS OBS CONTEXT":
        return parent in STATEMENTS | {"CONTAINER"} and kind in CONTEXT | {"COMPOSITE"}
    if relationship == "HAS ACQ CONTEXT":
        return parent in OBJECTS | {"CONTAINER"} and kind in CONTEXT | {"CONTAINER"}
    if relationship == "SELECTED FROM":
        return kind in CHOSEN_FROM.get(parent, ())
    if relationship == "INFERRED FROM":
        below = CONTEXT | OBJECTS | COORDINATES if sop_class_uid == EnhancedSRStorage else INFERRED
        return parent in STATEMENTS and kind in below | WITH_3D
    if relationship == "HAS PROPERTIES":
        persons = {"PNAME"} if sop_class_uid == Comprehensive3DSRStorage else set()
        return parent in STATEMENTS | persons and kind in INFERRED | WITH_3D
    return False
