"""Readers are told what became of jobs: once each, and only of what a rule wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from storage import job_admin, jobs
from storage.base import Job, NewResult
from storage.tables import Job as JobRow
from tests.conftest import TestClock
from tests.node.samples import STUDY, SmallNode, small_node

CONFIG = """\
  PACS: { address: { host: 127.0.0.1, port: 9, ae_title: PACS }, takes_demonstration: yes }
rules:
  - name: head
    mode: live
    when: { Modality: CT }
    run: { pipeline: haemorrhage, model: haemorrhage-demo }
    deliver: [ { to: PACS } ]
    if_not_run: { tell_reader: sr, after: 5m }
"""

OF_TWO = """\
  PACS: { address: { host: 127.0.0.1, port: 9, ae_title: PACS }, takes_demonstration: yes }
rules:
  - name: two
    mode: live
    when: { Modality: MR }
    inputs:
      t1: { header: { SeriesDescription: t1 } }
      flair: { header: { SeriesDescription: flair } }
    run: { pipeline: haemorrhage, model: haemorrhage-demo }
    deliver: [ { to: PACS } ]
    if_not_run: { tell_reader: sr, after: 5m }
"""


@pytest.fixture
def node(tmp_path: Path, clock: TestClock) -> Iterator[SmallNode]:
    with small_node(tmp_path, clock, CONFIG) as found:
        yield found


def _told(node: SmallNode) -> list[tuple[str, str, str]]:
    """What is told: state of the notice's job, status and reason, the first first."""
    node.coordinator.tell_readers()
    with node.parts.database.snapshot() as tx:
        query = (
            sa.select(JobRow.state, JobRow.snapshot)
            .where(JobRow.notice_of.is_not(None))
            .order_by(JobRow.id)
        )
        rows = tx.execute(query).all()
    said = [(row.state, row.snapshot["notice"]) for row in rows]
    return [(state, notice["status"], notice.get("reason", "")) for state, notice in said]


def _claimed(node: SmallNode, job_id: int, step: str = "convert") -> Job:
    with node.parts.database.transaction() as tx:
        job = jobs.claim(tx, job_id, step, "test", node.parts.policy)
    assert job is not None
    return job


def _refuse(node: SmallNode, job_id: int, reason: str = "no_head") -> None:
    job = _claimed(node, job_id)
    with node.parts.database.transaction() as tx:
        jobs.not_scored(tx, job, reason, "There is no head.")


def _score(node: SmallNode, job_id: int, key: str = "k") -> None:
    """Let a job, or a notice, make its report."""
    with node.parts.database.snapshot() as tx:
        found = jobs.get(tx, job_id)
    assert found is not None
    for step in jobs.STEP_ORDER[jobs.STEP_ORDER.index(found.step) :]:
        job = _claimed(node, job_id, step)
        with node.parts.database.transaction() as tx:
            if step != "report":
                jobs.finish_step(tx, job)
                continue
            made = NewResult("sr", f"2.9.{job_id}", f"2.8.{job_id}", "1", "1", key, "s" * 64, 1)
            jobs.fix_results(tx, job, [made], {"PACS": ["sr"]})


def _opened(node: SmallNode, **header: Any) -> int:
    node.arrive("1", **({"Modality": ["CT"]} | header))
    node.turn(11)
    return int(node.jobs()[-1]["id"])


def test_a_job_that_is_refused_is_told_once(node: SmallNode) -> None:
    job_id = _opened(node)
    assert _told(node) == []

    _refuse(node, job_id)

    assert _told(node) == [("queued", "not_scored", "no_head")]
    assert _told(node) == [("queued", "not_scored", "no_head")]
    notice = node.jobs()[-1]
    assert (notice["pipeline"], notice["rule"], notice["step"]) == ("notice", "head", "report")


