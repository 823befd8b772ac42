"""A node as an admin runs it: ``scorenode serve`` in processes of its own, beside real peers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.config.file import load
from node.parts import database_url
from node.scu import Destination, echo
from storage import queries
from storage.base import StoreUnavailable
from storage.database import Database
from tests import privacy
from tests.ports import free_port
from tests.tools import tool

PATIENT_NAME = "Jürgensen^Planted"
PATIENT_ID = "PLANTED-ID-4711"
PATIENT_BIRTH_DATE = "19330517"
START_SECONDS = 240.0
WORK_SECONDS = 180.0


def until(condition: Callable[[], bool], what: str, seconds: float = WORK_SECONDS) -> None:
    """Wait for a condition, with a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for: {what}"
        time.sleep(0.1)


@dataclass
class NodeUnderTest:
    """A running node; `log_text` is all it ever said."""

    folder: Path
    destination_port: int
    destination_ae_title: str = "PACS"
    database: str = ""
    broker: str = "sql"
    store_kind: str = "files"
    quiet: str = "1s"
    when: str = "{ Modality: CT }"
    rules: str = ""
    """In place of the rule for head CT: tables and rules."""
    refuse_free: str = "1MB"
    peers: str = ""
    rule: str = ""
    """More lines of the peers, and of the rule."""
    confirm: bool = False
    data: Path | None = None
    run: str = "{ pipeline: haemorrhage, model: haemorrhage-demo, timeout: 5m }"
    models: str = ""
    port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.data or self.folder / "node-data"
        self.write_config()
        privacy.LOGS.append(self.log)

    @property
    def config(self) -> Path:
        return self.folder / "scorenode.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    @property
    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def write_config(self) -> None:
        """Write the configuration an admin would write for this test."""
        database = f"database: {self.database}" if self.database else ""
        reports = confirm = ""
        if self.confirm:
            reports = "sends_as: [PACS], supports: { commitment: yes, find: yes },"
            confirm = "confirm: [commitment, find]"
        models = f"models: {self.models}" if self.models else ""
        self.config.write_text(f"""\
schema: 1
node:
  ae_title: SCORENODE
  station: test-node
  listen: {{ host: 127.0.0.1, port: {self.port} }}
  health: {{ host: 127.0.0.1, port: {self.health_port} }}
  data: '{self.data}'
  {database}
  broker: {self.broker}
  store: {{ kind: {self.store_kind}, ready: 64MB }}
  disk: {{ refuse_free: {self.refuse_free} }}
peers:
  SENDER:
    sends_as: [STORESCU, SENDER]
    from_networks: [127.0.0.0/8]
  PACS: {{ address: {{ host: 127.0.0.1, port: {self.destination_port},
                      ae_title: {self.destination_ae_title} }},
          {reports} takes_demonstration: yes, timeout: 10s }}
{self.peers}completion: {{ quiet: {self.quiet}, max_wait: 1m }}
{models}
{self.rules or self._head_ct(confirm)}""")

    def _head_ct(self, confirm: str) -> str:
        return f"""\
rules:
  - name: head-ct
    mode: live
    when: {self.when}
    run: {self.run}
    deliver:
      - to: PACS
        send: [seg, sr, capture]
        series: {{ number: 9101, description: 'AI ICH test' }}
        retry: {{ after: [1s, 1s, 2s] }}
        {confirm}
{self.rule}"""

    def start(self, **environment: str) -> None:
        """Start the node and wait until it answers C-ECHO."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "node", "serve", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=os.environ | {"SCORENODE_FIRST_WAIT": "1"} | environment,
            )
        try:
            until(self.answers, "the node to answer C-ECHO", START_SECONDS)
        except AssertionError:
            self.stop()
            raise

    def answers(self) -> bool:
        """Whether it answers C-ECHO."""
        node = Destination("127.0.0.1", self.port, "SCORENODE", "SENDER", connect_seconds=2.0)
        return echo(node).kind == "sent"

    def stop(self) -> None:
        """Stop it as an admin does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """Kill the supervisor; the kernel ends its children with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            until(lambda: not self.answers(), "the killed node to be gone", 60)

    def hang_up(self) -> None:
        """Ask it to read its configuration again, as an admin may."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def end(self, role: str) -> None:
        """Kill the processes of one role; the supervisor starts them again."""
        for pid in self.started(role):
            os.kill(pid, signal.SIGKILL)

    def started(self, role: str) -> list[int]:
        """Processes of one role, waited for: a node may answer before each of its roles runs."""
        until(lambda: self.pids(role) != [], f"the {role} to start", START_SECONDS)
        return self.pids(role)

    def pids(self, role: str) -> list[int]:
        """Processes of one role."""
        assert self._process is not None
        found = subprocess.run(
            ["pgrep", "-r", "R,S,D", "-P", str(self._process.pid), "-x", f"sn-{role}"],
            capture_output=True,
            check=False,
            text=True,
        )
        return [int(pid) for pid in found.stdout.split()]

    def push(self, folder: Path, *, check: bool = True) -> int:
        """Send a folder with DCMTK's storescu, whatever its transfer syntaxes."""
        privacy.plant(folder)
        command = [tool("storescu"), "-aet", "STORESCU", "-aec", "SCORENODE", "+sd", "+r", "-R"]
        command += ["127.0.0.1", str(self.port), str(folder)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.returncode

    def store(self) -> Database:
        """Open its database."""
        return Database(database_url(load(self.config)))

    def wait_idle(self, series: int = 1, seconds: float = WORK_SECONDS) -> None:
        """Wait until so many series were decided and all jobs have ended."""
        database = self.store()

        def idle() -> bool:
            try:
                with database.snapshot() as tx:
                    rows = queries.series_list(tx)
                    return len(rows) >= series and queries.unfinished(tx) == 0
            except StoreUnavailable:
                return False

        try:
            until(idle, f"{series} series to be decided and their jobs to end", seconds)
        finally:
            database.close()

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line on this node."""
        done = subprocess.run(
            [sys.executable, "-m", "node", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json``; what it printed."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs with their steps, results and deliveries."""
        database = self.store()
        try:
            with database.snapshot() as tx:
                ids = [job["id"] for job in queries.jobs_list(tx)]
                return [queries.job_show(tx, job_id) or {} for job_id in ids]
        finally:
            database.close()
