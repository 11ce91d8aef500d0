"""The executor's chores in one thread: renew leases, read statuses, watch deadlines, sweep.

One statement renews all leases of the process. It answers the runs' statuses as well, so with
notifications nothing else has to be read; without them the statuses are polled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import psycopg2

from app.clock import DatabaseClock
from app.db import Database, RawConnection
from app.engine.holds import Hold, Holds
from app.engine.link import Disconnected, Link
from app.store import executors, leases

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5


class Monitor(threading.Thread):
    """Runs each chore when it is due; ``nudge`` makes it look again at once."""

    def __init__(
        self,
        db: Database,
        holds: Holds,
        clock: DatabaseClock,
        *,
        executor: str,
        threads: int,
        lease: float,
        poll: float,
        listening: Callable[[], bool],
    ) -> None:
        super().__init__(name="monitor", daemon=True)
        self._link = Link(db, "metronome monitor")
        self._holds = holds
        self._clock = clock
        self._executor = executor
        self._threads = threads
        self._lease = lease
        self._poll = poll
        self._listening = listening
        self._wake = threading.Event()
        self._ending = False
        self._unread = False
        now = time.monotonic()
        self._due = {self._renew: now, self._read: now, self._seen: now, self._sweep: now}

    def nudge(self) -> None:
        """Look again: there is a new hold, or a node with a deadline."""
        self._wake.set()

    def look(self) -> None:
        """Read the statuses once: notifications have begun, and some may have come before."""
        self._unread = True
        self._wake.set()

    def end(self) -> None:
        """End the thread after the chore that it is at."""
        self._ending = True
        self._wake.set()

    def run(self) -> None:
        """Do the chores until ``end``."""
        while not self._ending:
            wait = self._round()
            self._wake.wait(wait)
            self._wake.clear()
        self._link.close()

    def _round(self) -> float:
        """Do what is due; seconds until something is due again."""
        deadline = self._holds.expire(self._clock.now())
        now = time.monotonic()
        if self._unread:
            self._due[self._read] = now
        for chore, due in self._due.items():
            if due > now:
                continue
            try:
                self._due[chore] = time.monotonic() + chore()
            except (Disconnected, psycopg2.Error) as error:
                log.warning("a chore failed", extra={"error": str(error).strip()})
                self._due[chore] = time.monotonic() + RETRY_SECONDS
        left = min(due for due in self._due.values()) - time.monotonic()
        return max(0.01, left if deadline is None else min(left, deadline))

    def _renew(self) -> float:
        """Renew the leases; a third of a lease later again."""
        if held := self._holds.all():
            asked = _pairs(held)
            lease = self._lease
            self._holds.read(held, self._link.run(lambda c: leases.renew(c, asked, lease=lease)))
        return self._lease / 3

    def _read(self) -> float:
        """Read the statuses of the held runs, where no notification would tell of a change."""
        unread, self._unread = self._unread, False
        if (unread or not self._listening()) and (held := self._holds.all()):
            asked = _pairs(held)
            self._holds.read(held, self._link.run(lambda c: leases.statuses(c, asked)))
        return self._poll

    def _seen(self) -> float:
        """Say that this executor lives."""
        self._link.run(lambda c: executors.seen(c, self._executor, self._threads))
        return executors.SEEN_SECONDS

    def _sweep(self) -> float:
        """Close the steps of stopped runs whose executor died."""
        swept: list[str] = self._link.run(_sweep)
        for run_id in swept:
            log.warning("closed the steps of a dead executor", extra={"runId": run_id})
        return max(self._lease, 1.0)


def _sweep(connection: RawConnection) -> list[str]:
    return leases.sweep(connection)


def _pairs(held: list[Hold]) -> list[tuple[str, str]]:
    return [(hold.claimed.id, hold.claimed.token) for hold in held]
