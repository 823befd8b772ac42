"""PostgreSQL, RabbitMQ and Redis on the standard ports; absent: skip at home, fail in CI."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
import sqlalchemy as sa

POSTGRESQL = "postgresql+psycopg://postgres@127.0.0.1:5432"
RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/%2f"
REDIS = "redis://127.0.0.1:6379/5"


def missing(what: str) -> NoReturn:
    """Skip at home; fail in CI, where everything must run."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI must have it")
    pytest.skip(f"{what} is missing")


def require_port(port: int, what: str) -> None:
    """Skip or fail when nothing listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        missing(f"{what} on port {port}")


@contextmanager
def postgresql_database() -> Iterator[str]:
    """A database of its own, dropped afterwards; its URL."""
    require_port(5432, "PostgreSQL")
    name = f"scorenode_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(f"{POSTGRESQL}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f'create database "{name}"'))
    try:
        yield f"{POSTGRESQL}/{name}"
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f'drop database if exists "{name}" with (force)'))
        admin.dispose()
