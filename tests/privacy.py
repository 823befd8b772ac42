"""Every log the suite wrote, and every patient whose data went through it."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

LOGS: list[Path] = []
PLANTED: set[str] = set()
ALWAYS_PLANTED = {"Planted", "Jürgensen", "PLANTED-ID-4711", "19330517", "1933-05-17"}
SHORTEST = 5
"""Shorter values occur by chance in UIDs and digests."""
_KEYWORDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "AccessionNumber",
    "ReferringPhysicianName",
    "InstitutionName",
    "StudyDescription",
)


def plant(folder: Path) -> None:
    """Remember what no log may hold of the objects in a folder."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        try:
            ds = pydicom.dcmread(path, specific_tags=list(_KEYWORDS), stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        PLANTED.update(_texts(ds))


def _texts(ds: pydicom.Dataset) -> set[str]:
    """Values as they stand, and the parts of names."""
    values = {str(ds.get(keyword) or "") for keyword in _KEYWORDS}
    parts = {part for value in values for part in value.split("^")}
    return {text for text in values | parts if len(text) >= SHORTEST}


def leaks(log: Path, wanted: set[str]) -> list[tuple[int, str]]:
    """Lines of a log that hold a planted value, whatever its case; their number and event."""
    searched = {text.casefold() for text in wanted}
    found = []
    for number, line in enumerate(log.read_text(errors="replace").splitlines(), start=1):
        try:
            content = json.loads(line)
            decoded = json.dumps(content, ensure_ascii=False)
            event = str(content.get("event"))
        except (ValueError, AttributeError):
            decoded, event = line, "not a log line"
        if any(text in decoded.casefold() for text in searched):
            found.append((number, event))
    return found
