"""The coordinator: closes series, routes them, opens jobs, and looks after what was forgotten.

Any number of coordinators may run: every act is one transaction that skips what another holds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import structlog

from node.config.file import Config
from node.job_opening import Models, jobs_from
from node.parts import VERSION, Parts
from node.routing import Decision, SeriesFacts, decide
from storage import job_admin, jobs, nodes, reaper, retention, series
from storage.base import ClosedSeries, StoreUnavailable
from storage.crash import crash_point
from storage.database import Transaction

SWEEP_SECONDS = 0.25
ORPHAN_SECONDS = 3600.0
ORPHAN_TICK_SECONDS = 170.0

log = structlog.get_logger()


class Coordinator:
    """One loop of sweeps; `sweep` and `reap` may also be called by a test.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._config: Config = parts.config
        self._orphans: Iterator[list[str]] = iter(())
        self._models = Models(parts.config.models.folders)

    def run(self) -> None:
        """Work until the process stops."""
        self._guarded(self.release_held)
        duties: list[tuple[float, Callable[[], object]]] = [
            (0.0, self.sweep),
            (1.0, self.reap),
            (60.0, self.tidy),
            (ORPHAN_TICK_SECONDS, self.sweep_orphans),
        ]
        last = [0.0] * len(duties)
        while not self._parts.stopping.wait(SWEEP_SECONDS):
            for place, (every, duty) in enumerate(duties):
                if time.monotonic() - last[place] >= every:
                    last[place] = time.monotonic()
                    self._guarded(duty)
            self._parts.wakeup.wake_up()

    def _guarded(self, duty: Callable[[], object]) -> None:
        try:
            duty()
        except StoreUnavailable as error:
            log.warning("coordinator.postponed", error=type(error).__name__)
        except Exception:
            log.exception("coordinator.broken")

    def sweep(self) -> int:
        """Close what is due, decide, and open jobs: one transaction for each series (CP3)."""
        closed = 0
        completion = self._config.completion
        while True:
            with self._parts.database.transaction() as tx:
                due = series.close_due(
                    tx,
                    quiet=timedelta(seconds=completion.quiet_seconds),
                    max_wait=timedelta(seconds=completion.max_wait_seconds),
                    limit=1,
                )
                opened = [self._decide(tx, item) for item in due]
            if not due:
                return closed
            crash_point("CP3")
            closed += 1
            self._report(due[0], opened[0])
            self._parts.wakeup.wake_up()

    def _decide(self, tx: Transaction, closed: ClosedSeries) -> int:
        """Write down what every rule says, and open the jobs; how many were opened."""
        decisions = decide(self._config.rules, facts_of(tx, closed))
        rows = [
            {
                "rule": decision.rule,
                "outcome": decision.outcome,
                "sentence": decision.sentence,
                "data": decision.to_json(),
            }
            for decision in decisions
        ]
        series.record_decisions(tx, closed, rows, self._config.digest)
        return self._open(tx, closed, decisions)

    def _open(self, tx: Transaction, closed: ClosedSeries, decisions: tuple[Decision, ...]) -> int:
        new = jobs_from(decisions, closed, self._config, self._models)
        return sum(jobs.insert(tx, closed, job) is not None for job in new)

    def _report(self, closed: ClosedSeries, opened: int) -> None:
        log.info(
            "series.completed",
            series_instance_uid=closed.series_instance_uid,
            generation=closed.generation,
            verdict=closed.verdict,
            instances=len(closed.instances),
            jobs=opened,
        )

    def reap(self) -> None:
        """Wake what has no live lease and no task; say that we live."""
        with self._parts.database.transaction() as tx:
            dead = reaper.expire_dead_leases(tx)
            woken = reaper.wake_forgotten(tx)
            nodes.forget_gone(tx)
            nodes.heartbeat(
                tx,
                self._parts.owner,
                self._config.node.station,
                "coordinator",
                VERSION,
                {"config": self._config.digest},
            )
        if dead or woken:
            log.info("lease.expired", owners=dead, woken=woken)

    def release_held(self) -> None:
        """Give jobs that waited for the configuration another chance: it was just read."""
        with self._parts.database.transaction() as tx:
            released = job_admin.release_held(tx, "config")
        if released:
            log.info("job.released", jobs=released)

    def tidy(self) -> None:
        """Delete what was kept long enough, and work folders of jobs that ended."""
        config = self._config
        terms = retention.Terms(
            inputs=timedelta(seconds=config.retention.inputs_seconds),
            results=timedelta(seconds=config.retention.results_seconds),
            unmatched=timedelta(seconds=config.unmatched.keep_seconds),
        )
        with self._parts.database.transaction() as tx:
            keys = retention.forget(tx, terms)
            ended = retention.ended_jobs(tx, self._work_folders())
        for key in keys:
            self._parts.objects.remove(key)
        for job_id in ended:
            shutil.rmtree(self._parts.objects.root / "work" / str(job_id), ignore_errors=True)
        if keys:
            log.info("object.deleted", objects=len(keys))

    def sweep_orphans(self) -> None:
        """Delete files that no row refers to; they are at least an hour old.

        One folder at a time, between other duties: there are 512, so a round takes a day.
        """
        removed = self._parts.objects.sweep_incoming()
        keys = next(self._orphans, None)
        if keys is None:
            self._orphans = self._parts.objects.keys_older_than(ORPHAN_SECONDS)
            return
        with self._parts.database.snapshot() as tx:
            orphans = retention.without_rows(tx, keys)
        for key in orphans:
            self._parts.objects.remove(key)
        removed += len(orphans)
        if removed:
            log.info("object.deleted", objects=removed)

    def _work_folders(self) -> list[int]:
        folder = self._parts.objects.root / "work"
        return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def facts_of(tx: Transaction, closed: ClosedSeries) -> SeriesFacts:
    """Gather what rules look at."""
    headers = [instance.header for instance in closed.instances]
    modality = next((h["Modality"][0] for h in headers if h.get("Modality")), "")
    return SeriesFacts(
        study_instance_uid=closed.study_instance_uid,
        series_instance_uid=closed.series_instance_uid,
        modality=str(modality),
        headers=headers,
        instances=len(closed.instances),
        verdict=closed.verdict.value,
        own_result=series.is_own_result(tx, closed.series_instance_uid),
    )
