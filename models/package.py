"""A model package: a folder with ``model.yaml``, weights that cannot run code, a test vector.

Reading one imports no torch. Every file is hashed and compared with the manifest each time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from models.base import BrokenPackage, ModelIdentity, Recalled, Segment
from models.catalogue import MANIFEST
from models.manifest import (
    FileEntry,
    Files,
    Input,
    Limits,
    Manifest,
    Postprocess,
    Runtime,
    SegmentEntry,
    TestVector,
    contradictions,
)

__all__ = [
    "FileEntry",
    "Files",
    "Input",
    "Limits",
    "Manifest",
    "ModelPackage",
    "Postprocess",
    "Runtime",
    "SegmentEntry",
    "TestVector",
    "entry_for",
    "load_package",
    "write_manifest",
]

PICKLES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin", ".pt2", ".ts"})
CODE = frozenset({".py", ".pyc", ".so", ".pth", ".dll", ".sh"})
MOST_MANIFEST_BYTES = 64 << 10
MOST_LEVELS = 16
PARSED = 32
"""Manifests that need not be parsed again; their bytes are read each time."""
MOST_MISTAKES = 8
"""More mistakes of a manifest are counted, not told."""
STATUS_LINES = re.compile(rb"^status(_reason)?:.*(\n[ \t].*)*(\n|$)", re.MULTILINE)
"""Status and reason in a manifest, with lines that go on."""


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
        """What the series must be on whose grid results lie."""
        return self.manifest.first

    @property
    def weights_entry(self) -> FileEntry:
        """The file of the weights; BrokenPackage for a model that has none."""
        entry = self.manifest.files.weights
        if entry is None:
            raise BrokenPackage(f"{self.folder} has no weights.")
        return entry

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
        if entry is None:
            raise BrokenPackage(f"{self.folder} has no files.config.")
        try:
            found = json.loads(self.read(entry))
        except (ValueError, RecursionError) as error:
            raise BrokenPackage(f"{self.file(entry)} is not JSON.") from error
        if not isinstance(found, dict):
            raise BrokenPackage(f"{self.file(entry)} is no JSON object.")
        return found


def load_package(folder: Path | str) -> ModelPackage:
    """Read and verify a package that is to be used.

    Raises
    ------
    Recalled
        It is recalled or withdrawn.
    BrokenPackage
        As `read_package`.
    """
    package = read_package(folder)
    refuse_recalled(Path(folder), package.manifest.status, package.manifest.status_reason)
    return package


def refuse_recalled(folder: Path, status: str, reason: str) -> None:
    """Let an active package pass; Recalled otherwise."""
    if status != "active":
        why = f": {reason.rstrip('.')}" if reason else ""
        raise Recalled(f"The model {folder.name} is {status}{why}. Nothing is scored with it.")


def read_package(folder: Path | str) -> ModelPackage:
    """Read and verify a package, also one that is recalled.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, or the manifest is not as the schema wants.
    """
    folder = Path(folder)
    data = manifest_bytes(folder)
    manifest = _parse(folder, data)
    _refuse_strangers(folder, manifest)
    for entry in manifest.files.entries:
        verify(folder, entry)
    weights = manifest.files.weights or manifest.files.code[0]
    identity = ModelIdentity(
        family=manifest.family,
        version=manifest.version,
        title=manifest.title,
        intended_use=manifest.intended_use,
        sha256=manifest_digest(data),
        weights_sha256=weights.sha256,
        finding=manifest.finding,
        parameters={
            "threshold": f"{manifest.postprocess.threshold:g}",
            "min_component_ml": f"{manifest.postprocess.min_component_ml:g}",
            **({"within": within} if (within := manifest.postprocess.within) else {}),
        },
    )
    return ModelPackage(folder, manifest, identity)


def entry_for(folder: Path, name: str) -> FileEntry:
    """Describe a file for a manifest that is being written."""
    return FileEntry(path=name, sha256=_digest(folder / name))


def digest_of(digests: Iterable[str]) -> str:
    """One digest of the digests of several files, in their order."""
    return hashlib.sha256(":".join(digests).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``model.yaml``; what is as by default is left out."""
    dump_manifest(folder, manifest.model_dump(by_alias=True, mode="json", exclude_defaults=True))


def dump_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``model.yaml`` that may have mistakes, in this order and without aliases."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with (folder / MANIFEST).open("w") as file:
        yaml.dump(json.loads(json.dumps(content)), file)


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


def manifest_digest(data: bytes) -> str:
    """Digest of a manifest without its status, which changes while the model stays the same."""
    return hashlib.sha256(STATUS_LINES.sub(b"", data)).hexdigest()


@lru_cache(maxsize=PARSED)
def _parse(folder: Path, data: bytes) -> Manifest:
    path = folder / MANIFEST
    content = parse_yaml(path, data)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        told = every_mistake(error)
        known = " ".join(told)
        if isinstance(content, dict):
            told += [text for text in contradictions(content) if text not in known]
        raise BrokenPackage(f"{path} is not a manifest: {some_of(told)}.", told) from error


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
    except UnicodeDecodeError as error:
        raise BrokenPackage(f"{path} is not YAML in UTF-8.") from error
    except (ValueError, LookupError, ArithmeticError) as error:
        raise BrokenPackage(
            f"{path} holds a number or date that makes no sense; put it in quotes if it is a text."
        ) from error
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


def every_mistake(error: ValidationError) -> list[str]:
    """Name everything that is wrong and where, without the values."""
    return [
        f"{'.'.join(map(str, item['loc']))[:80] or 'content'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]


def mistakes(error: ValidationError) -> str:
    """Name what is wrong and where in one sentence."""
    return some_of(every_mistake(error))


def some_of(told: list[str]) -> str:
    """Join the first mistakes and count the others."""
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
    code = {entry.path for entry in manifest.files.code}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in CODE and name not in code:
            raise BrokenPackage(f"{path} is code that the manifest does not name.")
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
