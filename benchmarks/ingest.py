"""Receivers side by side: ``python -m benchmarks.ingest [--quick] [--json] [--folder FOLDER]``.

The same generated studies go to each receiver in turn, round after round, over the loopback of
this machine and nowhere else. The last line of ``--json`` has ``ratio_best_peer``: our durable
rate over the best rate of a peer, 4 associations, CT.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.cases import Case, Measured
from benchmarks.certificate import self_signed
from benchmarks.goals import goals_of, markdown, ratio_best_peer
from benchmarks.sender import associate_rq, connect, send
from benchmarks.servers import ORTHANC, OURS, PYNETDICOM, SERVERS, Server, running
from benchmarks.studies import generated, warm_memory
from benchmarks.toolkit import SENDERS, is_installed, send_with

IDLE_ASSOCIATIONS = 256

QUICK = [Case("ct", 1), Case("ct", 4)]
FULL = [
    *(Case("ct", n) for n in (1, 4, 16)),
    *(Case("ct", n, is_tls=True) for n in (1, 4)),
    *(Case(load, n) for load in ("mr", "cr") for n in (1, 4)),
    Case("large", 1),
    *(Case("tiny", n, one_each=True) for n in (1, 16)),
    *(Case("ct", 1, sender=sender) for sender in SENDERS),
]
COUNTS = {"ct": 300, "mr": 176, "cr": 320, "tiny": 320, "large": 2}
QUICK_COUNTS = {"ct": 200}
STOCK_COUNT = 100
"""Some take 40 ms for each instance of a stock sender."""


def measure(server: Server, case: Case, paths: list[Path], folder: Path) -> Measured:
    """Start a receiver, send it a load, stop it."""
    fast = case.sender == "fast"
    tls = self_signed(folder.parent) if case.is_tls else None
    with running(server, folder, nodelay=fast, tls=tls) as found:
        warm_memory(folder.parent)
        os.sync()
        with found.measured() as usage:
            if fast:
                sent = send(
                    found.port,
                    paths,
                    case.associations,
                    one_each=case.one_each,
                    is_tls=case.is_tls,
                )
            else:
                sent = send_with(case.sender, found.port, paths)
    n = sent.instances
    return Measured(
        server=server.name,
        case=case,
        instances_per_second=n / sent.seconds,
        megabytes_per_second=sent.bytes / sent.seconds / 1e6,
        cpu_ms_per_instance=1000 * usage.cpu_seconds / n,
        sender_ms_per_instance=1000 * sent.cpu_seconds / n,
        peak_mb=usage.peak_bytes / 1e6,
        p50_ms=sent.p50_ms,
        p99_ms=sent.p99_ms,
        failed=sent.failed,
    )


def run(cases: list[Case], counts: dict[str, int], rounds: int, folder: Path) -> list[Measured]:
    """Measure every case with every receiver that is installed, interleaved."""
    loads = {load: generated(folder, load, counts[load]) for load in {c.load for c in cases}}
    stock = generated(folder / "stock", "ct", STOCK_COUNT)
    servers = [server for server in SERVERS.values() if server.is_installed]
    plan = [
        (number, case, server)
        for number in range(rounds)
        for case in cases
        if case.sender == "fast" or (number == 0 and is_installed(case.sender))
        for server in servers
        if server.tls is not None or not case.is_tls
    ]
    found = []
    for step, (number, case, server) in enumerate(plan, start=1):
        target = folder / f"run-{step}"
        paths = loads[case.load] if case.sender == "fast" else stock
        found.append(measure(server, case, paths, target))
        print(f"{step}/{len(plan)} {number} {_line(found[-1])}", file=sys.stderr, flush=True)
    return found


def idle_cpu(folder: Path, associations: int, seconds: float = 10.0) -> dict[str, float]:
    """Per cent of a core that so many silent associations cost each receiver that takes them."""
    request = associate_rq({1: (b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2.1")})
    found = {}
    for index, name in enumerate((OURS, PYNETDICOM, ORTHANC)):
        if not SERVERS[name].is_installed:
            continue
        with running(SERVERS[name], folder / f"idle-{index}") as server:
            open_ones = list(_opened(server.port, request, associations))
            if len(open_ones) < associations:
                print(f"{name} took {len(open_ones)} of {associations}", file=sys.stderr)
            time.sleep(1)
            with server.measured() as usage:
                time.sleep(seconds)
            if len(open_ones) == associations:
                found[name] = round(100 * usage.cpu_seconds / seconds, 2)
            for connection in open_ones:
                connection.close()
    return found


def _opened(port: int, request: bytes, most: int) -> Iterator[socket.socket]:
    """Open associations, as many as the receiver takes."""
    with contextlib.suppress(OSError):
        for _ in range(most):
            yield connect(port, request)[0]


def _line(one: Measured) -> str:
    return (
        f"{one.case!s:20} {one.server:20} {one.instances_per_second:8.0f}/s "
        f"{one.megabytes_per_second:7.0f} MB/s {one.cpu_ms_per_instance:7.2f} ms CPU "
        f"{one.peak_mb:6.0f} MB  p50 {one.p50_ms:7.2f} p99 {one.p99_ms:7.2f} ms"
        + (f"  {one.failed} FAILED" if one.failed else "")
    )


def medians(found: Iterable[Measured]) -> list[Measured]:
    """One value for each case and receiver: the median of its rounds."""
    groups: dict[tuple[Case, str], list[Measured]] = defaultdict(list)
    for one in found:
        groups[one.case, one.server].append(one)
    numbers = [name for name, kind in Measured.__annotations__.items() if kind == "float"]
    return [
        Measured(
            server=server,
            case=case,
            failed=sum(one.failed for one in group),
            **{name: statistics.median(getattr(one, name) for one in group) for name in numbers},
        )
        for (case, server), group in groups.items()
    ]


def machine() -> dict[str, object]:
    """Facts without which figures mean nothing."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line for line in info.splitlines() if line.startswith("model name")), "?: ?")
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in ("storescp", "Orthanc")},
    }


