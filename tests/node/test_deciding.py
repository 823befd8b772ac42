"""Decisions about whole studies: which series become inputs, and when."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from models.catalogue import find_package
from node.config.file import Config, load
from node.deciding import replay
from node.job_opening import Models
from node.past_series import with_headers
from node.routing import header_keys
from storage import jobs
from storage.jobs import STEP_ORDER
from storage.results import earlier_results
from storage.tables import JobInput, Series
from tests.conftest import TestClock
from tests.node.samples import HEAD, STUDY, SmallNode, small_node
from tests.peers import ct_image, encoded
from tests.storage.samples import result

RUN = "run: { pipeline: haemorrhage, model: haemorrhage-demo }"
BEST_CT = f"""\
rules:
  - name: best-ct
    mode: shadow
    level: study
    when: {{ Modality: CT }}
    inputs:
      ct: {{ pick: [ {{ nearest: {{ SliceThickness: 5 }} }} ] }}
    {RUN}
"""
TWO = f"""\
rules:
  - name: two
    mode: shadow
    when: {{ Modality: MR }}
    inputs:
      t1: {{ header: {{ SeriesDescription: t1 }} }}
      flair: {{ header: {{ SeriesDescription: flair }}, optional: OPTIONAL }}
    {RUN}
"""


def _ct(thickness: float) -> dict[str, Any]:
    return {"Modality": ["CT"], "SliceThickness": [thickness]}


def _mr(description: str) -> dict[str, Any]:
    return {"Modality": ["MR"], "SeriesDescription": [description]}


def _inputs(node: SmallNode, job_id: int) -> dict[str, str]:
    with node.parts.database.snapshot() as tx:
        rows = tx.execute(
            sa.select(JobInput.role, Series.series_instance_uid)
            .join(Series, Series.id == JobInput.series_id)
            .where(JobInput.job_id == job_id)
        )
        return {role: uid.removeprefix(f"{STUDY}.") for role, uid in rows}


def test_a_study_is_decided_once_all_its_series_have_come(tmp_path: Path, clock: TestClock) -> None:
    with small_node(tmp_path, clock, BEST_CT) as node:
        node.arrive("1", **_ct(1.0))
        node.clock.forward(9)
        node.arrive("2", **_ct(5.0))
        node.turn(2)
        assert node.jobs() == []
        assert node.decisions("1") == {"best-ct": "waiting"}

        node.turn(10)

        (job,) = node.jobs()
        assert job["series_instance_uid"] == f"{STUDY}.2"
        assert node.decisions("1") == {"best-ct": "decided_later"}
        assert _inputs(node, job["id"]) == {"series": "2", "ct": "2"}


def test_a_better_series_that_comes_later_takes_the_place_of_the_first(
    tmp_path: Path, clock: TestClock
) -> None:
    with small_node(tmp_path, clock, BEST_CT) as node:
        node.arrive("1", **_ct(1.0))
        node.turn(11)
        node.arrive("2", **_ct(5.0))
        node.turn(11)

        assert [(j["series_instance_uid"][-1], j["state"]) for j in node.jobs()] == [
            ("1", "superseded"),
            ("2", "queued"),
        ]


def test_a_rule_with_two_series_runs_when_both_are_there(tmp_path: Path, clock: TestClock) -> None:
    with small_node(tmp_path, clock, TWO.replace("OPTIONAL", "no")) as node:
        node.arrive("1", **_mr("t1"))
        node.turn(11)
        assert node.decisions("1") == {"two": "waiting"}
        node.arrive("2", **_mr("flair"))
        node.turn(11)

        (job,) = node.jobs()
        assert _inputs(node, job["id"]) == {"series": "1", "t1": "1", "flair": "2"}


def test_an_optional_series_is_waited_for_and_then_left_out(
    tmp_path: Path, clock: TestClock
) -> None:
    with small_node(tmp_path, clock, TWO.replace("OPTIONAL", "yes")) as node:
        node.arrive("1", **_mr("t1"))
        node.turn(11)
        assert node.jobs() == []

        node.turn(20 * 60)

        (job,) = node.jobs()
        assert _inputs(node, job["id"]) == {"series": "1", "t1": "1"}


def test_a_series_that_never_comes_ends_in_a_sentence(tmp_path: Path, clock: TestClock) -> None:
    with small_node(tmp_path, clock, TWO.replace("OPTIONAL", "no")) as node:
        node.arrive("1", **_mr("t1"))
        node.turn(11)
        node.turn(20 * 60)

        assert node.jobs() == []
        assert node.decisions("1") == {"two": "lacking"}
        node.turn(60)
        assert node.decisions("1") == {"two": "lacking"}


def test_a_job_that_waits_for_an_admin_is_held_with_its_best_guess(
    tmp_path: Path, clock: TestClock
) -> None:
    with small_node(tmp_path, clock, BEST_CT) as node:
        node.arrive("1", **_ct(4.0))
        node.arrive("2", **_ct(6.0))
        node.turn(11)

        (job,) = node.jobs()
        assert (job["state"], job["series_instance_uid"]) == ("held", f"{STUDY}.1")
        assert "2 series fit" in job["sentence"]


def test_a_series_that_grows_after_it_was_scored_follows_the_rule(
    tmp_path: Path, clock: TestClock
) -> None:
    for policy, states in (("ignore", ["queued"]), ("hold", ["superseded", "held"])):
        folder = tmp_path / policy
        folder.mkdir()
        text = (
            "rules:\n  - name: a\n    mode: shadow\n    when: { Modality: CT }\n"
            f"    completion: {{ late_instances: {policy} }}\n    {RUN}\n"
        )
        with small_node(folder, clock, text) as node:
            node.arrive("1", 2, **_ct(5.0))
            node.turn(11)
            node.arrive("1", 3, **_ct(5.0))
            node.turn(11)

            assert [job["state"] for job in node.jobs()] == states


def test_a_model_of_another_version_holds_the_job(tmp_path: Path, clock: TestClock) -> None:
    text = BEST_CT.replace("haemorrhage-demo }", 'haemorrhage-demo, version: "9.x" }')
    with small_node(tmp_path, clock, text) as node:
        node.arrive("1", **_ct(5.0))
        node.turn(11)

        (job,) = node.jobs()
        assert (job["state"], job["reason"]) == ("held", "config")
        assert "the rule wants 9.x" in job["sentence"]


RESULT_OF = f"""\
rules:
  - name: first
    mode: shadow
    when: {{ Modality: CT }}
    {RUN}
  - name: second
    mode: shadow
    when: {{ Modality: CT }}
    inputs: {{ ct: {{}}, first: {{ result_of: first, if_missing: fail }} }}
    {RUN}
