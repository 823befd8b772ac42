"""A model package: a folder with ``model.yaml``, weights that cannot run code, a test vector.

Reading one imports no torch. Every file is hashed and compared with the manifest each time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from models.base import BrokenPackage, IntendedUse, ModelIdentity, Segment
from models.catalogue import MANIFEST

PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin", ".pt2", ".ts"})
MOST_MANIFEST_BYTES = 64 << 10
MOST_LEVELS = 16
PARSED = 32
"""Manifests that need not be parsed again; their bytes are read each time."""
MOST_MISTAKES = 8
"""More mistakes of a manifest are counted, not told."""

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Code = tuple[
    Annotated[str, Field(min_length=1, max_length=16)],
    Annotated[str, Field(min_length=1, max_length=64)],
    Annotated[str, Field(min_length=1, max_length=64)],
]
_Color = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]


class _Closed(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )


class FileEntry(_Closed):
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


class Files(_Closed):
    """The files a package is made of."""

    weights: FileEntry
    config: FileEntry
    test_vector: FileEntry


class Limits(_Closed):
    """A lowest and a highest value that are still accepted."""

    min: float = 0.0
    max: Annotated[float, Field(allow_inf_nan=True)] = float("inf")

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if not self.min <= self.max:
            raise ValueError("min is not below max")
        return self


class Input(_Closed):
    """What series the model is for; anything else is not scored."""

    modality: str
    plane: Literal["axial", "sagittal", "coronal", "any"] = "any"
    slices: Limits = Limits()
    slice_step_mm: Limits = Limits()
    coverage_mm: Limits = Limits()
    content: Literal["head-ct", "any"] = "any"


class SegmentEntry(_Closed):
    """One kind of voxel the model labels, coded."""

    number: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, Field(min_length=1, max_length=64)]
    category: _Code
    type: _Code
    anatomic_region: _Code | None = None
    color: _Color = (255, 0, 0)


class Postprocess(_Closed):
    """From probabilities to voxels."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_component_ml: Annotated[float, Field(ge=0)] = 0.0


class Runtime(_Closed):
    """What runs the weights."""

    kind: Literal["torch-safetensors"]
    architecture: Literal["monai-unet-2.5d"]


class TestVector(_Closed):
    """How close the package must come to its own test output."""

    __test__ = False
    atol: Annotated[float, Field(gt=0, le=0.1)] = 1e-3


class Manifest(_Closed):
    """The content of ``model.yaml``."""

    schema_: Annotated[Literal["scorenode-model/1"], Field(alias="schema")]
    family: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(min_length=1, max_length=128)]
    intended_use: IntendedUse
    licence: str
    finding: _Code
    files: Files
    runtime: Runtime
    input: Input
    segments: Annotated[tuple[SegmentEntry, ...], Field(min_length=1)]
    postprocess: Postprocess = Postprocess()
    test_vector: TestVector = TestVector()
    training: Mapping[str, str | int | float] = Field(default_factory=dict)

    @field_validator("segments")
    @classmethod
    def _numbered(cls, value: tuple[SegmentEntry, ...]) -> tuple[SegmentEntry, ...]:
        if [entry.number for entry in value] != list(range(1, len(value) + 1)):
            raise ValueError("segments are numbered 1, 2, 3 and so on, in this order")
        return value


