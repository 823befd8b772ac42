"""The supervisor: starts the processes of a node, watches them, starts them again.

It has no torch, no sockets, no threads and no database connection of its own once they run: each
process is a fork of it that has everything imported. The receiver comes first, alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import structlog

from node.config.file import Config
from node.config.problems import ConfigError
from node.processes import forked
from node.reload import LOCK, activate, successor, tell_loaded, tell_refused
from node.roles import ROLES
from storage.base import LOG_LOST

LONGEST_BACKOFF_SECONDS = 60.0
STEADY_SECONDS = 30.0
"""A process that ran this long starts again at once when it ends."""
STOP_SECONDS = 30.0
ALONE_SECONDS = 5.0
"""So long the others wait for the receiver to listen."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FORK = multiprocessing.get_context("fork")
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15

log = structlog.get_logger()


class AlreadyRunning(Exception):
    """Raised when another supervisor holds the data folder."""


@dataclass
class _Child:
    """One process to be kept alive."""

    role: str
    number: int
    process: ForkProcess | None = None
    heard: Connection | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"

    def send(self, number: signal.Signals) -> None:
        """Pass a signal on, unless it ended meanwhile."""
        if self.process is not None and self.process.exitcode is None:
            os.kill(self.process.pid or 0, number)

    def is_starting(self) -> bool:
        """Whether it runs and has not said yet that it does its work."""
        if self.process is None or self.heard is None:
            return False
        if time.monotonic() - self.started > ALONE_SECONDS or self.heard.poll():
            self.heard.close()
            self.heard = None
        return self.heard is not None


@dataclass
class Supervisor:
    """Keeps the processes of the given roles alive until told to stop.

    Parameters
    ----------
    config : Config
    roles : sequence of str
        Some of `ROLES`; roles can be spread over hosts that share database and data folder.
    lock : int
        Descriptor of `lock_data_folder`, which no other process may keep open.
    """

    config: Config
    roles: Sequence[str] = ROLES
    lock: int = -1
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
        gc.freeze()  # what is imported is shared by all processes: no collection touches it
        gc.enable()
        try:
            self._keep_alive()
        finally:  # nobody else would end them: not even the end of this process
            self._stop_all()
            self._active.unlink(missing_ok=True)
        log.info("node.stopped")

    def _keep_alive(self) -> None:
        while not self.stopping.wait(0.0 if self._is_new() else 0.1):
            if self._reload:
                self._reload = False
                self._apply_reload()
            for child in self._children:
                self._watch(child)
                if child.role == "receiver" and child.is_starting():
                    break

    def _is_new(self) -> bool:
        return not any(child.started for child in self._children)

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
                child.send(signal.SIGHUP if hang_up else signal.SIGTERM)

    def _watch(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.exitcode
            if code is None:
                return
            steady = now - child.started > STEADY_SECONDS or code == 0
            child.failures = 0 if steady else child.failures + 1
            child.not_before = now + _backoff(child.failures)
            child.process = None
            log.warning("process.ended", process=child.name, status=code, failures=child.failures)
            if code == LOG_LOST:
                self._stop_all()  # in order, which brings the rows into the database; then anew
        if now >= child.not_before:
            try:
                child.process = self._start(child)
            except OSError as error:
                child.failures += 1
                child.not_before = now + _backoff(child.failures)
                log.error("process.not_started", process=child.name, error=type(error).__name__)
            child.started = now

    def _start(self, child: _Child) -> ForkProcess:
        log.info("process.started", process=child.name)
        child.heard, told = _FORK.Pipe(duplex=False)
        arguments = (child.role, self.config.path, self._active, told)
        process = _FORK.Process(target=self._run_child, args=arguments, name=child.name)
        # One that comes while the child has our handlers would be lost: it waits.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            told.close()
        return process

    def _run_child(self, role: str, config: Path, active: Path, told: Connection) -> None:
        """Run a role in the fork: it dies with its parent, and ``ps -o comm`` tells its role."""
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NAME, f"sn-{role}".encode())
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if self.lock >= 0:
            os.close(self.lock)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():
            return  # it died before we asked to die with it
        forked(role, config, active, told.close)

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
                process.join(max(0.0, end - time.monotonic()))
                if process.exitcode is None:
                    process.kill()
                    process.join()


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
