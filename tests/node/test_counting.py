"""The sender of a series is asked how many instances of it there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from node.cli.main import app
from node.counting import Counter
from storage import queries
from storage.associations import ClosedAssociation, OpenedAssociation, write_associations
from tests.conftest import TestClock
from tests.node.samples import STUDY, SmallNode, small_node
from tests.peers import ct_image
from tests.query_pacs import QueryPACS, query_pacs

CONFIG = """\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    sends_as: [PACS]
    from_networks: [127.0.0.0/8]
    supports: {{ find: yes }}
    completion: {{ evidence: [pacs_count], quiet: 30s }}
rules:
  - name: all-ct
    mode: shadow
    when: {{ Modality: CT }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo }}
"""


@contextmanager
def counting(
    folder: Path, clock: TestClock, holds: int, **attributes: Any
) -> Iterator[tuple[SmallNode, Counter, QueryPACS]]:
    """Run a node beside a PACS that holds so many images of the series."""
    objects = [
        ct_image(
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.1",
            SOPInstanceUID=f"{STUDY}.1.{n}",
            **attributes,
        )
        for n in range(holds)
    ]
    kept = folder / "pacs"
    kept.mkdir()
    with (
        query_pacs(QueryPACS(objects), kept) as pacs,
        small_node(folder, clock, CONFIG.format(port=pacs.port)) as node,
    ):
        yield node, Counter(node.parts), pacs


def _arrive(node: SmallNode, images: int) -> None:
    """Send so many images in one association, which is released."""
    with node.parts.database.transaction() as tx:
        opened = OpenedAssociation(1, "owner", "PACS", "127.0.0.1", "PACS", "NODE")
        write_associations(tx, [opened], [], {})
    for number in range(images):
        content = f"image {number}".encode()
        node.arrive_bytes("1", content, number, peer="PACS", association_id=1, Modality=["CT"])
    with node.parts.database.transaction() as tx:
        write_associations(tx, [], [ClosedAssociation(1, "released", images, 0, 1)], {})


def _generations(node: SmallNode) -> list[tuple[str, str]]:
    with node.parts.database.snapshot() as tx:
        (series_id,) = queries.series_ids(tx, f"{STUDY}.1")
        found = queries.series_show(tx, series_id)["generations"]
    return [(row["verdict"], row["evidence"]) for row in found]


@pytest.mark.parametrize("attributes", [{"NumberOfSeriesRelatedInstances": 3}, {}])
def test_a_series_is_closed_as_soon_as_its_sender_has_no_more(
    tmp_path: Path, clock: TestClock, attributes: dict[str, int]
) -> None:
    with counting(tmp_path, clock, 3, **attributes) as (node, counter, pacs):
        _arrive(node, 3)
        node.turn(9)
        assert counter.round() == 0, "while images may come, the sender's count may grow"
        node.turn(1)
        assert counter.round() == 1
        node.turn()

        assert _generations(node) == [
            ("proved_complete", "all 3 instances that PACS counts have come")
        ]
        assert counter.round() == 0
        assert pacs.asked == ["find SERIES"] + ["find IMAGE"] * (not attributes)
        assert node.jobs()[0]["state"] == "queued"


def test_a_series_of_which_the_sender_has_more_is_held_and_explained(
    tmp_path: Path, clock: TestClock
) -> None:
    with counting(tmp_path, clock, 5, NumberOfSeriesRelatedInstances=5) as (node, counter, _):
        _arrive(node, 3)
        node.turn(10)
        assert counter.round() == 1
        node.turn(19)
        assert _generations(node) == []
        assert counter.round() == 1, "it is asked again: it may be in the midst of sending"
        node.turn(1)

        counted = "3 of 5 instances that PACS counts have come"
        assert _generations(node) == [("proved_incomplete", counted)]
        (job,) = node.jobs()
        assert job["state"] == "held"
        assert counted in job["sentence"]
        arguments = ["explain", f"{STUDY}.1", "--config", str(node.parts.config.path)]
        told = CliRunner().invoke(app, [*arguments, "--json"])
        assert json.loads(told.stdout)[0]["series"]["evidence"] == counted
        shown = " ".join(CliRunner().invoke(app, arguments).stdout.split())
        assert f"proved incomplete: {counted}" in shown


def test_a_sender_that_does_not_answer_is_left_alone_and_time_decides(
    tmp_path: Path, clock: TestClock
) -> None:
    with counting(tmp_path, clock, 3) as (node, counter, _):
        _arrive(node, 3)
        node.clock.forward(10)
    with small_node(tmp_path, clock, CONFIG.format(port=9)) as node:
        counter = Counter(node.parts)
        assert counter.round() == 0
        assert counter._is_resting("PACS")
        node.turn(21)

        assert _generations(node) == [("quiet", "")]
