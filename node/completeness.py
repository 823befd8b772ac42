"""What the headers of a series say of whether all of it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storage.base import Completeness, CompletionVerdict, StoredInstance

Header = Mapping[str, Sequence[Any]]

ENHANCED_SOP_CLASSES = frozenset({
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
})  # fmt: skip
"""Storage classes of which one instance holds all frames of an acquisition."""


class HeaderCounts:
    """Judges by the counts that scanners write into their headers.

    An acquisition is complete when as many different instances have come as Images in Acquisition
    (0020,1002) says, or as many parts of a concatenation as In-concatenation Total Number
    (0020,9163) says, or one enhanced multi-frame instance. A series is complete when all its
    acquisitions are.
    """

    def may_be_complete(self, header: Header, instances: int) -> bool:
        """Whether it is worth looking at all headers: from one of them, and their number."""
        count = _count_of(header)
        return count is not None and count <= instances

    def judge(self, instances: Sequence[StoredInstance]) -> Completeness | None:
        """Say whether a series is complete; None where its headers do not tell.

        Parameters
        ----------
        instances : sequence of StoredInstance
            All of one series.
        """
        acquisitions: dict[str, list[StoredInstance]] = {}
        for instance in instances:
            acquisitions.setdefault(_first(instance.header, "AcquisitionNumber"), []).append(
                instance
            )
        verdicts = [_judge_acquisition(name, found) for name, found in acquisitions.items()]
        for verdict in verdicts:
            if verdict is not None and verdict.verdict is CompletionVerdict.PROVED_INCOMPLETE:
                return verdict
        if not verdicts or None in verdicts:
            return None
        return Completeness(
            CompletionVerdict.PROVED_COMPLETE,
            f"all {len(instances)} instances that the headers count have come",
        )


def _judge_acquisition(name: str, instances: Sequence[StoredInstance]) -> Completeness | None:
    counts = {_count_of(instance.header) for instance in instances}
    wanted = counts.pop()
    if counts or wanted is None:
        return None
    have = len(instances)
    if have == wanted:
        return Completeness(CompletionVerdict.PROVED_COMPLETE, "")
    if have > wanted:
        return None
    which = f" of acquisition {name}" if name else ""
    return Completeness(
        CompletionVerdict.PROVED_INCOMPLETE, f"{have} of {wanted} images{which} have come"
    )


def _count_of(header: Header) -> int | None:
    """How many instances make the acquisition that one of them belongs to; None: not told.

    An acquisition of one image says nothing of a series that is made of such.
    """
    if _first(header, "SOPClassUID") in ENHANCED_SOP_CLASSES:
        return _number(_first(header, "InConcatenationTotalNumber")) or 1
    count = _number(_first(header, "ImagesInAcquisition"))
    return count if count != 1 else None


def _first(header: Header, keyword: str) -> str:
    values = header.get(keyword) or [""]
    return str(values[0]).strip()


def _number(text: str) -> int | None:
    """Read a count; None where it is none."""
    digits = text.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and int(digits) > 0 else None
