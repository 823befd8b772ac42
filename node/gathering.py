"""Waits for what rules need: the rest of a study, rows of tables, priors, other results.

Everything that may take long happens here, outside the loop that closes series.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import structlog

from node.deciding import decide_again
from node.inputs import Absent, Later, Outcome, Ready, table_row
from node.job_opening import Models
from node.parts import Parts
from node.priors import prior
from node.results_of import result_of
from storage import gathering, studies
from storage.base import Job, StoreUnavailable
from storage.events import raise_alert

EVERY_SECONDS = 1.0
FIRST_WAIT_SECONDS = float(os.environ.get("SCORENODE_FIRST_WAIT", "15"))
LONGEST_WAIT_SECONDS = 900.0

log = structlog.get_logger()


class Gatherer:
    """Two threads, so that no study waits to be decided while a table or a peer is slow.

    `round` may also be called by a test.

    Stop: `stop` ends them after the request they are waiting for; they must end before the
    database.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._models = Models(parts.config.models.folders)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(duty,), name=name, daemon=True)
            for name, duty in (("decider", self._decide_again), ("gatherer", self._gather))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self._longest_request_seconds())

    def _longest_request_seconds(self) -> float:
        config = self._parts.config
        tables = [table.timeout_seconds for table in config.tables.values()]
        return max([10.0, *tables, *(peer.timeout_seconds for peer in config.peers.values())])

    def _run(self, duty: Callable[[], int]) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            try:
                if duty():
                    self._parts.wakeup.wake_up()
            except StoreUnavailable as error:
                log.warning("gatherer.postponed", error=type(error).__name__)
            except Exception:
                log.exception("gatherer.broken")

    def round(self) -> int:
        """Do what is due; how many jobs can go on."""
        return self._decide_again() + self._gather()

    def _decide_again(self) -> int:
        completion = self._parts.config.completion
        with self._parts.database.snapshot() as tx:
            due = studies.due_again(
                tx,
                timedelta(seconds=completion.quiet_seconds),
                timedelta(seconds=completion.max_wait_seconds),
            )
        opened = 0
        for series_id in due:
            with self._parts.database.transaction() as tx:
                opened += decide_again(tx, series_id, self._parts.config, self._models)
        return opened

    def _gather(self) -> int:
        with self._parts.database.snapshot() as tx:
            if not gathering.is_due(tx):
                return 0  # a transaction would keep receivers from writing
        with self._parts.database.transaction() as tx:
            claimed = gathering.claim(tx)
        gone_on = 0
        for job in claimed:
            if self._stop.is_set():
                break
            with structlog.contextvars.bound_contextvars(job_id=job.id):
                gone_on += self._look_after(job)
        return gone_on

    def _look_after(self, job: Job) -> bool:
        """Fetch what a job still lacks; whether it can go on."""
        with self._parts.database.snapshot() as tx:
            closed = studies.closed_series(tx, job.series_id)
            overdue = tx.now - job.created_at >= timedelta(
                seconds=self._parts.config.completion.max_wait_seconds
            )
        so_far: dict[str, Any] = dict(job.snapshot.get("gathered_so_far", {}))
        sentences = []
        for want in job.snapshot["gather"] if closed is not None else ():
            if want["name"] in so_far:
                continue
            outcome = self._fetch(want, job, closed)
            if isinstance(outcome, Ready):
                so_far[want["name"]] = {"values": outcome.values, "series": dict(outcome.series)}
            elif isinstance(outcome, Absent) and want["if_missing"] == "fail":
                self._give_up(job, outcome.sentence)
                return False
            elif want["optional"] and (overdue or _is_final(want, outcome)):
                so_far[want["name"]] = {"values": None, "series": {}}
            else:
                sentences.append(f"Input {want['name']}: {outcome.sentence}")
        return self._settle(job, so_far, sentences)

    def _fetch(self, want: Mapping[str, Any], job: Job, closed: Any) -> Outcome:
        try:
            match want["kind"]:
                case "TableInput":
                    return table_row(want, closed, self._parts.config)
                case "PriorInput":
                    return prior(want, job, closed, self._parts)
                case "ResultInput":
                    return result_of(want, closed, self._parts)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.exception("gatherer.broken")
            return Later(f"It could not be fetched ({type(error).__name__}).")
        return Later(f"Nobody knows how to fetch a {want['kind']}.")

    def _give_up(self, job: Job, sentence: str) -> None:
        with self._parts.database.transaction() as tx:
            gathering.give_up(tx, job, "missing_input", sentence)
        log.info("job.not_scored", reason="missing_input")

    def _settle(self, job: Job, so_far: Mapping[str, Any], sentences: list[str]) -> bool:
        if sentences:
            seconds = min(FIRST_WAIT_SECONDS * 2.0 ** min(job.attempt, 10), LONGEST_WAIT_SECONDS)
            sentence = " ".join(sentences)
            with self._parts.database.transaction() as tx:
                gathering.wait(tx, job, seconds, sentence, so_far)
                if sentence != job.sentence:
                    raise_alert(tx, f"job.held:{job.id}", sentence)
            return False
        values = {name: item["values"] for name, item in so_far.items() if not item["series"]}
        series: dict[str, tuple[int, int]] = {}
        for item in so_far.values():
            series |= {name: (one[0], one[1]) for name, one in item["series"].items()}
        with self._parts.database.transaction() as tx:
            done = gathering.go_on(tx, job, values, series)
        log.info("job.gathered", inputs=len(so_far))
        return done


def _is_final(want: Mapping[str, Any], outcome: Later | Absent) -> bool:
    """Whether waiting longer is of no use: rows of a table may still be written."""
    return isinstance(outcome, Absent) and want["kind"] == "PriorInput"
