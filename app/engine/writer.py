"""Sends what belongs to a held run to the database, however often the connection breaks.

Each worker thread has a prepared connection of its own. A boundary whose connection broke may have
been committed or not: the database is asked, nothing is guessed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg2.errors

from app.clock import DatabaseClock
from app.db import Database, RawConnection
from app.engine.link import Disconnected, Link
from app.store import boundary as store
from app.store.boundary import Boundary, Verdict

log = logging.getLogger(__name__)
T = TypeVar("T")

RECONNECT_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # then the last one again and again


class GaveUp(Exception):
    """The database stayed away while the process was told to end."""


class Writer:
    """The worker threads' way to the database."""

    def __init__(self, db: Database, clock: DatabaseClock) -> None:
        self._db = db
        self._clock = clock
        self._local = threading.local()
        self.closing = threading.Event()  # set at the end of a drain: wait for no database

    def write(self, boundary: Boundary) -> Verdict:
        """Write one boundary.

        Raises psycopg2.DataError where the database refuses a value (nothing is written then), and
        GaveUp where the database is away while the process ends.
        """
        tries = 0
        while True:
            try:
                verdict = self._attempt(boundary, again=tries > 0)
            except Disconnected as error:
                self._pause(tries, error)
                tries += 1
            except psycopg2.errors.UniqueViolation:
                if not tries:
                    raise
                # The lost statement was committed just after we had asked: ask again.
            else:
                if verdict.answer != "lease_lost":
                    self._clock.told(verdict.now)
                return verdict

    def run(self, work: Callable[[RawConnection], T]) -> T:
        """Do ``work``, which must be safe to repeat, on this thread's connection."""
        tries = 0
        while True:
            try:
                return self._link().run(work)
            except Disconnected as error:
                self._pause(tries, error)
                tries += 1

    def close(self) -> None:
        """Close this thread's connection."""
        self._link().close()

    def _attempt(self, boundary: Boundary, *, again: bool) -> Verdict:
        link = self._link()
        if again and boundary.starts:
            known = link.run(lambda connection: store.recorded(connection, boundary))
            if known is not None:
                return known
        return link.run(lambda connection: store.write(connection, [boundary])[0])

    def _pause(self, tries: int, error: Disconnected) -> None:
        wait = RECONNECT_SECONDS[min(tries, len(RECONNECT_SECONDS) - 1)]
        log.warning("the database is away", extra={"error": str(error), "retryIn": wait})
        if self.closing.wait(wait):
            raise GaveUp from error

    def _link(self) -> Link:
        link: Link | None = getattr(self._local, "link", None)
        if link is None:
            link = self._local.link = Link(self._db, "metronome worker", store.prepare)
        return link
