"""The supervisor: starts the processes of a node, watches them, starts them again.

It has no torch, no sockets and no database connection of its own once they run.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from node.config.file import Config
from node.config.problems import ConfigError
from node.reload import LOCK, activate, successor, tell_loaded, tell_refused
from node.roles import ROLES

LONGEST_BACKOFF_SECONDS = 60.0
STEADY_SECONDS = 30.0
"""A process that ran this long starts again at once when it ends."""
STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


class AlreadyRunning(Exception):
    """Raised when another supervisor holds the data folder."""


@dataclass
class _Child:
    """One process to be kept alive."""

    role: str
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"


@dataclass
class Supervisor:
    """Keeps the processes of the given roles alive until told to stop.

    Parameters
    ----------
    config : Config
    roles : sequence of str
        Some of `ROLES`; roles can be spread over hosts that share database and data folder.
    """

    config: Config
    roles: Sequence[str] = ROLES
    stopping: threading.Event = field(default_factory=threading.Event)
    _children: list[_Child] = field(default_factory=list)
    _reload: bool = False
    _active: Path = field(default_factory=Path)

    def run(self) -> None:
        """Start everything; return when stopped and all processes have ended."""
        counts = {"worker": self.config.node.workers.cpu, "infer": self.config.node.workers.infer}
        self._children = [
            _Child(role, number) for role in self.roles for number in range(counts.get(role, 1))
        ]
        self._active = activate(self.config)
        log.info("node.started", roles=list(self.roles), config=self.config.digest)
        while not self.stopping.wait(0.1):
            if self._reload:
                self._reload = False
                self._apply_reload()
            for child in self._children:
                self._watch(child)
        self._stop_all()
        self._active.unlink(missing_ok=True)
        log.info("node.stopped")

    def handle_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, read the configuration again on SIGHUP."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        signal.signal(signal.SIGHUP, self._ask_reload)

    def _ask_reload(self, *_: Any) -> None:
        self._reload = True

    def _apply_reload(self) -> None:
        """Swap the configuration if the new one is good; a bad one leaves the old one active."""
        try:
            new = successor(self.config)
            self._active = activate(new)
        except ConfigError as error:
            log.error("config.refused", problems=len(error.problems), config=self.config.digest)
            tell_refused(self.config, error)
            return
        except OSError as error:
            log.error("config.refused", error=type(error).__name__, config=self.config.digest)
            return
        self.config = new
        log.info("config.loaded", config=new.digest)
        tell_loaded(new)
        for child in self._children:
            if child.process is not None:
                # A receiver reads it itself and keeps its associations; the others start anew.
                hang_up = child.role == "receiver"
                child.process.send_signal(signal.SIGHUP if hang_up else signal.SIGTERM)

    def _watch(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            steady = now - child.started > STEADY_SECONDS or code == 0
            child.failures = 0 if steady else child.failures + 1
            child.not_before = now + _backoff(child.failures)
            child.process = None
            log.warning("process.ended", process=child.name, status=code, failures=child.failures)
        if now >= child.not_before:
            try:
                child.process = self._start(child)
            except OSError as error:
                child.failures += 1
                child.not_before = now + _backoff(child.failures)
                log.error("process.not_started", process=child.name, error=type(error).__name__)
            child.started = now

    def _start(self, child: _Child) -> subprocess.Popen[bytes]:
        log.info("process.started", process=child.name)
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "node.processes",
                child.role,
                str(self.config.path),
                str(self._active),
            ],
            preexec_fn=_die_with_parent,
        )

    def _stop_all(self) -> None:
        """Receivers first, so that nothing new comes in; then the others; then kill."""
        for roles in (("receiver",), ROLES[1:]):
            running = [
                child.process
                for child in self._children
                if child.role in roles and child.process is not None
            ]
            for process in running:
                process.terminate()
            end = time.monotonic() + STOP_SECONDS
            for process in running:
                try:
                    process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def lock_data_folder(folder: Path) -> int:
    """Keep a second supervisor off the same data folder; the descriptor holds the lock.

    Raises
    ------
    AlreadyRunning
    """
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise AlreadyRunning(
            f"Another scorenode runs on the data folder {folder}. Stop it first, "
            "or give this one its own node.data."
        ) from error
    os.ftruncate(fd, 0)
    os.write(fd, str(os.getpid()).encode())
    return fd


def _backoff(failures: int) -> float:
    return 0.0 if failures == 0 else min(2.0 ** (failures - 1), LONGEST_BACKOFF_SECONDS)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
