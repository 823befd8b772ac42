"""From decisions to jobs: what a rule said, frozen into the job that will do it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.base import BrokenPackage, ModelIdentity
from models.catalogue import find_package
from models.package import load_package
from node.config.file import Config
from node.config.rules import Rule
from node.parts import VERSION
from node.routing import Decision
from pipelines.catalogue import PIPELINES
from storage.base import ClosedSeries, JobState, NewJob

PRIORITIES = {"urgent": 0, "routine": 5, "low": 9}


class Models:
    """Identities of model packages, read again when their manifest changes."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._known: dict[str, tuple[float, ModelIdentity]] = {}

    def identity(self, name: str) -> ModelIdentity:
        """Identity of a model by name.

        Raises
        ------
        BrokenPackage
            There is none of this name, or it is not what its manifest says.
        """
        folder = find_package(name, self._folders)
        stamp = (folder / "model.yaml").stat().st_mtime
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = self._known[name] = (stamp, load_package(folder).identity)
        return known[1]


def jobs_from(
    decisions: Sequence[Decision], closed: ClosedSeries, config: Config, models: Models
) -> list[NewJob]:
    """Make a job for every rule that matched or waits for an admin."""
    return [
        _job(config.rule(decision.rule), decision, closed, config, models)
        for decision in decisions
        if decision.outcome in ("matched", "held")
    ]


def _job(
    rule: Rule, decision: Decision, closed: ClosedSeries, config: Config, models: Models
) -> NewJob:
    state, reason, sentence = JobState.QUEUED, "", ""
    digest = ""
    try:
        digest = models.identity(rule.run.model).sha256
    except (BrokenPackage, OSError) as error:
        sentence = f"Model {rule.run.model} cannot be used: {error}"
        state, reason = JobState.HELD, "config"
    if decision.outcome == "held":
        state, reason, sentence = JobState.HELD, "rule", decision.sentence
    labels = {slot: asdict(label) for slot, label in rule.labels().items()}
    snapshot = {
        "model_digest": digest,
        "labels": labels,
        "uid_root": config.node.uid_root,
        "station": config.node.station,
        "utc_offset_minutes": _utc_offset_minutes(),
        "timeout_seconds": rule.run.timeout_seconds,
        "memory_bytes": config.node.memory.step_bytes,
        "destinations": _destinations(rule, config),
        "verdict": closed.verdict,
    }
    return NewJob(
        rule=rule.name,
        mode=rule.mode,
        pipeline=rule.run.pipeline,
        model=rule.run.model,
        priority=PRIORITIES[rule.priority],
        idem_key=_idem_key(rule, closed, digest, labels),
        config_digest=config.digest,
        state=state,
        reason=reason,
        sentence=sentence,
        snapshot=snapshot,
    )


def _utc_offset_minutes() -> float:
    """Give the site's time zone now: DICOM times without an offset are read as local ones."""
    offset = datetime.now(UTC).astimezone().utcoffset()
    return offset.total_seconds() / 60.0 if offset is not None else 0.0


def _destinations(rule: Rule, config: Config) -> dict[str, Any]:
    """Give what goes where; nothing of a shadow rule.

    Whether a destination takes demonstrations is decided when the results are there, from the
    model that really ran: the one there is now may be another, or none.
    The report goes last, so that a reader never sees it without the objects it refers to.
    """
    if rule.mode != "live":
        return {}
    return {
        destination.peer: {
            "takes_demonstration": config.peers[destination.peer].takes_demonstration,
            "send": sorted(destination.send, key=lambda slot: slot == "sr"),
            "after_seconds": destination.retry.after_seconds,
            "give_up_seconds": destination.retry.give_up_seconds,
        }
        for destination in rule.deliver
    }


def _idem_key(rule: Rule, closed: ClosedSeries, model_digest: str, labels: dict[str, Any]) -> str:
    """Digest of everything that decides what the results are: the same work has the same key."""
    pipeline = PIPELINES[rule.run.pipeline]
    parts = {
        "study": closed.study_instance_uid,
        "series": closed.series_instance_uid,
        "input": closed.input_digest,
        "rule": rule.name,
        "pipeline": [pipeline.name, pipeline.version],
        "model": [rule.run.model, model_digest],
        "labels": labels,
        "software": VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
