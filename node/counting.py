"""Asks the peer that sent a series how many instances of it there are (C-FIND)."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import structlog

from node.config.file import Config
from node.config.peers import Peer
from node.destinations import destination_of
from node.parts import Parts
from node.query import Header, QueryFailed, count_instances, find
from storage import counting
from storage.base import StoreUnavailable
from storage.bell import COORDINATOR, Bell
from storage.counting import Uncounted

EVERY_SECONDS = 1.0
ASK_AGAIN_SECONDS = 15.0
"""A sender that holds more than came may be in the midst of sending."""
FAILED_SECONDS = 30.0
"""A peer that did not answer is left alone for so long."""

log = structlog.get_logger()


class Counter:
    """One thread; `round` may also be called by a test.

    A series is asked about once nothing came for a third of the quiet time: while images still
    come, the count of the sender grows, too.

    Stop: `stop` ends it after the request it is waiting for; it must end before the database.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._bell = Bell(parts.objects.root, COORDINATOR)
        self._failed: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="counter", daemon=True)

    def start(self) -> None:
        """Begin, where there is a peer to ask."""
        if any(_asks(self._parts.config, name) for name in self._parts.config.peers):
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            peers = self._parts.config.peers.values()
            self._thread.join(max([10.0, *(peer.timeout_seconds for peer in peers)]))

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            try:
                self.round()
            except StoreUnavailable as error:
                log.warning("counter.postponed", error=type(error).__name__)
            except Exception:
                log.exception("counter.broken")

    def round(self) -> int:
        """Ask about what is due; how many series were counted."""
        done = 0
        for name, peer in self._parts.config.peers.items():
            if not _asks(self._parts.config, name) or self._is_resting(name):
                continue
            quiet = self._parts.config.completion_of(name).quiet_seconds
            pause = timedelta(seconds=quiet / 3)
            with self._parts.database.snapshot() as tx:
                due = counting.due(tx, name, pause, timedelta(seconds=ASK_AGAIN_SECONDS))
            for series in due:
                if self._stop.is_set() or not self._ask(name, peer, series):
                    break
                done += 1
        if done:
            self._bell.ring()
        return done

    def _ask(self, name: str, peer: Peer, series: Uncounted) -> bool:
        there = destination_of(peer, self._parts.config.node.ae_title)
        study_uid, uid = series.study_instance_uid, series.series_instance_uid
        try:
            counts = _counts(find(there, "SERIES", {"StudyInstanceUID": study_uid}), study_uid)
            if uid not in counts:
                counts[uid] = count_instances(there, study_uid, uid)
        except QueryFailed as error:
            self._failed[name] = time.monotonic()
            log.warning("count.failed", peer=name, sentence=str(error))
            return False
        with self._parts.database.transaction() as tx:
            counting.settle(tx, series, counts)
        return True

    def _is_resting(self, name: str) -> bool:
        return time.monotonic() - self._failed.get(name, -FAILED_SECONDS) < FAILED_SECONDS


def _asks(config: Config, name: str) -> bool:
    return config.peers[name].counts and "pacs_count" in config.completion_of(name).evidence


def _counts(found: list[Header], study_uid: str) -> dict[str, int]:
    """Series Instance UID to Number of Series Related Instances, where the peer says it."""
    counts = {}
    for header in found:
        of_study = header.get("StudyInstanceUID", [study_uid])[0] == study_uid
        uid = header.get("SeriesInstanceUID")
        number = header.get("NumberOfSeriesRelatedInstances")
        if uid and number and of_study:
            counts[str(uid[0]).strip()] = int(float(number[0]))
    return counts
