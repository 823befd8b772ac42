"""Why a series was or was not scored: one answer for the command line and the running node.

Everything here is for an admin's eyes: values found may hold text from the images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from node.candidates import CandidateOutcome
from node.config.conditions import ConditionOutcome, ConditionResult
from node.routing import Decision, RuleOutcome

_OUTCOMES: dict[ConditionOutcome, tuple[str, str]] = {
    "met": ("met", "green"),
    "not_met": ("not met", "red"),
    "missing_ignored": ("missing, ignored", "dim"),
    "missing_hold": ("missing, held", "yellow"),
}
_RULES: dict[RuleOutcome, tuple[str, str]] = {
    "matched": ("matched", "green"),
    "not_matched": ("not matched", "red"),
    "lacking": ("lacks a series", "red"),
    "held": ("held", "yellow"),
    "off": ("off", "dim"),
    "stopped": ("stopped", "dim"),
    "waiting": ("waiting", "yellow"),
    "decided_later": ("decided later", "dim"),
}
_CANDIDATES: dict[CandidateOutcome, tuple[str, str]] = {
    "taken": ("taken", "green"),
    "fits": ("fits", "green"),
    "passed_over": ("passed over", "yellow"),
    "not_fitting": ("does not fit", "red"),
    "held": ("held", "yellow"),
    "own_result": ("our own result", "dim"),
}
_VERDICTS = {
    "proved_complete": "proved complete",
    "quiet": "quiet long enough",
    "proved_incomplete": "proved incomplete",
    "forced": "waited long enough",
}


@dataclass(frozen=True)
class SeriesSummary:
    """What is shown of the series itself.

    Parameters
    ----------
    study_instance_uid, series_instance_uid, modality : str
    state : str
        ``open`` or ``closed``.
    generation : int
    instances : int
    verdict : str
        Completion verdict of that generation; empty while the series is open.
    evidence : str
        What was counted to prove it complete or not.
    closes_in_seconds : float or None
        When an open series will close if nothing more comes.
    retrieved_from : str
        Peer that sent it because this node asked for it; empty where it came by itself.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    state: str
    generation: int
    instances: int
    verdict: str = ""
    closes_in_seconds: float | None = None
    evidence: str = ""
    retrieved_from: str = ""


@dataclass(frozen=True)
class DeliverySummary:
    """One result on its way to one destination."""

    destination: str
    slot: str
    state: str
    sentence: str = ""


@dataclass(frozen=True)
class JobSummary:
    """A job that a rule started for the series."""

    job_id: int
    rule: str
    pipeline: str
    state: str
    step: str
    sentence: str = ""
    deliveries: tuple[DeliverySummary, ...] = ()


def conclusion(
    decisions: Sequence[Decision], series: SeriesSummary, jobs: Sequence[JobSummary] = ()
) -> str:
    """Return the answer in a sentence or a few.

    An open series says when it will close; a rule with a job says where the job stands; else
    each rule that is on says why not.
    """
    if series.state == "open" and not decisions:
        closes = series.closes_in_seconds
        when = f" It closes in {max(closes, 0):.0f} s if none comes." if closes is not None else ""
        return f"Not decided yet: more images may come.{when}"
    if jobs:
        return " ".join(_of_job(job) for job in jobs)
    if not decisions and series.retrieved_from:
        return (
            f"Not scored: this node retrieved the series from {series.retrieved_from}, as an input "
            "of a job; such a series starts no rule."
        )
    if not decisions:
        return "Not scored: there are no rules."
    telling = [d for d in decisions if d.outcome != "off"] or list(decisions)
    matched = [d for d in telling if d.outcome in ("matched", "held", "waiting")]
    return " ".join(decision.sentence for decision in matched or telling)


