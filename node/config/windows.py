"""Hours of the day in which something may be done: '22:00-06:00', local time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from node.config.quantities import scalar

_WINDOW = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9]) ?- ?([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class DayWindow:
    """From one time of the day to another, past midnight where the second is the earlier one."""

    opens: time
    shuts: time

    def __str__(self) -> str:
        return f"{self.opens:%H:%M}-{self.shuts:%H:%M}"

    def opens_in(self, now: datetime) -> timedelta:
        """How long until it is open; zero: it is.

        Parameters
        ----------
        now : datetime
            Local time.
        """
        at = now.time()
        if self.opens < self.shuts:
            is_open = self.opens <= at < self.shuts
        else:
            is_open = at >= self.opens or at < self.shuts
        if is_open:
            return timedelta(0)
        opening = now.replace(
            hour=self.opens.hour, minute=self.opens.minute, second=0, microsecond=0
        )
        return opening - now if opening > now else opening + timedelta(days=1) - now


def day_window(value: object) -> DayWindow:
    """Read a window."""
    written = scalar(value)
    found = _WINDOW.fullmatch(written)
    if found is None:
        raise ValueError(f"'{written[:64]}' is no time window. Write '22:00-06:00'.")
    hours = [int(part) for part in found.groups()]
    window = DayWindow(time(hours[0], hours[1]), time(hours[2], hours[3]))
    if window.opens == window.shuts:
        raise ValueError("This window never shuts. Leave it out.")
    return window
