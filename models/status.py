"""Whether a package may be used: active, recalled or withdrawn; it is in its ``model.yaml``.

The status is no part of what a model is: its digest leaves it out (`models.package`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.base import BrokenPackage, Recalled
from models.catalogue import MANIFEST, list_packages
from models.package import STATUS_LINES, manifest_bytes, parse_yaml, refuse_recalled


def status_of(folder: Path) -> tuple[str, str]:
    """Status of a package of any kind, and why; only the manifest is read.

    Raises
    ------
    BrokenPackage
        There is no manifest that can be read.
    """
    data = manifest_bytes(folder)
    if b"status" not in data:
        return "active", ""
    content = parse_yaml(folder / MANIFEST, data)
    if not isinstance(content, dict):
        raise BrokenPackage(f"{folder / MANIFEST} is not a manifest.")
    return str(content.get("status", "active")), str(content.get("status_reason", ""))


def set_status(folder: Path, status: str, reason: str) -> None:
    """Write a status into a package; ``active`` takes it out again.

    Raises
    ------
    BrokenPackage
        The manifest cannot be read or written.
    """
    rest = STATUS_LINES.sub(b"", manifest_bytes(folder))
    if rest and not rest.endswith(b"\n"):
        rest += b"\n"
    if status != "active":
        rest += f"status: {status}\nstatus_reason: {_quoted(reason)}\n".encode()
    path, part = folder / MANIFEST, folder / f".{MANIFEST}.part"
    try:
        part.write_bytes(rest)
        part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    except OSError as error:
        raise BrokenPackage(
            f"{path} cannot be written ({error.strerror}); run this as the user it belongs to."
        ) from error


def _quoted(text: str) -> str:
    """Put a text into YAML on one line."""
    return "'" + " ".join(text.split()).replace("'", "''") + "'"


def stopped_models(folders: Iterable[Path]) -> dict[str, str]:
    """Name of each package that is recalled or withdrawn to a sentence about it."""
    found = {}
    for name, folder in list_packages(folders).items():
        try:
            status, reason = status_of(folder)
            refuse_recalled(folder, status, reason)
        except Recalled as error:
            found[name] = str(error)
        except BrokenPackage:
            continue
    return found
