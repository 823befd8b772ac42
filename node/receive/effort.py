"""What reading one header may cost: honest headers go through, long ones wait for each other."""

from __future__ import annotations

import threading
import time

MOST_SECONDS = 1.0
MODEST_SECONDS = 0.004
"""What a walk may take without waiting: ten times what the header of a CT slice takes."""
MOST_WAIT_SECONDS = 20.0
"""Then a long walk goes on beside others: its sender waits for an answer."""
_REST = 4
"""A long walk rests so many times as long as it works."""

_long_walks = threading.Lock()
"""Held by the one long walk that goes on, so that they all together take a fifth of a core."""


class LimitReached(Exception):
    """Raised inside a walk when it looked at enough."""


class Effort:
    """Processor time of one walk; what is long waits its turn and rests between its steps."""

    def __init__(self) -> None:
        self._began = time.monotonic()  # the clock of a thread takes a call of the system
        self._long_since: float | None = None
        self._rested = 0.0
        self._has_turn = False

    def step(self) -> None:
        """Account for what was done since the last step.

        Raises
        ------
        LimitReached
            The walk took `MOST_SECONDS`.
        """
        if self._long_since is None:
            if time.monotonic() - self._began < MODEST_SECONDS:
                return
            self._has_turn = _long_walks.acquire(timeout=MOST_WAIT_SECONDS)
            self._long_since = self._rested = time.thread_time()
            return
        now = time.thread_time()
        if now - self._long_since > MOST_SECONDS:
            raise LimitReached
        if now - self._rested > MODEST_SECONDS / 4:
            time.sleep(_REST * (now - self._rested))
            self._rested = time.thread_time()

    def end(self) -> None:
        """Let the next long walk go on."""
        if self._has_turn:
            self._has_turn = False
            _long_walks.release()
