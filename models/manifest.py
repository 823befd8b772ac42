"""The content of ``model.yaml``: what a package is, takes, computes and says.

The annotations are the schema; a key that is not here is a mistake.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from models.base import IntendedUse

Status = Literal["active", "recalled", "withdrawn"]
Kind = Literal["torch-safetensors", "torch-npz", "onnx", "skops", "python"]
WEIGHTS_OF: Mapping[Kind, str] = {
    "torch-safetensors": ".safetensors",
    "torch-npz": ".npz",
    "onnx": ".onnx",
    "skops": ".skops",
    "python": ".safetensors",
}
"""How the name of the weights of each kind ends."""
FIRST = "image"
"""Name of the only input of a model whose manifest has `input`."""


def _plain(value: str) -> str:
    r"""Refuse what DICOM cannot hold in a text, or a terminal would obey."""
    if "\\" in value or any(unicodedata.category(one) == "Cc" for one in value):
        raise ValueError("a text has no backslash and no control characters")
    return value


_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
_Text16 = Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_plain)]
_Text64 = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_plain)]
_Code = tuple[_Text16, _Text64, _Text64]
_Byte = Annotated[int, Field(ge=0, le=255)]
_Color = tuple[_Byte, _Byte, _Byte]
_Millimetres = Annotated[float, Field(gt=0.05, le=50.0)]
_Range = tuple[float, float]


class Closed(BaseModel):
    """A part of a manifest: frozen, and no key but its own."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )


class FileEntry(Closed):
    """A file of the package and its digest."""

    path: str
    sha256: _Digest

    @field_validator("path")
    @classmethod
    def _stay_inside(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9_.-]+)?", value):
            raise ValueError("a path is a plain name, or a folder and a name")
        if ".." in value:
            raise ValueError("a path stays inside the package")
        return value


class Files(Closed):
    """The files a package is made of."""

    weights: FileEntry | None = None
    config: FileEntry | None = None
    test_vector: FileEntry
    code: tuple[FileEntry, ...] = ()

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """All of them."""
        given = (self.weights, self.config, self.test_vector, *self.code)
        return tuple(entry for entry in given if entry is not None)


class Limits(Closed):
    """A lowest and a highest value that are still accepted."""

    min: float = 0.0
    max: Annotated[float, Field(allow_inf_nan=True)] = float("inf")

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if not self.min <= self.max:
            raise ValueError("min is not below max")
        return self


class Input(Closed):
    """What series the model is for; anything else is not scored."""

    modality: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")]
    plane: Literal["axial", "sagittal", "coronal", "any"] = "any"
    slices: Limits = Limits()
    slice_step_mm: Limits = Limits()
    coverage_mm: Limits = Limits()
    content: Literal["head-ct", "any"] = "any"


class Element(Closed):
    """A DICOM element that a model is given by name."""

    keyword: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{1,63}$")]
    required: bool = False


class SegmentEntry(Closed):
    """One kind of voxel the model labels, coded."""

    number: Annotated[int, Field(ge=1, le=255)]
    label: _Text64
    category: _Code
    type: _Code
    anatomic_region: _Code | None = None
    side: Literal["left", "right", "both"] | None = None
    color: _Color = (255, 0, 0)


class OutputEntry(Closed):
    """One named output of a model that is code."""

    kind: Literal["mask", "probability_map", "class", "measurement", "text"]
    segment: Annotated[int, Field(ge=1, le=255)] | None = None
    name: _Code | None = None
    unit: _Text16 = "1"
    classes: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> OutputEntry:
        if self.kind == "measurement" and self.name is None:
            raise ValueError("a measurement has a coded name: [scheme, code, meaning]")
        return self


