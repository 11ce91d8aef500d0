"""Starts the runs of schedules when they are due.

One thread that sleeps until the next due time. It asks for nothing while there is no schedule: the
monitor's word that this executor lives is answered with when a schedule is due, and a notification
tells of one that was just published. All executors do this at the same time; who comes second finds
the run there, or the due time gone (services/schedules.py).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

import psycopg2
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.db import Database
from app.domain.errors import Conflict
from app.engine.link import is_passing
from app.services import concurrency, schedules
from app.services.concurrency import Free
from app.store.schedules import Due

log = logging.getLogger(__name__)

BATCH = 50  # schedules that are read at once
SPREAD_SECONDS = 0.02  # executors wake one after the other, and the first one does the work
RETRY_SECONDS = 1.0
MAX_SECONDS = 24 * 3600.0  # of one sleep


class Away(Exception):
    """The database can't be reached just now, or the workflow can't be got hold of."""


class Scheduler(threading.Thread):
    """Starts what is due until ``end``."""

    def __init__(
        self, db: Database, *, tell: Callable[[], None], free: Free = concurrency.leave
    ) -> None:
        super().__init__(name="scheduler", daemon=True)
        self._db = db
        self._tell = tell
        self._free = free
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._waits_until: float | None = None  # in monotonic time; None: until it is nudged

    def nudge(self) -> None:
        """Look at once: a schedule was published, or notifications have begun."""
        self._wake.set()

    def due_in(self, seconds: float | None) -> None:
        """The next schedule is due in so many seconds (None: there is none): don't sleep longer."""
        if seconds is None:
            return
        until = self._waits_until
        if until is None or time.monotonic() + seconds < until - 2 * SPREAD_SECONDS:
            self._wake.set()

    def end(self) -> None:
        """End the thread after the run that it is about to start."""
        self._ending.set()
        self._wake.set()

    def run(self) -> None:
        """Start what is due, until ``end``."""
        while not self._ending.is_set():
            try:
                wait = self._round()
            except Away as error:
                log.warning("schedules wait", extra={"error": str(error)})
                wait = RETRY_SECONDS
            except Exception:  # whatever it was, this thread is needed for the next schedule
                log.exception("the scheduler stumbled")
                wait = RETRY_SECONDS
            self._waits_until = None if wait is None else time.monotonic() + wait
            self._wake.wait(wait)
            self._wake.clear()

    def _round(self) -> float | None:
        """Start what is due; seconds until something is due again, None where nothing is."""
        while not self._ending.is_set():
            try:
                found = schedules.upcoming(self._db, limit=BATCH)
            except SQLAlchemyError as error:
                raise Away(str(error).strip()) from error
            due = [one for one in found if one.due_at <= one.now]
            if not due:
                if not found:
                    return None
                left = (found[0].due_at - found[0].now).total_seconds()
                spread = random.uniform(0, SPREAD_SECONDS)  # noqa: S311 - no secret
                return min(left, MAX_SECONDS) + spread
            random.shuffle(due)  # so that executors don't go through the same list in step
            done = False
            for one in due:
                if self._ending.is_set():
                    break
                done = self._fire(one) or done
            if not done and not self._ending.is_set():
                raise Away("their workflows are being changed")
        return None

    def _fire(self, due: Due) -> bool:
        """Deal with one due time, if it still is; one schedule's fault keeps no other waiting."""
        try:
            return schedules.fire(self._db, due, tell=self._tell, free=self._free)
        except Conflict as error:
            raise Away(error.message) from error
        except Exception as error:
            if _is_away(error):
                raise Away(str(error).strip()) from error
            log.exception("a schedule can't start its run", extra={"metronomeId": due.metronome_id})
            schedules.give_up(self._db, due, "the run could not be started: internal error")
            return True


def _is_away(error: Exception) -> bool:
    if isinstance(error, DBAPIError):
        return isinstance(error.orig, psycopg2.Error) and is_passing(error.orig)
    return isinstance(error, SQLAlchemyError)  # no connection became free in time
