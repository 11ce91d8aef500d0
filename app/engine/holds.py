"""The runs that this process holds, and how news about them reaches the threads that walk them.

What is here only makes a stop arrive sooner. Whether a run goes on is decided by the database, at
the next node boundary.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime

from app.domain.lifecycle import CANCELLED, PAUSED, TERMINAL
from app.domain.stop import Reason, StopSignal
from app.store.leases import Claimed


class Hold:
    """One held run. ``stop`` is what its node sees; ``look`` wakes its thread between nodes."""

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.stop = StopSignal()
        self.look = threading.Event()

    def end(self, reason: Reason) -> None:
        """Ask the node in flight to stop."""
        self.stop.set(reason)
        self.look.set()


class Holds:
    """All runs that this process holds, by lease token."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holds: dict[str, Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def add(self, claimed: Claimed) -> Hold:
        """Begin to hold a run that was just claimed."""
        hold = Hold(claimed)
        with self._lock:
            self._holds[claimed.token] = hold
        return hold

    def remove(self, hold: Hold) -> None:
        """The run has been let go."""
        with self._lock:
            self._holds.pop(hold.claimed.token, None)

    def all(self) -> list[Hold]:
        """The held runs at this moment."""
        with self._lock:
            return list(self._holds.values())

    def told(self, run_id: str, status: str) -> None:
        """A run's status has changed, as a notification says."""
        for hold in self.all():
            if hold.claimed.id == run_id:
                _tell(hold, status)

    def read(self, asked: list[Hold], statuses: Mapping[str, str]) -> None:
        """The statuses of ``asked`` have been read; a run that is missing is no longer ours."""
        for hold in asked:
            status = statuses.get(hold.claimed.id)
            if status is None:
                hold.end("lease_lost")
            else:
                _tell(hold, status)

    def expire(self, now: datetime) -> float | None:
        """Stop the runs whose deadline has passed; seconds to the next deadline, or None."""
        left: float | None = None
        for hold in self.all():
            if hold.claimed.deadline_at is None or hold.stop.is_set():
                continue
            seconds = (hold.claimed.deadline_at - now).total_seconds()
            if seconds <= 0:
                hold.end("timeout")
            elif left is None or seconds < left:
                left = seconds
        return left


def _tell(hold: Hold, status: str) -> None:
    if status in TERMINAL:
        hold.end("cancelled" if status == CANCELLED else "lease_lost")
    elif status == PAUSED:  # the node in flight may end; nothing follows it
        hold.look.set()
