"""When a series counts as complete: ``completion``, and what a peer or a rule does differently."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from node.config.base import CLOSED, Seconds
from node.config.quantities import WordList
from node.config.rules import INCOMPLETE, LATE, IfIncomplete, LateInstances

Evidence = Literal["mpps", "header_counts", "pacs_count", "geometry"]
EVIDENCE: tuple[Evidence, ...] = ("mpps", "header_counts", "pacs_count", "geometry")


def _evidence(value: object) -> tuple[str, ...]:
    return () if value == "none" else WordList(EVIDENCE)(value)


@dataclass(frozen=True)
class Completion:
    """What proves a series complete or not, and when it counts as complete without."""

    __pydantic_config__ = CLOSED

    evidence: Annotated[tuple[Evidence, ...], BeforeValidator(_evidence)] = (
        "header_counts",
        "geometry",
    )
    quiet_seconds: Annotated[Seconds, Field(alias="quiet")] = 45.0
    max_wait_seconds: Annotated[Seconds, Field(alias="max_wait")] = 1200.0
    if_incomplete: Annotated[IfIncomplete, BeforeValidator(INCOMPLETE)] = "hold"
    late_instances: Annotated[LateInstances, BeforeValidator(LATE)] = "rerun_if_changed"


@dataclass(frozen=True)
class PeerCompletion:
    """What is different for series that one peer sends; None: as ``completion`` says."""

    __pydantic_config__ = CLOSED

    evidence: Annotated[tuple[Evidence, ...] | None, BeforeValidator(_evidence)] = None
    quiet_seconds: Annotated[Seconds | None, Field(alias="quiet")] = None
    max_wait_seconds: Annotated[Seconds | None, Field(alias="max_wait")] = None

    def over(self, common: Completion) -> Completion:
        """Put what is said here in the place of what holds for all."""
        return replace(common, **{k: v for k, v in vars(self).items() if v is not None})
