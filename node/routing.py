"""Which rules a complete series matches, and why: values in, decisions out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import product
from typing import Any, Literal

from node.candidates import (
    DATE_KEYS,
    CompletionVerdict,
    Evidence,
    InputResult,
    SeriesFacts,
    choose,
)
from node.config.attributes import scan_keys
from node.config.conditions import ConditionResult
from node.config.inputs import PriorInput, SeriesInput, TableInput
from node.config.rules import Mode, Rule
from node.image_facts import IMAGE_KEYS
from node.routing_keys import ROUTING_KEYS

__all__ = [
    "ROUTING_KEYS",
    "CompletionVerdict",
    "Decision",
    "SeriesFacts",
    "StudyFacts",
    "decide",
    "header_keys",
]

RuleOutcome = Literal[
    "matched", "not_matched", "lacking", "held", "off", "stopped", "waiting", "decided_later"
]


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """What is known of a study when one of its series is complete.

    Parameters
    ----------
    series : sequence of SeriesFacts
        All that are complete.
    settled : bool
        Whether no series is open and nothing came for the quiet time.
    waited_out : bool
        Whether the study is older than ``max_wait``: nothing is waited for any more.
    """

    series: Sequence[SeriesFacts]
    settled: bool = True
    waited_out: bool = True


@dataclass(frozen=True)
class Decision:
    """What one rule says of one series, or of the study it belongs to.

    Parameters
    ----------
    rule : str
    mode : str
        As it is used here: a canary is ``live`` or ``shadow``.
    outcome : str
        ``matched``; ``not_matched``; ``lacking`` a series of the study; ``held`` until an admin
        decides; ``off``, the rule is; ``stopped`` by a rule before it; ``waiting`` for the rest
        of the study;
        ``decided_later``, with another series of the study.
    conditions : tuple of ConditionResult
        Every line of the rule, with value found and value wanted.
    sentence : str
        What follows, for an admin. It may quote values from the images: never log it.
    inputs : tuple of InputResult
        Of a rule with named inputs: every input with every candidate.
    runs : tuple of mapping
        Name of an input to the Series Instance UID it takes; one mapping for each job.
    """

    rule: str
    mode: Mode
    outcome: RuleOutcome
    conditions: tuple[ConditionResult, ...]
    sentence: str
    inputs: tuple[InputResult, ...] = ()
    runs: tuple[Mapping[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, for the ``decision`` table."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decision:
        """Read what `to_json` gave."""
        return cls(**{
            **data,
            "conditions": tuple(ConditionResult(**item) for item in data["conditions"]),
            "inputs": tuple(InputResult.from_json(item) for item in data.get("inputs", ())),
            "runs": tuple(data.get("runs", ())),
        })  # fmt: skip


def header_keys(rules: Iterable[Rule]) -> frozenset[str]:
    """Name what the header scan of every instance must collect.

    Returns
    -------
    frozenset of str
        Keywords, ``Sequence.Keyword`` paths and ``(gggg,eeee)`` tags: those of the rules, and
        always `ROUTING_KEYS`.
    """
    found = set(ROUTING_KEYS)
    for rule in rules:
        for condition in rule.conditions:
            found.update(scan_keys(condition.key))
        for one in rule.inputs:
            match one:
                case SeriesInput():
                    found.update(key for c in one.header for key in scan_keys(c.key))
                    found.update(key for p in one.pick if p.key for key in scan_keys(p.key))
                    found.update(DATE_KEYS if one.pick else ())
                    found.update(IMAGE_KEYS if one.image or one.pick else ())
                case TableInput():
                    found.update((*scan_keys(one.key), "PatientBirthDate"))
                case PriorInput():
                    found.update(("PatientID", "PatientBirthDate"))
    return frozenset(found)


def decide(
    rules: Sequence[Rule],
    facts: SeriesFacts,
    study: StudyFacts | None = None,
    today: date | None = None,
) -> tuple[Decision, ...]:
    """Hold every rule against a series, and those of level study against its study.

    Every rule is evaluated; all that match run, unless one of the same level before them stops.
    A rule whose conditions wait for an admin holds the rules it would stop.

    Parameters
    ----------
    rules : sequence of Rule
        In the order of the file.
    facts : SeriesFacts
    study : StudyFacts or None
        None: the series is all there is of the study.
    today : date or None
        For rules that expire; None: none has.

    Returns
    -------
    tuple of Decision
        One for each rule, in the same order.
    """
    study = study or StudyFacts((facts,))
    this = Evidence(facts)
    whole = [this if one is facts else Evidence(one) for one in study.series]
    decisions: list[Decision] = []
    stoppers: dict[str, Decision] = {}
    for rule in rules:
        stopper = stoppers.get(rule.level)
        mode = _mode(rule, facts.study_instance_uid)
        if rule.level == "study":
            decision = _of_study(rule, mode, this, whole, study, stopper)
        else:
            decision = _of_series(rule, mode, this, stopper)
        decision = _switched_off(rule, decision, today)
        decisions.append(decision)
        stops = rule.stop and mode == "live" and decision.outcome in ("matched", "held")
        if stops and (stopper is None or stopper.outcome == "held"):
            stoppers[rule.level] = decision
    return tuple(decisions)


def _mode(rule: Rule, study_instance_uid: str) -> Mode:
    """Live or shadow: which studies are a canary's follows from their UID."""
    if rule.canary_percent is None:
        return rule.mode
    digest = hashlib.sha256(f"{rule.name}\n{study_instance_uid}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return "live" if share * 100 < rule.canary_percent else "shadow"


def _switched_off(rule: Rule, decision: Decision, today: date | None) -> Decision:
    if rule.mode == "off":
        sentence = f"Not scored: rule {rule.name} is off."
    elif rule.expires is not None and today is not None and today >= rule.expires:
        sentence = f"Not scored: rule {rule.name} expired on {rule.expires}."
    else:
        return decision
    return replace(decision, outcome="off", sentence=sentence, runs=())


def _of_series(rule: Rule, mode: Mode, this: Evidence, stopper: Decision | None) -> Decision:
    (wanted,) = rule.received[:1]
    results = this.lines(rule, wanted)
    outcome, sentence = _verdict(rule, mode, results, this.facts, stopper)
    runs = ({wanted.name: this.facts.series_instance_uid},) if _runs(outcome) else ()
    return Decision(rule.name, mode, outcome, results, sentence, _to_fetch(rule), runs)


def _runs(outcome: RuleOutcome) -> bool:
    return outcome in ("matched", "held")


def _verdict(
    rule: Rule,
    mode: Mode,
    results: Sequence[ConditionResult],
    facts: SeriesFacts,
    stopper: Decision | None,
) -> tuple[RuleOutcome, str]:
    if facts.own_result:
        return "not_matched", "Not scored: scorenode made this series."
    if unmet := [result for result in results if result.outcome == "not_met"]:
        return "not_matched", f"Not scored: rule {rule.name} wants {_differences(unmet)}."
    if stopper is not None and stopper.outcome == "matched":
        return "stopped", f"Not scored: rule {stopper.rule} matched before and stops the list."
    if missing := [result.key for result in results if result.outcome == "missing_hold"]:
        return "held", f"Held: rule {rule.name} needs {', '.join(missing)}, which is missing."
    return _settle(rule, mode, [facts], stopper)


def _settle(
    rule: Rule, mode: Mode, taken: Sequence[SeriesFacts], stopper: Decision | None
) -> tuple[RuleOutcome, str]:
    """Say what follows for series that fit: they may be incomplete, or come after a stop."""
    incomplete = [facts for facts in taken if facts.verdict == "proved_incomplete"]
    if incomplete and rule.if_incomplete == "discard":
        return "not_matched", f"Not scored: images are missing, and rule {rule.name} discards."
    if incomplete and rule.if_incomplete != "run":
        counted = f": {incomplete[0].evidence}" if incomplete[0].evidence else ""
        return (
            "held",
            f"Held: rule {rule.name} matches, but images of the series are missing{counted}.",
        )
    if stopper is not None and stopper.outcome == "held":
        return "held", f"Held: rule {stopper.rule} before it is held, and stops when it matches."
    notes = " Images are missing, and the rule runs all the same." if incomplete else ""
    notes += " Its results stay in the node (shadow)." if mode == "shadow" else ""
    return "matched", f"Scored: rule {rule.name} matches.{notes}"


def _of_study(
    rule: Rule,
    mode: Mode,
    this: Evidence,
    whole: Sequence[Evidence],
    study: StudyFacts,
    stopper: Decision | None,
) -> Decision:
    inputs = tuple(choose(rule, wanted, whole) for wanted in rule.received)
    outcome, sentence = _study_verdict(rule, mode, this, inputs, study, stopper)
    runs = _combinations(inputs) if _runs(outcome) else ()
    if outcome == "lacking":
        runs = _combinations(inputs)[:1]
    if outcome == "held" and not runs:
        runs = ({},)
    inputs += _to_fetch(rule)
    return Decision(
        rule.name, mode, outcome, this.evaluate(rule.conditions), sentence, inputs, runs
    )


def _study_verdict(
    rule: Rule,
    mode: Mode,
    this: Evidence,
    inputs: Sequence[InputResult],
    study: StudyFacts,
    stopper: Decision | None,
) -> tuple[RuleOutcome, str]:
    if this.facts.own_result:
        return "not_matched", "Not scored: scorenode made this series."
    if all(one.outcome in ("missing", "left_out") for one in inputs):
        return "not_matched", f"Not scored: {_why_none(rule, this)}"
    lacking = [one.name for one in inputs if one.outcome == "missing"]
    absent = lacking + [one.name for one in inputs if one.outcome == "left_out"]
    if not study.waited_out and not study.settled:
        return "waiting", f"Waiting: rule {rule.name} decides when the whole study has come."
    if not study.waited_out and absent:
        return "waiting", f"Waiting: rule {rule.name} has no series yet for {', '.join(absent)}."
    if stopper is not None and stopper.outcome == "matched":
        return "stopped", f"Not scored: rule {stopper.rule} matched before and stops the list."
    if lacking:
        return "lacking", (
            f"Not scored: no series of the study fits {', '.join(lacking)} of rule {rule.name}."
        )
    for one in inputs:
        if one.outcome in ("held", "ambiguous"):
            return "held", f"Held: input {one.name} of rule {rule.name}: {one.sentence}."
    uids = {uid for one in inputs for uid in one.taken}
    taken = [facts for facts in study.series if facts.series_instance_uid in uids]
    return _settle(rule, mode, taken, stopper)


def _why_none(rule: Rule, this: Evidence) -> str:
    lines = [this.lines(rule, wanted) for wanted in rule.received]
    fewest = min(([r for r in results if r.outcome == "not_met"] for results in lines), key=len)
    if not fewest:
        return f"no series of the study fits rule {rule.name}."
    return f"rule {rule.name} wants {_differences(fewest)}."


def _combinations(inputs: Sequence[InputResult]) -> tuple[Mapping[str, str], ...]:
    """Every way to fill the inputs with what was taken; one, unless an input takes each."""
    filled = [one for one in inputs if one.taken]
    names = [one.name for one in filled]
    return tuple(
        dict(zip(names, uids, strict=True)) for uids in product(*(one.taken for one in filled))
    )


def _to_fetch(rule: Rule) -> tuple[InputResult, ...]:
    return tuple(
        InputResult(one.name, "to_fetch", "fetched when the rule has matched")
        for one in rule.gathered
    )


def _differences(unmet: Sequence[ConditionResult]) -> str:
    return "; ".join(f"{result.key} {result.wanted}, found {result.found}" for result in unmet)
