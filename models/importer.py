"""Conversion of foreign weights to safetensors, in a process of its own that is shut in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base import BrokenPackage

MOST_BYTES = 16 << 30
SECONDS = 600
SHARE = 0.8
"""Of the memory that is free, the most that a conversion may take."""
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Imported:
    """What a foreign file held.

    Parameters
    ----------
    safetensors : bytes
    facts : dict
        Plain values beside the weights.
    """

    safetensors: bytes
    facts: dict[str, Any]


def import_weights(source: Path, memory_bytes: int | None = None) -> Imported:
    """Convert a file of weights; nothing in it runs, and nothing it could run would reach out.

    The child has no network, starts no programs, writes no files but its output, and is limited
    in memory and time.

    Parameters
    ----------
    source : Path
        One of `models.foreign_weights.READABLE`.
    memory_bytes : int or None
        The most the child may take; None: a share of what is free here.

    Raises
    ------
    BrokenPackage
        The file holds something else than tensors, or cannot be read safely.
    """
    if not source.is_file():
        raise BrokenPackage(f"There is no file {source}.")
    with tempfile.TemporaryFile(prefix="scorenode-import-") as out:
        most = memory_bytes or most_memory()
        command = [sys.executable, "-m", "models.importing_child", str(source.resolve())]
        environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
        try:
            done = subprocess.run(
                [*command, str(out.fileno()), str(most)],
                capture_output=True,
                check=False,
                timeout=SECONDS,
                pass_fds=[out.fileno()],
                env=environment | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        except subprocess.TimeoutExpired as error:
            raise BrokenPackage(
                f"{source.name} was not converted within {SECONDS} s and was stopped."
            ) from error
        answer = _answer(done.stdout)
        facts = (answer or {}).get("facts")
        if done.returncode or not isinstance(facts, dict):
            why = (answer or {}).get("error") or _ending(done.returncode)
            raise BrokenPackage(f"{source.name} was not imported: {why}")
        out.seek(0)
        data = out.read(MOST_BYTES + 1)
    return Imported(_checked(source, data), facts)


def _ending(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "the system ended the importer, most likely for want of memory."
    return f"the importer ended with {returncode}."


def most_memory() -> int:
    """Bytes that a conversion may take: a share of what is free here, or in the container."""
    import torch

    from models.memory import free_bytes

    return int(SHARE * free_bytes(torch.device("cpu")))


def _answer(text: bytes) -> dict[str, Any] | None:
    """Read the child's last line, which is all it may say."""
    lines = text.splitlines()
    try:
        found = json.loads(lines[-1][: 1 << 20])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _checked(source: Path, data: bytes) -> bytes:
    """Make sure that what came out is safetensors: the child is not believed."""
    from safetensors import SafetensorError
    from safetensors.torch import load  # numpy has no bfloat16

    try:
        load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BrokenPackage(f"{source.name} did not become safetensors.") from error
    return data
