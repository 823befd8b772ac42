"""Why a series was or was not scored, by its UID or in a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.app import ConfigOption, JsonOption, app, fail, load_config, store
from node.cli.output import console, print_json

Answer = tuple[Any, Any, Any]
"""Decisions, series and jobs, as `node.explain` takes them."""


@app.command()
def explain(
    what: Annotated[str, typer.Argument(help="Series Instance UID, or a folder of DICOM files.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a series was or was not scored: every rule, value wanted, value found."""
    from node.explain import as_json as to_json
    from node.explain import render

    folder = Path(what)
    is_folder = folder.is_dir()
    answers = _explain_folder(folder, config) if is_folder else _explain_series(what, config)
    if not answers:
        raise fail(f"There is no series {what} in this node, and no folder of that name.")
    if as_json:
        print_json([to_json(*answer) for answer in answers])
        return
    for answer in answers:
        console.print(render(*answer))
        console.print()


def _explain_folder(folder: Path, config: Path | None) -> list[Answer]:
    from node.cli.folders import studies_of
    from node.completeness import CompletenessJudge
    from node.explain import SeriesSummary
    from node.routing import StudyFacts, decide, header_keys

    loaded = load_config(config)
    rules = loaded.rules
    today = datetime.now(UTC).astimezone().date()
    studies, passed_over = studies_of(folder, header_keys(rules), CompletenessJudge(loaded))
    if passed_over:
        console.print(f"{passed_over} files are not DICOM or damaged, and were passed over.")
    answers: list[Answer] = []
    for study in studies:
        for facts in study:
            summary = SeriesSummary(
                facts.study_instance_uid,
                facts.series_instance_uid,
                facts.modality,
                "folder",
                0,
                facts.instances,
                facts.verdict if facts.evidence else "",
                None,
                facts.evidence,
            )
            answers.append((decide(rules, facts, StudyFacts(study), today), summary, ()))
    return answers


def _explain_series(uid: str, config: Path | None) -> list[Answer]:
    from storage import queries

    loaded = load_config(config)
    with store(config) as database, database.snapshot() as tx:
        shown = [queries.series_show(tx, item) for item in queries.series_ids(tx, uid)]
        jobs = {
            job["id"]: queries.job_show(tx, job["id"]) for item in shown for job in item["jobs"]
        }
        return [_answer(item, jobs, loaded, tx.now) for item in shown]


def _answer(item: dict[str, Any], jobs: dict[int, Any], loaded: Any, now: Any) -> Answer:
    from node.explain import SeriesSummary

    is_open = item["state"] == "open"
    quiet = loaded.completion_of(item["peer"]).quiet_seconds
    last = item["generations"][-1] if item["generations"] and not is_open else {}
    summary = SeriesSummary(
        item["study_instance_uid"],
        item["series_instance_uid"],
        item["modality"],
        item["state"],
        item["generation"],
        item["instances"],
        last.get("verdict", ""),
        quiet - (now - item["last_at"]).total_seconds() if is_open else None,
        last.get("evidence", ""),
        item["retrieved_from"],
    )
    return _decisions(item["decisions"]), summary, [_job(job, jobs) for job in item["jobs"]]


def _decisions(rows: list[dict[str, Any]]) -> list[Any]:
    """Read what every rule said last: a rule that waited for the study has said it twice."""
    from node.routing import Decision

    last = {row["rule"]: row for row in rows}
    return [
        Decision.from_json(row["data"] | {"outcome": row["outcome"], "sentence": row["sentence"]})
        for row in last.values()
    ]


def _job(job: dict[str, Any], jobs: dict[int, Any]) -> Any:
    from node.explain import DeliverySummary, JobSummary

    return JobSummary(
        job["id"],
        job["rule"],
        job["pipeline"],
        job["state"],
        job["step"],
        job["sentence"],
        tuple(
            DeliverySummary(d["destination"], d["slot"], d["state"], d["sentence"])
            for d in jobs[job["id"]]["deliveries"]
        ),
    )
