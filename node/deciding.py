"""From a complete series to rows: what every rule says of it, and the jobs that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from node.config.file import Config
from node.job_opening import Models, jobs_from
from node.routing import Decision, SeriesFacts, StudyFacts, decide
from sr_templates.base import MANUFACTURER, MANUFACTURER_MODEL_NAME
from storage import new_jobs, retrievals, series, studies
from storage.base import ClosedSeries, Job, JobState, NewJob
from storage.database import Transaction

Complete = Callable[[ClosedSeries], ClosedSeries]


def decide_closed(tx: Transaction, closed: ClosedSeries, config: Config, models: Models) -> int:
    """Write down what every rule says, and open the jobs; how many were opened."""
    if retrievals.is_retrieved(tx, closed.series_instance_uid):
        return 0
    study = None
    known = {closed.series_instance_uid: closed}
    if any(rule.level == "study" for rule in config.rules):
        now = studies.study_of(tx, closed.series_id)
        study = _study_facts(tx, now, config)
        known |= {one.series_instance_uid: one for one in now.closed}
    facts = facts_of(tx, closed)
    decisions = decide(config.rules, facts, study, tx.now.astimezone().date())
    _record(tx, closed, decisions, config, ends_waiting=not facts.own_result)
    return len(_open(tx, closed, decisions, known, config, models))


def decide_again(tx: Transaction, series_id: int, config: Config, models: Models) -> int:
    """Decide the rules that waited for the study of a series; how many jobs were opened."""
    closed = studies.closed_series(tx, series_id)
    if closed is None or not studies.lock(tx, series_id):
        return 0
    now = studies.study_of(tx, series_id)
    study = _study_facts(tx, now, config)
    known = {one.series_instance_uid: one for one in now.closed}
    all_decisions = decide(config.rules, facts_of(tx, closed), study, tx.now.astimezone().date())
    levels = {rule.name: rule.level for rule in config.rules}
    decisions = [d for d in all_decisions if levels[d.rule] == "study"]
    studies.end_waiting(tx, series_id, None, "Decided again when the study had come.")
    _record(tx, closed, decisions, config, ends_waiting=True)
    return len(_open(tx, closed, decisions, known, config, models))


def replay(
    tx: Transaction, job: Job, config: Config, models: Models, complete: Complete
) -> tuple[Decision | None, list[int]]:
    """Decide the rule of a job again, with today's file and models; what it says, and new jobs.

    Nothing is opened where the same images, rule and model have been a job before. Results that
    a new job makes replace those of the old one.

    Parameters
    ----------
    complete : callable
        Puts into the headers of a series what today's rules look at and was not collected.

    Returns
    -------
    Decision or None
        None: the rule, or the images, are not there any more.
    list of int
        Ids of the jobs that were opened.
    """
    closed = studies.closed_series(tx, job.series_id)
    known_rules = {rule.name for rule in config.rules}
    if closed is None or not closed.instances or job.rule not in known_rules:
        return None, []
    if not studies.lock(tx, job.series_id):
        return None, []
    now = studies.study_of(tx, job.series_id)
    now = replace(now, closed=tuple(complete(one) for one in now.closed))
    known = {one.series_instance_uid: one for one in now.closed}
    closed = complete(closed)
    study, today = _study_facts(tx, now, config), tx.now.astimezone().date()
    [decision] = [
        one
        for one in decide(config.rules, facts_of(tx, closed), study, today)
        if one.rule == job.rule
    ]
    _record(tx, closed, [decision], config, ends_waiting=True)
    return decision, _open(tx, closed, [decision], known, config, models)


def _study_facts(tx: Transaction, now: studies.StudyNow, config: Config) -> StudyFacts:
    quiet = timedelta(seconds=config.completion.quiet_seconds)
    max_wait = timedelta(seconds=config.completion.max_wait_seconds)
    return StudyFacts(
        series=[
            facts_of(tx, one)
            for one in now.closed
            if not retrievals.is_retrieved(tx, one.series_instance_uid)
        ],
        settled=not now.arriving and now.last_at + quiet <= tx.now,
        waited_out=now.first_at + max_wait <= tx.now,
    )


def _record(
    tx: Transaction,
    closed: ClosedSeries,
    decisions: Sequence[Decision],
    config: Config,
    *,
    ends_waiting: bool,
) -> None:
    """Keep what was decided; a result of ours that comes back leaves what waits waiting."""
    levels = {rule.name: rule.level for rule in config.rules}
    of_study = [d.rule for d in decisions if levels[d.rule] == "study"]
    if of_study and ends_waiting:
        uid = closed.series_instance_uid
        studies.end_waiting(tx, closed.series_id, of_study, f"Decided with series {uid}.")
    rows = [
        {
            "rule": decision.rule,
            "outcome": decision.outcome,
            "sentence": decision.sentence,
            "data": decision.to_json(),
        }
        for decision in decisions
    ]
    series.record_decisions(tx, closed, rows, config.digest)


def _open(
    tx: Transaction,
    closed: ClosedSeries,
    decisions: Sequence[Decision],
    known: dict[str, ClosedSeries],
    config: Config,
    models: Models,
) -> list[int]:
    opened = []
    for decision in decisions:
        rule = config.rule(decision.rule)
        keys = []
        for main, job in jobs_from(decision, closed, known, config, models):
            wanted = _late(tx, main, job, rule.late_instances or "rerun_if_changed")
            keys.append(job.idem_key)
            job_id = None if wanted is None else new_jobs.insert(tx, main, wanted)
            opened += [] if job_id is None else [job_id]
        if keys and rule.level == "study":
            studies.supersede_others(tx, closed.series_id, rule.name, keys)
    return opened


def _late(tx: Transaction, closed: ClosedSeries, job: NewJob, policy: str) -> NewJob | None:
    """Say what a rule does with a series that grew after it was scored; None: nothing."""
    if policy == "rerun_if_changed" or not studies.has_earlier_job(tx, closed, job.rule):
        return job
    if policy == "ignore":
        return None
    sentence = "Held: images came after the series was scored, and the rule holds such a series."
    return replace(job, state=JobState.HELD, reason="late", sentence=sentence)


def facts_of(tx: Transaction, closed: ClosedSeries) -> SeriesFacts:
    """Gather what rules look at."""
    headers = [instance.header for instance in closed.instances]
    modality = next((h["Modality"][0] for h in headers if h.get("Modality")), "")
    return SeriesFacts(
        study_instance_uid=closed.study_instance_uid,
        series_instance_uid=closed.series_instance_uid,
        modality=str(modality),
        headers=headers,
        instances=len(closed.instances),
        verdict=closed.verdict.value,
        evidence=closed.evidence,
        own_result=is_ours(headers) or series.is_own_result(tx, closed.series_instance_uid),
    )


def is_ours(headers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a series is a result of scorenode, of this node or another: they are never scored.

    Phantoms that scorenode makes are original images, and no results.
    """
    ours = {"Manufacturer": MANUFACTURER, "ManufacturerModelName": MANUFACTURER_MODEL_NAME}

    def value(header: Mapping[str, Any], key: str) -> str:
        return str((header.get(key) or [""])[0])

    return any(
        all(value(header, key) == wanted for key, wanted in ours.items())
        and value(header, "ImageType") != "ORIGINAL"
        for header in headers
    )
