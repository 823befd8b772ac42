"""Sections of the configuration file, as frozen values; the annotations are the schema."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.quantities import (
    FreeSpace,
    free_space,
    listed,
    scalar,
    size_bytes,
    text,
    texts,
    whole,
    word,
)
from node.config.rules import CLOSED, DAY_SECONDS, INNER, Flag, Seconds

Network = IPv4Network | IPv6Network
ANY_AE_TITLE = "*"
PYDICOM_UID_ROOT = "1.2.826.0.1.3680043.8.498."
MAX_UID_ROOT_CHARACTERS = 38
"""So that 26 digits of a digest, more than 80 bits, remain."""

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_DATABASES = ("sqlite", "postgresql+psycopg")
_BROKERS = ("amqp", "amqps", "redis", "rediss")


def ae_title(value: object) -> str:
    """AE title (VR AE): 1 to 16 printable ASCII characters, no backslash."""
    written = text(value)
    if len(written) > 16:
        raise ValueError(f"'{written[:64]}' has {len(written)} characters; an AE title at most 16.")
    if not re.fullmatch(r"[ -\[\]-~]+", written):
        raise ValueError(f"'{written}' is not an AE title: ASCII letters, digits and signs, no \\.")
    return written


def _ae_titles(value: object) -> tuple[str, ...]:
    titles = tuple(ae_title(item) for item in listed(value))
    if ANY_AE_TITLE in titles and len(titles) > 1:
        raise ValueError("'*' means any AE title, so it stands alone.")
    return titles


def _networks(value: object) -> tuple[Network, ...]:
    return tuple(_network(scalar(item)) for item in listed(value))


def _network(written: str) -> Network:
    try:
        return ip_network(written)
    except ValueError as error:
        near = ""
        try:
            near = f" Did you mean {ip_network(written, strict=False)}?"
        except ValueError:
            near = " Write 10.4.0.0/24."
        raise ValueError(f"'{written[:64]}' is not a network.{near}") from error


def _host(value: object) -> str:
    written = text(value)
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", written):
        raise ValueError(f"'{written[:64]}' is neither a host name nor an IP address.")
    return written


def _path(value: object, info: ValidationInfo) -> Path:
    folder: Path = info.context["folder"] if info.context else Path()
    return folder / Path(text(value)).expanduser()


def _paths(value: object, info: ValidationInfo) -> tuple[Path, ...]:
    return tuple(_path(item, info) for item in listed(value))


def _uid_root(value: object) -> str:
    root = scalar(value).rstrip(".") + "."
    if not re.fullmatch(r"[0-2](\.(0|[1-9][0-9]*))+\.", root):
        raise ValueError(f"'{root[:64]}' is not the root of UIDs: numbers with dots between.")
    if root == "2.25.":
        raise ValueError(
            "2.25. is for UUIDs, and ours are digests. Leave uid_root out, or write your own root."
        )
    if len(root) > MAX_UID_ROOT_CHARACTERS:
        raise ValueError(f"This root is longer than {MAX_UID_ROOT_CHARACTERS} characters.")
    return root


def _station(value: object) -> str:
    written = text(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", written):
        raise ValueError(f"'{written[:64]}' is no station id: letters, digits, . _ -, at most 64.")
    return written


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


def _url(schemes: tuple[str, ...], value: object, info: ValidationInfo) -> str:
    folder: Path = info.context["folder"] if info.context else Path()
    found = expand(text(value), folder)
    scheme, separator, _ = found.partition("://")
    if not separator or scheme not in schemes:
        wants = ", ".join(f"{known}://" for known in schemes)
        raise ValueError(f"This URL must start with one of: {wants}.")
    return found


def _database(value: object, info: ValidationInfo) -> str:
    return _url(_DATABASES, value, info)


def _broker(value: object, info: ValidationInfo) -> str:
    return "sql" if scalar(value) == "sql" else _url(_BROKERS, value, info)


def _health(value: object) -> object:
    if isinstance(value, dict):
        return value
    word("off", "no", "false")(value)
    return None


_Host = Annotated[str, BeforeValidator(_host)]
_AETitle = Annotated[str, BeforeValidator(ae_title)]
_PeerPort = Annotated[int, BeforeValidator(whole(1, 65535))]
_OwnPort = Annotated[int, BeforeValidator(whole(0, 65535))]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class Listen:
    """Where the node waits for associations; port 0 takes any free one."""

    __pydantic_config__ = CLOSED

    host: _Host = "0.0.0.0"  # noqa: S104 an Application Entity is there to be reached
    port: _OwnPort = 11112


@dataclass(frozen=True)
class Health:
    """Where health and metrics are shown."""

    __pydantic_config__ = CLOSED

    host: _Host = "127.0.0.1"
    port: _OwnPort = 8088


@dataclass(frozen=True)
class Disk:
    """Marks on the disk of the data folder; below `refuse_free` objects get 0xA700."""

    __pydantic_config__ = CLOSED

    refuse_free: Annotated[FreeSpace, BeforeValidator(free_space)] = field(
        default_factory=lambda: FreeSpace(percent=5.0)
    )


@dataclass(frozen=True)
class Workers:
    """How many worker processes; `infer` counts devices."""

    __pydantic_config__ = CLOSED

    cpu: Annotated[int, BeforeValidator(whole(1, 256))] = 1
    infer: Annotated[int, BeforeValidator(whole(1, 64))] = 1


@dataclass(frozen=True)
class Memory:
    """Most memory one step may take."""

    __pydantic_config__ = CLOSED

    step_bytes: Annotated[int, BeforeValidator(size_bytes), Field(alias="step")] = 8 * 10**9


@dataclass(frozen=True)
class NodeSection:
    """What this Application Entity is.

    Parameters
    ----------
    ae_title : str
    station : str
        Stable id of this node in results; the host name where the file does not say.
    listen : Listen
    data_folder : Path
        ``/var/lib/scorenode`` where that folder exists, else ``node-data`` beside the file.
    database_url, broker_url : str
        With their secrets put in: not for logs, and not in ``repr``.
    health : Health or None
        None: off.
    uid_root : str
        Ends in a dot.
    accept_from : tuple of str or None
        Peers that may associate; None: all under ``peers``.
    disk : Disk
    workers : Workers
    memory : Memory
    log_level : str
    max_associations : int
    """

    __pydantic_config__ = CLOSED

    ae_title: _AETitle
    station: Annotated[str, BeforeValidator(_station)] = field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]
    )
    listen: Listen = field(default_factory=Listen)
    data_folder: Annotated[Path, BeforeValidator(_path), Field(alias="data")] = Path("node-data")
    database_url: Annotated[str, BeforeValidator(_database), Field(alias="database")] = field(
        default="", repr=False
    )
    broker_url: Annotated[str, BeforeValidator(_broker), Field(alias="broker")] = field(
        default="sql", repr=False
    )
    health: Annotated[Health | None, BeforeValidator(_health)] = field(default_factory=Health)
    uid_root: Annotated[str, BeforeValidator(_uid_root)] = PYDICOM_UID_ROOT
    accept_from: Annotated[tuple[str, ...] | None, BeforeValidator(texts)] = None
    disk: Disk = field(default_factory=Disk)
    workers: Workers = field(default_factory=Workers)
    memory: Memory = field(default_factory=Memory)
    log_level: Annotated[LogLevel, BeforeValidator(word("debug", "info", "warning", "error"))] = (
        "info"
    )
    max_associations: Annotated[int, BeforeValidator(whole(1, 10000))] = 64


@dataclass(frozen=True)
class Address:
    """Where a peer is called."""

    __pydantic_config__ = CLOSED

    host: _Host
    port: _PeerPort
    ae_title: _AETitle


@dataclass(frozen=True)
class Peer:
    """Another Application Entity.

    Parameters
    ----------
    name : str
        Its key in the file.
    address : Address or None
        None: nothing is sent to it.
    sends_as : tuple of str
        Calling AE titles it uses; ``*``: any. Empty: it sends nothing.
    from_networks : tuple of network
        Empty: from anywhere.
    takes_demonstration : bool
        Whether results of demonstration models may go there.
    timeout_seconds : float
        Of connecting to it, and of each answer.
    """

    __pydantic_config__ = CLOSED

    name: Annotated[str, Field(alias=f"{INNER}name")]
    address: Address | None = None
    sends_as: Annotated[tuple[str, ...], BeforeValidator(_ae_titles)] = ()
    from_networks: Annotated[tuple[Network, ...], BeforeValidator(_networks)] = ()
    takes_demonstration: Flag = False
    timeout_seconds: Annotated[Seconds, Field(alias="timeout")] = 30.0


@dataclass(frozen=True)
class Completion:
    """When a series counts as complete without evidence, and when at the latest."""

    __pydantic_config__ = CLOSED

    quiet_seconds: Annotated[Seconds, Field(alias="quiet")] = 45.0
    max_wait_seconds: Annotated[Seconds, Field(alias="max_wait")] = 1200.0


@dataclass(frozen=True)
class ModelsSection:
    """Folders that hold model packages, beside those that come with scorenode."""

    __pydantic_config__ = CLOSED

    folders: Annotated[tuple[Path, ...], BeforeValidator(_paths)] = ()


@dataclass(frozen=True)
class Unmatched:
    """How long series are kept that no rule wanted."""

    __pydantic_config__ = CLOSED

    keep_seconds: Annotated[Seconds, Field(alias="keep")] = 3 * DAY_SECONDS


@dataclass(frozen=True)
class Retention:
    """How long inputs and results are kept after their job ended."""

    __pydantic_config__ = CLOSED

    inputs_seconds: Annotated[Seconds, Field(alias="inputs")] = 7 * DAY_SECONDS
    results_seconds: Annotated[Seconds, Field(alias="results")] = 30 * DAY_SECONDS


SECTIONS: Mapping[str, type] = {
    "node": NodeSection,
    "completion": Completion,
    "models": ModelsSection,
    "unmatched": Unmatched,
    "retention": Retention,
}
"""Sections that hold one value each; ``peers`` and ``rules`` hold many."""
