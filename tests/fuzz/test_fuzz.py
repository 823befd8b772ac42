"""A part of what ``make fuzz`` does at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.node import rate, running_child
from tests.fuzz.drivers import fuzz_conversations, fuzz_data_sets, fuzz_pdus
from tests.node.receive.test_receiver import eventually

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_pdus_end_in_a_designed_way(seed: int) -> None:
    assert fuzz_pdus(100_000, seed) >= 100_000


def test_mutated_data_sets_are_read_or_refused() -> None:
    assert fuzz_data_sets(200_000, 3) == 200_000


def test_mutated_conversations_leave_the_receiver_as_it_was(tmp_path: Path) -> None:
    with running_child(tmp_path) as child:
        rate(child, 2.0)
        base = child.usage()
        fuzz_conversations(child, 1000, 4)
        assert rate(child, 1.0) > 0
        eventually(lambda: child.usage().threads <= base.threads + 4, 30)
        eventually(lambda: child.usage().descriptors <= base.descriptors + 4, 30)
        assert child.usage().resident_mb - base.resident_mb <= 64
