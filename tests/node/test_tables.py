"""Tables as inputs of rules: where rows come from, which is taken, and how a job waits for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from node.config.file import load
from node.config.tables import Table, TableField
from node.inputs import Absent, Ready, table_row
from node.table_base import TableAway, TableRefused
from node.table_rows import Chosen, Missing, Unfit, choose_row
from node.tables import rows_of
from storage.base import ClosedSeries, CompletionVerdict, StoredInstance
from storage.tables import Job
from tests.certificates import Authority, authority
from tests.conftest import TestClock
from tests.end_to_end.harness import until
from tests.node.samples import HEAD, SmallNode, small_node
from tests.redcap import TOKEN, RedcapProject, redcap

ROWS = [
    {"patient": "P1", "visit": "2026-01-01", "mmse": "27", "unit": "points"},
    {"patient": "P2", "visit": "2026-01-02", "mmse": "11", "unit": "points"},
    {"patient": "P1", "visit": "2025-06-01", "mmse": "29", "unit": "points"},
]
COLUMNS = list(ROWS[0])


def _table(folder: Path, source: str, extra: str = "") -> Table:
    path = folder / "scorenode.yaml"
    path.write_text(HEAD + f"tables:\n  scores: {{ {source}, id: patient{extra} }}\nrules: []\n")
    return load(path).tables["scores"]


def _csv(folder: Path) -> str:
    lines = [",".join(COLUMNS), *(",".join(row.values()) for row in ROWS)]
    (folder / "scores.csv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return "csv: { file: scores.csv }"


def _parquet(folder: Path) -> str:
    from pyarrow import Table as ArrowTable
    from pyarrow import parquet

    parquet.write_table(ArrowTable.from_pylist(ROWS), folder / "scores.parquet")
    return "parquet: { file: scores.parquet }"


def _sql(folder: Path) -> str:
    with sqlite3.connect(folder / "scores.db") as connection:
        connection.execute("CREATE TABLE scores (patient TEXT, visit DATE, mmse REAL, unit TEXT)")
        for row in ROWS:
            connection.execute("INSERT INTO scores VALUES (?, ?, ?, ?)", list(row.values()))
    connection.close()
    return f"sql: {{ url: 'sqlite:///{folder}/scores.db', table: scores }}"


@pytest.mark.parametrize("source", [_csv, _parquet, _sql], ids=["csv", "parquet", "sql"])
def test_rows_of_one_patient_are_read_from_every_source(
    tmp_path: Path, source: Callable[[Path], str]
) -> None:
    table = _table(tmp_path, source(tmp_path))

    assert rows_of(table, "P1") == [ROWS[0], ROWS[2]]
    assert rows_of(table, "P1' OR '1'='1") == []


@pytest.mark.parametrize("source", [_csv, _parquet, _sql], ids=["csv", "parquet", "sql"])
def test_a_source_without_a_column_that_is_named_is_refused(
    tmp_path: Path, source: Callable[[Path], str]
) -> None:
    table = _table(tmp_path, source(tmp_path), ", date: when")

    with pytest.raises(TableRefused, match="Table scores has no column when"):
        rows_of(table, "P1")


@pytest.mark.parametrize(
    "source", ["csv: { file: none }", "parquet: { file: none }",
               "sql: { url: 'sqlite:////none/none.db', table: scores }"],
)  # fmt: skip
def test_a_source_that_is_away_is_asked_again_later(tmp_path: Path, source: str) -> None:
    with pytest.raises(TableAway, match="of table scores cannot be read"):
        rows_of(_table(tmp_path, source), "P1")


def test_a_line_whose_cells_are_shifted_is_never_read(tmp_path: Path) -> None:
    source = _csv(tmp_path)
    path = tmp_path / "scores.csv"
    path.write_text(path.read_text() + "P4,2026-01-01,27,5,points\n")
    table = _table(tmp_path, source)

    with pytest.raises(TableRefused, match="Line 5 of table scores has more cells than its first"):
        rows_of(table, "P4")
    assert rows_of(table, "P2") == [ROWS[1]]


@pytest.mark.parametrize("columns", ["patient,mmse,mmse", "patient,patient,mmse"])
def test_a_file_with_two_columns_of_a_name_that_is_needed_is_refused(
    tmp_path: Path, columns: str
) -> None:
    (tmp_path / "scores.csv").write_text(f"{columns}\nP1,P2,27\n")
    table = _table(tmp_path, "csv: { file: scores.csv }", ", fields: { mmse: {} }")

    with pytest.raises(TableRefused, match=r"Table scores has two columns (mmse|patient)"):
        rows_of(table, "P1")


@pytest.mark.parametrize("key", ["p1", "P01", "P1 1", "0P1", "P", "*", "%"])
@pytest.mark.parametrize("source", [_csv, _parquet, _sql], ids=["csv", "parquet", "sql"])
def test_an_id_that_is_only_like_another_has_no_rows(
    tmp_path: Path, source: Callable[[Path], str], key: str
) -> None:
    assert rows_of(_table(tmp_path, source(tmp_path)), key) == []


def test_a_database_that_compares_without_case_gives_no_other_patient(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "scores.db") as connection:
        connection.execute("CREATE TABLE scores (patient TEXT COLLATE NOCASE, mmse REAL)")
        connection.execute("INSERT INTO scores VALUES ('ab1', 11), ('AB1', 27)")
    connection.close()
    table = _table(tmp_path, f"sql: {{ url: 'sqlite:///{tmp_path}/scores.db', table: scores }}")

    assert rows_of(table, "AB1") == [{"patient": "AB1", "mmse": "27"}]


def _choose(rows: list[dict[str, str]], fields: dict[str, TableField], **more: Any) -> Any:
    values = {"name": "scores", "id_column": "patient", "date_column": "visit", "fields": fields}
    table = Table(**values | {"birth_date_column": more.pop("born", "")})
    return choose_row(
        table, rows, more.get("study", date(2026, 2, 1)), more.get("birth"), more.get("within")
    )


MMSE = {"mmse": TableField(min=0, max=30, unit="points", unit_column="unit")}
P1 = [ROWS[0], ROWS[2]]


def test_the_newest_row_is_taken_with_its_age() -> None:
    assert _choose(P1, MMSE) == Chosen({"mmse": 27.0}, {"mmse": "points"}, date(2026, 1, 1), 31)


CHOICES = [
    ([], {}, Missing, "has no row for this patient."),
    (P1, {"within": 30}, Missing, "no row within 30 days"),
    (P1, {"within": 31}, Chosen, ""),
    (P1, {"within": 30, "study": None}, Unfit, "no Study Date"),
    ([{**P1[0], "mmse": ""}], {}, Missing, "with all values"),
    ([{**P1[0], "mmse": ""}, P1[1]], {}, Chosen, ""),
    ([{**P1[0], "mmse": "31"}], {}, Unfit, "outside 0 to 30"),
    ([{**P1[0], "mmse": "good"}], {}, Unfit, "is not a number"),
    ([{**P1[0], "mmse": "27,5"}], {}, Unfit, "is not a number"),
    ([{**P1[0], "unit": "percent"}], {}, Unfit, "is not in points"),
    ([P1[0], {**P1[0], "mmse": "21"}], {}, Unfit, "two rows of its newest day"),
    ([{**row, "visit": ""} for row in P1], {}, Unfit, "two rows without a date"),
    ([P1[0], P1[0], P1[1]], {}, Chosen, ""),
    ([{**P1[0], "visit": "01.02.2026"}, P1[1]], {}, Unfit, "a date that is not written as"),
    ([{**P1[0], "visit": "2026-02-30"}], {}, Unfit, "a date that is not written as"),
    ([{**P1[0], "visit": "2026-01-01 10:30"}], {}, Chosen, ""),
    ([{**P1[0], "dob": "1950-01-01"}], {"born": "dob", "birth": date(1950, 1, 1)}, Chosen, ""),
    ([{**P1[0], "dob": "1950-01-02"}], {"born": "dob", "birth": date(1950, 1, 1)}, Unfit,
     "is not that of the images"),
    ([{**P1[0], "dob": "1950-01-01"}], {"born": "dob"}, Unfit, "have no birth date"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "more", "kind", "sentence"), CHOICES)
def test_a_row_is_checked_before_it_is_used(
    rows: list[dict[str, str]], more: dict[str, Any], kind: type, sentence: str
) -> None:
    found = _choose(rows, MMSE, **more)

    assert isinstance(found, kind)
    assert sentence in getattr(found, "sentence", "")
    assert not any(
        secret in str(getattr(found, "sentence", "")) for secret in ("31.", "P1", "1950")
    )


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ([{"PatientID": ["P1"]}, {"PatientID": [" P1 "]}], ""),
        ([{"PatientID": ["P1"]}, {"PatientID": ["P2"]}], "more than one PatientID"),
        ([{"PatientID": ["P1"]}, {"PatientID": ["p1"]}], "more than one PatientID"),
        ([{"PatientID": [" "]}], "no PatientID"),
        ([{"PatientID": ["P1"], "PatientBirthDate": ["19500101"]}, {"PatientBirthDate": []}], ""),
        ([{"PatientID": ["P1"], "PatientBirthDate": ["19500101"]},
          {"PatientBirthDate": ["19500102"]}], "more than one PatientBirthDate"),
    ],
)  # fmt: skip
def test_images_of_two_people_get_no_row(
    tmp_path: Path, headers: list[dict[str, list[str]]], sentence: str
) -> None:
    path = tmp_path / "scorenode.yaml"
    source = _csv(tmp_path)
    path.write_text(
        HEAD + f"tables:\n  scores: {{ {source}, id: patient, date: visit }}\nrules: []\n"
    )
    instances = tuple(
        StoredInstance(f"1.{n}", "1.2", "1.2", "d" * 64, 1, "key", 0, header)
        for n, header in enumerate(headers)
    )
    closed = ClosedSeries(1, "1.2", "1.3", 0, CompletionVerdict.QUIET, instances, "d" * 64, ())
    want = {"table": "scores", "key": "PatientID", "newest_within_seconds": None}

    found = table_row(want, closed, load(path))

    assert isinstance(found, Absent if sentence else Ready)
    assert sentence in getattr(found, "sentence", "")


# REDCap


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def issued(signer: Authority) -> Any:
    return signer.issue("redcap", address="127.0.0.1")


def _project(**values: Any) -> RedcapProject:
    rows = [
        {"record_id": str(number), "patient": f"P{number % 40}", "visit": f"2026-01-{day:02d}",
         "mmse": str(20 + day), "redcap_event_name": f"visit_{day}_arm_1"}
        for number in range(100)
        for day in (1, 2)
    ]  # fmt: skip
    fields = ["record_id", "patient", "visit", "mmse"]
    return RedcapProject(fields, rows, {"cognition": ["mmse"]}, **values)


def _redcap_table(
    folder: Path, url: str, signer: Authority, more: str = "", extra: str = ""
) -> Table:
    (folder / "token").write_text(f"{TOKEN}\n")
    source = f"redcap: {{ url: '{url}', token: '${{file:token}}', ca: {signer.certificate}{more} }}"
    return _table(folder, source, extra)


def test_records_of_a_patient_are_exported_page_by_page(
    tmp_path: Path, signer: Authority, issued: Any
) -> None:
    project = _project()
    with redcap(project, issued) as url:
        table = _redcap_table(tmp_path, url, signer, ", page: 2", ", date: visit")
        rows = rows_of(table, "P3")

    assert [row["record_id"] for row in rows] == ["3", "3", "43", "43", "83", "83"]
    exports = [form for form in project.requests if "records[0]" in form]
    assert [sorted(v for k, v in form.items() if k.startswith("records")) for form in exports] == [
        ["3", "43"],
        ["83"],
    ]
    assert all(form["token"] == TOKEN for form in project.requests)


def test_a_record_that_is_named_by_its_id_is_exported_alone(
    tmp_path: Path, signer: Authority, issued: Any
) -> None:
    project = _project()
    with redcap(project, issued) as url:
        table = _redcap_table(
            tmp_path, url, signer, ", form: cognition, event: visit_2_arm_1",
            ", date: visit, fields: { mmse: {} }",
        )  # fmt: skip
        path = tmp_path / "scorenode.yaml"
        path.write_text(path.read_text().replace("id: patient", "id: record_id"))
        table = load(path).tables["scores"]
        rows = rows_of(table, "7")

    assert [(row["record_id"], row["visit"], row["mmse"]) for row in rows] == [
        ("7", "2026-01-02", "22")
    ]
    assert [form["content"] for form in project.requests] == ["metadata", "record"]


def test_a_server_that_compares_without_case_gives_no_other_patient(
    tmp_path: Path, signer: Authority, issued: Any
) -> None:
    rows = [
        {"record_id": name, "patient": name, "mmse": mmse}
        for name, mmse in (("ab1", "11"), ("AB1", "27"))
    ]
    project = RedcapProject(["record_id", "patient", "mmse"], rows, ignores_case=True)
    with redcap(project, issued) as url:
        by_patient = _redcap_table(tmp_path, url, signer)
        path = tmp_path / "scorenode.yaml"
        path.write_text(path.read_text().replace("id: patient", "id: record_id"))
        by_record = load(path).tables["scores"]
        found = [rows_of(table, "AB1") for table in (by_patient, by_record)]

    assert found == [[rows[1]], [rows[1]]]


BEHAVIOUR = [
    ("broken", TableAway, "cannot answer table scores now .status 500"),
    ("busy", TableAway, "status 503"),
    ("html", TableRefused, "is not REDCap's API"),
    ("moved", TableAway, "status 302"),
    ("slow", TableAway, "too slow|cannot be reached"),
]


@pytest.mark.parametrize(("answer", "error", "sentence"), BEHAVIOUR, ids=[b[0] for b in BEHAVIOUR])
def test_a_server_that_misbehaves_ends_in_a_sentence(
    tmp_path: Path,
    signer: Authority,
    issued: Any,
    answer: str,
    error: type[Exception],
    sentence: str,
) -> None:
    with redcap(_project(answer=answer), issued) as url:
        table = _redcap_table(tmp_path, url, signer, extra=", timeout: 1s")
        with pytest.raises(error, match=sentence) as caught:
            rows_of(table, "P3")

    assert TOKEN not in str(caught.value)


def test_a_wrong_token_an_unknown_field_and_a_strange_certificate_are_refused(
    tmp_path: Path, signer: Authority, issued: Any
) -> None:
    other = authority(tmp_path, "other")
    with redcap(_project(), issued) as url:
        unknown = _redcap_table(tmp_path, url, signer, extra=", date: when")
        with pytest.raises(TableRefused, match="has no field when"):
            rows_of(unknown, "P3")
        strange = _redcap_table(tmp_path, url, other)
        with pytest.raises(TableRefused, match=r"certificate of REDCap .* is not trusted"):
            rows_of(strange, "P3")
        wrong = _redcap_table(tmp_path, url, signer)
        (tmp_path / "token").write_text("WRONG")
        wrong = load(tmp_path / "scorenode.yaml").tables["scores"]
        with pytest.raises(TableRefused, match=r"status 403.*is the token right"):
            rows_of(wrong, "P3")
        assert "WRONG" not in repr(wrong)


def test_a_server_that_is_down_is_asked_again_later(tmp_path: Path, signer: Authority) -> None:
    table = _redcap_table(tmp_path, "https://127.0.0.1:1/api/", signer)

    with pytest.raises(TableAway, match="REDCap cannot be reached"):
        rows_of(table, "P3")


# Jobs that wait

RULES = """\
tables:
  scores:
    csv: {{ file: scores.csv }}
    id: patient
    date: visit
    fields: {{ mmse: {{ max: 30 }} }}
