"""The coordinator's care for the disk."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from node.config.file import load
from node.coordinator import Coordinator
from node.parts import open_parts
from storage import queries
from storage.migrate import migrate
from storage.tables import Meta

CONFIG = """\
schema: 1
node:
  ae_title: SCORENODE
  data: data
  disk: {{ ballast: {ballast} }}
peers:
  LOCAL: {{ sends_as: ['*'], from_networks: [127.0.0.0/8] }}
rules: []
"""


def coordinated(tmp_path: Path, ballast: str) -> tuple[int, list[queries.Row]]:
    """Let a coordinator look after things once; bytes of the ballast, and what processes say."""
    path = tmp_path / "scorenode.yaml"
    path.write_text(CONFIG.format(ballast=ballast))
    (tmp_path / "data").mkdir(exist_ok=True)
    parts = open_parts(load(path))
    migrate(parts.database)
    coordinator = Coordinator(parts)
    coordinator.tend_ballast()
    coordinator.tend_ballast()
    coordinator.reap()
    with parts.database.snapshot() as tx:
        said = queries.nodes(tx)
    parts.close()
    file = tmp_path / "data" / "ballast"
    return file.stat().st_size if file.exists() else 0, said


def test_it_keeps_a_ballast_as_the_configuration_says_and_tells_the_status(tmp_path: Path) -> None:
    size, [said] = coordinated(tmp_path, "1MB")

    assert size == 10**6
    assert said["facts"]["ballast_bytes"] == 10**6


def test_it_gives_the_ballast_up_once_it_is_switched_off(tmp_path: Path) -> None:
    coordinated(tmp_path, "1MB")

    size, _ = coordinated(tmp_path, "off")

    assert size == 0


def test_a_full_database_gets_the_room_of_the_ballast(tmp_path: Path) -> None:
    coordinated(tmp_path, "1MB")
    parts = open_parts(load(tmp_path / "scorenode.yaml"))
    # SQLite itself says that its disk is full, at the next page.
    with parts.database.engine.connect() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar_one()
    sa.event.listen(
        parts.database.engine,
        "checkout",
        lambda connection, record, proxy: connection.execute(f"pragma max_page_count={pages}"),
    )
    coordinator = Coordinator(parts)
    held = tmp_path / "data" / "ballast"
    assert held.exists()

    def full() -> None:
        with parts.database.transaction() as tx:
            for number in range(1000):
                tx.execute(sa.insert(Meta).values(key=f"filler {number}", value="x" * 4000))

    coordinator._guarded(full)

    assert not held.exists()
    with parts.database.snapshot() as tx:
        assert tx.execute(sa.select(sa.func.count()).where(Meta.key.like("filler%"))).scalar() == 0
    parts.close()
