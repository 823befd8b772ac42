"""The words of `sr_templates`: what every object we make needs besides findings and sources."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.errors import BytesLengthException

from models.base import ModelIdentity

MANUFACTURER = "scorenode project"
MANUFACTURER_MODEL_NAME = "scorenode"
NOT_FOR_CLINICAL_USE = "NOT FOR CLINICAL USE - demonstration"
FOR_RESEARCH_USE = "FOR RESEARCH USE ONLY"
IMPLEMENTATION_CLASS_UID = "2.25.53083882026655275539865173101115748208"
"""Ours for good: the name-based UUID (version 5) of "scorenode implementation"."""
IMPLEMENTATION_VERSION_NAME = "SCORENODE"


UNDECODABLE = (
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    OSError,  # a sequence that ends too early, where it is first looked into
    BytesLengthException,
    zlib.error,  # a deflated data set that is cut off or damaged
)
"""What pydicom raises for an element that is missing or cannot be decoded; the message of each may
hold the value."""


class UnfitSource(ValueError):
    """Raised when source datasets cannot carry a result, and the sentence says which and why."""


class NoFrameOfReference(UnfitSource):
    """Raised when source images name no Frame of Reference: a report can be written, no SEG."""


class Overlap(UnfitSource):
    """Raised when segments share voxels, so that a report can be written and no label map."""


@dataclass(frozen=True)
class Maker:
    """Who made a result: this node and the model.

    Parameters
    ----------
    station : str
        Stable id of the node; Device Serial Number.
    software_version : str
        Version of scorenode.
    model : ModelIdentity
    device_uid : str
        Device UID of the model at this version (IHE AIR); changes when the model changes.
    at : datetime
        When the job was created, timezone-aware; every date and time we write, so that a re-run
        writes identical bytes.
    """

    station: str
    software_version: str
    model: ModelIdentity
    device_uid: str
    at: datetime


@dataclass(frozen=True)
class ObjectIdentity:
    """Where a result goes in the study.

    `uids` are further deterministic UIDs by name (tracking, dimension organization, ...):
    ``uid("tracking-1")``.
    """

    sop_instance_uid: str
    series_instance_uid: str
    series_number: int
    series_description: str
    uid_root: str
    entropy: Sequence[str]

    def uid(self, name: str) -> str:
        """Return a UID that is the same in every run of the same job."""
        from pydicom.uid import generate_uid

        return str(generate_uid(prefix=self.uid_root, entropy_srcs=[*self.entropy, name]))
