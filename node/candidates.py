"""Which series of a study may be which input of a rule, and which of them is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from node.config.attributes import as_number, comparable, values_of
from node.config.conditions import Condition, ConditionResult, Header, Tally, evaluate, tally
from node.config.inputs import Pick, SeriesInput
from node.config.rules import Rule
from node.image_facts import ImageFacts, evaluate_image, image_facts

CompletionVerdict = Literal["proved_complete", "quiet", "proved_incomplete", "forced"]
CandidateOutcome = Literal["taken", "fits", "passed_over", "not_fitting", "held", "own_result"]
InputOutcome = Literal["found", "missing", "left_out", "ambiguous", "held", "to_fetch"]
DATE_KEYS = ("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "StudyDate")


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
    evidence : str
        What was counted to prove it complete or not; empty where only time told.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    headers: Sequence[Header]
    instances: int
    verdict: CompletionVerdict
    own_result: bool = False
    evidence: str = ""


@dataclass(frozen=True)
class CandidateResult:
    """One series held against one input."""

    series_instance_uid: str
    label: str
    outcome: CandidateOutcome
    conditions: tuple[ConditionResult, ...]
    sentence: str = ""


@dataclass(frozen=True)
class InputResult:
    """One input of a rule and what there is for it."""

    name: str
    outcome: InputOutcome
    sentence: str
    candidates: tuple[CandidateResult, ...] = ()

    @property
    def taken(self) -> tuple[str, ...]:
        """UIDs of the series that are taken; several where each is."""
        return tuple(c.series_instance_uid for c in self.candidates if c.outcome == "taken")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputResult:
        """Read what `dataclasses.asdict` gave."""
        candidates = tuple(
            CandidateResult(
                **{**item, "conditions": tuple(ConditionResult(**c) for c in item["conditions"])}
            )
            for item in data["candidates"]
        )
        return cls(**{**data, "candidates": candidates})


@dataclass
class Evidence:
    """What was worked out of one series, so that it is worked out once."""

    facts: SeriesFacts
    _tallies: dict[str, Tally] = field(default_factory=dict)
    _image: ImageFacts | None = None

    def evaluate(self, conditions: Sequence[Condition]) -> tuple[ConditionResult, ...]:
        """Hold conditions against all instances."""
        for key in {condition.key for condition in conditions} - self._tallies.keys():
            self._tallies[key] = tally(key, self.facts.headers)
        return tuple(evaluate(line, self._tallies[line.key]) for line in conditions)

    @property
    def image(self) -> ImageFacts:
        """Geometry of the series."""
        if self._image is None:
            self._image = image_facts(self.facts.headers)
        return self._image

    def lines(self, rule: Rule, wanted: SeriesInput) -> tuple[ConditionResult, ...]:
        """Everything that a rule wants of a series that is to be this input."""
        found = self.evaluate((*rule.conditions, *wanted.header))
        if wanted.image is not None:
            found += evaluate_image(wanted.image, self.image)
        return found

    @property
    def label(self) -> str:
        """The series in a few words, without free text."""
        number = _first(self.facts.headers, "SeriesNumber")
        shown = f"series {number:g}" if isinstance(number, float) else f"series {number or '?'}"
        return f"{shown}, {self.facts.modality or 'no Modality'}, {self.facts.instances} instances"


def choose(rule: Rule, wanted: SeriesInput, study: Sequence[Evidence]) -> InputResult:
    """Hold every series of a study against one input, and take what fits best.

    Series that fit are compared by the words of ``pick``, in their order: each word leaves the
    best ones to the next. Where several are left, ``if_ambiguous`` says what follows.

    Parameters
    ----------
    rule : Rule
    wanted : SeriesInput
    study : sequence of Evidence
        All series of the study that are complete.
    """
    looked = [(one, *_look(rule, wanted, one)) for one in study]
    fitting = [one for one, outcome, _ in looked if outcome == "fits"]
    waiting = [one for one, outcome, _ in looked if outcome == "held"]
    best, reasons = _best(wanted.pick, fitting)
    best = sorted(best, key=lambda one: one.facts.series_instance_uid)
    ambiguous = len(best) > 1 and wanted.if_ambiguous != "each"
    taken = best[:1] if ambiguous else best
    results = tuple(
        CandidateResult(
            one.facts.series_instance_uid,
            one.label,
            _outcome(one, outcome, taken, best),
            lines,
            reasons.get(one.facts.series_instance_uid, ""),
        )
        for one, outcome, lines in looked
    )
    if taken and ambiguous and wanted.if_ambiguous == "hold":
        among = "; ".join(one.label for one in best)
        return InputResult(wanted.name, "ambiguous", f"{len(best)} series fit: {among}", results)
    if taken:
        what = ", ".join(one.label for one in taken)
        return InputResult(wanted.name, "found", what, results)
    if waiting:
        keys = [r.key for _, o, lines in looked if o == "held" for r in lines
                if r.outcome == "missing_hold"]  # fmt: skip
        sentence = f"{', '.join(dict.fromkeys(keys))} is missing"
        return InputResult(wanted.name, "held", sentence, results)
    outcome: InputOutcome = "left_out" if wanted.optional else "missing"
    return InputResult(wanted.name, outcome, "no series of the study fits", results)


def _outcome(
    one: Evidence, outcome: CandidateOutcome, taken: list[Evidence], best: list[Evidence]
) -> CandidateOutcome:
    if outcome != "fits" or one in best:
        return "taken" if one in taken else outcome
    return "passed_over"


def _look(
    rule: Rule, wanted: SeriesInput, one: Evidence
) -> tuple[CandidateOutcome, tuple[ConditionResult, ...]]:
    lines = one.lines(rule, wanted)
    if one.facts.own_result:
        return "own_result", lines
    if any(line.outcome == "not_met" for line in lines):
        return "not_fitting", lines
    return ("held" if any(line.outcome == "missing_hold" for line in lines) else "fits"), lines


def _best(
    picks: Sequence[Pick], fitting: Sequence[Evidence]
) -> tuple[list[Evidence], dict[str, str]]:
    """Series that no word of ``pick`` tells apart; and why the others were passed over."""
    left, reasons = list(fitting), dict[str, str]()
    for pick in picks:
        if len(left) < 2:
            break
        ranks = [_rank(pick, one) for one in left]
        top = min(ranks)
        for one, rank in zip(left, ranks, strict=True):
            if rank != top:
                reasons[one.facts.series_instance_uid] = f"another is better by {pick}"
        left = [one for one, rank in zip(left, ranks, strict=True) if rank == top]
    return left, reasons


def _rank(pick: Pick, one: Evidence) -> tuple[int, float | tuple[int, ...]]:
    """Rank of a series, the smallest is best; what does not say comes last."""
    match pick.word:
        case "nearest":
            numbers = [
                number
                for header in one.facts.headers
                for value in values_of(pick.key, header) or ()
                if (number := as_number(value)) is not None
            ]
            if not numbers:
                return 1, 0.0
            return 0, max(round(abs(number - pick.value), 6) for number in numbers)
        case "most_slices":
            slices = one.image.slices
            return 0, -float(one.image.frames if slices is None else slices)
        case "newest":
            moment = _moment(one.facts.headers, max)
            return (0, tuple(-ord(c) for c in moment)) if moment else (1, 0.0)
        case "oldest":
            moment = _moment(one.facts.headers, min)
            return (0, tuple(ord(c) for c in moment)) if moment else (1, 0.0)


def _moment(headers: Sequence[Header], extreme: Callable[[Sequence[str]], str]) -> str:
    """Date and time of a series as digits; empty where it has none."""
    found = []
    for header in headers:
        for day_key, time_key in (
            ("SeriesDate", "SeriesTime"),
            ("AcquisitionDate", "AcquisitionTime"),
            ("StudyDate", ""),
        ):
            days, times = header.get(day_key), header.get(time_key)
            day = comparable(day_key, days[0]) if days else None
            time = comparable(time_key, times[0]) if times else None
            if day is not None:
                found.append(f"{day}{time or '000000'}")
                break
    return extreme(found) if found else ""


def _first(headers: Sequence[Header], key: str) -> object:
    return next((values[0] for header in headers if (values := header.get(key))), None)
