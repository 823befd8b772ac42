"""What ``scorenode watch`` shows while a modality sends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from node.cli.watch import look, page
from storage import nodes
from storage.owner import owner_of_this_process
from tests.node.receive.test_receiver import eventually
from tests.peers import associated, ct_image, encoded, running_receiver, send_bytes

QUIET = timedelta(seconds=45)


def shown(found: dict[str, object], width: int) -> str:
    """The screen of a terminal of some width."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(page(found))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_an_association_is_seen_growing_and_going(tmp_path: Path) -> None:
    with running_receiver(tmp_path, owner=owner_of_this_process()) as node:
        with node.database.transaction() as tx:
            nodes.heartbeat(tx, owner_of_this_process(), "here", "receiver", "1", {})
        with associated(node.port) as assoc:
            for number in range(1, 4):
                ds = ct_image()
                assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == 0
                wanted = number

                def is_seen() -> bool:
                    rows = look(node.database, QUIET, {})["associations"]
                    return [row["stored"] for row in rows] == [wanted]  # noqa: B023

                eventually(is_seen)
            found = look(node.database, QUIET, {})
            for width in (80, 120):
                screen = shown(found, width)
                assert "Receiving: 1 associations" in screen
                assert "modality" in screen
                assert "closes in s" in screen
                assert max(map(len, screen.splitlines())) <= width
                assert "Planted" not in screen
                assert "PLANTED" not in screen
        eventually(lambda: not look(node.database, QUIET, {})["associations"])


def test_watch_once_is_json_for_programs(tmp_path: Path) -> None:
    with running_receiver(tmp_path) as node, associated(node.port) as assoc:
        ds = ct_image()
        assert send_bytes(assoc, encoded(ds), ds.SOPInstanceUID).Status == 0
        config = tmp_path / "scorenode.yaml"
        config.write_text(
            "schema: 1\nnode:\n  ae_title: SCORENODE\n"
            f"  database: 'sqlite:///{tmp_path / 'node.db'}'\nrules: []\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "node", "watch", "--once", "--json", "-c", str(config)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    found = json.loads(done.stdout)
    assert found["instances"] == 1
    assert [row["n_instances"] for row in found["series"]] == [1]
    assert 0 < found["series"][0]["closes_in_seconds"] <= 45
