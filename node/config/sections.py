"""Sections of the configuration file, as frozen values; the annotations are the schema."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.base import CLOSED, DAY_SECONDS, Flag, Name, Seconds, Text
from node.config.completion import Completion
from node.config.peers import AETitle, FilePath, Host, path, paths
from node.config.quantities import (
    FreeSpace,
    WordList,
    free_space,
    scalar,
    size_bytes,
    size_or_off,
    text,
    texts,
    whole,
    word,
)
from node.config.secrets import url

PYDICOM_UID_ROOT = "1.2.826.0.1.3680043.8.498."
MAX_UID_ROOT_CHARACTERS = 38
"""So that 26 digits of a digest, more than 80 bits, remain."""

_DATABASES = ("sqlite", "postgresql+psycopg")
_BROKERS = ("amqp", "amqps", "redis", "rediss")


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


def _database(value: object, info: ValidationInfo) -> str:
    return url(_DATABASES, value, info)


def _broker(value: object, info: ValidationInfo) -> str:
    return "sql" if scalar(value) == "sql" else url(_BROKERS, value, info)


def _listen(value: object) -> object:
    if isinstance(value, dict):
        return value
    word("off", "no", "false")(value)
    return None


def _health(value: object) -> object:
    if isinstance(value, dict):
        return value
    word("off", "no", "false")(value)
    return None


_OwnPort = Annotated[int, BeforeValidator(whole(0, 65535))]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class Listen:
    """Where the node waits for associations; port 0 takes any free one."""

    __pydantic_config__ = CLOSED

    host: Host = "0.0.0.0"  # noqa: S104 an Application Entity is there to be reached
    port: _OwnPort = 11112


@dataclass(frozen=True)
class TLS:
    """Where connections begin with TLS, and the files (PEM) that this needs."""

    __pydantic_config__ = CLOSED

    certificate: FilePath
    key: FilePath
    authorities: FilePath
    host: Host = "0.0.0.0"  # noqa: S104 as for listen
    port: _OwnPort = 2762


@dataclass(frozen=True)
class Health:
    """Where health and metrics are shown."""

    __pydantic_config__ = CLOSED

    host: Host = "127.0.0.1"
    port: _OwnPort = 8088


@dataclass(frozen=True)
class Disk:
    """Marks on the disk of the data folder; below `refuse_free` objects get 0xA700.

    `ballast_bytes` are kept by a file that is given up when the disk is full; 0: none.
    """

    __pydantic_config__ = CLOSED

    warn_free: Annotated[FreeSpace | None, BeforeValidator(free_space)] = None
    refuse_free: Annotated[FreeSpace, BeforeValidator(free_space)] = field(
        default_factory=lambda: FreeSpace(percent=5.0)
    )
    ballast_bytes: Annotated[int, BeforeValidator(size_or_off), Field(alias="ballast")] = (
        256 * 10**6
    )


@dataclass(frozen=True)
class Store:
    """How received objects are kept.

    ``files``: each in a file. ``arena``: small ones in large files that are used again, which is
    faster where every object is flushed to disk; `ready_bytes` is kept prepared. The data folder
    must then be on a local disk.
    """

    __pydantic_config__ = CLOSED

    kind: Annotated[Literal["files", "arena"], BeforeValidator(word("files", "arena"))] = "files"
    ready_bytes: Annotated[int, BeforeValidator(size_bytes), Field(alias="ready")] = 256 * 10**6


@dataclass(frozen=True)
class Workers:
    """How many worker processes; `infer` counts devices."""

    __pydantic_config__ = CLOSED

    cpu: Annotated[int, BeforeValidator(whole(1, 256))] = 1
    infer: Annotated[int, BeforeValidator(whole(1, 64))] = 1


@dataclass(frozen=True)
class Memory:
    """Most memory one step may take; and the receiver, for what it reads from the network."""

    __pydantic_config__ = CLOSED

    step_bytes: Annotated[int, BeforeValidator(size_bytes), Field(alias="step")] = 8 * 10**9
    receive_bytes: Annotated[int, BeforeValidator(size_bytes), Field(alias="receive")] = 64 << 20


@dataclass(frozen=True)
class NodeSection:
    """What this Application Entity is.

    Parameters
    ----------
    ae_title : str
    station : str
        Stable id of this node in results; the host name where the file does not say.
    listen : Listen or None
        None: off, where there is `tls`.
    tls : TLS or None
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
    store : Store
    disk : Disk
    workers : Workers
    memory : Memory
    log_level : str
    max_associations : int
    on_conflict : str
        What to do with other bytes under the UID of an instance that we hold.
    storage_commitment : bool
        Whether we vouch for what we hold (PS3.4 annex J), for as long as we keep it.
    """

    __pydantic_config__ = CLOSED

    ae_title: AETitle
    station: Annotated[str, BeforeValidator(_station)] = field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]
    )
    listen: Annotated[Listen | None, BeforeValidator(_listen)] = field(default_factory=Listen)
    tls: TLS | None = None
    data_folder: Annotated[Path, BeforeValidator(path), Field(alias="data")] = Path("node-data")
    database_url: Annotated[str, BeforeValidator(_database), Field(alias="database")] = field(
        default="", repr=False
    )
    broker_url: Annotated[str, BeforeValidator(_broker), Field(alias="broker")] = field(
        default="sql", repr=False
    )
    health: Annotated[Health | None, BeforeValidator(_health)] = field(default_factory=Health)
    uid_root: Annotated[str, BeforeValidator(_uid_root)] = PYDICOM_UID_ROOT
    accept_from: Annotated[tuple[str, ...] | None, BeforeValidator(texts)] = None
    store: Store = field(default_factory=Store)
    disk: Disk = field(default_factory=Disk)
    workers: Workers = field(default_factory=Workers)
    memory: Memory = field(default_factory=Memory)
    log_level: Annotated[LogLevel, BeforeValidator(word("debug", "info", "warning", "error"))] = (
        "info"
    )
    max_associations: Annotated[int, BeforeValidator(whole(1, 10000))] = 64
    on_conflict: Annotated[
        Literal["keep_first", "refuse", "replace"],
        BeforeValidator(word("keep_first", "refuse", "replace")),
    ] = "keep_first"
    storage_commitment: Flag = False


@dataclass(frozen=True)
class ModelsSection:
    """Folders that hold model packages, beside those that come with scorenode."""

    __pydantic_config__ = CLOSED

    folders: Annotated[tuple[Path, ...], BeforeValidator(paths)] = ()
    trust: Mapping[Name, Annotated[str, BeforeValidator(word("code"))]] = field(
        default_factory=dict
    )


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
    failed_seconds: Annotated[Seconds, Field(alias="failed")] = 14 * DAY_SECONDS
    audit_seconds: Annotated[Seconds, Field(alias="audit")] = 7 * 365 * DAY_SECONDS


def _webhook(value: object, info: ValidationInfo) -> str:
    return url(("https", "http"), value, info)


OCCASIONS = ("held", "failed", "delivery_late", "disk_low")


@dataclass(frozen=True)
class Silence:
    """What must not be silent for longer than a while: a peer or a rule."""

    __pydantic_config__ = CLOSED

    longer_than_seconds: Annotated[Seconds, Field(alias="longer_than")]
    peer: Text | None = None
    rule: Name | None = None


def _silences(value: object) -> object:
    return [value] if isinstance(value, dict) else value


@dataclass(frozen=True)
class Alerts:
    """Who is told of what, without patient data."""

    __pydantic_config__ = CLOSED

    webhook: Annotated[str, BeforeValidator(_webhook)] = field(default="", repr=False)
    send_when: Annotated[tuple[str, ...], BeforeValidator(WordList(OCCASIONS))] = OCCASIONS
    silence: Annotated[tuple[Silence, ...], BeforeValidator(_silences)] = ()


SECTIONS: Mapping[str, type] = {
    "node": NodeSection,
    "completion": Completion,
    "models": ModelsSection,
    "unmatched": Unmatched,
    "retention": Retention,
    "alerts": Alerts,
}
"""Sections that hold one value each; ``peers``, ``tables`` and ``rules`` hold many."""