class Resample(Closed):
    """Voxel size the network sees; ``native`` leaves an axis as it is."""

    spacing_mm: tuple[_Millimetres | Literal["native"], ...]
    order: Literal[0, 1, 3] = 1

    @field_validator("spacing_mm")
    @classmethod
    def _three(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(value) != 3:
            raise ValueError("a spacing has three numbers")
        return value


class Rescale(Closed):
    """Values of one range spread over another."""

    from_: Annotated[_Range, Field(alias="from")]
    to: _Range = (0.0, 1.0)
    clip: bool = True

    @model_validator(mode="after")
    def _wide(self) -> Rescale:
        if not self.from_[0] < self.from_[1]:
            raise ValueError("the range values come from is empty")
        return self


class Normalise(Closed):
    """Subtract a mean, divide by a standard deviation."""

    mean: float
    std: Annotated[float, Field(ge=1e-8)]


STEPS = (
    "orient",
    "transpose",
    "crop",
    "resample",
    "clip",
    "rescale",
    "normalise",
    "zscore",
    "minmax",
)
GEOMETRY = ("orient", "transpose", "crop", "resample")


class PreprocessStep(Closed):
    """One thing done to a volume before the network sees it: exactly one key, and which channel."""

    orient: Annotated[str, Field(pattern=r"^[RL][AP][SI]$")] | None = None
    transpose: tuple[Literal[0, 1, 2], Literal[0, 1, 2], Literal[0, 1, 2]] | None = None
    crop: Literal["nonzero"] | None = None
    resample: Resample | None = None
    clip: _Range | None = None
    rescale: Rescale | None = None
    normalise: Normalise | None = None
    zscore: Literal["all", "nonzero"] | None = None
    minmax: _Range | None = None
    channel: str = ""

    @model_validator(mode="after")
    def _one(self) -> PreprocessStep:
        given = [name for name in STEPS if getattr(self, name) is not None]
        if self.transpose is not None and sorted(self.transpose) != [0, 1, 2]:
            raise ValueError("transpose names each of the axes 0, 1, 2 once")
        for span in (self.clip, self.minmax):
            if span is not None and not span[0] < span[1]:
                raise ValueError("a range goes from a lower to a higher value")
        if len(given) != 1:
            raise ValueError(f"a step is one of {', '.join(STEPS)}")
        if self.channel and given[0] in GEOMETRY:
            raise ValueError(f"{given[0]} is done to all channels")
        return self

    @property
    def name(self) -> str:
        """Which step it is."""
        return next(name for name in STEPS if getattr(self, name) is not None)


class Inference(Closed):
    """How the network is run over a volume."""

    patch: tuple[Annotated[int, Field(ge=1, le=1024)], ...] | None = None
    overlap: Annotated[float, Field(ge=0.0, lt=0.95)] = 0.5
    mirror: tuple[Literal[0, 1, 2], ...] = ()
    multiple: Annotated[int, Field(ge=1, le=128)] = 1
    precision: Literal["float32", "bfloat16"] = "float32"

    @field_validator("patch")
    @classmethod
    def _three(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and len(value) != 3:
            raise ValueError("a patch has three sizes")
        return value

    @field_validator("mirror")
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("mirror names an axis once")
        return value


class Postprocess(Closed):
    """From probabilities to voxels; `within` the skull: `models.skull`."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    decide: Literal["threshold", "argmax"] = "threshold"
    min_component_ml: Annotated[float, Field(ge=0)] = 0.0
    largest_only: bool = False
    within: Literal["skull"] | None = None


class Runtime(Closed):
    """What runs the weights."""

    kind: Kind
    architecture: Literal["monai-unet-2.5d", "network"] | None = None
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    interface: Literal["scorenode", "bunkerhill"] = "scorenode"
    entry: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Runtime:
        if self.kind.startswith("torch") and self.architecture is None:
            raise ValueError("a torch model has an architecture")
        if self.kind == "python" and self.entry is None:
            raise ValueError("a python model has an entry such as model:Model")
        return self


class TestVector(Closed):
    """How close the package must come to its own test output."""

    __test__ = False
    atol: Annotated[float, Field(gt=0, le=0.1)] = 1e-3


class Source(Closed):
    """Where the weights come from."""

    kind: Annotated[str, Field(max_length=64)] = "local"
    uri: Annotated[str, Field(max_length=1024)] = ""
    sha256: str = ""


class Regulatory(Closed):
    """What a model in clinical use must say of itself."""

    udi: Annotated[str, Field(min_length=1, max_length=128)]
    mark: Annotated[str, Field(min_length=1, max_length=64)]
    population: Annotated[str, Field(max_length=512)] = ""
    contraindications: tuple[Annotated[str, Field(max_length=128)], ...] = ()


class Manifest(Closed):
    """The content of ``model.yaml``."""

    schema_: Annotated[Literal["scorenode-model/1"], Field(alias="schema")]
    family: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_plain)]
    intended_use: IntendedUse
    status: Status = "active"
    status_reason: Annotated[str, Field(max_length=512)] = ""
    regulatory: Regulatory | None = None
    licence: str
    source: Source = Source()
    finding: _Code
    files: Files
    runtime: Runtime
    input: Input | None = None
    inputs: Mapping[_Word, Input] = Field(default_factory=dict)
    elements: Mapping[_Word, Element] = Field(default_factory=dict)
    preprocess: tuple[PreprocessStep, ...] = ()
    inference: Inference = Inference()
    segments: tuple[SegmentEntry, ...] = ()
    outputs: Mapping[_Word, OutputEntry] = Field(default_factory=dict)
    postprocess: Postprocess = Postprocess()
    priority_ml: Annotated[float, Field(ge=0)] | None = None
    test_vector: TestVector = TestVector()
    training: Mapping[str, str | int | float] = Field(default_factory=dict)

    @field_validator("segments")
    @classmethod
    def _numbered(cls, value: tuple[SegmentEntry, ...]) -> tuple[SegmentEntry, ...]:
        if [entry.number for entry in value] != list(range(1, len(value) + 1)):
            raise ValueError("segments are numbered 1, 2, 3 and so on, in this order")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Manifest:
        wrong = list(contradictions(self.model_dump(mode="json", by_alias=True)))
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def channels(self) -> Mapping[str, Input]:
        """Name of each series the model takes to what it must be; the first gives the grid."""
        return self.inputs or {FIRST: self.first}

    @property
    def first(self) -> Input:
        """What the series must be on whose grid results lie."""
        found = self.input or next(iter(self.inputs.values()), None)
        if found is None:
            raise ValueError("there is neither input nor inputs")
        return found


def contradictions(content: Mapping[str, Any]) -> Iterator[str]:
    """Say what does not fit together in a manifest whose parts may be wrong themselves.

    Parameters
    ----------
    content : mapping
        As the file has it.
    """
    runtime, files = _part(content, "runtime"), _part(content, "files")
    kind, inputs = str(runtime.get("kind")), _part(content, "inputs")
    if bool(content.get("input")) == bool(inputs):
        yield "there is either input, for one series, or inputs, by name"
    if content.get("intended_use") == "clinical" and not content.get("regulatory"):
        yield "a model in clinical use has regulatory: udi and mark"
    if kind == "python":
        if not files.get("code"):
            yield "files.code: a model of runtime.kind python has code"
        if not content.get("outputs"):
            yield "outputs: a model of runtime.kind python names what it returns"
    elif kind in WEIGHTS_OF:
        yield from _lacks_of_weights(content, kind)
    if runtime.get("architecture") == "monai-unet-2.5d" and len(inputs) > 1:
        yield "monai-unet-2.5d takes one series"
    first = next(iter(inputs.values()), content.get("input"))
    is_ct = isinstance(first, Mapping) and first.get("modality") == "CT"
    if _part(content, "postprocess").get("within") and not is_ct:
        yield "postprocess.within: a skull is found in CT only"
    yield from _unknown_names(content)


def _lacks_of_weights(content: Mapping[str, Any], kind: str) -> Iterator[str]:
    files = _part(content, "files")
    if not content.get("segments"):
        yield "segments: at least one is wanted"
    if files.get("code") or content.get("outputs") or content.get("elements"):
        yield "code, outputs and elements are for models of runtime.kind python"
    weights = files.get("weights")
    if not weights:
        yield "files.weights: is missing"
    elif isinstance(weights, Mapping) and not str(weights.get("path")).endswith(
        WEIGHTS_OF[cast(Kind, kind)]
    ):
        yield f"files.weights: must be a {WEIGHTS_OF[cast(Kind, kind)]} file"
    if kind.startswith("torch") and not files.get("config"):
        yield "files.config: is missing"


def _unknown_names(content: Mapping[str, Any]) -> Iterator[str]:
    channels = set(_part(content, "inputs")) or {FIRST}
    steps, segments = content.get("preprocess"), content.get("segments")
    for step in steps if isinstance(steps, (list, tuple)) else ():
        channel = step.get("channel") if isinstance(step, Mapping) else None
        if channel and isinstance(channel, str) and channel not in channels:
            yield f"preprocess: there is no input {channel}"
    listed = segments if isinstance(segments, (list, tuple)) else ()
    numbers = [entry.get("number") for entry in listed if isinstance(entry, Mapping)]
    for name, output in _part(content, "outputs").items():
        if not isinstance(output, Mapping):
            continue
        kind, segment = output.get("kind"), output.get("segment")
        if segment is not None and segment not in numbers:
            yield f"outputs.{name}: there is no segment {segment}"
        if kind == "mask" and not numbers:
            yield f"outputs.{name}: a mask needs segments"
        if kind == "probability_map" and segment is None:
            yield f"outputs.{name}: a probability map names its segment"


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, Mapping) else {}
