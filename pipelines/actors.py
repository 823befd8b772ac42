"""The Dramatiq actors: thin, one per queue, each takes a job id."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import get_args

import dramatiq
from dramatiq.broker import Broker

from pipelines.base import Step
from pipelines.runner import Runner
from pipelines.stages import Stages

Deliver = Callable[[int], None]
"""Sends the due results of a job; never raises."""


def declare(
    broker: Broker,
    stages: Stages | None,
    deliver: Deliver | None,
    prefix: str,
    warm: Sequence[Step] = (),
) -> None:
    """Declare the actors of a process on a broker.

    Parameters
    ----------
    broker : Broker
    stages : Stages or None
        For processes that convert, infer or report.
    deliver : callable or None
        For processes that send; delivering is network and is handed in from above.
    prefix : str
        Of the queue names on an external broker, so that two stores never share queues.
    warm : sequence of Step
        Steps for which a runner gets ready before there is a job.
    """
    if stages is not None:
        runners = _Runners(warm)
        for step in get_args(Step):
            _declare(broker, step, _stage_actor(stages, step, runners), prefix)
    if deliver is not None:
        _declare(broker, "deliver", deliver, prefix)


def _declare(broker: Broker, queue: str, function: Callable[[int], None], prefix: str) -> None:
    # No time limit and no retries of Dramatiq's: deadlines kill the child, retries are rows.
    declare_actor = dramatiq.actor(actor_name=queue, queue_name=prefix + queue, broker=broker)
    declare_actor(function)


def _stage_actor(stages: Stages, step: Step, runners: _Runners) -> Callable[[int], None]:
    def actor(job_id: int) -> None:
        stages.run(job_id, step, runners.mine())

    return actor


class _Runners:
    """One warm runner per worker thread; the first is started here and now."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._local = threading.local()
        self._steps = steps
        self._ready = [Runner(steps=steps)] if steps else []
        for runner in self._ready:
            runner.start()

    def mine(self) -> Runner:
        """Give this thread its runner."""
        runner: Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            runner = self._ready.pop() if self._ready else Runner(steps=self._steps)
            self._local.runner = runner
        return runner
