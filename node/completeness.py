"""Whether all of a series has come: by its headers, its geometry, and its sender's count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from node.config.file import Config
from node.image_facts import missing_slices
from storage.base import Completeness, CompletionVerdict, SenderCount

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


class CompletenessJudge:
    """Judges series by what the configuration trusts, the most trusted first.

    Parameters
    ----------
    config : Config
        What counts as evidence, by the peer that sent the series.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def trusts(self, peer: str) -> Sequence[str]:
        """Kinds of evidence that count for series from a peer, in the order of trust."""
        return self._config.completion_of(peer).evidence

    def may_be_complete(
        self, peer: str, header: Header, instances: int, counted: SenderCount | None
    ) -> bool:
        """Whether it is worth looking at all headers: from one of them, and two numbers."""
        trusted = self.trusts(peer)
        if "pacs_count" in trusted and counted is not None and counted.instances == instances:
            return True
        count = _count_of(header) if "header_counts" in trusted else None
        return count is not None and count <= instances

    def judge(
        self, peer: str, headers: Sequence[Header], counted: SenderCount | None
    ) -> Completeness | None:
        """Say whether a series is complete; None where nothing that is trusted tells.

        Parameters
        ----------
        peer : str
            That sent it.
        headers : sequence of Header
            One of each instance.
        counted : SenderCount or None
            What the sender counted since the last instance came.
        """
        for kind in self.trusts(peer):
            match kind:
                case "header_counts":
                    found = by_header_counts(headers)
                case "pacs_count":
                    found = _by_sender_count(len(headers), counted)
                case "geometry":
                    found = _by_geometry(headers)
                case _:
                    found = None
            if found is not None:
                return found
        return None


def by_header_counts(headers: Sequence[Header]) -> Completeness | None:
    """Judge by the counts that scanners write into headers; None where they do not tell.

    An acquisition is complete when as many different instances have come as Images in Acquisition
    (0020,1002) says, or as many parts of a concatenation as In-concatenation Total Number
    (0020,9163) says, or one enhanced multi-frame instance. A series is complete when all its
    acquisitions are.
    """
    acquisitions: dict[str, list[Header]] = {}
    for header in headers:
        acquisitions.setdefault(_first(header, "AcquisitionNumber"), []).append(header)
    verdicts = [_judge_acquisition(name, found) for name, found in acquisitions.items()]
    for verdict in verdicts:
        if verdict is not None and verdict.verdict is CompletionVerdict.PROVED_INCOMPLETE:
            return verdict
    if not verdicts or None in verdicts:
        return None
    return Completeness(
        CompletionVerdict.PROVED_COMPLETE,
        f"all {len(headers)} instances that the headers count have come",
    )


def _by_sender_count(have: int, counted: SenderCount | None) -> Completeness | None:
    """Judge by what the sender holds; a sender that holds fewer than came tells nothing."""
    if counted is None or have > counted.instances:
        return None
    if have == counted.instances:
        sentence = f"all {have} instances that {counted.peer} counts have come"
        return Completeness(CompletionVerdict.PROVED_COMPLETE, sentence)
    sentence = f"{have} of {counted.instances} instances that {counted.peer} counts have come"
    return Completeness(CompletionVerdict.PROVED_INCOMPLETE, sentence)


def _by_geometry(headers: Sequence[Header]) -> Completeness | None:
    """Judge by a slice that is missing between others; nothing proves that all have come."""
    missing = missing_slices(headers)
    if not missing:
        return None
    where = ", ".join(missing[:3]) + (", ..." if missing[3:] else "")
    sentence = f"no image at {where}: {len(missing)} missing between the others"
    return Completeness(CompletionVerdict.PROVED_INCOMPLETE, sentence)


def _judge_acquisition(name: str, headers: Sequence[Header]) -> Completeness | None:
    counts = {_count_of(header) for header in headers}
    wanted = counts.pop()
    if counts or wanted is None:
        return None
    have = len(headers)
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
