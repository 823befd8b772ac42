"""Checks of rules against each other and against what is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from node.config.attributes import Wanted
from node.config.conditions import Condition
from node.config.image import Counts, ImageGate, Lengths
from node.config.inputs import PriorInput, ResultInput, SeriesInput, TableInput
from node.config.parts import Found, Parts
from node.config.peers import Peer
from node.config.problems import did_you_mean
from node.config.rules import LONGEST_TIMEOUT_SECONDS, Rule
from node.config.yaml_lines import Path as Place
from pipelines.base import ModelKind
from pipelines.catalogue import PIPELINES
from sr_templates.outputs import outputs_of_package, undeclared

SOON = timedelta(days=30)


@dataclass(frozen=True)
class ModelCard:
    """What the manifest of an installed model says that a rule may contradict.

    Parameters
    ----------
    version : str
    intended_use : str
        ``demonstration``, ``research`` or ``clinical``.
    plane : str
        ``any`` where it does not matter.
    slices, coverage_mm : tuple of float
        Lowest and highest, both included.
    kind : str
        ``segmentation`` or ``prognosis``.
    scores : frozenset of str
        Fields of a table without which a prognosis is not made.
    status : str
        ``active``, ``recalled`` or ``withdrawn``.
    inputs : tuple of str
        Names of the series a model of several takes, in its order; empty: it takes one.
    numbers, numbers_of_segments : frozenset of str
        Names of further numbers it says, of the study and of single segments.
    texts : frozenset of str
        Names of texts it says, classes among them.
    marks : bool
        Whether it marks voxels; code may say nothing but numbers.
    """

    version: str
    intended_use: str
    plane: str = "any"
    slices: tuple[float, float] = (0.0, float("inf"))
    coverage_mm: tuple[float, float] = (0.0, float("inf"))
    kind: ModelKind = "segmentation"
    scores: frozenset[str] = frozenset()
    status: str = "active"
    inputs: tuple[str, ...] = ()
    numbers: frozenset[str] = frozenset()
    numbers_of_segments: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    marks: bool = True


def rule_checks(parts: Parts, today: date) -> Iterator[Found]:
    """Find what contradicts in the rules of a file."""
    for number, rule in parts.rules.items():
        place: Place = ("rules", number)
        yield from _inputs(parts, rule, number)
        yield from _two_lines(rule, place)
        yield from _proof(parts, rule, place)
        if rule.run.timeout_seconds > LONGEST_TIMEOUT_SECONDS:
            yield (*place, "run", "timeout"), "A step may take 24h at most: no queue waits longer."
        if rule.expires is not None and rule.mode != "off" and rule.expires - SOON <= today:
            when = "has expired" if rule.expires <= today else "expires soon"
            yield (
                (*place, "expires"),
                f"This rule {when}: it is off from {rule.expires}.",
                "warning",
            )
    yield from _cycles(parts)
    yield from _silences(parts)


def against_models(parts: Parts, cards: Mapping[str, ModelCard]) -> Iterator[Found]:
    """Find what rules want of models that is not so."""
    for number, rule in parts.rules.items():
        card = cards.get(rule.run.model)
        if card is None:
            continue
        place: Place = ("rules", number)
        if not rule.run.takes_version(card.version):
            sentence = f"The model {rule.run.model} that is installed has version {card.version}."
            yield (*place, "run", "version"), sentence
        if card.status != "active":
            sentence = f"The model {rule.run.model} is {card.status}: its jobs are held."
            yield (*place, "run", "model"), sentence, "warning"
        yield from _intended_use(parts, rule, card, place)
        yield from _kind(parts, rule, card, place)
        yield from _series(rule, card, place)
        yield from _report(rule, card, place)
        for one in rule.inputs:
            if isinstance(one, SeriesInput) and one.image is not None:
                yield from _gate(one.image, card, (*place, "inputs", one.name, "image"))


def _series(rule: Rule, card: ModelCard, place: Place) -> Iterator[Found]:
    """Find series that a model takes by name and a rule does not give, in the model's order."""
    if not card.inputs:
        return
    named = [one.name for one in rule.inputs if isinstance(one, (SeriesInput, PriorInput))]
    missing = [name for name in card.inputs if name not in named]
    if missing:
        sentence = f"The model {rule.run.model} takes an input {missing[0]}; the rule names none."
        yield (*place, "inputs"), sentence
    elif named[0] != card.inputs[0]:
        sentence = f"The model's first input is {card.inputs[0]}; the rule must name it first."
        yield (*place, "inputs"), sentence


