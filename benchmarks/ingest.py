"""Receivers side by side: ``python -m benchmarks.ingest [--quick] [--json] [--folder FOLDER]``.

The same generated studies go to each receiver in turn, round after round, over the loopback of
this machine and nowhere else. The last line of ``--json`` has ``ratio_best_peer``: our durable
rate over the best rate of a peer, 4 associations, CT.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sender import Sent, send
from benchmarks.servers import SERVERS, Server, running
from benchmarks.studies import generated

OURS = "ours, durable"


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Parameters
    ----------
    load : str
    associations : int
    one_each : bool
        Whether every instance gets an association of its own.
    """

    load: str
    associations: int
    one_each: bool = False


@dataclass(frozen=True)
class Measured:
    """What one receiver did in one round of one case."""

    server: str
    case: Case
    instances_per_second: float
    megabytes_per_second: float
    cpu_ms_per_instance: float
    sender_ms_per_instance: float
    peak_mb: float
    p50_ms: float
    p99_ms: float
    failed: int


QUICK = [Case("ct", 1), Case("ct", 4)]
FULL = [
    *(Case(load, n) for load in ("ct", "mr", "cr") for n in (1, 4, 16)),
    Case("large", 1),
    *(Case("tiny", n, one_each=True) for n in (1, 16)),
]
COUNTS = {"ct": 300, "mr": 176, "cr": 320, "tiny": 320, "large": 2}
QUICK_COUNTS = {"ct": 200}


def measure(server: Server, case: Case, paths: list[Path], folder: Path) -> Measured:
    """Start a receiver, send it a load, stop it."""
    os.sync()
    with running(server, folder) as found, found.measured() as usage:
        sent: Sent = send(found.port, paths, case.associations, one_each=case.one_each)
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
    servers = [server for server in SERVERS.values() if server.is_installed]
    found = []
    for number in range(rounds):
        for case in cases:
            for index, server in enumerate(servers):
                target = folder / f"{number}-{cases.index(case)}-{index}"
                found.append(measure(server, case, loads[case.load], target))
                print(_line(found[-1]), file=sys.stderr, flush=True)
    return found


def _line(one: Measured) -> str:
    case = one.case
    kind = f"{case.load} x {case.associations}" + (", one each" if case.one_each else "")
    return (
        f"{kind:18} {one.server:20} {one.instances_per_second:8.0f}/s "
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


def ratio_best_peer(found: Iterable[Measured], case: Case) -> float:
    """Our durable rate over the best rate of a peer."""
    rates = {one.server: one.instances_per_second for one in found if one.case == case}
    peers = [rate for name, rate in rates.items() if SERVERS[name].is_peer]
    return rates[OURS] / max(peers)


def machine() -> dict[str, object]:
    """Facts without which figures mean nothing."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line for line in info.splitlines() if line.startswith("model name")), "?: ?")
    return {
        "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count(),
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
    parser.add_argument("--folder", type=Path, help="where to write; deleted at the end")
    chosen = parser.parse_args(arguments)
    cases, counts = (QUICK, QUICK_COUNTS) if chosen.quick else (FULL, COUNTS)
    folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=chosen.folder))
    try:
        found = medians(run(cases, counts, chosen.rounds or (2 if chosen.quick else 5), folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = round(ratio_best_peer(found, Case("ct", 4)), 3)
    failed = sum(one.failed for one in found)
    if chosen.json:
        for one in found:
            print(json.dumps(asdict(one)))
        print(json.dumps({"ratio_best_peer": ratio, "failed": failed, "machine": machine()}))
    else:
        print(*map(_line, found), sep="\n")
        print(f"our durable rate over the best peer's, CT, 4 associations: {ratio}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
