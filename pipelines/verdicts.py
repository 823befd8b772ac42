"""What the verdict on a step does to its job, and who gets its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.base import Verdict
from storage import jobs
from storage.base import Job, NewResult
from storage.database import Transaction
from storage.jobs import RetryPolicy


def apply_verdict(
    tx: Transaction,
    job: Job,
    verdict: Verdict,
    results: list[NewResult] | None,
    policy: RetryPolicy,
) -> None:
    """Move a job as the design's table of errors says (section 10)."""
    reason, sentence = verdict.reason, verdict.sentence
    match verdict.outcome:
        case "ok" if results is not None:
            given = results_for(job.snapshot["destinations"], verdict.facts)
            jobs.fix_results(tx, job, results, given)
        case "ok":
            outside = _implausible(job, verdict.facts.get("numbers", {}))
            if outside:
                jobs.hold(tx, job, jobs.IMPLAUSIBLE, outside)
            else:
                jobs.finish_step(tx, job)
        case "not_scored":
            jobs.not_scored(tx, job, reason, sentence)
        case "config":
            jobs.hold(tx, job, "config", sentence)
        case "killer":
            jobs.runner_died(tx, job, policy, sentence)
        case "transient":
            attempts = policy.transient_attempts
            jobs.retry_later(tx, job, policy, attempts=attempts, reason=reason, sentence=sentence)
        case "bug":
            attempts = policy.bug_attempts
            jobs.retry_later(tx, job, policy, attempts=attempts, reason=reason, sentence=sentence)


def _implausible(job: Job, numbers: Mapping[str, float | None]) -> str:
    """Say which result lies outside the limits of the rule; empty where none does."""
    for name, limits in job.snapshot.get("accept_result", {}).items():
        key = name.removesuffix("_ml")
        if key in numbers and not _is_inside(numbers[key], limits):
            value = numbers[key]
            found = "no number" if value is None else f"{value:g}"
            words = {"min": "at least", "max": "at most"}
            wanted = [f"{words[k]} {v:g}" for k, v in limits.items() if v is not None]
            return (
                f"Held: {name} is {found}, and rule {job.rule} accepts {' and '.join(wanted)}. "
                f"Look at the images: 'scorenode jobs retry {job.id}' lets the result go, "
                f"'scorenode jobs cancel {job.id}' does not."
            )
    return ""


def _is_inside(value: float | None, limits: Mapping[str, float | None]) -> bool:
    low, high = limits["min"], limits["max"]
    if value is None:
        return False
    return (low is None or low <= value) and (high is None or value <= high)


def results_for(destinations: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name who gets what.

    Results of a demonstration model only go to those who take them; where a rule sends results
    only within limits (``only_if``), not outside of them.

    Parameters
    ----------
    destinations : mapping
        Name to terms, as the job froze them.
    facts : mapping
        Of the report step. Without ``numbers`` there is no result but a notice, which goes to all.
    """
    demonstration = facts.get("intended_use", "demonstration") == "demonstration"
    numbers = facts.get("numbers")
    return {
        name: terms["send"]
        for name, terms in destinations.items()
        if (terms.get("takes_demonstration", False) or not demonstration)
        and (numbers is None or _is_within(terms.get("only_if", {}), numbers))
    }


def _is_within(limits: Mapping[str, Any], numbers: Mapping[str, float | None]) -> bool:
    """Whether results lie within limits; what was not found lies nowhere."""
    return all(
        _is_inside(numbers.get(name.removesuffix("_ml")), limit) for name, limit in limits.items()
    )
