"""From decisions to jobs: what a rule said, frozen into the job that will do it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.base import BrokenPackage, ModelIdentity
from models.catalogue import find_package
from models.loading import load_identity, read_any
from models.package import ModelPackage
from models.prognosis_manifest import PrognosisPackage
from node.config.file import Config
from node.config.rule_checks import ModelCard
from node.config.rules import Rule
from node.parts import VERSION
from node.routing import Decision
from pipelines.catalogue import PIPELINES
from storage.base import ClosedSeries, JobState, NewJob
from storage.gathering import WAITS_FOR_INPUTS
from storage.jobs import LACKS_SERIES, MAIN_INPUT

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
            known = self._known[name] = (stamp, load_identity(folder))
        return known[1]


def model_cards(packages: Mapping[str, Path]) -> dict[str, ModelCard]:
    """Read what model packages say of themselves; broken ones say nothing."""
    cards = {}
    for name, folder in packages.items():
        try:
            package = read_any(folder)
        except BrokenPackage:
            continue
        limits = package.input
        cards[name] = ModelCard(
            version=package.identity.version,
            intended_use=package.identity.intended_use,
            plane=limits.plane,
            slices=(limits.slices.min, limits.slices.max),
            coverage_mm=(limits.coverage_mm.min, limits.coverage_mm.max),
            status=package.manifest.status,
            **(_network_card(package) if isinstance(package, ModelPackage) else {}),
            **_prognosis_card(package),
        )
    return cards


def _network_card(package: ModelPackage) -> dict[str, Any]:
    """Give the names of the series that a model of several takes, and of what else it says."""
    manifest = package.manifest
    outputs = manifest.outputs.items()
    kinds = {one.kind for _, one in outputs}
    said = [(name, one.segment) for name, one in outputs if one.kind == "measurement"]
    return {
        "inputs": tuple(manifest.inputs) if len(manifest.inputs) > 1 else (),
        "numbers": frozenset(name for name, segment in said if segment is None),
        "numbers_of_segments": frozenset(name for name, segment in said if segment is not None),
        "texts": frozenset(name for name, one in outputs if one.kind in ("class", "text")),
        "marks": not kinds or bool(kinds & {"mask", "probability_map"}),
    }


def _prognosis_card(package: ModelPackage | PrognosisPackage) -> dict[str, Any]:
    """Give what only a prognosis says of itself."""
    if not isinstance(package, PrognosisPackage):
        return {}
    needed = frozenset(feature.name for feature in package.scores if feature.required)
    return {"kind": "prognosis", "scores": needed}


def jobs_from(
    decision: Decision,
    closed: ClosedSeries,
    known: Mapping[str, ClosedSeries],
    config: Config,
    models: Models,
) -> list[tuple[ClosedSeries, NewJob]]:
    """Make the jobs of a rule that matched or waits for an admin, or tell that it lacks a series.

    Where a series is lacking and a reader wants to know what was not scored, one job says so.

    Parameters
    ----------
    decision : Decision
    closed : ClosedSeries
        With which the rule was decided.
    known : mapping
        Series Instance UID to complete series of the study.

    Returns
    -------
    list of tuple
        The series each job is about, and the job.
    """
    if decision.outcome not in ("matched", "held", "lacking"):
        return []
    rule = config.rule(decision.rule)
    if decision.outcome == "lacking" and not rule.tell_reader:
        return []
    made = []
    for run in decision.runs:
        inputs = {name: known[uid] for name, uid in run.items()}
        main = next(iter(inputs.values()), closed)
        made.append((main, _job(rule, decision, main, inputs, config, models)))
    return made


def _job(
    rule: Rule,
    decision: Decision,
    main: ClosedSeries,
    inputs: Mapping[str, ClosedSeries],
    config: Config,
    models: Models,
) -> NewJob:
    identity, trouble = _model(rule, models)
    digest = identity.sha256 if identity else ""
    state, reason, sentence = JobState.QUEUED, "", ""
    if decision.outcome == "lacking":
        state, reason, sentence = JobState.NOT_SCORED, LACKS_SERIES, decision.sentence
    elif decision.outcome == "held":
        state, reason, sentence = JobState.HELD, "rule", decision.sentence
    elif trouble:
        state, reason, sentence = JobState.HELD, "config", trouble
    elif rule.gathered:
        state, reason = JobState.HELD, WAITS_FOR_INPUTS
        sentence = f"Waits for its inputs: {', '.join(one.name for one in rule.gathered)}."
    labels = {slot: asdict(label) for slot, label in rule.labels().items()}
    named = {name: (one.series_id, one.generation) for name, one in inputs.items()}
    return NewJob(
        rule=rule.name,
        mode=decision.mode,
        pipeline=rule.run.pipeline,
        model=rule.run.model,
        priority=PRIORITIES[rule.priority],
        idem_key=_idem_key(rule, main, inputs, digest, labels),
        config_digest=config.digest,
        state=state,
        reason=reason,
        sentence=sentence,
        snapshot=_snapshot(rule, decision, main, config, identity, labels),
        inputs={name: place for name, place in named.items() if name != MAIN_INPUT},
        next_at_seconds=0.0 if reason == WAITS_FOR_INPUTS else None,
    )


def _model(rule: Rule, models: Models) -> tuple[ModelIdentity | None, str]:
    """Identity of the model package, and what is wrong with it."""
    name = rule.run.model
    try:
        identity = models.identity(name)
    except (BrokenPackage, OSError) as error:
        return None, f"Model {name} cannot be used: {error}"
    if not rule.run.takes_version(identity.version):
        sentence = (
            f"Model {name} has version {identity.version}; the rule wants {rule.run.version}."
        )
        return identity, sentence
    return identity, ""


def _snapshot(
    rule: Rule,
    decision: Decision,
    main: ClosedSeries,
    config: Config,
    identity: ModelIdentity | None,
    labels: dict[str, Any],
) -> dict[str, Any]:
    return {
        "model_digest": identity.sha256 if identity else "",
        "model": identity and {**vars(identity), "parameters": dict(identity.parameters)},
        "labels": labels,
        "uid_root": config.node.uid_root,
        "station": config.node.station,
        "utc_offset_minutes": _utc_offset_minutes(),
        **limits_of(config, rule.name),
        "gpu_memory_bytes": rule.run.gpu_memory_bytes,
        "destinations": _destinations(rule, config) if decision.mode == "live" else {},
        "accept_result": {name: asdict(v) for name, v in (rule.accept_result or {}).items()},
        "tell_reader": list(rule.tell_reader),
        "tell_after_seconds": rule.tell_after_seconds,
        "gather": [{"kind": type(one).__name__, **asdict(one)} for one in rule.gathered],
        "verdict": main.verdict,
        "evidence": main.evidence,
        "level": rule.level,
        "report_template": rule.run.report and rule.run.report.to_json(),
    }


def limits_of(config: Config, rule: str) -> dict[str, float]:
    """Time and memory that a step of a rule may take; of a rule that is gone, memory alone."""
    times = {one.name: one.run.timeout_seconds for one in config.rules}
    memory = {"memory_bytes": config.node.memory.step_bytes}
    return memory | ({"timeout_seconds": times[rule]} if rule in times else {})


def _utc_offset_minutes() -> float:
    """Give the site's time zone now: DICOM times without an offset are read as local ones."""
    offset = datetime.now(UTC).astimezone().utcoffset()
    return offset.total_seconds() / 60.0 if offset is not None else 0.0


def _destinations(rule: Rule, config: Config) -> dict[str, Any]:
    """Give what goes where.

    Whether a destination takes demonstrations is decided when the results are there, from the
    model that really ran: the one there is now may be another, or none.
    The report goes last, so that a reader never sees it without the objects it refers to.
    """
    return {
        destination.peer: {
            "takes_demonstration": config.peers[destination.peer].takes_demonstration,
            "send": list(destination.slots),
            "after_seconds": destination.retry.after_seconds,
            "give_up_seconds": destination.retry.give_up_seconds,
            "only_if": {name: asdict(v) for name, v in (destination.only_if or {}).items()},
            "if_refused": asdict(destination.if_refused) if destination.if_refused else {},
            "confirm": list(destination.confirm),
        }
        for destination in rule.deliver
    }


def _idem_key(
    rule: Rule,
    closed: ClosedSeries,
    inputs: Mapping[str, ClosedSeries],
    model_digest: str,
    labels: dict[str, Any],
) -> str:
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
    if rule.level == "study":
        parts["inputs"] = {name: one.input_digest for name, one in inputs.items()}
    if rule.run.report:
        parts["report"] = rule.run.report.digest
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