def _of_job(job: JobSummary) -> str:
    state = job.state.replace("_", " ")
    why = f": {job.sentence.rstrip('.')}" if job.sentence else ""
    if job.pipeline == "notice":
        return f"The reader is told of it: job {job.job_id} is {state}{why}."
    where = f" at {job.step}" if job.step and job.state not in ("done", "delivering") else ""
    return f"Rule {job.rule}: job {job.job_id} is {state}{where}{why}."


def as_json(
    decisions: Sequence[Decision], series: SeriesSummary, jobs: Sequence[JobSummary] = ()
) -> dict[str, Any]:
    """Return the whole answer as JSON values, for ``--json``."""
    answer = {
        "series": asdict(series),
        "decisions": [decision.to_json() for decision in decisions],
        "jobs": [asdict(job) for job in jobs],
        "conclusion": conclusion(decisions, series, jobs),
    }
    values: dict[str, Any] = json.loads(json.dumps(answer))
    return values


def render(
    decisions: Sequence[Decision], series: SeriesSummary, jobs: Sequence[JobSummary] = ()
) -> RenderableType:
    """Return the whole answer for a terminal: head, conditions, jobs, conclusion."""
    parts: list[RenderableType] = [_head(series)]
    if decisions:
        parts.append(_conditions(decisions))
    if jobs:
        parts.append(_jobs(jobs))
    parts.append(Text(conclusion(decisions, series, jobs), style="bold"))
    return Group(*parts)


def render_text(
    decisions: Sequence[Decision],
    series: SeriesSummary,
    jobs: Sequence[JobSummary] = (),
    width: int = 120,
) -> str:
    """Return the whole answer as plain text of at most `width` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(render(decisions, series, jobs))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _head(series: SeriesSummary) -> Text:
    verdict = _VERDICTS.get(series.verdict, series.verdict)
    state = f"{series.state}, {verdict}" if verdict else series.state
    counted = f": {series.evidence}" if series.evidence else ""
    return Text(
        f"Series {series.series_instance_uid}\n"
        f"Study  {series.study_instance_uid}\n"
        f"{series.modality or 'no Modality'}, {series.instances} instances, "
        f"generation {series.generation}, {state}{counted}"
    )


def _table(*columns: str) -> Table:
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _conditions(decisions: Sequence[Decision]) -> Table:
    table = _table("rule", "attribute", "wanted", "found", "outcome")
    for decision in decisions:
        word, style = _RULES[decision.outcome]
        mode = f" ({decision.mode})" if decision.mode == "shadow" else ""
        table.add_row(Text(f"{decision.rule}{mode}", style="bold"), "", "", "", Text(word, style))
        if not any(one.candidates for one in decision.inputs):
            _add_lines(table, decision.conditions)
        for one in decision.inputs:
            table.add_row(f"  input {one.name}", "", "", Text(one.sentence), _plain(one.outcome))
            for candidate in one.candidates:
                word, style = _CANDIDATES[candidate.outcome]
                why = Text(candidate.sentence)
                table.add_row(Text(f"    {candidate.label}"), "", "", why, Text(word, style))
                _add_lines(table, candidate.conditions)
        table.add_section()
    return table


def _add_lines(table: Table, results: Sequence[ConditionResult]) -> None:
    for result in results:
        word, style = _OUTCOMES[result.outcome]
        cells = (Text(cell) for cell in (result.key, result.wanted, result.found))
        table.add_row("", *cells, Text(word, style))


def _plain(outcome: str) -> Text:
    return Text(outcome.replace("_", " "))


def _jobs(jobs: Sequence[JobSummary]) -> Table:
    table = _table("job", "rule", "pipeline", "state", "step", "why")
    for job in jobs:
        cells = (str(job.job_id), job.rule, job.pipeline, job.state, job.step, job.sentence)
        table.add_row(*map(Text, cells))
        for delivery in job.deliveries:
            what = Text(f"{delivery.slot} to {delivery.destination}")
            table.add_row("", what, "", Text(delivery.state), "", Text(delivery.sentence))
    return table
