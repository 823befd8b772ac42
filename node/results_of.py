"""Input of a job: what another rule made of the same study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from node.inputs import Absent, Later, Outcome, Ready
from node.parts import Parts
from storage import jobs
from storage.base import FINAL_JOB_STATES, ClosedSeries, JobState
from storage.retraction import RETRACTED
from storage.tables import Job, Result, Study


def result_of(want: Mapping[str, Any], closed: ClosedSeries, parts: Parts) -> Outcome:
    """Find the results of another rule.

    Returns
    -------
    Ready
        ``rule job_id results``, the last a mapping of slot to the path of its file.
    Later
        That rule's job has not ended.
    Absent
        It ended without results.
    """
    rule = want["rule"]
    with parts.database.snapshot() as tx:
        found = jobs.find(
            tx,
            Study.study_instance_uid == closed.study_instance_uid,
            Job.rule == rule,
            Job.notice_of.is_(None),
            Job.state.not_in([JobState.SUPERSEDED, JobState.CANCELLED]),
            limit=1,
        )
        if not found:
            return Later(f"Rule {rule} has no job in this study yet.")
        job = found[0]
        rows = tx.execute(
            sa.select(Result.slot, Result.object_key).where(Result.job_id == job.id)
        ).all()
    if job.reason == RETRACTED:
        return Absent(f"The results of job {job.id} of rule {rule} were taken back.")
    if rows:
        results = {row.slot: str(parts.objects.path(row.object_key)) for row in rows}
        return Ready({"rule": rule, "job_id": job.id, "results": results})
    if job.state in FINAL_JOB_STATES:
        return Absent(f"Job {job.id} of rule {rule} ended without results ({job.state}).")
    return Later(f"Job {job.id} of rule {rule} has not ended yet.")