rules:
  - name: a
    mode: shadow
    when: {{ Modality: MR }}
    inputs:
      t1: {{}}
      scores: {{ table: scores, newest_within: 180d{more} }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo }}
"""
MR: dict[str, Any] = {"Modality": ["MR"], "PatientID": ["P1"], "StudyDate": ["20260201"]}


def _gathered(node: SmallNode) -> Any:
    with node.parts.database.snapshot() as tx:
        return tx.execute(select(Job.snapshot)).scalar_one().get("gathered")


def test_a_job_waits_for_its_row_and_goes_on_by_itself(tmp_path: Path, clock: TestClock) -> None:
    (tmp_path / "scores.csv").write_text("patient,visit,mmse\nP2,2026-01-01,11\n")
    with small_node(tmp_path, clock, RULES.format(more="")) as node:
        node.arrive("1", **MR)
        node.turn(11)
        (held,) = node.jobs()
        with (tmp_path / "scores.csv").open("a") as file:
            file.write("P1,2026-01-01,27\n")
        node.turn(1)
        (early,) = node.jobs()

        node.turn(60)

        (job,) = node.jobs()
        assert (held["state"], held["reason"]) == ("held", "inputs")
        assert "Table scores has no row for this patient" in held["sentence"]
        assert early["state"] == "held"
        assert (job["state"], job["sentence"]) == ("queued", "")
        row = _gathered(node)["scores"]
        assert (row["values"], row["age_days"]) == ({"mmse": 27.0}, 31)


def test_a_study_is_decided_while_a_table_does_not_answer(tmp_path: Path, clock: TestClock) -> None:
    os.mkfifo(tmp_path / "scores.csv")  # reading it waits for somebody who writes
    study_rule = "  - { name: b, level: study, mode: shadow, when: { Modality: CT }, RUN }\n"
    run = "run: { pipeline: haemorrhage, model: haemorrhage-demo }"
    rules = RULES.format(more="") + study_rule.replace("RUN", run)
    with small_node(tmp_path, clock, rules) as node:
        node.arrive("1", **MR)
        clock.forward(11)
        node.coordinator.sweep()
        node.arrive("2", study="1.9", Modality=["CT"])
        clock.forward(5)
        node.arrive("3", study="1.9", Modality=["CT"])
        clock.forward(6)
        node.coordinator.sweep()
        (held,) = node.jobs()
        node.gatherer.start()
        try:
            until(lambda: node.jobs()[0]["next_at"] != held["next_at"], "the table to be asked", 20)
            clock.forward(20 * 60)
            until(lambda: len(node.jobs()) == 2, "the study to be decided", 20)
        finally:
            (tmp_path / "scores.csv").write_text("patient,visit,mmse\n")
            node.gatherer.stop()

        assert {job["rule"]: job["state"] for job in node.jobs()} == {"a": "held", "b": "queued"}


@pytest.mark.parametrize(
    ("more", "states"),
    [
        (", if_missing: hold", ["held", "held"]),
        (", if_missing: fail", ["not_scored", "not_scored"]),
        (", optional: yes", ["held", "queued"]),
        (", if_missing: ignore", ["held", "queued"]),
    ],
)
def test_a_missing_row_holds_fails_or_is_left_out(
    tmp_path: Path, clock: TestClock, more: str, states: list[str]
) -> None:
    (tmp_path / "scores.csv").write_text("patient,visit,mmse\n")
    with small_node(tmp_path, clock, RULES.format(more=more)) as node:
        node.arrive("1", **MR)
        node.turn(11)
        (soon,) = node.jobs()
        node.turn(20 * 60)
        (late,) = node.jobs()

        assert [soon["state"], late["state"]] == states
        if states[1] == "queued":
            assert _gathered(node) == {"scores": None}


def test_a_job_that_an_admin_retries_still_gets_its_inputs(
    tmp_path: Path, clock: TestClock
) -> None:
    from storage import job_admin

    (tmp_path / "scores.csv").write_text("patient,visit,mmse\n")
    with small_node(tmp_path, clock, RULES.format(more=", if_missing: fail")) as node:
        node.arrive("1", **MR)
        node.turn(11)
        (job,) = node.jobs()
        (tmp_path / "scores.csv").write_text("patient,visit,mmse\nP1,2026-01-01,27\n")
        with node.parts.database.transaction() as tx:
            assert job_admin.requeue(tx, job["id"])
        node.turn()

        (again,) = node.jobs()
        assert (job["state"], again["state"]) == ("not_scored", "queued")
