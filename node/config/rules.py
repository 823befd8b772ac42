"""Rules of the configuration file: when a series is scored, with what, and where results go.

The annotations are the schema: pydantic reads a file into these values, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.base import CLOSED, INNER, USUAL_SLOTS, Flag, Name, Seconds, Text
from node.config.condition_lines import Conditions
from node.config.conditions import Condition
from node.config.deliver import Destination, Limits, ResultLimits, ResultSeries
from node.config.inputs import Input, Inputs, SeriesInput
from node.config.problems import ConfigError
from node.config.quantities import WordList, day, percent, size_bytes, text, version_range, word
from pipelines.base import OF_LABEL_MAP, SLOTS, SeriesLabel

Mode = Literal["live", "shadow", "off"]
Priority = Literal["urgent", "routine", "low"]
Level = Literal["series", "study"]
IfIncomplete = Literal["hold", "run", "discard"]
LateInstances = Literal["rerun_if_changed", "ignore", "hold"]
MODES = ("live", "shadow", "off")
LONGEST_TIMEOUT_SECONDS = 24 * 3600.0
"""What every broker can wait for the end of one step."""

ANY_PACKAGE = "segmentation"
"""The pipeline that runs whatever package the rule names."""
INCOMPLETE = word("hold", "run", "discard")
LATE = word("rerun_if_changed", "ignore", "hold")


def _report_template(value: object, info: ValidationInfo) -> object:
    """Read the report template a rule names, beside the configuration; all its mistakes at once."""
    from node.config.report_template import load_template  # code tables: only where they are used
    from pipelines.catalogue import PIPELINES
    from sr_templates.outputs import OUTPUTS, PACKAGED_OUTPUTS

    folder: Path = info.context["folder"] if info.context else Path()
    pipeline = info.data.get("pipeline", "")
    kind = PIPELINES[pipeline].models if pipeline in PIPELINES else "segmentation"
    # Of a package its card says what it returns: see `node.config.rule_checks`.
    outputs = PACKAGED_OUTPUTS if pipeline == ANY_PACKAGE else OUTPUTS[kind]
    try:
        return load_template(folder / text(value), outputs)
    except ConfigError as error:
        raise ValueError("\n".join(map(str, error.problems))) from None


@dataclass(frozen=True)
class Run:
    """What scores a series.

    Parameters
    ----------
    pipeline : str
        Name in `pipelines.catalogue`.
    model : str
        Name of a model package.
    version : str
        That the package must have: ``1.2.0``, ``1.2.x``, ``1.x``; empty: any.
    timeout_seconds : float
        Of one step, hard.
    gpu_memory_bytes : int
        A hint for the scheduler; 0: not known.
    report : ReportTemplate or None
        What the report says; None: what the pipeline makes of it.
    """

    __pydantic_config__ = CLOSED

    pipeline: Name
    model: Name
    version: Annotated[str, BeforeValidator(version_range)] = ""
    timeout_seconds: Annotated[Seconds, Field(alias="timeout")] = 600.0
    gpu_memory_bytes: Annotated[int, BeforeValidator(size_bytes), Field(alias="gpu_memory")] = 0
    report: Annotated[Any, BeforeValidator(_report_template)] = None

    def takes_version(self, version: str) -> bool:
        """Whether a package of that version may run."""
        wanted = self.version.removesuffix("x")
        if wanted == self.version:
            return self.version in ("", version) or version.startswith(f"{self.version}.")
        return version.startswith(wanted)


def _mode(value: object) -> object:
    return value if isinstance(value, dict) else {f"{INNER}word": word(*MODES)(value)}


@dataclass(frozen=True)
class ModeLine:
    """How a rule runs: a word, or live for a share of the studies and shadow for the others."""

    __pydantic_config__ = CLOSED

    written: Annotated[Mode, Field(alias=f"{INNER}word")] = "live"
    canary: Annotated[float | None, BeforeValidator(percent)] = None


@dataclass(frozen=True)
class RuleCompletion:
    """What this rule does with series that are not as they should be."""

    __pydantic_config__ = CLOSED

    if_incomplete: Annotated[IfIncomplete | None, BeforeValidator(INCOMPLETE)] = None
    late_instances: Annotated[LateInstances | None, BeforeValidator(LATE)] = None


@dataclass(frozen=True)
class IfNotRun:
    """How the reader is told that the rule applied and nothing was scored."""

    __pydantic_config__ = CLOSED

    tell_reader: Annotated[tuple[str, ...], BeforeValidator(WordList(("sr", "capture")))]
    after_seconds: Annotated[Seconds, Field(alias="after")] = 1800.0


def _if_not_run(value: object) -> object:
    if isinstance(value, dict) and isinstance(value.get("tell_reader"), str):
        return value | {"tell_reader": [value["tell_reader"]]}
    return value


@dataclass(frozen=True)
class RuleLines:
    """A rule as the file holds it; `rule` is what it means."""

    __pydantic_config__ = CLOSED

    name: Name
    mode: Annotated[ModeLine, BeforeValidator(_mode)]
    when: Conditions
    run: Run
    level: Annotated[Level | None, BeforeValidator(word("series", "study"))] = None
    priority: Annotated[Priority, BeforeValidator(word("urgent", "routine", "low"))] = "routine"
    inputs: Inputs | None = None
    accept_result: ResultLimits | None = None
    deliver: tuple[Destination, ...] = ()
    if_not_run: Annotated[IfNotRun | None, BeforeValidator(_if_not_run)] = None
    completion: RuleCompletion | None = None
    stop: Flag = False
    expires: Annotated[date | None, BeforeValidator(day)] = None
    note: Text = ""
    owner: Text = ""

    @property
    def rule(self) -> Rule:
        """The value the rest of the node works with."""
        inputs = tuple(line.named(name) for name, line in (self.inputs or {}).items())
        completion = self.completion or RuleCompletion()
        return Rule(
            name=self.name,
            mode=self.mode.written,
            canary_percent=self.mode.canary,
            conditions=tuple(line.condition for line in self.when.values()),
            run=self.run,
            level=self.level or _level_of(inputs),
            priority=self.priority,
            inputs=inputs,
            accept_result=self.accept_result or {},
            deliver=self.deliver,
            tell_reader=self.if_not_run.tell_reader if self.if_not_run else (),
            tell_after_seconds=self.if_not_run.after_seconds if self.if_not_run else 1800.0,
            if_incomplete=completion.if_incomplete,
            late_instances=completion.late_instances,
            stop=self.stop,
            expires=self.expires,
            note=self.note,
            owner=self.owner,
        )


def _level_of(inputs: Iterable[Input]) -> Level:
    """Take the whole study where there is a choice, else one series at a time."""
    received = [one for one in inputs if isinstance(one, SeriesInput)]
    return "study" if len(received) > 1 or any(one.pick for one in received) else "series"


@dataclass(frozen=True)
class Rule:
    """Which series are scored, with what, and where the results go.

    Parameters
    ----------
    name : str
        Unique in the file.
    mode : str
        ``live``; ``shadow``: everything runs and nothing is sent; ``off``: not run.
    conditions : tuple of Condition
        All must hold.
    run : Run
    level : str
        ``series``: every series that fits is scored by itself. ``study``: once all series of the
        study have come, the inputs are chosen among them.
    priority : str
    inputs : tuple of Input
        Named arguments of the model; empty: the one series.
    accept_result : mapping
        Name of a result to the limits within which it is plausible.
    deliver : tuple of Destination
    tell_reader : tuple of str
        How the reader is told that nothing was scored.
    tell_after_seconds : float
        After so long the reader is told of a job that has not ended.
    if_incomplete, late_instances : str or None
        None: as ``completion`` says.
    stop : bool
        When it matches, no rule after it is used. A shadow rule stops nothing.
    expires : date or None
        Off from that day on.
    canary_percent : float or None
        Live for this share of the studies, shadow for the others.
    note, owner : str
        For people.
    """

    name: str
    mode: Mode
    conditions: tuple[Condition, ...]
    run: Run
    level: Level = "series"
    priority: Priority = "routine"
    inputs: tuple[Input, ...] = ()
    accept_result: Mapping[str, Limits] | None = None
    deliver: tuple[Destination, ...] = ()
    tell_reader: tuple[str, ...] = ()
    tell_after_seconds: float = 1800.0
    if_incomplete: IfIncomplete | None = None
    late_instances: LateInstances | None = None
    stop: bool = False
    expires: date | None = None
    canary_percent: float | None = None
    note: str = ""
    owner: str = ""

    @property
    def received(self) -> tuple[SeriesInput, ...]:
        """Inputs that are series of the study; one without a gate where the rule names none."""
        found = tuple(one for one in self.inputs if isinstance(one, SeriesInput))
        return found or (SeriesInput("series"),)

    @property
    def gathered(self) -> tuple[Input, ...]:
        """Inputs that must be fetched once the rule has matched."""
        return tuple(one for one in self.inputs if not isinstance(one, SeriesInput))

    @property
    def series(self) -> ResultSeries:
        """What the first destination that says something says of the result series."""
        return next((d.series for d in self.deliver if d.series), ResultSeries())

    def labels(self) -> dict[str, SeriesLabel]:
        """Series Number and Description of each kind of result, as a `JobSpec` wants them."""
        description = self.series.description or self.name
        made = frozenset(USUAL_SLOTS).union(*(destination.made for destination in self.deliver))
        numbers: dict[str, int] = {
            slot: self.series.number + place for place, slot in enumerate(SLOTS)
        }
        numbers |= {other: numbers[slot] for slot, other in OF_LABEL_MAP.items()}
        return {
            slot: SeriesLabel(number, description)
            for slot, number in numbers.items()
            if slot in made
        }
