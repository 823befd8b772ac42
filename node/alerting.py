"""Tells people what they should look at: a full disk, a silence, and alerts by webhook.

What is told is about jobs, peers and disks, never about patients.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog
import urllib3

from node.config.sections import Silence
from node.parts import Parts
from storage import events
from storage.base import StoreUnavailable
from storage.database import Transaction
from storage.tables import Association, Job

EVERY_SECONDS = 1.0
LOOK_SECONDS = 30.0
"""Between two looks for silence and at the disk."""
PAUSE_SECONDS = 30.0
"""After a webhook that did not take an alert."""
TIMEOUT_SECONDS = 10.0
KEYS: Mapping[str, tuple[str, ...]] = {
    "held": ("job.held:",),
    "failed": ("job.failed:", "job.quarantined:"),
    "delivery_late": ("delivery.late:", "delivery.unproved:", "destination.away:"),
    "disk_low": ("disk.low",),
}
"""Occasion of ``alerts.send_when`` to what its alerts' keys begin with."""
SILENCE = "silence:"

log = structlog.get_logger()


class Alerter:
    """One thread; `round` may also be called by a test.

    Stop: `stop` ends it after the request it is waiting for; it must end before the database.

    Parameters
    ----------
    parts : Parts
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started: datetime | None = None
        self._looked = self._refused = -PAUSE_SECONDS
        self._raised: set[str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerter", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            try:
                if time.monotonic() - self._looked >= LOOK_SECONDS:
                    self._looked = time.monotonic()
                    self.look()
                if time.monotonic() - self._refused >= PAUSE_SECONDS:
                    self.tell()
            except StoreUnavailable as error:
                log.warning("alerter.postponed", error=type(error).__name__)
            except Exception:
                log.exception("alerter.broken")

    def look(self) -> None:
        """Raise alerts about the disk and about silence, and close those that are over."""
        with self._parts.database.snapshot() as tx:
            self._started = self._started or tx.now
            found = self._disk() | self._silences(tx)
        if self._raised is not None and set(found) == self._raised:
            return
        with self._parts.database.transaction() as tx:
            for key, sentence in found.items():
                if self._raised is None or key not in self._raised:
                    events.raise_alert(tx, key, sentence)
            for key in self._known() - set(found):
                events.resolve_alert(tx, key)
        self._raised = set(found)

    def _known(self) -> set[str]:
        """Keys of all alerts that are ours to close."""
        silences = self._parts.config.alerts.silence
        return {"disk.low"} | {_key(silence) for silence in silences}

    def _disk(self) -> dict[str, str]:
        mark = self._parts.config.node.disk.warn_free
        free, total = self._parts.objects.free_bytes()
        if mark is None or free >= mark.in_bytes(total):
            return {}
        sentence = (
            f"{free >> 20} MiB are free on the disk of the data folder, less than the "
            f"{mark.in_bytes(total) >> 20} MiB of disk.warn_free. Make room, or shorten retention."
        )
        return {"disk.low": sentence}

    def _silences(self, tx: Transaction) -> dict[str, str]:
        found = {}
        for silence in self._parts.config.alerts.silence:
            last = tx.execute(_last_of(silence)).scalar() or self._started
            longest = timedelta(seconds=silence.longer_than_seconds)
            if last is not None and tx.now - last > longest:
                who = f"The peer {silence.peer} sent" if silence.peer else (
                    f"The rule {silence.rule} matched"
                )  # fmt: skip
                hours = longest.total_seconds() / 3600
                found[_key(silence)] = f"{who} nothing for more than {hours:g} h."
        return found

    def tell(self) -> int:
        """Post what nobody was told of yet; how many alerts."""
        alerts = self._parts.config.alerts
        if not alerts.webhook:
            return 0
        prefixes = [prefix for occasion in alerts.send_when for prefix in KEYS[occasion]]
        with self._parts.database.snapshot() as tx:
            waiting = events.untold(tx, [*prefixes, SILENCE])
        for done, alert in enumerate(waiting):
            if self._stop.is_set() or not self._post(alert):
                return done
            with self._parts.database.transaction() as tx:
                events.told(tx, alert["id"])
        return len(waiting)

    def _post(self, alert: Mapping[str, Any]) -> bool:
        key = str(alert["key"])
        body = {
            "node": self._parts.config.node.station,
            "alert": key,
            "occasion": next((o for o, k in KEYS.items() if key.startswith(k)), "silence"),
            "sentence": alert["sentence"],
            "first_at": alert["first_at"].isoformat(),
            "last_at": alert["last_at"].isoformat(),
            "count": alert["count"],
        }
        try:
            answer = urllib3.request(
                "POST",
                self._parts.config.alerts.webhook,
                json=body,
                timeout=urllib3.Timeout(total=TIMEOUT_SECONDS),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            self._refused = time.monotonic()
            log.warning("alert.not_told", error=type(error).__name__)
            return False
        if not 200 <= answer.status < 300:
            self._refused = time.monotonic()
            log.warning("alert.not_told", status=answer.status)
            return False
        return True


def _key(silence: Silence) -> str:
    return f"{SILENCE}peer:{silence.peer}" if silence.peer else f"{SILENCE}rule:{silence.rule}"


def _last_of(silence: Silence) -> sa.Select[datetime]:
    """When something last came of a peer, or a rule last matched."""
    if silence.peer:
        return sa.select(sa.func.max(Association.opened_at)).where(
            Association.peer == silence.peer, Association.stored > 0
        )
    return sa.select(sa.func.max(Job.created_at)).where(
        Job.rule == silence.rule, Job.notice_of.is_(None)
    )
