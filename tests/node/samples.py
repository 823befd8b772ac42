"""A node without processes: its parts, a clock that a test moves, series that arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from node.config.file import load
from node.coordinator import Coordinator
from node.gathering import Gatherer
from node.parts import Parts, open_parts
from storage import queries
from storage.base import ReceivedInstance
from storage.intake import Intake
from storage.migrate import migrate
from tests.conftest import TestClock

HEAD = """\
schema: 1
node: { ae_title: SCORENODE, data: data, health: off, disk: { ballast: off } }
completion: { quiet: 10s, max_wait: 20m, evidence: none }
peers:
  LOCAL: { sends_as: ['*'], from_networks: [127.0.0.0/8] }
"""
STUDY = "1.2.3"
EXAMPLE = Path(__file__).parents[2] / "docs" / "example.yaml"


@dataclass
class SmallNode:
    """What a test needs of a node."""

    parts: Parts
    clock: TestClock
    intake: Intake

    def __post_init__(self) -> None:
        self.coordinator = Coordinator(self.parts)
        self.gatherer = Gatherer(self.parts)

    def arrive(self, series: str, instances: int = 2, study: str = STUDY, **header: Any) -> None:
        """Receive a series; header values are lists."""
        for number in range(instances):
            positions = {"ImagePositionPatient": [0.0, 0.0, 5.0 * number]}
            content = f"{series} {number}".encode()
            self.arrive_bytes(series, content, number, study, **positions | header)

    def arrive_bytes(
        self,
        series: str,
        content: bytes,
        number: int = 0,
        study: str = STUDY,
        *,
        peer: str = "LOCAL",
        association_id: int | None = None,
        **header: Any,
    ) -> None:
        """Receive one instance."""
        spool = self.intake.objects.spool()
        spool.write_all([content])
        uid = f"{study}.{series}"
        self.intake.accept(
            ReceivedInstance(
                study_instance_uid=study,
                series_instance_uid=uid,
                sop_instance_uid=f"{uid}.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                digest=f"xxh3:{xxhash.xxh3_128_hexdigest(content)}",
                size=len(content),
                peer=peer,
                header=header,
                association_id=association_id,
            ),
            spool,
        )

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, close what is due, and do what waits."""
        self.clock.forward(seconds)
        self.coordinator.sweep()
        self.gatherer.round()

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the first one first."""
        with self.parts.database.snapshot() as tx:
            return queries.jobs_list(tx)[::-1]

    def decisions(self, series: str, study: str = STUDY) -> dict[str, str]:
        """Rule to outcome of one series, as they are now."""
        with self.parts.database.snapshot() as tx:
            (series_id,) = queries.series_ids(tx, f"{study}.{series}")
            return {row["rule"]: row["outcome"] for row in queries.decisions_of(tx, series_id)}


@contextmanager
def small_node(folder: Path, clock: TestClock, text: str) -> Iterator[SmallNode]:
    """Make a node from the part of a configuration that follows `HEAD`."""
    path = folder / "scorenode.yaml"
    path.write_text(HEAD + text)
    (folder / "data").mkdir(exist_ok=True)
    parts = open_parts(load(path))
    parts.database.clock = clock
    migrate(parts.database)
    failures: list[Exception] = []
    intake = Intake(parts.database, parts.objects, failures.append)
    intake.start()
    try:
        yield SmallNode(parts, clock, intake)
    finally:
        intake.stop()
        parts.close()
        assert not failures


def example_in(folder: Path) -> Path:
    """Copy the example of the handbook, and put what it names beside it."""
    path = folder / EXAMPLE.name
    path.write_text(EXAMPLE.read_text())
    secret = folder / "redcap-token"
    secret.write_text("secret")
    secret.chmod(0o600)
    return path
