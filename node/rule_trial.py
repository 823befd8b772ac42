"""What other rules would have done with series that came: values in, differences out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from node.candidates import SeriesFacts
from node.config.rules import Mode, Rule
from node.routing import Decision, RuleOutcome, StudyFacts, decide


@dataclass(frozen=True)
class Treatment:
    """How one rule treats one series.

    Parameters
    ----------
    outcome : str
    mode : str
    inputs : tuple of mapping
        Name of an input to Series Instance UID, one mapping for each job.
    work : str
        What runs, and where results go; empty where nothing does.
    sentence : str
        Why; it may quote values from the images.
    """

    outcome: RuleOutcome
    mode: Mode
    inputs: tuple[Mapping[str, str], ...]
    work: str
    sentence: str

    @property
    def effect(self) -> tuple[object, ...]:
        """What follows, whatever the sentence: two treatments with one effect are the same."""
        if self.outcome not in ("matched", "held"):
            return (False,)
        return (
            self.outcome,
            self.mode,
            tuple(tuple(sorted(i.items())) for i in self.inputs),
            self.work,
        )


@dataclass(frozen=True)
class Difference:
    """One series (or study) that one rule would treat differently; None: there is no such rule."""

    study_instance_uid: str
    series_instance_uid: str
    rule: str
    before: Treatment | None
    after: Treatment | None


def differences(
    old: Sequence[Rule],
    new: Sequence[Rule],
    studies: Iterable[Sequence[SeriesFacts]],
    today: date | None = None,
) -> Iterator[Difference]:
    """Hold old and new rules against complete studies and tell where they differ.

    Parameters
    ----------
    old, new : sequence of Rule
    studies : iterable of sequence of SeriesFacts
        Each with all its series; a rule of level study is told once for each.
    today : date or None
        For rules that expire.
    """
    names = list(dict.fromkeys(rule.name for rule in (*old, *new)))
    of_study = {rule.name for rule in (*old, *new) if rule.level == "study"}
    for study in studies:
        for place, facts in enumerate(study):
            is_last = place == len(study) - 1
            before, after = (_treatments(rules, facts, study, today) for rules in (old, new))
            for name in names:
                if name in of_study and not is_last:
                    continue
                pair = before.get(name), after.get(name)
                if _effect(pair[0]) != _effect(pair[1]):
                    yield Difference(
                        facts.study_instance_uid, facts.series_instance_uid, name, *pair
                    )


def _effect(treatment: Treatment | None) -> tuple[object, ...]:
    return (False,) if treatment is None else treatment.effect


def _treatments(
    rules: Sequence[Rule], facts: SeriesFacts, study: Sequence[SeriesFacts], today: date | None
) -> dict[str, Treatment]:
    decisions = decide(rules, facts, StudyFacts(study), today)
    return {
        rule.name: _treatment(rule, decision)
        for rule, decision in zip(rules, decisions, strict=True)
    }


def _treatment(rule: Rule, decision: Decision) -> Treatment:
    run = rule.run
    work = f"{run.pipeline} with {run.model} {run.version}".strip()
    if decision.mode == "live":
        work += "".join(f", {'+'.join(d.send)} to {d.peer}" for d in rule.deliver)
    runs = decision.outcome in ("matched", "held")
    return Treatment(
        decision.outcome, decision.mode, decision.runs, work if runs else "", decision.sentence
    )


def described(treatment: Treatment | None) -> str:
    """Say a treatment in a line."""
    if treatment is None:
        return "no such rule"
    if not treatment.work:
        return f"{treatment.outcome.replace('_', ' ')}: {treatment.sentence}"
    inputs = "; ".join(
        ", ".join(f"{name} = {uid}" for name, uid in run.items()) for run in treatment.inputs
    )
    return f"{treatment.outcome} ({treatment.mode}): {treatment.work}; {inputs}"
