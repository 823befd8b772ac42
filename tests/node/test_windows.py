"""Hours of the day in which a destination is called."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from node.config.windows import day_window


@pytest.mark.parametrize(
    ("window", "now", "hours"),
    [
        ("22:00-06:00", "23:00", 0),
        ("22:00-06:00", "05:59", 0),
        ("22:00-06:00", "06:00", 16),
        ("22:00-06:00", "21:00", 1),
        ("08:00-17:00", "08:00", 0),
        ("08:00-17:00", "17:00", 15),
        ("8:00 - 17:00", "07:00", 1),
    ],
)
def test_when_a_window_opens(window: str, now: str, hours: float) -> None:
    at = datetime.fromisoformat(f"2026-03-04T{now}:00").astimezone()
    assert day_window(window).opens_in(at) == timedelta(hours=hours)


@pytest.mark.parametrize("written", ["22-6", "24:00-06:00", "22:00", "06:00-06:00", "22:60-06:00"])
def test_what_is_no_window_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ValueError, match="window"):
        day_window(written)
