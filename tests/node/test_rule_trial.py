"""Explaining and trying rules: on a folder, and on what this node has received."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from node.cli.main import app
from storage import retrievals
from tests.conftest import TestClock
from tests.node.samples import HEAD, STUDY, small_node
from tests.peers import ct_image, encoded, part10

RUN = "run: { pipeline: haemorrhage, model: haemorrhage-demo }"
OLD = f"""\
rules:
  - name: thick
    mode: shadow
    when: {{ Modality: CT, SliceThickness: {{ min: 2mm }} }}
    {RUN}
  - name: gone
    mode: shadow
    when: {{ Modality: MR }}
    {RUN}
"""
NEW = f"""\
rules:
  - name: thick
    mode: shadow
    when: {{ Modality: CT, SliceThickness: {{ min: 4mm }} }}
    {RUN}
  - name: best
    mode: shadow
    when: {{ Modality: CT }}
    inputs: {{ ct: {{ pick: [ {{ nearest: {{ SliceThickness: 5 }} }} ] }} }}
    {RUN}
"""


def _file(folder: Path, name: str, rules: str) -> str:
    path = folder / name
    path.write_text(HEAD + rules)
    return str(path)


def _folder(folder: Path) -> Path:
    images = folder / "images"
    images.mkdir()
    for series, thickness in enumerate((1, 3, 5), 1):
        for number in range(2):
            ds = ct_image(
                SeriesInstanceUID=f"1.2.3.{series}",
                SeriesNumber=series,
                SliceThickness=thickness,
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[0, 0, thickness * number],
            )
            part10(ds, images / f"{series}-{number}.dcm")
    return images


def _run(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_other_rules_are_tried_on_a_folder_and_the_differences_told(tmp_path: Path) -> None:
    old, new = _file(tmp_path, "old.yaml", OLD), _file(tmp_path, "new.yaml", NEW)
    images = str(_folder(tmp_path))

    found = _run("rules", "test", new, "--against", images, "--config", old)

    told = {
        (one["series_instance_uid"][-1], one["rule"]): (
            one["before"] and one["before"]["outcome"],
            one["after"] and one["after"]["outcome"],
        )
        for one in found["differences"]
    }
    assert found["series"] == 3
    assert told == {("2", "thick"): ("matched", "not_matched"), ("3", "best"): (None, "matched")}
    best = next(one for one in found["differences"] if one["rule"] == "best")
    assert best["after"]["inputs"] == [{"ct": "1.2.3.3"}]


def test_the_differences_read_like_a_diff(tmp_path: Path) -> None:
    old, new = _file(tmp_path, "old.yaml", OLD), _file(tmp_path, "new.yaml", NEW)
    images = str(_folder(tmp_path))

    done = CliRunner().invoke(app, ["rules", "test", new, "--against", images, "--config", old])

    assert (
        "    - matched (shadow): haemorrhage with haemorrhage-demo; series = 1.2.3.2" in done.stdout
    )
    assert "    + not matched: Not scored: rule thick wants SliceThickness min 4mm" in done.stdout
    assert "3 series in 1 studies: 2 differences." in done.stdout


def test_the_same_rules_differ_in_nothing(tmp_path: Path) -> None:
    old, again = _file(tmp_path, "old.yaml", OLD), _file(tmp_path, "again.yaml", OLD)

    found = _run("rules", "test", again, "--against", str(_folder(tmp_path)), "--config", old)

    assert found["differences"] == []


def test_rules_are_tried_on_what_came_and_read_what_was_not_collected(
    tmp_path: Path, clock: TestClock
) -> None:
    new = _file(tmp_path, "new.yaml", OLD.replace("Modality: CT", "InstitutionName: Ward B"))
    with small_node(tmp_path, clock, OLD) as node:
        for series, ward in (("1", "Ward A"), ("2", "Ward B")):
            ds = ct_image(InstitutionName=ward, SliceThickness=5)
            node.arrive_bytes(series, encoded(ds), Modality=["CT"], SliceThickness=[5.0])
        node.turn(11)
        config = str(tmp_path / "scorenode.yaml")

        found = _run("rules", "test", new, "--against", "last:9000d", "--config", config)
        none = _run("rules", "test", new, "--against", "last:1h", "--config", config)

    assert [(one["series_instance_uid"], one["rule"]) for one in found["differences"]] == [
        (f"{STUDY}.1", "thick")
    ]
    assert "InstitutionName Ward B, found Ward A" in found["differences"][0]["after"]["sentence"]
    assert none == {"series": 0, "differences": []}


def test_old_rules_too_are_tried_with_values_that_nobody_looked_at_before(
    tmp_path: Path, clock: TestClock
) -> None:
    of_ward = OLD.replace("Modality: CT", "InstitutionName: Ward A")
    with small_node(tmp_path, clock, OLD) as node:
        ds = ct_image(InstitutionName="Ward A", SliceThickness=5)
        node.arrive_bytes("1", encoded(ds), Modality=["CT"], SliceThickness=[5.0])
        node.turn(11)
        config = _file(tmp_path, "scorenode.yaml", of_ward)
        new = _file(tmp_path, "new.yaml", of_ward.replace("Ward A", "Ward B"))

        found = _run("rules", "test", new, "--against", "last:9000d", "--config", config)

    (difference,) = found["differences"]
    assert (difference["before"]["outcome"], difference["after"]["outcome"]) == (
        "matched",
        "not_matched",
    )


def test_series_that_the_node_retrieved_are_not_tried_and_explained_as_such(
    tmp_path: Path, clock: TestClock
) -> None:
    new = _file(tmp_path, "new.yaml", OLD.replace("2mm", "9mm"))
    with small_node(tmp_path, clock, OLD) as node:
        with node.parts.database.transaction() as tx:
            retrievals.ask(tx, "1.9", "1.9.7", "PACS")
        for study, series in (("1.9", "7"), (STUDY, "1")):
            node.arrive(series, study=study, Modality=["CT"], SliceThickness=[5.0])
        node.turn(11)
        config = str(tmp_path / "scorenode.yaml")

        found = _run("rules", "test", new, "--against", "last:9000d", "--config", config)
        (told,) = _run("explain", "1.9.7", "--config", config)

    assert found["series"] == 1
    assert [one["series_instance_uid"] for one in found["differences"]] == [f"{STUDY}.1"]
    assert told["decisions"] == []
    assert "this node retrieved the series from PACS" in told["conclusion"]


def test_a_window_that_is_none_is_told(tmp_path: Path) -> None:
    old = _file(tmp_path, "old.yaml", OLD)

    done = CliRunner().invoke(app, ["rules", "test", old, "--against", "last:x", "--config", old])

    assert done.exit_code == 2
    assert "Write last:30d" in done.output


def test_explain_shows_every_candidate_of_a_rule_for_studies(tmp_path: Path) -> None:
    config, images = _file(tmp_path, "new.yaml", NEW), str(_folder(tmp_path))

    (first, *_) = _run("explain", images, "--config", config)
    text = CliRunner().invoke(app, ["explain", images, "--config", config]).stdout

    best = next(d for d in first["decisions"] if d["rule"] == "best")
    (ct,) = best["inputs"]
    assert [(c["label"], c["outcome"]) for c in ct["candidates"]] == [
        ("series 1, CT, 2 instances", "passed_over"),
        ("series 2, CT, 2 instances", "passed_over"),
        ("series 3, CT, 2 instances", "taken"),
    ]
    assert "another is better by nearest SliceThickness 5" in text
    assert "passed over" in text


def test_explain_of_the_running_node_tells_what_was_decided_last(
    tmp_path: Path, clock: TestClock
) -> None:
    with small_node(tmp_path, clock, NEW) as node:
        node.arrive("1", Modality=["CT"], SliceThickness=[1.0])
        node.clock.forward(9)
        node.arrive("2", Modality=["CT"], SliceThickness=[5.0])
        node.turn(2)
        config = str(tmp_path / "scorenode.yaml")
        (waiting,) = _run("explain", f"{STUDY}.1", "--config", config)
        node.turn(10)
        (first,) = _run("explain", f"{STUDY}.1", "--config", config)
        (second,) = _run("explain", f"{STUDY}.2", "--config", config)

    assert "decides when the whole study has come" in waiting["conclusion"]
    assert {d["rule"]: d["outcome"] for d in first["decisions"]} == {
        "thick": "not_matched",
        "best": "decided_later",
    }
    assert {d["rule"]: d["outcome"] for d in second["decisions"]} == {
        "thick": "matched",
        "best": "matched",
    }
