"""What each process of a node runs: one role, until told to stop.

Each role imports what it needs itself, so that a receiver listens soon and stays small.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from node import log as log_setup
from node.config.file import Config, load
from node.config.problems import ConfigError
from node.config.sections import TLS, Listen
from node.parts import VERSION, Parts, open_parts
from node.receive.access import PeerRule, User
from storage import nodes
from storage.base import DISK_FAILED, LOG_LOST, LogLost, OnConflict, StoreUnavailable

if TYPE_CHECKING:
    from node.receive.settings import ReceiverSettings
    from node.receive.tls import TLSFiles
    from storage.arena import Arena

HEARTBEAT_SECONDS = 5.0
STOP_MILLISECONDS = 20_000
MOST_SENDING = 16
SETTLED_SECONDS = 60.0
"""A statement is given up after 30 s by the database server, see `storage.database`."""

log = structlog.get_logger()


def forked(role: str, path: Path, active: Path, started: Callable[[], None]) -> None:
    """Run one role in a process of its own, which ends with it."""
    try:
        status = run(role, path, active, started)
    except Exception:  # noqa: BLE001 - as the interpreter does where one ends
        sys.excepthook(*sys.exc_info())  # which keeps patient data out of the log
        sys.exit(1)
    sys.exit(status)


def run(role: str, path: Path, active: Path, started: Callable[[], None]) -> int:
    """Run one role until SIGTERM; the exit status.

    Parameters
    ----------
    role : str
        One of `node.roles.ROLES`.
    path, active : Path
        The configuration file, and the copy of it that is in use.
    started : callable
        Called when it does its work: a receiver listens.
    """
    config = load(active, path)
    log_setup.configure(sys.stdout, config.node.log_level)
    structlog.contextvars.bind_contextvars(role=role)
    parts = replace(open_parts(config, active=active), started=started)

    def stop(number: int, frame: FrameType | None) -> None:
        parts.stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        return _ROLES[role](parts) or 0
    finally:
        _leave(parts)
        parts.close()


def run_receiver(parts: Parts) -> int:
    """Receive until told to stop; SIGHUP reads peers and rules again."""
    from node.commitment import CommitmentService
    from node.receive.association_rows import AssociationRows
    from node.receive.receiver import Receiver
    from node.receive.store_service import StoreService
    from node.routing import header_keys
    from storage.ballast import Ballast
    from storage.bell import COORDINATOR, Bell
    from storage.intake import Intake

    swept = parts.objects.sweep_incoming()
    current = [parts.config]
    keys = [header_keys(parts.config.rules)]
    arena = arena_of(parts)
    log_lost = threading.Event()

    def broken(error: Exception) -> None:
        if not isinstance(error, LogLost):
            die_of_disk(error)
            return
        log.error("database.log_lost")
        log_lost.set()
        parts.stopping.set()

    intake = Intake(
        parts.database,
        parts.objects,
        broken,
        arena,
        lambda: OnConflict(current[0].node.on_conflict),
    )
    ballast = Ballast(parts.objects.root, parts.config.node.disk.ballast_bytes)
    service = StoreService(
        intake,
        lambda: keys[0],
        # Room that the ballast gave up, or still wants, is not for objects.
        lambda total: current[0].node.disk.refuse_free.in_bytes(total) + ballast.missing_bytes,
    )
    rows = AssociationRows(parts.database, Bell(parts.objects.root, COORDINATOR).ring)
    receiver = Receiver(
        service,
        receiver_settings(parts.config, parts.owner),
        rows,
        commitment=CommitmentService(parts.database, lambda: current[0]),
    )
    intake.start()
    rows.start()
    receiver.start()
    if arena is not None:
        arena.start()

    def reload(number: int, frame: FrameType | None) -> None:
        try:
            current[0] = load(parts.active, parts.config.path)
        except (ConfigError, OSError):
            return  # the supervisor has said so already
        keys[0] = header_keys(current[0].rules)
        receiver.reconfigure(receiver_settings(current[0], parts.owner))

    signal.signal(signal.SIGHUP, reload)
    reload(signal.SIGHUP, None)  # a signal while we started was ignored
    log.info("receiver.ready", port=receiver.port, leftovers=swept)
    _beat(
        parts,
        "receiver",
        lambda: {
            "port": receiver.port,
            "associations": receiver.associations,
            "has_room": service.has_room(),
        },
    )
    receiver.stop()
    rows.stop()
    intake.stop()
    if arena is not None:
        arena.stop()
    return LOG_LOST if log_lost.is_set() else 0


def arena_of(parts: Parts) -> Arena | None:
    """Make the arena that the configuration asks for."""
    from storage.arena import Arena
    from storage.arena_rows import in_use

    store = parts.config.node.store
    if store.kind != "arena":
        return None
    settled = 0.0 if parts.database.is_sqlite else SETTLED_SECONDS
    return Arena(
        parts.objects.root,
        in_use(parts.database),
        ready_bytes=store.ready_bytes,
        settled_seconds=settled,
    )


def run_coordinator(parts: Parts) -> None:
    """Close, route, reap, gather; answer health checks."""
    from node.alerting import Alerter
    from node.coordinator import Coordinator
    from node.counting import Counter
    from node.gathering import Gatherer
    from node.health import Health

    health = Health(parts.config, parts.database, parts.objects)
    try:
        health.start()
    except OSError as error:
        log.error("health.not_listening", error=type(error).__name__)
    gatherer, counter, alerter = Gatherer(parts), Counter(parts), Alerter(parts)
    gatherer.start()
    counter.start()
    alerter.start()
    Coordinator(parts).run()
    alerter.stop()
    counter.stop()
    gatherer.stop()
    health.stop()


def run_worker(parts: Parts) -> None:
    """Convert and report."""
    _work(parts, "worker", ["convert", "report"], threads=1)


def run_infer(parts: Parts) -> None:
    """Run models: one at a time, one warm runner."""
    _work(parts, "infer", ["infer"], threads=1)


def run_sender(parts: Parts) -> None:
    """Deliver results, and prove that they are there."""
    from node.tending import Tender

    tender = Tender(parts)
    tender.start()
    peers = [peer for peer in parts.config.peers.values() if peer.takes_results]
    wanted = sum(peer.sending.associations for peer in peers)
    # One that hangs must not keep the others waiting.
    _work(parts, "sender", ["deliver"], threads=min(max(wanted, 2), MOST_SENDING))
    tender.stop()


_ROLES: dict[str, Callable[[Parts], int | None]] = {
    "receiver": run_receiver,
    "coordinator": run_coordinator,
    "worker": run_worker,
    "infer": run_infer,
    "sender": run_sender,
}


def _work(parts: Parts, role: str, queues: list[str], threads: int) -> None:
    from node.sender import Sender
    from pipelines.actors import declare
    from pipelines.base import STEPS
    from pipelines.broker import start_worker
    from pipelines.stages import Stages

    sends = queues == ["deliver"]
    stages = Stages(
        parts.database,
        parts.objects,
        parts.wakeup,
        parts.policy,
        parts.owner,
        parts.stopping,
        parts.config.models.folders,
        frozenset(parts.config.models.trust),
    )
    declare(
        parts.broker,
        None if sends else stages,
        Sender(parts).deliver if sends else None,
        parts.queue_prefix,
        warm=[step for step in STEPS if step in queues],
    )
    worker = start_worker(parts.broker, [parts.queue_prefix + queue for queue in queues], threads)
    _beat(parts, role, dict)
    worker.stop(timeout=STOP_MILLISECONDS)


def receiver_settings(config: Config, owner: str) -> ReceiverSettings:
    """Say who may call and where, as the configuration has it."""
    from node.receive.settings import ReceiverSettings, TLSSettings

    listen, tls = config.node.listen or Listen(), config.node.tls
    names = config.node.accept_from
    return ReceiverSettings(
        ae_title=config.node.ae_title,
        peers=tuple(
            PeerRule(
                peer.name,
                peer.sends_as,
                peer.from_networks,
                max_associations=peer.max_associations,
                needs_tls=peer.tls.receive == "required",
                needs_certificate=peer.client_certificate == "required",
                certificate_names=peer.certificate_names,
                fingerprints=peer.fingerprints,
                user=User(peer.user.name, peer.user.passcode) if peer.user else None,
            )
            for peer in config.peers.values()
            if peer.sends_as and (names is None or peer.name in names)
        ),
        host=listen.host,
        port=listen.port,
        max_associations=config.node.max_associations,
        owner=owner,
        tls=None if tls is None else TLSSettings(tls_files(tls), tls.host, tls.port),
        is_plain=config.node.listen is not None,
        buffer_bytes=config.node.memory.receive_bytes,
    )


def tls_files(tls: TLS) -> TLSFiles:
    """Name the files of TLS, as the receiver wants them."""
    from node.receive.tls import TLSFiles

    return TLSFiles(tls.certificate, tls.key, tls.authorities)


def _beat(parts: Parts, role: str, facts: Callable[[], dict[str, object]]) -> None:
    """Say every few seconds that this process lives, until it is told to stop."""
    parts.started()
    while True:
        try:
            with parts.database.transaction() as tx:
                nodes.heartbeat(tx, parts.owner, parts.config.node.station, role, VERSION, facts())
        except StoreUnavailable as error:
            log.warning("database.away", error=type(error).__name__)
        if parts.stopping.wait(HEARTBEAT_SECONDS):
            return


def _leave(parts: Parts) -> None:
    try:
        with parts.database.transaction() as tx:
            nodes.leave(tx, parts.owner)
    except StoreUnavailable:
        log.info("database.away")


def die_of_disk(error: Exception) -> None:
    """End at once: what is on disk is unknown, and nothing more may be acknowledged."""
    threading.Timer(0.2, os._exit, [DISK_FAILED]).start()
    log.error("disk.failed", error=type(error).__name__)
