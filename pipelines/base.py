"""The words of `pipelines`: a job is three steps in a folder, each ending in a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

Step = Literal["convert", "infer", "report"]
STEPS: tuple[Step, ...] = ("convert", "infer", "report")
Slot = Literal["sr", "seg", "capture", "labelmap", "sr3d", "outlines", "text", "pdf", "rtstruct"]
SLOTS: tuple[Slot, ...] = get_args(Slot)
"""Kinds of result; a kind's place is what is added to the rule's Series Number."""
OF_LABEL_MAP: Mapping[str, str] = {"sr": "sr-labelmap", "sr3d": "sr3d-labelmap"}
"""Reports of a destination that takes the label map in place of the binary segmentation: they
refer to it, so they are other objects."""
SOP_CLASSES: Mapping[str, str] = {
    "sr": "1.2.840.10008.5.1.4.1.1.88.33",
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "capture": "1.2.840.10008.5.1.4.1.1.7",
    "labelmap": "1.2.840.10008.5.1.4.1.1.66.7",
    "sr3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "outlines": "1.2.840.10008.5.1.4.1.1.88.33",
    "text": "1.2.840.10008.5.1.4.1.1.88.11",
    "pdf": "1.2.840.10008.5.1.4.1.1.104.1",
    "rtstruct": "1.2.840.10008.5.1.4.1.1.481.3",
}
"""SOP Class of each kind of result."""
REJECTION_NOTE = "1.2.840.10008.5.1.4.1.1.88.59"
"""SOP Class of what takes results back: Key Object Selection Document."""
DOCUMENTS = frozenset({"sr", "sr3d", "outlines", "text", *OF_LABEL_MAP.values()})
"""What must not be read without the objects it refers to, so that it is sent last."""
ModelKind = Literal["segmentation", "prognosis"]
Progress = Callable[[float, str], None]
"""Told the fraction done, 0 to 1, and what is being done, in a few words."""

Outcome = Literal["ok", "not_scored", "transient", "bug", "killer", "config"]


class NotScored(Exception):
    """Raised when the input must not be scored, for a reason that can be shown.

    Parameters
    ----------
    reason : str
        A short stable word, such as ``gantry_tilt``.
    sentence : str
        What was found, in which object (UIDs only), and what was wanted. No patient data.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


class Transient(Exception):
    """Raised when waiting and trying again may help (store away, GPU memory taken)."""


class Misconfigured(Exception):
    """Raised when an admin must act first (model missing, hash wrong); costs no attempt."""


class FaultyResult(RuntimeError):
    """Raised when a result fails its own check: a bug; the sentence lists what, no patient data."""


@dataclass(frozen=True)
class Verdict:
    """How a step ended.

    `sentence` says what happened, to which object, what the admin can do; empty when ok.
    """

    outcome: Outcome
    reason: str = ""
    sentence: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SeriesLabel:
    """Series Number and Series Description of one kind of result."""

    number: int
    description: str


@dataclass(frozen=True)
class EarlierResult:
    """A result of the last job of the same rule, which a new one replaces.

    `at` is when that job was opened, for people.
    """

    slot: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    at: str


@dataclass(frozen=True)
class JobSpec:
    """Everything a runner child is told: written as ``job.json`` in the job's folder.

    Parameters
    ----------
    job_id : int
    pipeline : str
        Name in `pipelines.catalogue`.
    inputs : tuple of str
        Paths of the Part 10 files of the series' instances.
    model : str
        Folder of the model package.
    idem_key : str
        Digest of inputs, model, pipeline and rule; entropy of all result UIDs.
    uid_root : str
        The site's UID root, ending in a dot.
    station : str
        Stable id of the node.
    frozen_at : datetime
        Timezone-aware; every date and time in the results.
    labels : mapping
        Slot to Series Number and Description: what is to be made.
    named : mapping
        Name of an input that is a series (received, or a prior) to the paths of its files.
    rows : mapping
        Name of an input that is a row of a table to ``values``, ``units``, ``date`` and
        ``age_days``; None where the model runs without it.
    report_template : mapping or None
        What `sr_templates.described.ReportTemplate.to_json` gave; None: the pipeline's own report.
    earlier : tuple of EarlierResult
        What these results replace.
    completion : str
        Whether all images of the series had come, in a sentence for the reader.
    notice : mapping or None
        What a reader is told in place of a result (see `pipelines.steps.notice`); None: nothing.
    trust_code : bool
        Whether the admin lets this model run code of its own.
    """

    job_id: int
    pipeline: str
    inputs: tuple[str, ...]
    model: str
    idem_key: str
    uid_root: str
    station: str
    frozen_at: datetime
    labels: Mapping[str, SeriesLabel]
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, Any] = field(default_factory=dict)
    report_template: Mapping[str, Any] | None = None
    earlier: tuple[EarlierResult, ...] = ()
    notice: Mapping[str, Any] | None = None
    completion: str = ""
    trust_code: bool = False

    def to_json(self) -> str:
        """Text of ``job.json``."""
        return json.dumps(asdict(self) | {"frozen_at": self.frozen_at.isoformat()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Read ``job.json``."""
        data = json.loads(text)
        data["inputs"] = tuple(data["inputs"])
        data["frozen_at"] = datetime.fromisoformat(data["frozen_at"])
        data["named"] = {k: tuple(v) for k, v in data.get("named", {}).items()}
        data["earlier"] = tuple(EarlierResult(**v) for v in data.get("earlier", ()))
        data["labels"] = {k: SeriesLabel(**v) for k, v in data["labels"].items()}
        return cls(**data)


@dataclass(frozen=True)
class StepContext:
    """What a step function gets.

    Parameters
    ----------
    spec : JobSpec
    folder : Path
        Empty folder for this step's output; renamed into place when the step is done.
    job_folder : Path
        The job's folder; the output of an earlier step lies in ``job_folder / "<step>"``.
    progress : callable
    """

    spec: JobSpec
    folder: Path
    job_folder: Path
    progress: Progress

    def output_of(self, step: Step) -> Path:
        """Folder an earlier step wrote."""
        return self.job_folder / step


StepFunction = Callable[[StepContext], Mapping[str, Any]]
"""Does one step; returns facts to be shown (``explain``, ``jobs show``), JSON values only.

Raises `NotScored`, `Transient` or `Misconfigured`; anything else is a bug.
"""


@dataclass(frozen=True)
class Pipeline:
    """Three functions that turn one complete series into result objects.

    `report` writes one ``<slot>.dcm`` per result into its folder (``seg.dcm``, ``sr.dcm``,
    ``capture.dcm``; a slot with nothing to say is left out) and may write ``*.png``,
    ``findings.json`` beside them. `models` is the kind of model package it runs.
    """

    name: str
    version: str
    modalities: frozenset[str]
    convert: StepFunction
    infer: StepFunction
    report: StepFunction
    models: ModelKind = "segmentation"

    def step(self, name: Step) -> StepFunction:
        """Look a step up by name."""
        function: StepFunction = getattr(self, name)
        return function
