"""Priors: found at a peer, retrieved by C-MOVE or C-GET, checked, and never scored themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from node.receive.access import PeerRule
from pipelines.base import JobSpec
from pipelines.stages import Stages
from storage import gathering, jobs, queries, retrievals
from tests.conftest import TestClock
from tests.node.samples import SmallNode, small_node
from tests.peers import AE_TITLE, LOOPBACK, ct_image, encoded, running_receiver
from tests.query_pacs import QueryPACS, query_pacs

RULES = """\
rules:
  - name: follow-up
    mode: shadow
    when: {{ Modality: MR }}
    inputs:
      t1: {{ header: {{ SeriesDescription: {{ matches: t1 }} }} }}
      prior: {{ retrieve_from: PACS, like: t1, older_than: 90d{more} }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo }}
"""
PEER = """\
  PACS:
    address: {{ host: 127.0.0.1, port: {port}, ae_title: PACS }}
    supports: {{ find: yes, {way}: yes }}
    timeout: 5s
"""
NOW: dict[str, Any] = {
    "Modality": ["MR"],
    "SeriesDescription": ["t1 mprage"],
    "PatientID": ["P1"],
    "StudyDate": ["20260701"],
}


def _prior(study: str, day: str, description: str = "t1 3d", **more: Any) -> list[Dataset]:
    values = {
        "SOPClassUID": MRImageStorage,
        "StudyInstanceUID": f"1.9.{study}",
        "SeriesInstanceUID": f"1.9.{study}.{len(description)}",
        "Modality": "MR",
        "PatientID": "P1",
        "StudyDate": day,
        "SeriesDescription": description,
    } | more
    return [
        ct_image(**values, SOPInstanceUID=f"{values['SeriesInstanceUID']}.{number}")
        for number in range(3)
    ]


OLDER, OLD, RECENT = _prior("1", "20240101"), _prior("2", "20250101"), _prior("3", "20260601")
OTHER = _prior("4", "20250601", PatientID="P2")
FLAIR = _prior("5", "20250701", "flair")


@contextmanager
def _node(
    tmp_path: Path, clock: TestClock, pacs: QueryPACS, way: str, more: str = ""
) -> Iterator[SmallNode]:
    objects = tmp_path / "objects"
    objects.mkdir()
    with query_pacs(pacs, objects):
        text = PEER.format(port=pacs.port, way=way) + RULES.format(more=more)
        with small_node(tmp_path, clock, text) as node:
            yield node


def _turns(node: SmallNode) -> dict[str, Any]:
    """Let a job ask, retrieve, and find what came complete."""
    node.arrive("1", **NOW)
    for _ in range(4):
        node.turn(61)
    (job,) = node.jobs()
    return job


def _roles(node: SmallNode, job_id: int) -> dict[str, str]:
    with node.parts.database.snapshot() as tx:
        return {
            role: queries.series_show(tx, places[0][0])["series_instance_uid"]
            for role, places in gathering.inputs_of(tx, job_id).items()
        }


def _spec(node: SmallNode, job_id: int) -> JobSpec:
    """What the runner of a job is told."""
    parts = node.parts
    stages = Stages(
        parts.database, parts.objects, parts.wakeup, parts.policy, parts.owner, parts.stopping
    )
    with parts.database.snapshot() as tx:
        job = jobs.get(tx, job_id)
    assert job is not None
    return JobSpec.from_json(stages._spec(job).to_json())


def test_the_newest_prior_that_fits_is_retrieved_by_c_get(tmp_path: Path, clock: TestClock) -> None:
    pacs = QueryPACS([*OLDER, *OLD, *RECENT, *OTHER, *FLAIR])
    with _node(tmp_path, clock, pacs, "get") as node:
        job = _turns(node)

        assert job["state"] == "queued"
        assert _roles(node, job["id"])["prior"] == OLD[0].SeriesInstanceUID
        assert pacs.asked.count("get") == 1
        named = _spec(node, job["id"]).named
        assert (len(named["t1"]), len(named["prior"])) == (2, 3)
        assert all("objects" in path for path in named["prior"])
        with node.parts.database.snapshot() as tx:
            (series_id,) = queries.series_ids(tx, OLD[0].SeriesInstanceUID)
            shown = queries.series_show(tx, series_id)
        assert (shown["n_instances"], shown["state"]) == (3, "closed")


def test_a_retrieved_series_starts_no_rule(tmp_path: Path, clock: TestClock) -> None:
    with _node(tmp_path, clock, QueryPACS([*OLD]), "get") as node:
        _turns(node)

        with node.parts.database.snapshot() as tx:
            (series_id,) = queries.series_ids(tx, OLD[0].SeriesInstanceUID)
            shown = queries.series_show(tx, series_id)
        assert (shown["decisions"], shown["jobs"]) == ([], [])
        assert len(node.jobs()) == 1


def test_several_priors_have_numbers_and_a_sloppy_peer_is_not_believed(
    tmp_path: Path, clock: TestClock
) -> None:
    pacs = QueryPACS([*OLDER, *OLD, *RECENT, *OTHER], sloppy=True)
    with _node(tmp_path, clock, pacs, "get", ", newest: 2") as node:
        job = _turns(node)
        for _ in range(4):
            node.turn(121)
        roles = _roles(node, job["id"])

    assert roles["prior"] == OLD[0].SeriesInstanceUID
    assert roles["prior.2"] == OLDER[0].SeriesInstanceUID


@pytest.mark.parametrize(
    ("more", "state"),
    [("", "held"), (", if_missing: fail", "not_scored"), (", optional: yes", "queued")],
)
def test_a_prior_that_is_not_there_holds_fails_or_is_left_out(
    tmp_path: Path, clock: TestClock, more: str, state: str
) -> None:
    with _node(tmp_path, clock, QueryPACS([*RECENT, *FLAIR]), "get", more) as node:
        job = _turns(node)

        assert job["state"] == state
        if state == "held":
            assert "PACS has no earlier series that is like t1" in job["sentence"]


def test_a_peer_that_is_away_is_asked_again(tmp_path: Path, clock: TestClock) -> None:
    text = PEER.format(port=1, way="get") + RULES.format(more="")
    with small_node(tmp_path, clock, text) as node:
        job = _turns(node)

        assert job["state"] == "held"
        assert "cannot be reached" in job["sentence"]


def test_a_peer_that_does_not_know_us_is_told_to_the_admin(
    tmp_path: Path, clock: TestClock
) -> None:
    with _node(tmp_path, clock, QueryPACS([*OLD]), "move") as node:
        job = _turns(node)

        assert job["state"] == "held"
        assert "does not know the AE title SCORENODE" in job["sentence"]


def test_a_prior_comes_by_c_move_through_the_receiver(tmp_path: Path, clock: TestClock) -> None:
    pacs = QueryPACS([*OLD])
    with (
        _node(tmp_path, clock, pacs, "move") as node,
        running_receiver(
            tmp_path / "data",
            objects=tmp_path / "data",
            peers=(PeerRule("PACS", ("PACS",), (LOOPBACK,)),),
        ) as receiver,
    ):
        receiver.database.clock = clock
        pacs.destinations[AE_TITLE] = ("127.0.0.1", receiver.port)
        job = _turns(node)

        assert job["state"] == "queued"
        assert _roles(node, job["id"])["prior"] == OLD[0].SeriesInstanceUID
        assert pacs.asked.count("move") == 1


def test_a_prior_that_retention_has_deleted_is_retrieved(tmp_path: Path, clock: TestClock) -> None:
    pacs = QueryPACS([*OLD])
    uid = OLD[0].SeriesInstanceUID
    with _node(tmp_path, clock, pacs, "get") as node:
        study, _, series = uid.rpartition(".")
        node.arrive(series, study=study, Modality=["CT"])
        node.turn(61)
        node.clock.forward(timedelta(days=40).total_seconds())
        node.coordinator.tidy()
        with node.parts.database.snapshot() as tx:
            (series_id,) = queries.series_ids(tx, uid)
            assert queries.series_show(tx, series_id)["instances"] == 0

        job = _turns(node)

        assert job["state"] == "queued", job["sentence"]
        assert len(_spec(node, job["id"]).named["prior"]) == 3
        assert len(node.jobs()) == 1


def test_a_prior_of_which_a_killed_node_got_a_part_is_retrieved_again(
    tmp_path: Path, clock: TestClock
) -> None:
    pacs = QueryPACS([*OLD])
    study, series = OLD[0].StudyInstanceUID, OLD[0].SeriesInstanceUID
    with _node(tmp_path, clock, pacs, "get") as node:
        with node.parts.database.transaction() as tx:
            retrievals.ask(tx, study, series, "PACS")
        number = series.rpartition(".")[2]
        node.arrive_bytes(number, encoded(OLD[0]), study=study, **NOW)
        job = _turns(node)
        assert "on its way" in job["sentence"]

        for _ in range(4):
            node.turn(960)
        (job,) = node.jobs()

        assert job["state"] == "queued", job["sentence"]
        assert len(_spec(node, job["id"]).named["prior"]) == 3
