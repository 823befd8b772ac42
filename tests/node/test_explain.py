"""The answer to "why": the table, the sentence, the JSON."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from node.config.conditions import ConditionResult
from node.explain import (
    DeliverySummary,
    JobSummary,
    SeriesSummary,
    as_json,
    conclusion,
    render,
    render_text,
)
from node.routing import Decision

SERIES = SeriesSummary("1.2.3", "1.2.3.4", "MR", "closed", 1, 170, "quiet")
OPEN = SeriesSummary("1.2.3", "1.2.3.4", "MR", "open", 1, 12, closes_in_seconds=31.4)

NOT_CT = Decision(
    "head-ct-haemorrhage",
    "live",
    "not_matched",
    (
        ConditionResult("Modality", "CT", "MR", "not_met"),
        ConditionResult("BodyPartExamined", "any of HEAD, BRAIN", "missing", "missing_ignored"),
        ConditionResult("StudyDescription", "matches '(?i)head'", "[red]HEAD", "met"),
    ),
    "Not scored: rule head-ct-haemorrhage wants Modality CT, found MR.",
)
HELD = Decision(
    "dementia",
    "shadow",
    "held",
    (ConditionResult("PatientAge", "min 18y", "missing", "missing_hold"),),
    "Held: rule dementia needs PatientAge, which is missing.",
)
OFF = Decision("old", "off", "off", (), "Not scored: rule old is off.")
JOB = JobSummary(
    7, "dementia", "dementia", "not_scored", "convert", "The head is cut off.",
    (DeliverySummary("PACS", "sr", "delivered"),),
)  # fmt: skip


def test_the_table_shows_every_condition_of_every_rule() -> None:
    text = render_text([NOT_CT, HELD, OFF], SERIES)

    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    assert ["", "Modality", "CT", "MR", "not met"] in rows
    wanted = ["", "BodyPartExamined", "any of HEAD, BRAIN", "missing", "missing, ignored"]
    assert wanted in rows
    assert ["", "StudyDescription", "matches '(?i)head'", "[red]HEAD", "met"] in rows
    assert ["dementia (shadow)", "", "", "", "held"] in rows
    assert ["old", "", "", "", "off"] in rows
    assert "170 instances, generation 1, closed, quiet long enough" in text


def test_jobs_and_deliveries_are_shown() -> None:
    text = render_text([HELD], SERIES, [JOB])

    assert "The head is cut off." in text
    assert "sr to PACS" in text
    assert "delivered" in text


def test_a_narrow_terminal_loses_no_value() -> None:
    text = render_text([NOT_CT], SERIES, width=60)

    assert max(map(len, text.splitlines())) <= 60
    assert "missing" in text


CONCLUSIONS = [
    ([NOT_CT], SERIES, [], "Not scored: rule head-ct-haemorrhage wants Modality CT, found MR."),
    ([NOT_CT, HELD, OFF], SERIES, [], "Held: rule dementia needs PatientAge, which is missing."),
    ([OFF], SERIES, [], "Not scored: rule old is off."),
    ([], SERIES, [], "Not scored: there are no rules."),
    ([], OPEN, [], "Not decided yet: more images may come. It closes in 31 s if none comes."),
    ([NOT_CT, HELD], SERIES, [JOB],
     "Rule dementia: job 7 is not scored at convert: The head is cut off."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("decisions", "series", "jobs", "sentence"), CONCLUSIONS, ids=[c[3] for c in CONCLUSIONS]
)
def test_the_answer_is_one_sentence(
    decisions: list[Decision], series: SeriesSummary, jobs: list[JobSummary], sentence: str
) -> None:
    assert conclusion(decisions, series, jobs) == sentence
    assert sentence in " ".join(render_text(decisions, series, jobs).split())


def test_the_json_holds_the_same_and_only_json_values() -> None:
    answer = as_json([NOT_CT, HELD], SERIES, [JOB])

    assert json.loads(json.dumps(answer)) == answer
    assert answer["series"]["series_instance_uid"] == "1.2.3.4"
    assert [Decision.from_json(item) for item in answer["decisions"]] == [NOT_CT, HELD]
    assert answer["jobs"][0]["deliveries"][0]["destination"] == "PACS"
    assert answer["conclusion"].startswith("Rule dementia: job 7")


def test_colours_are_for_terminals_only() -> None:
    console = Console(force_terminal=True, color_system="standard", width=100)
    with console.capture() as capture:
        console.print(render([NOT_CT], SERIES))

    assert "\x1b[3" in capture.get()
    assert "\x1b" not in render_text([NOT_CT], SERIES)
