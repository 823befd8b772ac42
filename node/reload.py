"""The configuration that is in use, apart from the file that an admin edits.

The supervisor checks a file completely, then copies it beside the data in one rename. Its
processes read the copy, also when one of them starts again: a file that is being edited, or that
has mistakes, never reaches them.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from models.catalogue import list_packages
from node.config.file import Config, check, load
from node.config.problems import ConfigError, Problem
from node.job_opening import model_cards
from node.parts import database_url
from pipelines.catalogue import PIPELINES
from storage.base import StoreUnavailable
from storage.database import Database
from storage.events import raise_alert, record, resolve_alert

LOCK = "node.lock"
_ALERT = "config.refused"


def checked(path: Path) -> Config:
    """Read a file that is to be used, and check it against what is installed.

    Raises
    ------
    ConfigError
        With every mistake.
    """
    config = load(path)
    packages = list_packages(config.models.folders)
    problems = check(
        path, pipelines=set(PIPELINES), models=set(packages), cards=model_cards(packages)
    )
    wrong = [problem for problem in problems if problem.severity == "error"]
    if wrong:
        raise ConfigError(wrong)
    return config


def successor(config: Config) -> Config:
    """Read the file of a running configuration again.

    Raises
    ------
    ConfigError
        It has mistakes, or changes what only a restart can change.
    """
    new = checked(config.path)
    for key, name in (("data_folder", "data"), ("database_url", "database"), ("store", "store")):
        if getattr(new.node, key) != getattr(config.node, key):
            sentence = "This changes only when the node is started again."
            raise ConfigError([Problem(str(config.path), 0, f"node.{name}", sentence)])
    return new


def active_copy(folder: Path, process: int) -> Path:
    """Name the copy that the processes of a supervisor read."""
    return folder / "config" / f"active-{socket.gethostname()}-{process}.yaml"


def activate(config: Config) -> Path:
    """Put a checked file where the processes read it; the path of that copy.

    The name holds host and process, so that supervisors which share a data folder keep apart.
    """
    target = active_copy(config.node.data_folder, os.getpid())
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_killed(target.parent)
    part = target.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(config.content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)
    return target


def _forget_killed(folder: Path) -> None:
    """Remove the copies of supervisors of this host that were killed: they may hold secrets."""
    for path in folder.glob(f"active-{socket.gethostname()}-*"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit() and not Path("/proc", number).exists():
            path.unlink(missing_ok=True)


def tell_refused(config: Config, error: ConfigError) -> None:
    """Raise an alert: the old configuration stays in use."""
    first = error.problems[0]
    sentence = (
        f"The configuration has {len(error.problems)} mistakes and was not loaded; the old one "
        f"stays in use. The first is in line {first.line}, {first.where}."
    )
    database = Database(database_url(config))
    try:
        with database.transaction() as tx:
            raise_alert(tx, _ALERT, sentence)
            record(tx, _ALERT, problems=len(error.problems), config=config.digest)
    except StoreUnavailable:
        return
    finally:
        database.close()


def tell_loaded(config: Config) -> None:
    """Close that alert, and write down which configuration is in use from now on."""
    database = Database(database_url(config))
    try:
        with database.transaction() as tx:
            resolve_alert(tx, _ALERT)
            record(tx, "config.loaded", config=config.digest)
    except StoreUnavailable:
        return
    finally:
        database.close()


def supervisor_of(folder: Path) -> int | None:
    """Process id of the supervisor that holds a data folder; None where none does."""
    try:
        with (folder / LOCK).open("rb") as file:
            written = file.read(32)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(written) if written.strip().isdigit() else None
    except OSError:
        return None
    return None
