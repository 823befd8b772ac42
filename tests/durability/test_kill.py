"""A receiver that is killed at any moment loses nothing that it acknowledged.

``SCORENODE_KILLS`` says how often; `make kill` does it a thousand times.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from benchmarks.acknowledged import Load
from tests.durability.proof import assert_all_held, assert_works_again
from tests.durability.receiver_process import ReceiverProcess, Setup, times

KILLS = times("SCORENODE_KILLS", 100)
KILLS_PER_FOLDER = 25


@pytest.mark.slow
@pytest.mark.timeout(60 + 6 * KILLS)
def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(setup: Setup) -> None:
    chance = random.Random(os.environ.get("SCORENODE_SEED", "kill"))
    total = 0
    for cycle in range(KILLS):
        here = Setup(setup.folder / str(cycle // KILLS_PER_FOLDER), setup.store)
        if cycle % KILLS_PER_FOLDER == 0:
            number, acknowledged = 0, set[int]()
        with ReceiverProcess(here) as receiver:
            load = Load(receiver.port, number, associations=chance.randint(2, 4))
            load.start()
            time.sleep(chance.uniform(0.05, 0.4))
            receiver.kill()
            load.join()
        acknowledged.update(load.acknowledged)
        total += len(load.acknowledged)
        number = load.next_number
        if cycle % KILLS_PER_FOLDER == KILLS_PER_FOLDER - 1 or cycle == KILLS - 1:
            assert_all_held(here, acknowledged)
            number = assert_works_again(here, number)
    assert total > KILLS, "the receiver was killed before it had anything to lose"
    print(f"{setup.store}: {KILLS} kills, {total} instances acknowledged, 0 lost")
