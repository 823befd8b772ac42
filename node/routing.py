"""Which rules a complete series matches, and why: values in, decisions out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from node.config.attributes import scan_keys
from node.config.conditions import ConditionResult, Header, Tally, evaluate, tally
from node.config.rules import Mode, Rule

CompletionVerdict = Literal["proved_complete", "quiet", "proved_incomplete", "forced"]
RuleOutcome = Literal["matched", "not_matched", "held", "off", "stopped"]

ROUTING_KEYS = frozenset({
    "SpecificCharacterSet", "Modality", "SOPClassUID", "ImageType", "BodyPartExamined",
    "StudyDescription", "SeriesDescription", "ProtocolName", "SeriesNumber", "InstanceNumber",
    "StudyDate", "SeriesDate", "AcquisitionNumber", "PatientAge", "PatientSex", "SliceThickness",
    "SpacingBetweenSlices", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "ImagesInAcquisition", "ImageOrientationPatient", "ImagePositionPatient", "PatientPosition",
    "GantryDetectorTilt", "ConvolutionKernel", "KVP", "ContrastBolusAgent", "Manufacturer",
    "ManufacturerModelName", "DeviceSerialNumber", "StationName", "FrameOfReferenceUID",
    "BurnedInAnnotation",
})  # fmt: skip
"""Collected whatever the rules say, so that a new rule can be tried on what came before it."""


@dataclass(frozen=True, eq=False)
class SeriesFacts:
    """What is known of a complete series.

    Parameters
    ----------
    study_instance_uid, series_instance_uid : str
    modality : str
    headers : sequence of Header
        One of each instance, with the keys of `header_keys`.
    instances : int
        How many there are.
    verdict : str
        Why the series counts as complete.
    own_result : bool
        Whether this node made it.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    headers: Sequence[Header]
    instances: int
    verdict: CompletionVerdict
    own_result: bool = False


@dataclass(frozen=True)
class Decision:
    """What one rule says of one series.

    Parameters
    ----------
    rule : str
    mode : str
    outcome : str
        ``matched``; ``not_matched``; ``held`` until an admin decides; ``off``, the rule is;
        ``stopped`` by a rule before it.
    conditions : tuple of ConditionResult
        Every line of the rule, with value found and value wanted.
    sentence : str
        What follows, for an admin. It may quote values from the images: never log it.
    """

    rule: str
    mode: Mode
    outcome: RuleOutcome
    conditions: tuple[ConditionResult, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, for the ``decision`` table."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decision:
        """Read what `to_json` gave."""
        conditions = tuple(ConditionResult(**item) for item in data["conditions"])
        return cls(**{**data, "conditions": conditions})


def header_keys(rules: Iterable[Rule]) -> frozenset[str]:
    """Name what the header scan of every instance must collect.

    Returns
    -------
    frozenset of str
        Keywords, ``Sequence.Keyword`` paths and ``(gggg,eeee)`` tags: those of the rules, and
        always `ROUTING_KEYS`.
    """
    conditions = (condition for rule in rules for condition in rule.conditions)
    return ROUTING_KEYS.union(*(scan_keys(condition.key) for condition in conditions))


def decide(rules: Sequence[Rule], facts: SeriesFacts) -> tuple[Decision, ...]:
    """Hold every rule against a series.

    Every rule is evaluated; all that match run, unless one before them stops. A rule whose
    conditions wait for an admin holds the rules it would stop.

    Parameters
    ----------
    rules : sequence of Rule
        In the order of the file.
    facts : SeriesFacts

    Returns
    -------
    tuple of Decision
        One for each rule, in the same order.
    """
    tallies: dict[str, Tally] = {}
    for key in {condition.key for rule in rules for condition in rule.conditions}:
        tallies[key] = tally(key, facts.headers)
    decisions: list[Decision] = []
    stopper: Decision | None = None
    for rule in rules:
        results = tuple(evaluate(line, tallies[line.key]) for line in rule.conditions)
        outcome, sentence = _verdict(rule, results, facts, stopper)
        decision = Decision(rule.name, rule.mode, outcome, results, sentence)
        decisions.append(decision)
        stops = rule.stop and rule.mode == "live" and outcome in ("matched", "held")
        if stops and (stopper is None or stopper.outcome == "held"):
            stopper = decision
    return tuple(decisions)


def _verdict(
    rule: Rule,
    results: Sequence[ConditionResult],
    facts: SeriesFacts,
    stopper: Decision | None,
) -> tuple[RuleOutcome, str]:
    if rule.mode == "off":
        return "off", f"Not scored: rule {rule.name} is off."
    if facts.own_result:
        return "not_matched", "Not scored: this node made this series."
    if unmet := [result for result in results if result.outcome == "not_met"]:
        return "not_matched", f"Not scored: rule {rule.name} wants {_differences(unmet)}."
    if stopper is not None and stopper.outcome == "matched":
        return "stopped", f"Not scored: rule {stopper.rule} matched before and stops the list."
    if missing := [result.key for result in results if result.outcome == "missing_hold"]:
        return "held", f"Held: rule {rule.name} needs {', '.join(missing)}, which is missing."
    if facts.verdict == "proved_incomplete":
        return "held", f"Held: rule {rule.name} matches, but images of the series are missing."
    if stopper is not None:
        return "held", f"Held: rule {stopper.rule} before it is held, and stops when it matches."
    shadow = " Its results stay in the node (shadow)." if rule.mode == "shadow" else ""
    return "matched", f"Scored: rule {rule.name} matches.{shadow}"


def _differences(unmet: Sequence[ConditionResult]) -> str:
    return "; ".join(f"{result.key} {result.wanted}, found {result.found}" for result in unmet)