def _version(program: str) -> str:
    path = shutil.which(program, path="/usr/bin:/usr/sbin:/usr/local/bin")
    if path is None:
        return "not installed"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).splitlines()[0].strip("$ ")


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest")
    parser.add_argument("--quick", action="store_true", help="CT at 1 and 4 associations only")
    parser.add_argument("--json", action="store_true", help="print JSON, the ratio last")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--folder", type=Path, help="where to write; deleted at the end")
    chosen = parser.parse_args(arguments)
    cases, counts = (QUICK, QUICK_COUNTS) if chosen.quick else (FULL, COUNTS)
    rounds = chosen.rounds or (2 if chosen.quick else 3)
    facts = machine()
    folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=chosen.folder))
    try:
        found = medians(run(cases, counts, rounds, folder))
        idle = {} if chosen.quick else idle_cpu(folder, IDLE_ASSOCIATIONS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    goals = goals_of(found, idle)
    ratio = ratio_best_peer(found, Case("ct", 4))
    failed = sum(one.failed for one in found)
    lines = [*map(_line, found), *(f"{goal}" for goal in goals)]
    lines += [f"256 idle associations, {name}: {cpu} % of a core" for name, cpu in idle.items()]
    if chosen.markdown:
        chosen.markdown.write_text(markdown(found, goals, idle, facts, rounds))
    if chosen.json:
        for one in found:
            print(json.dumps(asdict(one)))
        last = {"ratio_best_peer": ratio, "failed": failed, "idle_percent": idle}
        ratios = {goal.name: goal.value for goal in goals}
        print(json.dumps(last | {"goals": ratios, "machine": facts}))
    else:
        print(*lines, sep="\n")
        print(f"our durable rate over the best peer's, CT, 4 associations: {ratio}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
