"""A part of what ``make fuzz-series`` does at length."""

from __future__ import annotations

import pytest

from tests.fuzz.conversion import fuzz_series

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_and_truncated_series_end_in_a_designed_way(seed: int) -> None:
    reasons = fuzz_series(150, seed)

    assert reasons["volume"] > 20
    assert len(reasons) >= 10
