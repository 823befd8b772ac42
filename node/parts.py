"""Where everything is joined: the parts that a process of the node works with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa
from dramatiq.broker import Broker

from node.config.file import Config
from pipelines.broker import Relay, SQLBroker, Wakeup, external_broker
from storage.bell import TASKS, Bell
from storage.database import Database
from storage.jobs import RetryPolicy
from storage.objects import FileObjects
from storage.owner import new_owner
from storage.tables import Meta

VERSION = version("scorenode")


@dataclass(frozen=True)
class Parts:
    """What a process works with.

    Parameters
    ----------
    config : Config
    database, objects : where rows and files live
    owner : str
        Name of this process in leases.
    broker : Broker
    wakeup : Wakeup
    queue_prefix : str
        Of queue names on an external broker; empty for our own.
    policy : RetryPolicy
    stopping : threading.Event
    active : Path
        The copy of the configuration that is in use, to be read again after a SIGHUP.
    started : callable
        Tells the supervisor that this process does its work.
    """

    config: Config
    database: Database
    objects: FileObjects
    owner: str
    broker: Broker
    wakeup: Wakeup
    queue_prefix: str
    policy: RetryPolicy
    stopping: threading.Event
    active: Path = Path()
    started: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Let go of the broker and the database."""
        self.broker.close()
        self.database.close()


def open_parts(
    config: Config, policy: RetryPolicy | None = None, active: Path | None = None
) -> Parts:
    """Join the parts as the configuration says.

    Raises
    ------
    StoreUnavailable
        The database or the data folder cannot be used.
    """
    policy = policy or policy_from_environment()
    database = Database(database_url(config))
    objects = FileObjects(config.node.data_folder)
    owner = new_owner()
    broker: Broker
    wakeup: Wakeup
    if config.node.broker_url == "sql":
        broker = wakeup = SQLBroker(
            database,
            owner,
            Bell(config.node.data_folder, TASKS),
            lease_seconds=policy.lease_seconds,
        )
        prefix = ""
    else:
        prefix = f"scorenode.{_store_id(database)}."
        broker = external_broker(config.node.broker_url)
        wakeup = Relay(database, broker, owner, prefix)
    return Parts(
        config,
        database,
        objects,
        owner,
        broker,
        wakeup,
        prefix,
        policy,
        threading.Event(),
        active or config.path,
    )


def database_url(config: Config) -> str:
    """URL of the database: what the file says, else SQLite in the data folder."""
    folder = config.node.data_folder.resolve()
    return config.node.database_url or f"sqlite:///{folder / 'node.db'}"


def policy_from_environment() -> RetryPolicy:
    """Build the policy; ``SCORENODE_FIRST_WAIT`` and ``SCORENODE_LEASE`` shorten it (seconds)."""
    first = float(os.environ.get("SCORENODE_FIRST_WAIT", RetryPolicy.first_wait_seconds))
    lease = float(os.environ.get("SCORENODE_LEASE", RetryPolicy.lease_seconds))
    return RetryPolicy(lease_seconds=lease, first_wait_seconds=first)


def _store_id(database: Database) -> str:
    with database.snapshot() as tx:
        salt = tx.execute(sa.select(Meta.value).where(Meta.key == "instance_salt")).scalar_one()
    return str(salt)[:8]
