"""A setup in a folder of its own, and a disk whose power can be cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.loop_disk import LoopDisk, NoLoopDisk
from tests.durability.receiver_process import Setup, chosen_stores


@pytest.fixture(params=chosen_stores())
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def setup(tmp_path: Path, store: str) -> Setup:
    return Setup(tmp_path / "node", store)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    made = LoopDisk(tmp_path)
    try:
        made.__enter__()
    except NoLoopDisk as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.__exit__(None, None, None)
