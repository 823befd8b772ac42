"""What is understood of a model of others, before it is a package."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.base import BrokenPackage

MOST_BYTES = 8 << 20
MOST_CHARACTERS = 64


@dataclass
class Draft:
    """What was understood of a foreign model.

    Parameters
    ----------
    name, version, title, licence : str
    architecture : dict
        Content of ``arch.json``.
    weights : bytes
        Safetensors.
    labels : dict
        Number of a structure to its name, from 1.
    channels : list of str
        Names of the inputs.
    modality : str
        DICOM's word; empty where it is not told.
    preprocess : list
        Steps of a manifest.
    inference : dict
    activation : str
    source : dict
    remarks : list of str
        What was not understood, for the person who finishes the package.
    as_they_lay : bool
        The model saw its images as they lay in their files: an image of its training tells how.
    """

    name: str
    version: str
    title: str
    licence: str
    architecture: dict[str, Any]
    weights: bytes
    labels: dict[int, str]
    channels: list[str]
    modality: str
    preprocess: list[dict[str, Any]]
    inference: dict[str, Any]
    activation: str
    source: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    as_they_lay: bool = False


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a foreign model; BrokenPackage when it is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("too large")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenPackage(f"{path} cannot be read as JSON.") from error
    if not isinstance(found, dict):
        raise BrokenPackage(f"{path} is no JSON object.")
    return found


def plain_name(text: object) -> str:
    """Name fit for a family: letters, digits, dots and dashes."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-.")[:MOST_CHARACTERS]
    return found or "model"


def plain_version(text: object) -> str:
    """Version of three numbers, from whatever is there."""
    numbers = re.findall(r"\d+", str(text))[:3]
    return ".".join([*numbers, "0", "0", "0"][:3])


def plain_word(text: object) -> str:
    """Name of an input: a letter, then letters, digits, _ and -."""
    found = re.sub(r"[^A-Za-z0-9_-]+", "_", str(text)).strip("_-").lower()[:MOST_CHARACTERS]
    return found if found[:1].isalpha() else f"input_{found}"
