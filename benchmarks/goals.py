"""The goals of the receiver, each as a ratio of one run; and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from benchmarks.cases import Case, Measured
from benchmarks.servers import (
    ORTHANC,
    OURS,
    OURS_FILES,
    OURS_LOOSE,
    PYNETDICOM,
    SERVERS,
    STORESCP,
    STORESCP_DEFAULTS,
)


@dataclass(frozen=True)
class Goal:
    """One ratio or figure, and what it should be.

    Parameters
    ----------
    name : str
    value : float
    wanted : float
    is_most : bool
        Whether `wanted` is the most it may be; otherwise the least.
    """

    name: str
    value: float
    wanted: float
    is_most: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether it is as it should be."""
        return self.value <= self.wanted if self.is_most else self.value >= self.wanted

    def __str__(self) -> str:
        sign = "at most" if self.is_most else "at least"
        verdict = "reached" if self.is_reached else "NOT reached"
        return f"{self.name}: {self.value:.2f}, wanted {sign} {self.wanted:g}: {verdict}"


def ratio_best_peer(found: Iterable[Measured], case: Case) -> float:
    """Our durable rate over the best rate of a peer, none of which flushes what it should."""
    rates = {one.server: one.instances_per_second for one in found if one.case == case}
    peers = [rate for name, rate in rates.items() if SERVERS[name].is_peer]
    return round(rates[OURS] / max(peers), 3) if peers else 0.0


def goals_of(found: Sequence[Measured], idle: Mapping[str, float]) -> list[Goal]:
    """Compare what was measured with what is wanted; only what was measured."""
    table = {(one.server, one.case): one for one in found}
    goals: list[Goal] = []

    def rate(ours: str, peer: str, case: Case, wanted: float) -> None:
        mine, theirs = table.get((ours, case)), table.get((peer, case))
        if mine is not None and theirs is not None:
            value = mine.instances_per_second / theirs.instances_per_second
            goals.append(Goal(f"{case}: rate, {ours} / {peer}", value, wanted))

    for n, wanted in ((1, 6), (4, 5), (16, 4)):
        rate(OURS_LOOSE, ORTHANC, Case("ct", n), wanted)
    for n in (1, 4, 16):
        rate(OURS_LOOSE, PYNETDICOM, Case("ct", n), 8)
        rate(OURS_LOOSE, STORESCP, Case("ct", n), 1)
        mine, theirs = table.get((OURS_LOOSE, Case("ct", n))), table.get((ORTHANC, Case("ct", n)))
        if mine is not None and theirs is not None:
            value = mine.cpu_ms_per_instance / theirs.cpu_ms_per_instance
            goals.append(Goal(f"ct x {n}: CPU, {OURS_LOOSE} / {ORTHANC}", value, 1 / 6, True))
    for sender in ("storescu", "dcmsend"):
        rate(OURS_LOOSE, PYNETDICOM, Case("ct", 1, sender=sender), 6)
        rate(OURS_LOOSE, STORESCP_DEFAULTS, Case("ct", 1, sender=sender), 50)
    rate(OURS, ORTHANC, Case("ct", 1), 4)
    rate(OURS_FILES, ORTHANC, Case("ct", 1), 4)
    rate(OURS, ORTHANC, Case("cr", 1), 6)
    rate(OURS, OURS_LOOSE, Case("ct", 4), 0.6)
    for n in (1, 16):
        rate(OURS, ORTHANC, Case("tiny", n, one_each=True), 5)
    rate(OURS_LOOSE, STORESCP, Case("ct", 1, is_tls=True), 0.9)
    goals += _memory(table)
    if OURS in idle:
        goals.append(Goal("256 idle associations: per cent of a core", idle[OURS], 1, True))
    return goals


def _memory(table: Mapping[tuple[str, Case], Measured]) -> list[Goal]:
    """Tell what associations and a large instance add to a receiver that idles."""
    least = min((one.peak_mb for (name, _), one in table.items() if name == OURS), default=0.0)
    goals = []
    many, large = table.get((OURS, Case("ct", 16))), table.get((OURS, Case("large", 1)))
    if many is not None:
        goals.append(Goal("ct x 16: MB for each association", (many.peak_mb - least) / 16, 4, True))
    if large is not None:
        goals.append(
            Goal("157 MB instance: MB above the least peak", large.peak_mb - least, 40, True)
        )
    return goals


def markdown(
    found: Sequence[Measured],
    goals: Sequence[Goal],
    idle: Mapping[str, float],
    machine: Mapping[str, object],
    rounds: int,
) -> str:
    """Make the page."""
    lines = [
        "# Receivers side by side",
        "",
        f"Measured on {date.today():%Y-%m-%d} by `python -m benchmarks.ingest --markdown FILE`, "  # noqa: DTZ011
        f"medians of {rounds} interleaved rounds (stock senders: one), over the loopback of:",
        "",
        f"    {json.dumps(machine)}",
        "",
        "Peers run with TCP_NODELAY=1, except in rows of stock senders. The same disk for all; "
        "memory was warmed and the disk synced right before each load. Peak memory is the sum of "
        "all processes of a receiver, shared pages counted in each.",
        "",
        "Of ours, *durable* keeps objects in an arena of 512 MiB that is prepared before the load, "
        "as in a node that has run for a while, and *durable, files* writes a new file for each "
        "object, as the peers do. Both flush bytes and row before each response; no peer does: "
        "Orthanc flushes the file and not its index, storescp and pynetdicom flush nothing and "
        "keep no index. What that means is in durability.md. dcmsend tells nobody of failures, so "
        "its row shows time only.",
        "",
        "## Goals",
        "",
        "Where the time goes, and why some are not reached: stages.md.",
        "",
        "| goal | measured | wanted | |",
        "| --- | --- | --- | --- |",
    ]
    for goal in goals:
        sign = "<=" if goal.is_most else ">="
        verdict = "reached" if goal.is_reached else "**not reached**"
        lines.append(f"| {goal.name} | {goal.value:.2f} | {sign} {goal.wanted:.2f} | {verdict} |")
    lines += ["", "## Figures"]
    for case in dict.fromkeys(one.case for one in found):
        lines += [
            "",
            f"### {case}",
            "",
            "| receiver | instances/s | MB/s | CPU ms | peak MB | p50 ms | p99 ms | failed |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_row(one) for one in found if one.case == case]
    if idle:
        lines += ["", "### 256 idle associations", ""]
        lines += [f"- {name}: {percent} % of a core" for name, percent in idle.items()]
    return "\n".join(lines) + "\n"


def _row(one: Measured) -> str:
    latency = f"{one.p50_ms:.2f} | {one.p99_ms:.2f}" if one.p50_ms else "- | -"
    return (
        f"| {one.server} | {one.instances_per_second:.0f} | {one.megabytes_per_second:.0f} | "
        f"{one.cpu_ms_per_instance:.2f} | {one.peak_mb:.0f} | {latency} | {one.failed} |"
    )
