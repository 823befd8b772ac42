"""Secrets that a configuration file refers to, and URLs that hold them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from pydantic import ValidationInfo

from node.config.quantities import text

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")


def expand(written: str, folder: Path) -> str:
    """Put what ``${env:NAME}`` and ``${file:PATH}`` refer to in their place.

    A reference within a longer text is percent-encoded, so that a password may hold any
    character of a URL.

    Raises
    ------
    ValueError
        The variable is not set, or the file cannot be read.
    """
    whole_text = _REFERENCE.fullmatch(written) is not None

    def secret(match: re.Match[str]) -> str:
        found = _secret(match[1], match[2].strip(), folder)
        return found if whole_text else quote(found, safe="")

    return _REFERENCE.sub(secret, written)


def _secret(kind: str, name: str, folder: Path) -> str:
    if kind == "env":
        if name not in os.environ:
            raise ValueError(f"The environment variable {name} is not set.")
        return os.environ[name]
    try:
        return (folder / name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The secret file {name} cannot be read.") from error


def url(schemes: tuple[str, ...], value: object, info: ValidationInfo) -> str:
    """URL of one of some schemes, its references put in."""
    folder: Path = info.context["folder"] if info.context else Path()
    found = expand(text(value), folder)
    scheme, separator, _ = found.partition("://")
    if not separator or scheme not in schemes:
        wants = ", ".join(f"{known}://" for known in schemes)
        raise ValueError(f"This URL must start with one of: {wants}.")
    return found


def secret(value: object, info: ValidationInfo) -> str:
    """Read a secret that stands outside the file.

    Raises
    ------
    ValueError
        It stands in the file itself, or what is referred to is not there.
    """
    written = text(value)
    if _REFERENCE.fullmatch(written) is None:
        raise ValueError("A secret does not belong here. Write ${file:PATH} or ${env:NAME}.")
    folder: Path = info.context["folder"] if info.context else Path()
    found = expand(written, folder).strip()
    if not found:
        raise ValueError("The secret is empty.")
    return found