def _report(rule: Rule, card: ModelCard, place: Place) -> Iterator[Found]:
    """Find what a report template reads and the model does not say."""
    if rule.run.report is None or card.kind != "segmentation":
        return
    outputs = outputs_of_package(
        card.numbers, card.numbers_of_segments, card.texts, marks=card.marks
    )
    for where, sentence in undeclared(rule.run.report, outputs):
        there = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in where)
        yield (*place, "run", "report"), f"{there.lstrip('.')} of the template: {sentence}"


def _kind(parts: Parts, rule: Rule, card: ModelCard, place: Place) -> Iterator[Found]:
    """Find a model of another kind than the pipeline's, and scores that no table gives."""
    wanted = PIPELINES[rule.run.pipeline].models if rule.run.pipeline in PIPELINES else card.kind
    if wanted != card.kind:
        sentence = (
            f"The pipeline {rule.run.pipeline} runs a {wanted}; {rule.run.model} is a {card.kind}."
        )
        yield (*place, "run", "model"), sentence
        return
    tables = [
        parts.tables[one.table]
        for one in rule.inputs
        if isinstance(one, TableInput) and one.table in parts.tables
    ]
    if any(not table.fields for table in tables):
        return  # all columns, whatever they are called
    given = {field for table in tables for field in table.fields}
    for score in sorted(card.scores - given):
        sentence = (
            f"The model {rule.run.model} needs the score {score}, which no table of the inputs has "
            "as a field."
        )
        yield (*place, "inputs") if rule.inputs else place, sentence


def _intended_use(parts: Parts, rule: Rule, card: ModelCard, place: Place) -> Iterator[Found]:
    if rule.mode != "live":
        return
    if card.intended_use == "research":
        sentence = f"The model {rule.run.model} is for research: a rule with it is shadow."
        yield (*place, "mode"), sentence
    for index, destination in enumerate(rule.deliver):
        peer = parts.peers.get(destination.peer)
        if card.intended_use == "demonstration" and peer and not peer.takes_demonstration:
            sentence = (
                f"The model {rule.run.model} is a demonstration, and the peer {peer.name} has no "
                "takes_demonstration: nothing would be sent."
            )
            yield (*place, "deliver", index, "to"), sentence


def _gate(gate: ImageGate, card: ModelCard, place: Place) -> Iterator[Found]:
    if gate.plane is not None and card.plane not in ("any", gate.plane):
        yield (*place, "plane"), f"The model takes {card.plane} slices."
    if gate.slices is not None and not _inside(gate.slices, card.slices):
        low, high = card.slices
        yield (*place, "slices"), f"The model takes {low:g} to {high:g} slices."
    if gate.min_coverage_mm is not None:
        low, high = card.coverage_mm
        if not low <= gate.min_coverage_mm <= high:
            yield (*place, "min_coverage"), f"The model takes {low:g} to {high:g} mm."


def _inside(wanted: Counts | Lengths, limits: tuple[float, float]) -> bool:
    low, high = limits
    return (wanted.min is None or wanted.min >= low) and (wanted.max is None or wanted.max <= high)


def _inputs(parts: Parts, rule: Rule, number: int) -> Iterator[Found]:
    place: Place = ("rules", number)
    series = {one.name for one in rule.inputs if isinstance(one, SeriesInput)}
    unread = set(parts.input_names(number)) - {one.name for one in rule.inputs}
    if rule.level == "series" and len(series) > 1:
        yield (*place, "level"), "Several received series are inputs of a study: level: study."
    for one in rule.inputs:
        here = (*place, "inputs", one.name)
        match one:
            case SeriesInput():
                if rule.level == "series" and one.pick:
                    sentence = (
                        "At level: series every series that fits is scored; pick does nothing."
                    )
                    yield (*here, "pick"), sentence, "warning"
            case PriorInput():
                if one.like not in series | unread:
                    near = did_you_mean(one.like, series)
                    yield (*here, "like"), f"The rule receives no input {one.like}.{near}"
                yield from _source(parts, one, (*here, "retrieve_from"))
            case TableInput():
                if one.table not in parts.table_names:
                    near = did_you_mean(one.table, parts.table_names)
                    yield (*here, "table"), f"The table {one.table} is not defined.{near}"
            case ResultInput():
                if one.rule not in parts.rule_names:
                    near = did_you_mean(one.rule, parts.rule_names)
                    yield (*here, "result_of"), f"There is no rule {one.rule}.{near}"