def test_the_same_refusal_after_a_retry_is_not_told_again(node: SmallNode) -> None:
    job_id = _opened(node)
    _refuse(node, job_id)
    _told(node)
    for reason in ("no_head", "tilted"):
        with node.parts.database.transaction() as tx:
            assert job_admin.requeue(tx, job_id)
        _refuse(node, job_id, reason)
        _told(node)

    assert _told(node) == [
        ("superseded", "not_scored", "no_head"),
        ("queued", "not_scored", "tilted"),
    ]


def test_a_series_that_no_rule_wants_is_never_told_of(node: SmallNode) -> None:
    node.arrive("2", Modality=["MR"])
    node.turn(3600)

    assert node.decisions("2") == {"head": "not_matched"}
    assert _told(node) == []


def test_a_job_that_is_scored_in_time_is_not_told_of(node: SmallNode) -> None:
    _score(node, _opened(node))

    assert _told(node) == []
    node.turn(3600)
    assert _told(node) == []


def test_a_job_that_takes_long_is_told_of_and_its_result_takes_the_place_of_the_notice(
    node: SmallNode,
) -> None:
    job_id = _opened(node)
    node.turn(299)
    assert _told(node) == []
    node.turn(2)
    assert _told(node) == [("queued", "running", "")]
    _score(node, node.jobs()[-1]["id"], key="notice-key")

    _score(node, job_id)

    assert [told[1] for told in _told(node)] == ["running", "scored"]
    with node.parts.database.snapshot() as tx:
        last = jobs.get(tx, node.jobs()[-1]["id"])
    assert last is not None
    assert last.snapshot["notice"]["earlier"] == "notice-key"
    assert (last.notice_of, last.snapshot["destinations"]["PACS"]["send"]) == (job_id, ["sr"])


def test_a_notice_that_nobody_has_made_gives_way_to_what_is_newer(node: SmallNode) -> None:
    job_id = _opened(node)
    node.turn(301)
    _told(node)

    job = _claimed(node, job_id)
    with node.parts.database.transaction() as tx:
        jobs.retry_later(tx, job, node.parts.policy, attempts=1, reason="x", sentence="It broke.")

    assert _told(node) == [("superseded", "running", ""), ("queued", "failed", "x")]


def test_a_cancelled_job_is_told_of(node: SmallNode) -> None:
    job_id = _opened(node)
    with node.parts.database.transaction() as tx:
        job_admin.cancel(tx, job_id)

    assert _told(node) == [("queued", "not_scored", "cancelled")]


def test_a_held_job_is_told_as_not_scored_once_it_has_waited(
    tmp_path: Path, clock: TestClock
) -> None:
    text = CONFIG.replace("{ Modality: CT }", "{ Modality: CT, PatientAge: { min: 18y, "
                          "if_missing: hold } }")  # fmt: skip
    with small_node(tmp_path, clock, text) as node:
        _opened(node)
        assert _told(node) == []
        node.turn(301)
        assert _told(node) == [("queued", "not_scored", "rule")]


@pytest.mark.parametrize(
    "change", [("mode: live", "mode: shadow"), ("if_not_run: { tell_reader: sr, after: 5m }", "")]
)
def test_shadow_rules_and_rules_that_do_not_ask_tell_nobody(
    tmp_path: Path, clock: TestClock, change: tuple[str, str]
) -> None:
    with small_node(tmp_path, clock, CONFIG.replace(*change)) as node:
        _refuse(node, _opened(node))
        node.turn(3600)
        assert _told(node) == []


def test_a_notice_does_not_count_as_a_job_of_its_rule(node: SmallNode) -> None:
    job_id = _opened(node)
    node.turn(301)
    assert [told[0] for told in _told(node)] == ["queued"]

    node.arrive("1", 3, Modality=["CT"])
    node.turn(11)

    states = {job["id"]: (job["pipeline"], job["state"]) for job in node.jobs()}
    assert states[job_id] == ("haemorrhage", "superseded")
    assert list(states.values()).count(("haemorrhage", "queued")) == 1
    assert STUDY in node.jobs()[-1]["series_instance_uid"]


