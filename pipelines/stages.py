"""The stages of a job: claim it, let a runner do the step, commit the verdict.

Every verdict is one fenced transaction. Nothing here raises into Dramatiq.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pydicom
import structlog

from models.base import BrokenPackage
from models.catalogue import find_package
from pipelines.base import EarlierResult, JobSpec, SeriesLabel, Step, Verdict
from pipelines.broker import Wakeup
from pipelines.runner import Runner
from pipelines.verdicts import apply_verdict
from storage import jobs, tasks
from storage.base import (
    DISK_FAILED,
    Job,
    LeaseLost,
    NewResult,
    StoreBroken,
    StoreUnavailable,
)
from storage.crash import crash_point
from storage.database import Database
from storage.gathering import inputs_of
from storage.jobs import MAIN_INPUT, STEP_ORDER, RetryPolicy
from storage.objects import FileObjects, object_key
from storage.results import earlier_results
from storage.series import object_keys_of

log = structlog.get_logger()


class _Stopping(Exception):
    """Raised when this process shuts down in the middle of a step."""

    def __init__(self, job: Job) -> None:
        super().__init__("this process is stopping")
        self.job = job


@dataclass(frozen=True)
class Stages:
    """What the actors of a worker process need.

    Parameters
    ----------
    database, objects : where rows and files live
    wakeup : Wakeup
    policy : RetryPolicy
    owner : str
    stopping : threading.Event
        Set when the process shuts down: running steps are given back.
    model_folders : sequence of Path
        Where model packages lie, beside those that come with scorenode.
    trusted : frozenset of str
        Models that may run code of their own.
    """

    database: Database
    objects: FileObjects
    wakeup: Wakeup
    policy: RetryPolicy
    owner: str
    stopping: threading.Event
    model_folders: Sequence[Path] = ()
    trusted: frozenset[str] = frozenset()

    def run(self, job_id: int, step: Step, runner: Runner) -> None:
        """Do one step of one job, if it is due; never raises."""
        with structlog.contextvars.bound_contextvars(job_id=job_id, step=step):
            try:
                self._run(job_id, step, runner)
            except LeaseLost:
                log.warning("stage.discarded")
            except _Stopping as stop:
                self._give_back(stop.job)
            except StoreUnavailable as error:
                log.warning("stage.postponed", error=type(error).__name__)
            except Exception:
                log.exception("stage.broken")
        self.wakeup.wake_up()

    def _run(self, job_id: int, step: Step, runner: Runner) -> None:
        with self.database.transaction() as tx:
            tasks.forget_published(tx, step, job_id)
            job = jobs.claim(tx, job_id, step, self.owner, self.policy)
            started_at = tx.now
        if job is None:
            log.debug("stage.skipped")
            return
        crash_point("CP4")
        if not self._has_earlier_steps(job):
            with self.database.transaction() as tx:
                jobs.start_over(tx, job, self.owner)
            log.warning("stage.started_over")
            return
        started = time.monotonic()
        verdict, results = self._do(job, step, runner)
        seconds = time.monotonic() - started
        log.info(
            "stage.finished",
            outcome=verdict.outcome,
            reason=verdict.reason,
            seconds=round(seconds, 3),
        )
        self._commit(job, verdict, results, started_at, seconds)
        crash_point("CP6" if step == STEP_ORDER[-1] else "CP5")
        if verdict.outcome == "ok" and step == STEP_ORDER[-1]:
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _give_back(self, job: Job) -> None:
        """Let another process have the step; stopping is not the job's fault."""
        try:
            with self.database.transaction() as tx:
                jobs.give_back(tx, job)
            log.info("stage.given_back")
        except (LeaseLost, StoreUnavailable):
            log.warning("stage.discarded")

    def _has_earlier_steps(self, job: Job) -> bool:
        """Whether the output of the steps before is there: another host may have made it."""
        begun = STEP_ORDER.index(jobs.first_step(job))
        earlier = STEP_ORDER[begun : STEP_ORDER.index(job.step)]
        return all((self._folder(job) / step).is_dir() for step in earlier)

    def _do(self, job: Job, step: Step, runner: Runner) -> tuple[Verdict, list[NewResult] | None]:
        """Do the step and keep its results; whatever goes wrong here is a verdict, too."""
        try:
            verdict = self._verdict(job, step, runner)
            if verdict.outcome != "ok" or step != STEP_ORDER[-1]:
                return verdict, None
            return verdict, self._keep_results(job)
        except (LeaseLost, _Stopping):
            raise
        except StoreBroken:
            log.error("disk.failed")
            os._exit(DISK_FAILED)
        except (StoreUnavailable, OSError) as error:
            sentence = f"Step {step} had no room or no store to work with ({type(error).__name__})."
            return Verdict("transient", "storage", sentence), None
        except Exception as error:
            log.exception("stage.broken")
            sentence = f"Step {step} could not be run ({type(error).__name__})."
            return Verdict("bug", type(error).__name__, sentence), None

    def _verdict(self, job: Job, step: Step, runner: Runner) -> Verdict:
        try:
            folder = self._prepare(job)
        except BrokenPackage as error:
            return Verdict("config", "model", str(error))
        except OSError as error:
            return Verdict(
                "transient", "work_folder", f"The work folder cannot be used: {error.strerror}."
            )
        snapshot = job.snapshot
        return runner.run(
            folder,
            step,
            deadline_seconds=float(snapshot["timeout_seconds"]),
            memory_bytes=int(snapshot["memory_bytes"]),
            tick=self._tick(job),
        )

    def _folder(self, job: Job) -> Path:
        return self.objects.root / "work" / str(job.id)

    def _prepare(self, job: Job) -> Path:
        """Write ``job.json``; a folder of an earlier attempt is used again."""
        folder = self._folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"job.json.{os.getpid()}.{threading.get_ident()}"
        temporary.write_text(self._spec(job).to_json())
        temporary.replace(folder / "job.json")
        return folder

    def _spec(self, job: Job) -> JobSpec:
        with self.database.snapshot() as tx:
            keys = object_keys_of(tx, job.series_id, job.generation)
            earlier = earlier_results(tx, job)
            named = {
                role: tuple(
                    str(self.objects.place(key))
                    for series_id, generation in series
                    for key in object_keys_of(tx, series_id, generation)
                )
                for role, series in inputs_of(tx, job.id).items()
                if role != MAIN_INPUT
            }
        snapshot, notice = job.snapshot, self._notice(job)
        zone = timezone(timedelta(minutes=snapshot.get("utc_offset_minutes", 0)))
        return JobSpec(
            job_id=job.id,
            pipeline=job.pipeline,
            inputs=tuple(str(self.objects.place(key)) for key in keys),
            model="" if notice else str(find_package(job.model, self.model_folders)),
            idem_key=job.idem_key,
            uid_root=snapshot["uid_root"],
            station=snapshot["station"],
            frozen_at=job.frozen_at.astimezone(zone),
            labels={k: SeriesLabel(**v) for k, v in snapshot["labels"].items()},
            named=named,
            rows=snapshot.get("gathered", {}),
            report_template=snapshot.get("report_template"),
            earlier=tuple(_earlier(row, zone) for row in earlier),
            notice=notice,
            completion=_completion(snapshot),
            trust_code=job.model in self.trusted,
        )

    def _notice(self, job: Job) -> dict[str, Any] | None:
        """Gather what a notice is to say, and of which model; None: the job is no notice."""
        snapshot = job.snapshot
        if "notice" not in snapshot:
            return None
        earlier = snapshot["notice"]["earlier"]
        return dict(snapshot["notice"]) | {
            "model": snapshot.get("model"),
            "model_name": job.model,
            "earlier": str(self.objects.place(earlier)) if earlier else "",
        }

    def _tick(self, job: Job) -> Callable[[float, str], None]:
        """Heartbeat now and then; the exceptions it raises stop the runner."""
        every = min(self.policy.lease_seconds / 3, 2.0)
        last_beat = last_success = time.monotonic()

        def tick(progress: float, note: str) -> None:
            nonlocal last_beat, last_success
            if self.stopping.is_set():
                raise _Stopping(job)
            now = time.monotonic()
            if now - last_beat < every:
                return
            last_beat = now
            try:
                with self.database.transaction() as tx:
                    jobs.heartbeat(tx, job, self.policy, progress, note)
                last_success = now
            except StoreUnavailable:
                if now - last_success > self.policy.lease_seconds:
                    raise LeaseLost("the database was away for longer than the lease") from None

        return tick

    def _commit(
        self,
        job: Job,
        verdict: Verdict,
        results: list[NewResult] | None,
        started_at: datetime,
        seconds: float,
    ) -> None:
        """Write the verdict down; waits for the database as long as the lease may last."""
        for last_try in _tries(self.policy.lease_seconds, self.stopping):
            try:
                with self.database.transaction() as tx:
                    jobs.record_step(
                        tx,
                        job,
                        owner=self.owner,
                        started_at=started_at,
                        outcome=verdict.outcome,
                        reason=verdict.reason,
                        sentence=verdict.sentence,
                        seconds=seconds,
                        facts=verdict.facts,
                    )
                    apply_verdict(tx, job, verdict, results, self.policy)
                return
            except StoreUnavailable:
                if last_try:
                    raise

    def _keep_results(self, job: Job) -> list[NewResult]:
        """Put what the report step made into the object store, durably."""
        folder = self._folder(job) / STEP_ORDER[-1]
        return [self._keep(job, path) for path in sorted(folder.glob("*.dcm"))]

    def _keep(self, job: Job, path: Path) -> NewResult:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        key = object_key("results", job.idem_key, path.stem, digest, uuid.uuid4().hex)
        self.objects.put(key, data)
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        return NewResult(
            slot=path.stem,
            sop_instance_uid=str(ds.SOPInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            sop_class_uid=str(ds.SOPClassUID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            object_key=key,
            sha256=digest,
            size=len(data),
        )


def _earlier(row: dict[str, Any], zone: timezone) -> EarlierResult:
    at = row.pop("frozen_at").astimezone(zone)
    return EarlierResult(**row, at=f"{at:%Y-%m-%d %H:%M}")


def _completion(snapshot: Mapping[str, Any]) -> str:
    """Say whether all images had come when the job was opened; empty where nobody noted it."""
    if "verdict" not in snapshot:
        return ""
    told = {
        "proved_complete": "All images had come",
        "proved_incomplete": "IMAGES WERE MISSING when this was scored",
        "quiet": "No image had come for a while, and nothing proves that all have",
        "forced": "Images were still coming when the longest wait was over",
    }[snapshot["verdict"]]
    evidence = snapshot.get("evidence")
    return f"{told}: {evidence}." if evidence else f"{told}."


def _tries(seconds: float, stopping: threading.Event) -> Iterator[bool]:
    """Yield whether this is the last try, once a second for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield False
        if stopping.wait(1.0):
            break
    yield True
