"""From a start to listening, and from a last response to the volume in memory.

``python -m benchmarks.latency``: both are what a sender waits for.

A node as an admin runs it (``scorenode serve``, SQLite, everything flushed) gets series of 300 CT
slices, one after the other. The clock starts when the sender has the last response in hand, and
stops when the runner holds the array; between them lie the release, the proof that the series is
complete, the decision, the job, and reading 157 MB of files.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from benchmarks.sender import associate_rq, connect, data_pdus, release, status_of, store_rq
from benchmarks.studies import Prepared, ct, prepared, warm_memory
from storage.database import Database
from storage.tables import Generation, Job, Series, StepRun
from tests.ports import await_port, free_port

SLICES = 300
GOAL_MS = 120.0
STARTS = 7
WARM_BYTES = 768 << 20
"""Objects, and the volume."""
GOAL_START_SECONDS = 1.5
CONFIG = """\
schema: 1
node:
  ae_title: ANY
  listen: {{ host: 127.0.0.1, port: {port} }}
  health: {{ host: 127.0.0.1, port: {health_port} }}
  data: '{data}'
peers:
  SENDER: {{ sends_as: [BLAST], from_networks: [127.0.0.0/8] }}
completion: {{ quiet: 45s, max_wait: 10m }}
rules:
  - name: head-ct
    mode: shadow
    when: {{ Modality: CT }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo, timeout: 5m }}
"""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the last response on.

    Parameters
    ----------
    closed, begun, volume : float
        Until the series was closed and its job committed; until a worker had claimed it; until
        the volume was in the runner's memory.
    """

    closed: float
    begun: float
    volume: float


def main(rounds: int, markdown: Path | None, folder: Path | None) -> None:
    """Measure, print, and write the page."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        starts = [_start_seconds(Path(place)) for _ in range(STARTS)]
    print(f"starts: {starts}", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as place, _node(Path(place)) as (port, database):
        found = []
        for number in range(rounds + 1):
            loads = Path(place) / f"series{number}"
            loads.mkdir()
            ct(loads, SLICES, f"latency{number}")
            instances = list(prepared(sorted(loads.glob("*.dcm"))))
            warm_memory(Path(place), WARM_BYTES)
            latency = _measured(database, number, _sent(port, instances))
            print(f"{number or 'first, not counted'}: {latency}", flush=True)
            found += [latency] if number else []
    page = _page(found, starts)
    print(page)
    if markdown:
        markdown.write_text(page)


def _started(place: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a node as an admin does; its process and port."""
    port, health_port = free_port(), free_port()
    config, data = place / "scorenode.yaml", place / "data"
    config.write_text(CONFIG.format(port=port, health_port=health_port, data=data))
    with (place / "node.log").open("w") as log:
        node = subprocess.Popen(
            [sys.executable, "-m", "node", "serve", "--config", str(config)],
            stdout=log,
            stderr=log,
            env=os.environ,
        )
    return node, port


def _start_seconds(place: Path) -> float:
    """Wall time from the command to the first connection that is taken."""
    began = time.monotonic()
    node, port = _started(place)
    try:
        await_port(port, 60)
        return round(time.monotonic() - began, 2)
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)


@contextmanager
def _node(place: Path) -> Iterator[tuple[int, Database]]:
    node, port = _started(place)
    try:
        await_port(port, 60)
        time.sleep(15)  # runners import what they need in the first seconds
        database = Database(f"sqlite:///{place / 'data' / 'node.db'}")
        yield port, database
        database.close()
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)


def _sent(port: int, instances: list[Prepared]) -> float:
    """Send a series over one association; when its last response was there."""
    one = instances[0]
    connection, most = connect(
        port, associate_rq({1: (one.sop_class_uid, one.transfer_syntax_uid)})
    )
    for number, instance in enumerate(instances, start=1):
        connection.sendall(data_pdus(1, store_rq(instance, number), 1, most))
        connection.sendall(data_pdus(1, instance.data, 0, most))
        if status_of(connection) != 0:
            raise ConnectionError("the node did not take an instance")
    at = time.time()
    release(connection)
    return at


def _measured(database: Database, number: int, sent_at: float) -> Latency:
    """Wait until the convert step of the latest series is written down, and read its times."""
    query = (
        sa.select(Generation.closed_at, StepRun.started_at, StepRun.facts)
        .join(Series, Series.id == Generation.series_id)
        .join(Job, Job.series_id == Series.id)
        .join(StepRun, StepRun.job_id == Job.id)
        .where(StepRun.step == "convert")
        .order_by(StepRun.id)
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with database.snapshot() as tx:
            rows = tx.execute(query).all()
        if len(rows) > number:
            row = rows[number]
            volume_at = datetime.fromisoformat(row.facts["volume_ready_at"])
            return Latency(
                *(
                    round(1000 * (at.timestamp() - sent_at), 1)
                    for at in (row.closed_at, row.started_at, volume_at)
                )
            )
        time.sleep(0.5)
    raise TimeoutError("the series was not converted; see the node's log")


def _page(found: list[Latency], starts: list[float]) -> str:
    today = datetime.now().astimezone().date()
    lines = [
        "# From the last response to the volume",
        "",
        f"Made by `python -m benchmarks.latency` on {today}, {os.cpu_count()} cores; "
        f"{len(found)} series of {SLICES} CT slices (157 MB) each, one association, SQLite, "
        "everything flushed; memory was touched before each. "
        "Milliseconds from the last C-STORE response on.",
        "",
        "| Until | median | 95 % | most |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, text in (
        ("closed", "the series was proved complete and its job committed"),
        ("begun", "a worker had claimed the job"),
        ("volume", "the volume was in the runner's memory"),
    ):
        values = sorted(getattr(latency, name) for latency in found)
        p95 = values[math.ceil(0.95 * len(values)) - 1]
        lines.append(f"| {text} | {statistics.median(values):.0f} | {p95:.0f} | {values[-1]:.0f} |")
    verdict = "reached" if p95 <= GOAL_MS else "not reached"
    listening = statistics.median(starts)
    in_time = "reached" if listening <= GOAL_START_SECONDS else "not reached"
    start = (
        f"From `scorenode serve` to listening, {len(starts)} starts: median {listening:.2f} s, "
        f"{min(starts):.2f} to {max(starts):.2f} s (goal {GOAL_START_SECONDS} s: {in_time})."
    )
    lines += [
        "",
        start,
        "",
        f"Goal: volume within {GOAL_MS:.0f} ms for 95 %: {verdict} ({p95:.0f} ms).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's")
    chosen = parser.parse_args()
    main(chosen.rounds, chosen.markdown, chosen.folder)
