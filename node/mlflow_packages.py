"""Model packages and trainings on an MLflow server."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from models.base import BrokenPackage
from models.catalogue import MANIFEST
from models.loading import open_package, read_any
from models.manifest import FileEntry
from models.package import MOST_MANIFEST_BYTES, manifest_bytes, parse_yaml, verify
from node.mlflow_server import MLflowError, MLflowServer, Run, flat

EXPERIMENT = "scorenode"
UNDER = "model"
"""Folder of a run's files in which its package is."""
MOST_BYTES = 16 << 30
_STEP = re.compile(r"step (\d+), loss ([0-9.]+)")
_EVERY_SECONDS = 2.0
_SHARE = 50.0
"""Telling takes at most one part in so many of the time of a training."""


@dataclass
class LoggedTraining:
    """A training that is written to a server while it goes on.

    Parameters
    ----------
    server : MLflowServer
    run : Run
    clock : callable
        Seconds, from any start.
    """

    server: MLflowServer
    run: Run
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=0.0)

    @classmethod
    def begin(cls, server: MLflowServer, name: str, params: Mapping[str, object]) -> LoggedTraining:
        """Begin a run of the experiment ``scorenode``."""
        return cls(server, server.begin(EXPERIMENT, name, params))

    def following(self, move: Callable[[float, str], None]) -> Callable[[float, str], None]:
        """Give a progress callback that also tells the server the loss, now and then.

        A server that is away for a while costs points of the curve, not the training; one that
        is slow is told less often.
        """

        def told(done: float, note: str) -> None:
            move(done, note)
            step = _STEP.fullmatch(note)
            began = self.clock()
            if step and began >= self._next:
                with contextlib.suppress(MLflowError):
                    self.server.log(self.run, {"loss": float(step[2])}, int(step[1]))
                took = self.clock() - began
                self._next = began + max(_EVERY_SECONDS, _SHARE * took)

        return told

    def finish(self, package: Path, metrics: Mapping[str, Any]) -> str:
        """Store package and figures, and register it under its family; ``models:/NAME/VERSION``."""
        self.server.log(self.run, flat(metrics))
        source = self.server.put(self.run, package, UNDER)
        name = read_any(package).identity.family
        version = self.server.register(name, self.run, source)
        self.server.end(self.run)
        return f"models:/{name}/{version}"


def fetch_package(server: MLflowServer, model: str, out: Path) -> str:
    """Fetch the package of a registered model; the digest of its manifest.

    Only the manifest and what it names is fetched, and compared with its digests. An ``MLmodel``
    and the pickles it may name are left where they are.

    Parameters
    ----------
    model : str
        ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
    out : Path
        The new package, there only when all of it is right.

    Raises
    ------
    MLflowError
        The server cannot be used, or has no such model or file.
    BrokenPackage
        What it has is no package, or not what its manifest says.
    """
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise BrokenPackage(f"{out} is there already and not empty.")
    source = server.source_of(model)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        server.fetch(f"{source}/{MANIFEST}", MOST_MANIFEST_BYTES, part / MANIFEST)
        for entry in _entries(part):
            server.fetch(f"{source}/{entry.path}", MOST_BYTES, part / entry.path)
            verify(part, entry)
        digest: str = open_package(part).identity.sha256
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return digest


def _entries(folder: Path) -> list[FileEntry]:
    """Files that a manifest names, of whatever kind the model is."""
    content = parse_yaml(folder / MANIFEST, manifest_bytes(folder))
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise BrokenPackage(f"{MANIFEST} names no files.")
    found = []
    for value in files.values():
        found += value if isinstance(value, list) else [value]
    try:
        return [FileEntry.model_validate(one) for one in found]
    except ValidationError as error:
        raise BrokenPackage(f"{MANIFEST} names a file in a way that is not allowed.") from error
