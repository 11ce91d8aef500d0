"""The runs that this process holds, and how news about them reaches the threads that walk them.

What is here only makes a stop arrive sooner. Whether a run goes on is decided by the database, at
the next node boundary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from app.domain.lifecycle import CANCELLED, PAUSED, TERMINAL
from app.domain.stop import Reason, StopSignal
from app.store.leases import Claimed


class Hold:
    """One held run. ``stop`` is what its node sees; ``look`` wakes its thread between nodes."""

    def __init__(self, claimed: Claimed, nudge: Callable[[], None]) -> None:
        self.claimed = claimed
        self.stop = StopSignal()
        self.look = threading.Event()
        self._nudge = nudge
        self._node: tuple[datetime, StopSignal] | None = None  # of the node in flight

    def end(self, reason: Reason) -> None:
        """Ask the node in flight to stop."""
        self.stop.set(reason)
        self.look.set()

    @contextmanager
    def within(self, deadline: datetime) -> Iterator[StopSignal]:
        """A stop signal for one node, which is set when the run stops or ``deadline`` passes."""
        signal = StopSignal()
        forget = self.stop.on_stop(lambda: signal.set(self.stop.reason or "cancelled"))
        self._node = (deadline, signal)
        self._nudge()
        try:
            yield signal
        finally:
            self._node = None
            forget()

    def expire(self, now: datetime) -> float | None:
        """Stop what is out of time; seconds to the next deadline, or None without one."""
        left: list[float] = []
        if self.claimed.deadline_at is not None and not self.stop.is_set():
            seconds = (self.claimed.deadline_at - now).total_seconds()
            if seconds <= 0:
                self.end("timeout")
            left.append(seconds)
        if (node := self._node) is not None:
            seconds = (node[0] - now).total_seconds()
            if seconds <= 0:
                node[1].set("timeout")
            left.append(seconds)
        return min((seconds for seconds in left if seconds > 0), default=None)


class Holds:
    """All runs that this process holds, by lease token."""

    def __init__(self, nudge: Callable[[], None] = lambda: None) -> None:
        self._nudge = nudge  # called when a node begins that has a deadline of its own
        self._lock = threading.Lock()
        self._holds: dict[str, Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def add(self, claimed: Claimed) -> Hold:
        """Begin to hold a run that was just claimed."""
        hold = Hold(claimed, self._nudge)
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

    def told(self, token: str, status: str) -> None:
        """The status of the run that is held under a lease has changed, as a notification says."""
        with self._lock:
            hold = self._holds.get(token)
        if hold is not None:
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
        """Stop what is out of time; seconds to the next deadline, or None without one."""
        left = [seconds for hold in self.all() if (seconds := hold.expire(now)) is not None]
        return min(left, default=None)


def _tell(hold: Hold, status: str) -> None:
    if status in TERMINAL:
        hold.end("cancelled" if status == CANCELLED else "lease_lost")
    elif status == PAUSED:  # the node in flight may end; nothing follows it
        hold.look.set()
