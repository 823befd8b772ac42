"""The ladder of proof as values: which rung comes next, and when an object counts as proved.

References
----------
DICOM PS3.4 annex J (Storage Commitment), annex C (Query/Retrieve).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from storage.deliveries import RetrySchedule

Rung = Literal["commitment", "find"]


@dataclass(frozen=True)
class Ladder:
    """What a rule froze into its job of proving at one destination.

    Parameters
    ----------
    rungs : tuple of str
        In the order in which they are climbed.
    schedule : RetrySchedule
    """

    rungs: tuple[Rung, ...]
    schedule: RetrySchedule

    @classmethod
    def of(cls, terms: Mapping[str, Any]) -> Self:
        """Read the terms of a destination in a job's snapshot."""
        return cls(tuple(terms.get("confirm", ())), RetrySchedule.of(terms))

    def next_rung(self, evidence: Mapping[str, Any]) -> Rung | None:
        """Give the first rung that was neither climbed nor left out; None: at the top."""
        passed = ("proved", "not_offered")
        return next((rung for rung in self.rungs if state_of(evidence, rung) not in passed), None)

    def climbed(self, evidence: Mapping[str, Any]) -> list[Rung]:
        """Rungs that proved something."""
        return [rung for rung in self.rungs if state_of(evidence, rung) == "proved"]

    def is_proved(self, evidence: Mapping[str, Any]) -> bool:
        """Whether the top is reached, and not only by leaving rungs out."""
        return bool(self.climbed(evidence)) and self.next_rung(evidence) is None


def state_of(evidence: Mapping[str, Any], rung: str) -> str:
    """Give what was seen last of a rung; empty: nothing."""
    return str(evidence.get(rung, {}).get("state", ""))


def shown(evidence: Mapping[str, Any]) -> str:
    """Say in a few words how far the proof of an object is, for people."""
    words = {
        "proved": "{}",
        "asked": "{} asked",
        "not_offered": "{} not offered",
        "absent": "{}: not there",
        "unknown": "{}: no answer",
    }
    rungs = [(rung, state_of(evidence, rung)) for rung in ("commitment", "find")]
    return ", ".join(words[state].format(rung) for rung, state in rungs if state in words)


_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class / instance conflict",
    0x0122: "referenced SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}


def reason_text(reason: int) -> str:
    """Say a Failure Reason (PS3.3 C.14.1.1) in words."""
    return f"0x{reason:04X}, {_REASONS.get(reason, 'a reason the Standard does not define')}"
