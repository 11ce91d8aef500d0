"""Time as the database tells it. No decision is taken by a clock of this machine.

An executor needs the database's time between two statements (to know how long a node may still
sleep), so it takes it from each answer and lets a monotonic clock run on from there.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """The database's time now, from the last time it told and what has passed since."""

    def __init__(self) -> None:
        self._told: tuple[datetime, float] = (datetime.now(UTC), time.monotonic())

    def told(self, database_now: datetime) -> None:
        """Take over ``database_now``, which a statement has just answered."""
        self._told = (database_now, time.monotonic())

    def now(self) -> datetime:
        """The database's time, as far as it is known here."""
        then, monotonic = self._told
        return then + timedelta(seconds=time.monotonic() - monotonic)


def iso(moment: datetime | None) -> str | None:
    """``moment`` as ISO 8601 in UTC with microseconds and ``Z``; None stays None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
