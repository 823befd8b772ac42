"""Receivers under test: how each is started, and what it uses while it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificate import SelfSigned
from tests.ports import await_port, free_port

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A receiver.

    Parameters
    ----------
    name : str
    command : callable
        From port and folder to what starts it.
    is_peer : bool
        Whether it is somebody else's.
    program : str
        What must be installed.
    tls : callable or None
        From a certificate to the words that are added to the command for TLS; None: it has none,
        or none that is measured.
    """

    name: str
    command: Callable[[int, Path], list[str]]
    is_peer: bool = True
    program: str = ""
    tls: Callable[[SelfSigned], list[str]] | None = None

    @property
    def is_installed(self) -> bool:
        """Whether it can be started here."""
        return not self.program or _found(self.program) is not None


def _found(program: str) -> str | None:
    return shutil.which(program, path="/usr/bin:/usr/sbin:/usr/local/bin")


def _python(module: str, *options: str) -> Callable[[int, Path], list[str]]:
    return lambda port, folder: [sys.executable, "-m", module, str(port), str(folder), *options]


def _storescp(*options: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        return [str(_found("storescp")), "-q", *options, "-od", str(folder), str(port)]

    return command


def _orthanc(**settings: object) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder.parent / f"{folder.name}.json"
        values = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "DicomPort": port,
            "DicomAet": "ANY",
            "DicomCheckCalledAet": False,
            "HttpServerEnabled": False,
            "RemoteAccessAllowed": False,
            "Plugins": [],
        }
        config.write_text(json.dumps(values | settings))
        return [str(_found("Orthanc")), str(config)]

    return command


def _ours_tls(made: SelfSigned) -> list[str]:
    return ["--tls", str(made.certificate), str(made.key)]


def _storescp_tls(made: SelfSigned) -> list[str]:
    return ["+tls", str(made.key), str(made.certificate), "-ic"]


OURS, OURS_FILES, OURS_LOOSE = "ours, durable", "ours, durable, files", "ours, not durable"
PYNETDICOM, ORTHANC, ORTHANC_FAST = "pynetdicom", "Orthanc", "Orthanc, no flush"
STORESCP, STORESCP_DEFAULTS = "storescp", "storescp, defaults"

# Orthanc's defaults flush each file (SyncStorageArea) but not its index: see durability.md.
_FAST = {"SyncStorageArea": False, "StoreMD5ForAttachments": False, "MaximumPduLength": 131_072}

SERVERS = {
    server.name: server
    for server in (
        Server(OURS, _python("benchmarks.ours"), is_peer=False, tls=_ours_tls),
        Server(OURS_FILES, _python("benchmarks.ours", "--store", "files"), is_peer=False),
        Server(
            OURS_LOOSE,
            _python("benchmarks.ours", "--not-durable"),
            is_peer=False,
            tls=_ours_tls,
        ),
        Server(PYNETDICOM, _python("benchmarks.plain_pynetdicom")),
        Server(
            STORESCP,
            _storescp("--fork", "+B", "-pdu", "131072"),
            program="storescp",
            tls=_storescp_tls,
        ),
        Server(STORESCP_DEFAULTS, _storescp("--fork"), program="storescp"),
        Server(ORTHANC, _orthanc(), program="Orthanc"),
        Server(ORTHANC_FAST, _orthanc(**_FAST), program="Orthanc"),
    )
}


@dataclass
class Usage:
    """What a receiver used."""

    cpu_seconds: float = 0.0
    peak_bytes: int = 0


class Running:
    """A receiver that runs, with all its children.

    Parameters
    ----------
    process : Popen
        Leader of a session of its own.
    port : int
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process

    @contextmanager
    def measured(self) -> Iterator[Usage]:
        """Measure what it uses inside the block."""
        usage = Usage()
        stop = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(usage, stop))
        before = self._cpu()
        sampler.start()
        try:
            yield usage
        finally:
            time.sleep(0.1)
            usage.cpu_seconds = self._cpu() - before
            stop.set()
            sampler.join()

    def _sample(self, usage: Usage, stop: threading.Event) -> None:
        while True:
            usage.peak_bytes = max(usage.peak_bytes, sum(map(_resident, self._pids())))
            if stop.wait(0.02):
                return

    def _pids(self) -> list[int]:
        return [pid for pid, session, _ in _processes() if session == self._process.pid]

    def _cpu(self) -> float:
        """Seconds of all processes of the session, and of their children that have ended."""
        return sum(cpu for _, session, cpu in _processes() if session == self._process.pid)

    def stop(self) -> None:
        """End it, by its own ids."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)


def _processes() -> Iterator[tuple[int, int, float]]:
    """Id, session and CPU seconds of each process."""
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        yield int(path.name), int(fields[3]), sum(map(int, fields[11:15])) / _TICKS


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


@contextmanager
def running(
    server: Server, folder: Path, *, nodelay: bool = True, tls: SelfSigned | None = None
) -> Iterator[Running]:
    """Start a receiver with an empty folder; its folder is deleted at the end.

    Parameters
    ----------
    server : Server
    folder : Path
    nodelay : bool
        Whether DCMTK is told to switch Nagle's algorithm off, which it leaves on by default.
    tls : SelfSigned or None
        With what connections begin with TLS.
    """
    port = free_port()
    environment = {**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})}
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(
            server.command(port, folder) + (server.tls(tls) if tls and server.tls else []),
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    found = Running(process, port)
    try:
        try:
            await_port(port)
        except TimeoutError as error:
            said = (folder.parent / f"{folder.name}.log").read_text(errors="replace")[-500:]
            raise TimeoutError(f"{server.name} does not listen: {said or 'no word'}") from error
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)
