"""Health and metrics over HTTP, for load balancers and Prometheus; no patient data."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.certificates import certificates
from node.config.file import Config
from node.roles import SILENT_SECONDS
from storage import queries
from storage.base import StoreUnavailable
from storage.database import Database
from storage.objects import FileObjects

Samples = dict[tuple[str, ...], float]
"""Values of labels to the value of a gauge."""


class Health(Collector):
    """Answers ``/live``, ``/ready`` and ``/metrics`` from the database.

    Parameters
    ----------
    config : Config
    database, objects : where rows and files live
    """

    def __init__(self, config: Config, database: Database, objects: FileObjects) -> None:
        self._config = config
        self._database = database
        self._objects = objects
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Listen; the port."""
        health = self._config.node.health
        if health is None:
            return 0
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0

            def do_GET(self) -> None:
                status, kind, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: a health check every second is no news."""

        self._server = ThreadingHTTPServer((health.host, health.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/live":
            return 200, "text/plain", b"live\n"
        if path == "/ready":
            reasons = self.reasons()
            body = json.dumps({"ready": not reasons, "reasons": reasons}).encode()
            return (503 if reasons else 200), "application/json", body + b"\n"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", generate_latest(self._registry)
        return 404, "text/plain", b"There are /live, /ready and /metrics.\n"

    def reasons(self) -> list[str]:
        """Why the node does not accept or work; empty when all is well."""
        try:
            with self._database.snapshot() as tx:
                alive = queries.nodes(tx)
        except StoreUnavailable as error:
            return [str(error)]
        roles = {row["role"] for row in alive if row["seconds_ago"] < SILENT_SECONDS}
        found = [f"no {role} process is alive" for role in ("receiver",) if role not in roles]
        free, total = self._objects.free_bytes()
        mark = self._config.node.disk.refuse_free.in_bytes(total)
        if free < mark:
            found.append(f"{free >> 20} MiB free on disk, refusing below {mark >> 20} MiB")
        elif any(row["facts"].get("has_room") is False for row in alive):
            found.append(f"{free >> 20} MiB free on disk, which is not yet enough to go on")
        return found

    def collect(self) -> list[Metric]:
        """Read all gauges at once."""
        free, _ = self._objects.free_bytes()
        metrics: list[Metric] = [
            _gauge(
                "scorenode_tls_cert_expiry_seconds",
                "Until the first certificate of each file ends.",
                {(row["file"],): float(row["seconds_left"]) for row in certificates(self._config)},
                ["file"],
            ),
            _gauge(
                "scorenode_disk_free_bytes", "Free bytes of the data folder.", {(): float(free)}
            ),
            _gauge("scorenode_accepting", "1: ready to receive.", {(): float(not self.reasons())}),
        ]
        try:
            with self._database.snapshot() as tx:
                counts = queries.counts(tx)
        except StoreUnavailable:
            return metrics
        for name in ("series", "jobs", "deliveries", "tasks"):
            samples: Samples = {(state,): float(n) for state, n in counts[name].items()}
            metrics.append(_gauge(f"scorenode_{name}", f"{name} by state", samples, ["state"]))
        metrics.append(
            _gauge("scorenode_instances", "Instances held.", {(): float(counts["instances"])})
        )
        metrics.append(
            _gauge(
                "scorenode_job_oldest_waiting_seconds",
                "Age of the oldest job that waits.",
                {(): counts["oldest_waiting_seconds"]},
            )
        )
        return metrics


def _gauge(
    name: str, text: str, samples: Samples, labels: list[str] | None = None
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels or [])
    for key, value in samples.items():
        family.add_metric(list(key), value)
    return family