def _source(parts: Parts, one: PriorInput, place: Place) -> Iterator[Found]:
    peer = parts.peers.get(one.peer)
    if one.peer not in parts.peer_names:
        near = did_you_mean(one.peer, parts.peer_names)
        yield place, f"The peer {one.peer} is not defined.{near}"
    elif peer is not None and peer.address is None:
        yield place, f"The peer {one.peer} has no address, so nothing can be retrieved from it."
    elif peer is not None and peer.supports.find is False:
        yield place, f"The peer {one.peer} does not support find, so no prior can be looked for."


def _two_lines(rule: Rule, place: Place) -> Iterator[Found]:
    """Find lines of an input that contradict a line of the rule, for the same attribute."""
    of_rule = {condition.key: condition for condition in rule.conditions}
    for one in rule.received:
        for line in one.header:
            other = of_rule.get(line.key)
            if other is not None and not _compatible(other, line):
                yield (
                    (*place, "inputs", one.name, "header", line.key),
                    f"This can never match: when wants {other}, and this {line}.",
                )


def _compatible(first: Condition, second: Condition) -> bool:
    listed = [_listed(first), _listed(second)]
    if listed[0] is not None and listed[1] is not None:
        return bool(listed[0] & listed[1])
    for low, high in ((first.minimum, second.maximum), (second.minimum, first.maximum)):
        if low and high and _above(low, high):
            return False
    return True


def _listed(condition: Condition) -> set[str | float] | None:
    if condition.equals:
        return {condition.equals.value}
    return {one.value for one in condition.any_of} if condition.any_of else None


def _above(low: Wanted, high: Wanted) -> bool:
    if isinstance(low.value, str) or isinstance(high.value, str):
        return str(low.value) > str(high.value)
    return low.value > high.value


def _proof(parts: Parts, rule: Rule, place: Place) -> Iterator[Found]:
    for index, destination in enumerate(rule.deliver):
        here = (*place, "deliver", index)
        peer = parts.peers.get(destination.peer)
        for way in destination.confirm:
            if peer is not None:
                yield from _way(peer, way, (*here, "confirm"))
        if rule.mode == "live" and not destination.confirm:
            sentence = "No confirm: that the results are there will never be proved."
            yield here, sentence, "warning"
    if rule.mode == "live" and not rule.tell_reader:
        sentence = "No if_not_run: a reader is not told when nothing was scored, nor why."
        yield place, sentence, "warning"


def _way(peer: Peer, way: str, place: Place) -> Iterator[Found]:
    """Find why a peer cannot prove what it holds in this way."""
    if peer.address and not getattr(peer.supports, way):
        sentence = (
            f"The peer {peer.name} is not said to support {way}. Write supports: "
            f"{{ {way}: yes }} there, or leave it out here."
        )
        yield place, sentence
    elif way == "commitment" and not peer.address and peer.takes_results:
        yield place, f"The peer {peer.name} has no address: storage commitment needs DIMSE."
    elif way == "commitment" and peer.address and not peer.sends_as:
        sentence = (
            f"The peer {peer.name} has no sends_as: it may report only in the association in which "
            "it is asked, and many report in one that they open themselves."
        )
        yield place, sentence, "warning"


def _cycles(parts: Parts) -> Iterator[Found]:
    after = {
        rule.name: [one.rule for one in rule.inputs if isinstance(one, ResultInput)]
        for rule in parts.rules.values()
    }
    for number, rule in parts.rules.items():
        circle = _way_back(rule.name, after)
        if circle:
            names = " needs ".join((rule.name, *circle))
            yield ("rules", number, "inputs"), f"These rules wait for each other: {names}."


def _way_back(name: str, after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    ways: list[tuple[str, ...]] = [(one,) for one in after.get(name, ())]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == name:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [(*way, one) for one in after.get(way[-1], ())]
    return ()


def _silences(parts: Parts) -> Iterator[Found]:
    alerts = parts.sections.get("alerts")
    for silence in alerts.silence if alerts else ():
        for kind, name, known in (
            ("peer", silence.peer, parts.peer_names),
            ("rule", silence.rule, parts.rule_names),
        ):
            if name is not None and name not in known:
                near = did_you_mean(name, known)
                yield ("alerts", "silence", kind), f"The {kind} {name} is not defined.{near}"
        if silence.peer is None and silence.rule is None:
            yield ("alerts", "silence"), "Say whose silence: peer or rule."
