"""Strangers at the door, one kind after the other, beside a peer that must not notice."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from storage import tables
from storage.database import Database
from tests.attacks.node import ROOT, Child, Honest, rate, running_child
from tests.attacks.strangers import ATTACKS, MAY_STORE
from tests.node.receive.test_receiver import eventually

pytestmark = pytest.mark.slow

MOST_GROWTH_MB = 64
OBJECT = re.compile(r"data/objects/[0-9a-f]{2}/[0-9a-f]{32}\.dcm")
SHARE, TRIES = 0.8, 3
"""Of its rate an honest peer keeps; what a stranger costs is there in every try, noise is not."""
SLACK = 4
"""Threads and descriptors that the honest peer's last association may still hold."""


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with running_child(tmp_path_factory.mktemp("attacked")) as found:
        rate(found, 2.0)  # everything has been touched once
        yield found


@pytest.mark.parametrize("name", ATTACKS)
def test_an_honest_peer_goes_on_and_nothing_stays_behind(child: Child, name: str) -> None:
    base, files = child.usage(), child.files()
    for _ in range(TRIES):
        undisturbed, rows = rate(child, 2.0), _known(child)
        honest, seconds, worst_mb = _attack(child, name)
        if len(honest.stored) / seconds >= SHARE * undisturbed:
            break

    assert len(honest.stored) / seconds >= SHARE * undisturbed
    assert not honest.failures
    assert honest.slowest_of_hundred <= 1.0
    assert worst_mb - base.resident_mb <= MOST_GROWTH_MB
    eventually(lambda: child.usage().threads <= base.threads + SLACK, 30)
    eventually(lambda: child.usage().descriptors <= base.descriptors + SLACK, 30)
    new = child.files() - files
    assert all(OBJECT.fullmatch(name) for name in new), "nothing is named by a stranger"
    assert _known(child, honest.stored) == len(honest.stored)
    assert name in MAY_STORE or _known(child) == rows + len(honest.stored)


def _attack(child: Child, name: str) -> tuple[Honest, float, float]:
    """Let strangers come beside an honest peer; that peer, seconds, most resident megabytes."""
    honest = Honest(child)
    with honest.at_work():
        began, worst_mb = time.monotonic(), 0.0
        stranger = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.strangers", name, str(child.port)], cwd=ROOT
        )
        while stranger.poll() is None or time.monotonic() - began < 4.0:
            worst_mb = max(worst_mb, child.usage().resident_mb)
            time.sleep(0.02)
            assert time.monotonic() - began < 90
        seconds = time.monotonic() - began
    assert stranger.returncode == 0
    return honest, seconds, worst_mb


def _known(child: Child, uids: list[str] | None = None) -> int:
    """How many of these instances have a row, or of all."""
    database = Database(f"sqlite:///{child.folder / 'node.db'}")
    try:
        with database.snapshot() as tx:
            column = tables.Instance.sop_instance_uid
            query = sa.select(sa.func.count(column))
            if uids is not None:
                query = query.where(column.in_(uids))
            return int(tx.execute(query).scalar_one())
    finally:
        database.close()