def test_a_result_outside_its_limits_is_held_and_told_at_once_and_an_admin_lets_it_go(
    tmp_path: Path, clock: TestClock
) -> None:
    from pipelines.base import Verdict
    from pipelines.verdicts import apply_verdict

    text = CONFIG + "    accept_result: { volume_ml: { max: 400 } }\n"
    with small_node(tmp_path, clock, text) as node:
        job_id = _opened(node)

        def infer(volume: float) -> None:
            with node.parts.database.transaction() as tx:
                jobs.finish_step(tx, _held(tx, job_id, node, "convert"))
            with node.parts.database.transaction() as tx:
                job = _held(tx, job_id, node, "infer")
                found = Verdict("ok", facts={"numbers": {"volume": volume, "probability": 0.5}})
                apply_verdict(tx, job, found, None, node.parts.policy)

        infer(812.5)

        (job,) = node.jobs()
        assert (job["state"], job["reason"]) == ("held", "implausible_result")
        assert "volume_ml is 812.5, and rule head accepts at most 400" in job["sentence"]
        assert _told(node) == [("queued", "not_scored", "implausible_result")]
        with node.parts.database.transaction() as tx:
            assert job_admin.requeue(tx, job_id)
        infer(812.5)
        assert node.jobs()[0]["step"] == "report"


def _held(tx: Any, job_id: int, node: SmallNode, step: str) -> Job:
    job = jobs.claim(tx, job_id, step, "test", node.parts.policy)
    assert job is not None
    return job


def test_a_reader_is_told_which_series_a_study_lacks(tmp_path: Path, clock: TestClock) -> None:
    with small_node(tmp_path, clock, OF_TWO) as node:
        node.arrive("0", Modality=["MR"], SeriesDescription=["scout"])
        node.arrive("1", Modality=["MR"], SeriesDescription=["t1"])
        node.turn(11)
        node.turn(20 * 60)

        assert _told(node) == [("queued", "not_scored", "missing_series")]
        (job, notice) = node.jobs()
        assert (job["series_instance_uid"], job["state"]) == (f"{STUDY}.1", "not_scored")
        assert job["sentence"] == "Not scored: no series of the study fits flair of rule two."
        with node.parts.database.transaction() as tx:
            assert not job_admin.requeue(tx, job["id"])
            said = job_admin.why_not(tx, job["id"])
        assert "no series of the study fits flair of rule two" in said
        assert f"scorenode jobs replay {job['id']}" in said
        _score(node, notice["id"])

        node.arrive("2", Modality=["MR"], SeriesDescription=["flair"])
        node.turn(11)
        _score(node, node.jobs()[-1]["id"])

        assert [told[1] for told in _told(node)] == ["not_scored", "scored"]


@pytest.mark.parametrize("last", ["t1", "flair"])
def test_a_result_takes_the_place_of_what_was_told_of_a_lacking_series(
    tmp_path: Path, clock: TestClock, last: str
) -> None:
    first = "flair" if last == "t1" else "t1"
    with small_node(tmp_path, clock, OF_TWO) as node:
        node.arrive("1", Modality=["MR"], SeriesDescription=[first])
        node.turn(11)
        node.turn(20 * 60)
        assert _told(node) == [("queued", "not_scored", "missing_series")]
        _score(node, node.jobs()[-1]["id"])

        node.arrive("2", Modality=["MR"], SeriesDescription=[last])
        node.turn(11)
        _score(node, node.jobs()[-1]["id"])

        assert [told[1] for told in _told(node)] == ["not_scored", "scored"]


def test_a_study_without_any_series_for_a_rule_is_not_told_of(
    tmp_path: Path, clock: TestClock
) -> None:
    with small_node(tmp_path, clock, OF_TWO) as node:
        node.arrive("0", Modality=["MR"], SeriesDescription=["scout"])
        node.turn(11)
        node.turn(20 * 60)

        assert (node.jobs(), _told(node)) == ([], [])