"""


@pytest.mark.parametrize(("slots", "state"), [(["seg", "sr"], "queued"), ([], "not_scored")])
def test_a_rule_waits_for_the_results_of_another(
    tmp_path: Path, clock: TestClock, slots: list[str], state: str
) -> None:
    with small_node(tmp_path, clock, RESULT_OF) as node:
        node.arrive("1", **_ct(5.0))
        node.turn(11)
        first, second = node.jobs()
        assert (second["state"], second["reason"]) == ("held", "inputs")

        _end(node, first["id"], slots)
        node.turn(60)

        _, second = node.jobs()
        assert second["state"] == state
        if slots:
            with node.parts.database.snapshot() as tx:
                job = jobs.get(tx, second["id"])
            assert job is not None
            assert sorted(job.snapshot["gathered"]["first"]["results"]) == slots


def _end(node: SmallNode, job_id: int, slots: list[str]) -> None:
    """Let a job end, with results or because its input is not to be scored."""
    policy = node.parts.policy
    for step in STEP_ORDER:
        with node.parts.database.transaction() as tx:
            job = jobs.claim(tx, job_id, step, "test", policy)
            assert job is not None
            if step != STEP_ORDER[-1]:
                jobs.finish_step(tx, job)
            elif slots:
                jobs.fix_results(tx, job, [result(slot) for slot in slots], {})
            else:
                jobs.not_scored(tx, job, "no_head", "There is no head.")


def test_results_of_another_scorenode_are_never_scored(tmp_path: Path, clock: TestClock) -> None:
    with small_node(tmp_path, clock, BEST_CT) as node:
        node.arrive(
            "1", **_ct(5.0), Manufacturer=["scorenode project"], ManufacturerModelName=["scorenode"]
        )
        node.turn(11)

        assert node.jobs() == []
        assert node.decisions("1") == {"best-ct": "not_matched"}


def test_a_replayed_job_gives_way_to_one_with_the_model_of_today(
    tmp_path: Path, clock: TestClock
) -> None:
    package = tmp_path / "packages" / "site-model"
    shutil.copytree(find_package("haemorrhage-demo", ()), package)
    manifest = (package / "model.yaml").read_text()
    (package / "model.yaml").write_text(manifest.replace("haemorrhage-demo", "site-model"))
    rule = BEST_CT.replace("haemorrhage-demo", "site-model")
    with small_node(tmp_path, clock, f"models: {{ folders: [packages] }}\n{rule}") as node:
        node.arrive("1", **_ct(5.0))
        node.turn(11)
        (first,) = node.jobs()
        _end(node, first["id"], ["sr"])
        assert _replayed(node, first["id"]) == ("matched", [])

        newer = re.sub(r"(?m)^version: .*", "version: 77.0.0", (package / "model.yaml").read_text())
        (package / "model.yaml").write_text(newer)
        outcome, opened = _replayed(node, first["id"])

        assert (outcome, len(opened)) == ("matched", 1)
        assert [job["state"] for job in node.jobs()] == ["done", "queued"]
        assert node.decisions("1") == {"best-ct": "matched"}
        with node.parts.database.snapshot() as tx:
            again = jobs.get(tx, opened[0])
            assert again is not None
            assert again.snapshot["model"]["version"] == "77.0.0"
            assert [one["slot"] for one in earlier_results(tx, again)] == ["sr"]


def test_a_job_is_replayed_with_values_that_nobody_looked_at_before(
    tmp_path: Path, clock: TestClock
) -> None:
    with small_node(tmp_path, clock, BEST_CT) as node:
        image = encoded(ct_image(InstitutionName="Ward A", SliceThickness=5))
        node.arrive_bytes("1", image, **_ct(5.0))
        node.turn(11)
        (first,) = node.jobs()
        outcomes = {}
        for ward in ("Ward A", "Ward B"):
            text = BEST_CT.replace("Modality: CT", f"Modality: CT, InstitutionName: {ward}")
            (tmp_path / "new.yaml").write_text(HEAD + text)
            outcomes[ward], _ = _replayed(node, first["id"], load(tmp_path / "new.yaml"))

    assert outcomes == {"Ward A": "matched", "Ward B": "not_matched"}


def _replayed(node: SmallNode, job_id: int, config: Config | None = None) -> tuple[str, list[int]]:
    config = config or node.parts.config
    keys = header_keys(config.rules)
    with node.parts.database.transaction() as tx:
        job = jobs.get(tx, job_id)
        assert job is not None
        decision, opened = replay(
            tx,
            job,
            config,
            Models(config.models.folders),
            lambda closed: with_headers(closed, node.parts.objects, keys),
        )
    assert decision is not None
    return decision.outcome, opened