@dataclass(frozen=True)
class ModelPackage:
    """A verified package.

    Parameters
    ----------
    folder : Path
    manifest : Manifest
    identity : ModelIdentity
    """

    folder: Path
    manifest: Manifest
    identity: ModelIdentity

    @property
    def input(self) -> Input:
        """What series the model is for."""
        return self.manifest.input

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every kind of voxel it labels."""
        return tuple(Segment(**entry.model_dump()) for entry in self.manifest.segments)

    def file(self, entry: FileEntry) -> Path:
        """Where a file of the package lies."""
        return self.folder / entry.path

    def read(self, entry: FileEntry) -> bytes:
        """Read a file of the package; what is returned is what was verified.

        Raises
        ------
        BrokenPackage
            It is not the file of the manifest, or no longer.
        """
        path = plain_file(self.folder, entry.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BrokenPackage(f"{path} cannot be read: {error.strerror}.") from error
        _compare(path, hashlib.sha256(data).hexdigest(), entry)
        return data

    def configuration(self) -> dict[str, Any]:
        """Read the architecture's configuration.

        Raises
        ------
        BrokenPackage
            It is altered, or no JSON object.
        """
        entry = self.manifest.files.config
        try:
            found = json.loads(self.read(entry))
        except (ValueError, RecursionError) as error:
            raise BrokenPackage(f"{self.file(entry)} is not JSON.") from error
        if not isinstance(found, dict):
            raise BrokenPackage(f"{self.file(entry)} is no JSON object.")
        return found


def load_package(folder: Path | str) -> ModelPackage:
    """Read and verify a package.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, or the manifest is not as the schema wants.
    """
    folder = Path(folder)
    data = manifest_bytes(folder)
    manifest = _parse(folder, data)
    _refuse_strangers(folder, manifest)
    for entry in (manifest.files.weights, manifest.files.config, manifest.files.test_vector):
        verify(folder, entry)
    identity = ModelIdentity(
        family=manifest.family,
        version=manifest.version,
        title=manifest.title,
        intended_use=manifest.intended_use,
        sha256=hashlib.sha256(data).hexdigest(),
        weights_sha256=manifest.files.weights.sha256,
        finding=manifest.finding,
        parameters={
            "threshold": f"{manifest.postprocess.threshold:g}",
            "min_component_ml": f"{manifest.postprocess.min_component_ml:g}",
        },
    )
    return ModelPackage(folder, manifest, identity)


def entry_for(folder: Path, name: str) -> FileEntry:
    """Describe a file for a manifest that is being written."""
    return FileEntry(path=name, sha256=_digest(folder / name))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``model.yaml``."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    content = manifest.model_dump(by_alias=True, mode="json")
    for key in ("slices", "slice_step_mm", "coverage_mm"):
        limits = content["input"][key]
        content["input"][key] = {k: v for k, v in limits.items() if v is not None}
    with (folder / MANIFEST).open("w") as file:
        yaml.dump(content, file)


def manifest_bytes(folder: Path) -> bytes:
    """Read ``model.yaml``; BrokenPackage when it is missing or too large."""
    path = plain_file(folder, MANIFEST)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BrokenPackage(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MOST_MANIFEST_BYTES:
        raise BrokenPackage(f"{path} is larger than {MOST_MANIFEST_BYTES >> 10} KiB.")
    return data


@lru_cache(maxsize=PARSED)
def _parse(folder: Path, data: bytes) -> Manifest:
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(parse_yaml(path, data))
    except ValidationError as error:
        raise BrokenPackage(f"{path} is not a manifest: {mistakes(error)}.") from error


def parse_yaml(path: Path, data: bytes) -> object:
    """Read YAML without what makes a small text take gigabytes or hours."""
    yaml = YAML(typ="safe", pure=True)
    try:
        text = data.decode()
        _refuse_tricks(path, yaml, text)
        content: object = yaml.load(text)
    except BrokenPackage:
        raise
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise BrokenPackage(f"{path} is not YAML{where}.") from error
    except ValueError as error:
        raise BrokenPackage(f"{path} is not YAML in UTF-8.") from error
    return content


def _refuse_tricks(path: Path, yaml: YAML, text: str) -> None:
    """Stop at the first alias (it may stand for gigabytes) or deep nesting (it takes hours)."""
    level = 0
    for event in yaml.parse(text):
        level += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            raise BrokenPackage(f"{path} uses a YAML alias; manifests are written out.")
        if level > MOST_LEVELS:
            raise BrokenPackage(f"{path} is nested more than {MOST_LEVELS} levels deep.")


def mistakes(error: ValidationError) -> str:
    """Name what is wrong and where, without the values."""
    told = [
        f"{'.'.join(map(str, item['loc']))[:80] or 'content'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]
    more = len(told) - MOST_MISTAKES
    return "; ".join(told[:MOST_MISTAKES]) + (f"; and {more} more" if more > 0 else "")


def refuse_pickles(folder: Path) -> None:
    """Pickles run code when they are read; none may lie in a package.

    Raises
    ------
    BrokenPackage
        There is one.
    """
    for path in folder.rglob("*"):
        if path.suffix.lower() in PICKLES:
            raise BrokenPackage(
                f"{path} is of a kind that can run code when it is read; packages hold "
                "safetensors. Convert it first."
            )


def _refuse_strangers(folder: Path, manifest: Manifest) -> None:
    refuse_pickles(folder)
    if not manifest.files.weights.path.endswith(".safetensors"):
        raise BrokenPackage(f"The weights of {folder} must be a .safetensors file.")
    if not manifest.files.test_vector.path.endswith(".npz"):
        raise BrokenPackage(f"The test vector of {folder} must be an .npz file.")


def plain_file(folder: Path, name: str) -> Path:
    """Path of a file that lies in the package, also when it is a link."""
    path = folder / name
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except OSError as error:
        raise BrokenPackage(f"{path} cannot be read: {error.strerror}.") from error
    except RuntimeError as error:
        raise BrokenPackage(f"{path} is a link to itself.") from error
    if not inside:
        raise BrokenPackage(f"{path} leads out of the package.")
    if not path.is_file():
        raise BrokenPackage(f"{path} is no plain file.")
    return path


def verify(folder: Path, entry: FileEntry) -> None:
    """Compare a file with its digest; BrokenPackage when it is missing or altered."""
    path = plain_file(folder, entry.path)
    try:
        digest = _digest(path)
    except OSError as error:
        raise BrokenPackage(f"{path} cannot be read: {error.strerror}.") from error
    _compare(path, digest, entry)


def _compare(path: Path, digest: str, entry: FileEntry) -> None:
    if digest != entry.sha256:
        raise BrokenPackage(
            f"{path} is not the file of the manifest: its SHA-256 is {digest[:12]}..., "
            f"wanted {entry.sha256[:12]}... Install the package anew."
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
