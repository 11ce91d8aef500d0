"""The executor's chores in one thread: renew leases, read statuses, watch deadlines, sweep, purge.

One statement renews all leases of the process. It answers the runs' statuses as well, so with
notifications nothing else has to be read; without them the statuses are polled.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable

import psycopg2

from app.clock import DatabaseClock
from app.db import Database
from app.engine.holds import Hold, Holds
from app.engine.link import Disconnected, Link
from app.store import executors, idempotency, leases
from app.store.concurrency import Group
from app.store.sweeps import Swept, sweep

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
PURGE_SECONDS = 3600.0
PURGE_LIMIT = 500  # idempotency keys at once


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
        on_schedule: Callable[[float | None], None],
        on_due: Callable[[float | None], None],
        on_places: Callable[[Iterable[Group]], None],
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
        self._on_schedule = on_schedule
        self._on_due = on_due
        self._on_places = on_places
        self._wake = threading.Event()
        self._ending = False
        self._unread = False
        self._unswept = False
        now = time.monotonic()
        self._due = {self._renew: now, self._read: now, self._seen: now, self._sweep: now}
        # not all of a deployment at the same time
        self._due[self._purge] = now + random.uniform(0, PURGE_SECONDS)  # noqa: S311 - no secret

    def nudge(self) -> None:
        """Look again: there is a new hold, or a node with a deadline."""
        self._wake.set()

    def look(self) -> None:
        """Read the statuses once: notifications have begun, and some may have come before."""
        self._unread = True
        self._wake.set()

    def sweep(self) -> None:
        """Sweep at once: an executor has died."""
        self._unswept = True
        self._wake.set()

    def end(self) -> None:
        """End the thread after the chore that it is at."""
        self._ending = True
        self._wake.set()

    def run(self) -> None:
        """Do the chores until ``end``."""
        while not self._ending:
            try:
                wait = self._round()
            except Exception:  # whatever it was, leases that nobody renews are taken over
                log.exception("the monitor stumbled")
                wait = RETRY_SECONDS
            self._wake.wait(wait)
            self._wake.clear()
        self._link.close()

    def _round(self) -> float:
        """Do what is due; seconds until something is due again."""
        deadline = self._holds.expire(self._clock.now())
        now = time.monotonic()
        if self._unread:
            self._due[self._read] = now
        if self._unswept:
            self._due[self._sweep] = now
        for chore, due in self._due.items():
            if due > now:
                continue
            try:
                self._due[chore] = time.monotonic() + chore()
            except (Disconnected, psycopg2.Error) as error:
                log.warning("a chore failed", extra={"error": str(error).strip()})
                self._due[chore] = time.monotonic() + RETRY_SECONDS
            except Exception:  # of one chore; the others must not wait for it
                log.exception("a chore stumbled")
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
        """Say that this executor lives, and hear when the next run and schedule are due."""
        upcoming = self._link.run(lambda c: executors.seen(c, self._executor, self._threads))
        self._on_schedule(upcoming.schedule)
        self._on_due(upcoming.run)
        return executors.SEEN_SECONDS

    def _sweep(self) -> float:
        """Close the steps of stopped runs whose executor died; see who could have a place."""
        self._unswept = False
        swept: Swept = self._link.run(sweep)
        for run_id in swept.runs:
            log.warning("closed the steps of a dead executor", extra={"runId": run_id})
        self._on_places(swept.groups)
        return max(self._lease, 1.0)

    def _purge(self) -> float:
        """Forget old idempotency keys, a few at a time."""
        gone = self._link.run(lambda c: idempotency.purge(c, PURGE_LIMIT))
        return RETRY_SECONDS if gone == PURGE_LIMIT else PURGE_SECONDS


def _pairs(held: list[Hold]) -> list[tuple[str, str]]:
    return [(hold.claimed.id, hold.claimed.token) for hold in held]
