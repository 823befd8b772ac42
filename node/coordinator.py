"""The coordinator: closes series, routes them, opens jobs, and looks after what was forgotten.

Any number of coordinators may run: every act is one transaction that skips what another holds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import structlog

from models.status import stopped_models
from node.completeness import CompletenessJudge
from node.config.file import Config
from node.deciding import decide_closed
from node.job_opening import Models
from node.parts import VERSION, Parts
from storage import (
    associations,
    job_admin,
    nodes,
    notices,
    reaper,
    recalls,
    retention,
    series,
)
from storage.arena_rows import segment_ranges
from storage.arena_segment import is_arena_key, purge, range_of
from storage.ballast import Ballast
from storage.base import ClosedSeries, StoreFull, StoreUnavailable
from storage.bell import COORDINATOR, Bell
from storage.crash import crash_point
from storage.database import Transaction
from storage.early_closing import EarlyClosing

SWEEP_SECONDS = 0.25
BREATH_SECONDS = 0.01
"""From one sweep to the next however often somebody rings: it keeps receivers from writing."""
RECALL_SECONDS = 2.0
"""How long a model whose package says that it is recalled may go on."""
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
        self._to_purge: set[int] = set()
        self._orphans: Iterator[list[str]] = iter(())
        self._bell = Bell(parts.objects.root, COORDINATOR)
        self._judge = judge_of(parts.config)
        self._patience = patience_of(parts.config)
        self._early = EarlyClosing(self._judge) if self._judge else None
        self._models = Models(parts.config.models.folders)
        self._ballast = Ballast(parts.objects.root, parts.config.node.disk.ballast_bytes)

    def run(self) -> None:
        """Work until the process stops."""
        self._guarded(self.release_held)
        duties: list[tuple[float, Callable[[], object]]] = [
            (0.0, self.sweep),
            (1.0, self.tend_ballast),
            (1.0, self.reap),
            (1.0, self.tell_readers),
            (RECALL_SECONDS, self.stop_recalled),
            (60.0, self.tidy),
            (ORPHAN_TICK_SECONDS, self.sweep_orphans),
        ]
        last = [0.0] * len(duties)
        self._bell.listen()
        while not self._parts.stopping.is_set():
            rings = self._bell.count
            for place, (every, duty) in enumerate(duties):
                if time.monotonic() - last[place] >= every:
                    last[place] = time.monotonic()
                    self._guarded(duty)
            self._parts.wakeup.wake_up()
            rested = time.monotonic() + BREATH_SECONDS
            if self._bell.wait_after(rings, SWEEP_SECONDS) != rings:
                self._parts.stopping.wait(max(0.0, rested - time.monotonic()))
        self._bell.close()

    def _guarded(self, duty: Callable[[], object]) -> None:
        try:
            duty()
        except StoreUnavailable as error:
            if isinstance(error, StoreFull):
                self._report_ballast(-self._ballast.release())
            log.warning("coordinator.postponed", error=type(error).__name__)
        except Exception:
            log.exception("coordinator.broken")

    def sweep(self) -> int:
        """Close what is complete, decide, and open jobs: one transaction for each series (CP3)."""
        closed = 0
        for series_id in self._find_complete():
            closed += self._complete(partial(self._close_early, series_id))
        while self._complete(self._close_due):
            closed += 1
        return closed

    def _find_complete(self) -> list[int]:
        if self._early is None:
            return []
        with self._parts.database.snapshot() as tx:
            return self._early.find(tx)

    def _complete(self, close: Callable[[Transaction], ClosedSeries | None]) -> bool:
        """Close one series; afterwards leave the database to others for as long as it took."""
        began = time.monotonic()
        with self._parts.database.transaction() as tx:
            closed = close(tx)
            opened = self._decide(tx, closed) if closed else 0
        if closed is None:
            return False
        crash_point("CP3")
        took = time.monotonic() - began
        self._report(closed, opened)
        self._parts.wakeup.wake_up()
        self._parts.stopping.wait(min(took, SWEEP_SECONDS))
        return True

    def _close_early(self, series_id: int, tx: Transaction) -> ClosedSeries | None:
        return self._early.close(tx, series_id) if self._early else None

    def _close_due(self, tx: Transaction) -> ClosedSeries | None:
        completion = self._config.completion
        due = series.close_due(
            tx,
            quiet=timedelta(seconds=completion.quiet_seconds),
            max_wait=timedelta(seconds=completion.max_wait_seconds),
            judge=self._judge,
            limit=1,
            by_peer=self._patience,
        )
        return due[0] if due else None

    def _decide(self, tx: Transaction, closed: ClosedSeries) -> int:
        """Write down what every rule says, and open the jobs; how many were opened."""
        return decide_closed(tx, closed, self._config, self._models)

    def _report(self, closed: ClosedSeries, opened: int) -> None:
        log.info(
            "series.completed",
            series_instance_uid=closed.series_instance_uid,
            generation=closed.generation,
            verdict=closed.verdict,
            instances=len(closed.instances),
            jobs=opened,
        )

    def tend_ballast(self) -> None:
        """Keep room for rows and deletions, and give it up when the disk is full."""
        self._report_ballast(self._ballast.tend())

    def _report_ballast(self, grown: int) -> None:
        if grown > 0:
            log.info("ballast.made", bytes=grown)
        if grown < 0:
            log.warning("ballast.released", bytes=-grown)

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
                {"config": self._config.digest, "ballast_bytes": self._ballast.held_bytes},
            )
        if dead or woken:
            log.info("lease.expired", owners=dead, woken=woken)

    def tell_readers(self) -> None:
        """Open what readers are to be told of jobs that made nothing, or not yet."""
        with self._parts.database.snapshot() as tx:
            if not notices.is_due(tx):
                return  # a transaction would keep receivers from writing
        with self._parts.database.transaction() as tx:
            opened = notices.open_due(tx)
        if opened:
            log.info("notice.opened", jobs=opened)
            self._parts.wakeup.wake_up()

    def release_held(self) -> None:
        """Give jobs that waited for the configuration another chance: it was just read."""
        with self._parts.database.transaction() as tx:
            released = job_admin.release_held(tx, "config")
        if released:
            log.info("job.released", jobs=released)

    def stop_recalled(self) -> None:
        """Hold the jobs of models whose package says that they are recalled or withdrawn."""
        stopped = stopped_models(self._config.models.folders)
        if not stopped:
            return
        with self._parts.database.transaction() as tx:
            jobs = sum(recalls.stop(tx, model, sentence) for model, sentence in stopped.items())
        if jobs:
            log.warning("model.stopped", jobs=jobs)

    def tidy(self) -> None:
        """Delete what was kept long enough, and work folders of jobs that ended."""
        config = self._config
        terms = retention.Terms(
            inputs=timedelta(seconds=config.retention.inputs_seconds),
            results=timedelta(seconds=config.retention.results_seconds),
            unmatched=timedelta(seconds=config.unmatched.keep_seconds),
            failed=timedelta(seconds=config.retention.failed_seconds),
            audit=timedelta(seconds=config.retention.audit_seconds),
        )
        with self._parts.database.transaction() as tx:
            keys = retention.forget(tx, terms)
            associations.forget(tx, max(terms.inputs, terms.results, terms.unmatched))
            ended = retention.ended_jobs(tx, self._work_folders())
        self._remove(keys)
        for job_id in ended:
            shutil.rmtree(self._parts.objects.root / "work" / str(job_id), ignore_errors=True)
        if keys:
            log.info("object.deleted", objects=len(keys))

    def _remove(self, keys: list[str]) -> None:
        """Delete objects that no row refers to any more; those in an arena are overwritten."""
        for key in keys:
            self._parts.objects.remove(key)
        self._to_purge |= {range_of(key)[0] for key in keys if is_arena_key(key)}
        root = self._parts.objects.root
        self._to_purge = {n for n in self._to_purge if not purge(root, n, self._ranges)}

    def _ranges(self, segment: int) -> list[tuple[int, int]]:
        with self._parts.database.snapshot() as tx:
            return segment_ranges(tx, segment)

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


def judge_of(config: Config) -> CompletenessJudge | None:
    """Make what tells whether a series is complete, as the configuration says; None: time alone."""
    trusted = [config.completion_of(name).evidence for name in ("", *config.peers)]
    return CompletenessJudge(config) if any(trusted) else None


def patience_of(config: Config) -> dict[str, series.Patience]:
    """How long to wait for more of a series, for peers with times of their own."""
    return {
        name: series.Patience(
            timedelta(seconds=own.quiet_seconds), timedelta(seconds=own.max_wait_seconds)
        )
        for name, peer in config.peers.items()
        if peer.completion is not None and (own := config.completion_of(name))
    }
