"""GMLVQ on disk: arrays as safetensors, the rest as JSON; nothing that could run code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.base import BrokenPackage
from models.gmlvq_contents import Array, Contents, Header, troubles

ARRAYS, HEADER = "model.safetensors", "model.json"
MOST_ARRAY_BYTES, MOST_HEADER_BYTES = 1 << 30, 1 << 20


def write(folder: Path, contents: Contents) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: np.ascontiguousarray(array) for name, array in contents.arrays.items()})
    digest = hashlib.sha256(data).hexdigest()
    header = contents.header.model_copy(update={"arrays_sha256": digest})
    header = header.model_copy(update={"digest": header.digest_of_rest()})
    (folder / ARRAYS).write_bytes(data)
    (folder / HEADER).write_text(json.dumps(header.model_dump(), indent=1) + "\n")


def read(folder: Path) -> Contents:
    """Read both files and check all that can be checked.

    Raises
    ------
    BrokenPackage
        A file is missing, altered, not of this kind, or does not fit the other.
    """
    header = _header(folder / HEADER)
    data = _bytes(folder / ARRAYS, MOST_ARRAY_BYTES)
    if hashlib.sha256(data).hexdigest() != header.arrays_sha256:
        raise BrokenPackage(f"{folder / ARRAYS} is not the file that {HEADER} was written with.")
    try:
        arrays: dict[str, Array] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BrokenPackage(f"{folder / ARRAYS} is not in the safetensors format.") from error
    # Arrays of a buffer cannot be written to, and may not be aligned.
    contents = Contents(header, {name: array.copy() for name, array in arrays.items()})
    for trouble in troubles(contents):
        raise BrokenPackage(f"{folder}: {trouble}")
    return contents


def _header(path: Path) -> Header:
    data = _bytes(path, MOST_HEADER_BYTES)
    try:
        content = json.loads(data, parse_constant=_refuse_constant)
        header = Header.model_validate(content)
    except ValidationError as error:
        places = sorted({".".join(map(str, item["loc"]))[:80] for item in error.errors()})
        raise BrokenPackage(f"{path} is not as its schema wants: {', '.join(places)}.") from error
    except (ValueError, RecursionError) as error:
        raise BrokenPackage(f"{path} is not JSON.") from error
    if header.digest != header.digest_of_rest():
        raise BrokenPackage(f"{path} was altered: its digest is not that of its content.")
    return header


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON.")


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BrokenPackage(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > most:
        raise BrokenPackage(f"{path} is larger than {most >> 20} MiB.")
    return data
