"""A power cut at any moment loses nothing that was acknowledged; root and loop devices only.

What was answered before the cut began must be there. Where the power really goes nothing is
answered after it; here the kernel may, for some milliseconds, call a flush a success that the cut
interrupts.

``SCORENODE_POWER_CUTS`` says how often; `make powercut` does it two hundred times.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from benchmarks.acknowledged import Load
from benchmarks.loop_disk import LoopDisk
from tests.durability.proof import assert_all_held, assert_works_again
from tests.durability.receiver_process import ReceiverProcess, Setup, times

CUTS = times("SCORENODE_POWER_CUTS", 25)
FULL = 0.5


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * CUTS)
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(
    disk: LoopDisk, store: str
) -> None:
    chance = random.Random(os.environ.get("SCORENODE_SEED", "power"))
    total, folder, number, acknowledged = 0, 0, 0, set[int]()
    for _ in range(CUTS):
        if disk.used_share() > FULL:
            folder, number, acknowledged = folder + 1, 0, set()
            disk.empty()
        here = Setup(disk.mount / str(folder), store)
        with ReceiverProcess(here) as receiver:
            load = Load(receiver.port, number, associations=chance.randint(2, 5))
            load.start()
            time.sleep(chance.uniform(0.05, 0.8))
            cut = time.monotonic()
            disk.cut_power()
            receiver.kill()
            load.join()
        disk.restart()
        before = load.acknowledged_before(cut)
        acknowledged.update(before)
        total += len(before)
        assert_all_held(here, acknowledged)
        number = assert_works_again(here, load.next_number)
    assert total > CUTS, "the power was cut before there was anything to lose"
    print(f"{store}: {CUTS} power cuts, {total} instances acknowledged, 0 lost")
