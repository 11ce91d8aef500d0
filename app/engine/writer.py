"""Sends what belongs to a held run to the database: the boundaries of all threads, few commits.

Whoever comes to a free lane (a prepared connection) becomes its leader and writes all boundaries
that are waiting at that moment in one statement and one commit. So at rest a boundary waits for
nobody, and under load the batches grow by themselves. A leader writes one batch; the lane then goes
to one of those who wait.

A statement whose connection broke may have been committed or not: the database is asked, nothing
is guessed. A value that the database refuses fails its own boundary and no neighbour's.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import psycopg2.errors

from app.clock import DatabaseClock
from app.db import Database, RawConnection
from app.engine.link import Disconnected, Link
from app.store import boundary as store
from app.store.boundary import Boundary, Verdict

log = logging.getLogger(__name__)
T = TypeVar("T")

LANES = 2  # connections that write boundaries: while one commits, the other collects
BATCH = 64  # boundaries in one statement, at most
BATCH_BYTES = 300_000  # of JSON in one statement, unless a boundary has more on its own
RECONNECT_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # then the last one again and again


class GaveUp(Exception):
    """The database stayed away while the process was told to end."""


class _Ticket:
    """One boundary on its way; woken when it is settled, or when its thread is to lead a lane."""

    __slots__ = ("_gate", "boundary", "error", "lane", "size", "verdict")

    def __init__(self, boundary: Boundary) -> None:
        self.boundary = boundary
        self.size = boundary.size()
        self.verdict: Verdict | None = None
        self.error: Exception | None = None
        self.lane: Link | None = None
        self._gate = threading.Lock()  # the cheapest thing that one thread waits for
        self._gate.acquire()

    def wait(self) -> Link | None:
        """Until the boundary is settled (None) or a lane was handed over."""
        self._gate.acquire()
        return self.lane

    def wake(self) -> None:
        """End the wait."""
        self._gate.release()

    def answer(self) -> Verdict:
        """The verdict, once the boundary is settled; raises what kept it from being written."""
        if self.verdict is None:
            raise self.error or AssertionError("not settled")
        return self.verdict


class Writer:
    """The worker threads' way to the database."""

    def __init__(self, db: Database, clock: DatabaseClock, *, lanes: int = LANES) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free = [Link(db, "metronome writer", store.prepare) for _ in range(lanes)]
        self._waiting: deque[_Ticket] = deque()
        self._side: queue.LifoQueue[Link] = queue.LifoQueue()
        for _ in range(lanes):
            self._side.put(Link(db, "metronome reader"))
        self.closing = threading.Event()  # set at the end of a drain: wait for no database

    def write(self, boundary: Boundary) -> Verdict:
        """Write one boundary.

        Raises psycopg2.Error where the database refuses it (nothing of it is written then), and
        GaveUp where the database is away while the process ends.
        """
        ticket = _Ticket(boundary)
        with self._lock:
            lane = self._free.pop() if self._free else None
            if lane is None:
                self._waiting.append(ticket)
        lane = lane or ticket.wait()
        if lane is not None:
            self._lead(lane, ticket)
        return ticket.answer()

    def run(self, work: Callable[[RawConnection], T]) -> T:
        """Do ``work``, which must be safe to repeat, on a connection for everything else."""
        link = self._side.get()
        tries = 0
        try:
            while True:
                try:
                    return link.run(work)
                except Disconnected as error:
                    self._pause(tries, error)
                    tries += 1
        finally:
            self._lay_down(link)
            self._side.put(link)

    def _lay_down(self, link: Link) -> None:
        if self.closing.is_set():  # by a worker that was left behind: nobody closes it later
            link.close()

    def close(self) -> None:
        """Close the connections, but those that a worker uses which was left behind."""
        with self._lock:
            for lane in self._free:
                lane.close()
        unused: list[Link] = []
        with suppress(queue.Empty):
            while True:
                unused.append(self._side.get_nowait())
        for link in unused:
            link.close()
            self._side.put(link)

    def _lead(self, lane: Link, own: _Ticket) -> None:
        """Write what waits, own boundary first; then hand the lane on."""
        with self._lock:
            batch = self._gather(own)
        self._flush(lane, batch)
        with self._lock:
            heir = self._waiting.popleft() if self._waiting else None
            if heir is None:
                self._lay_down(lane)
                self._free.append(lane)
            else:
                heir.lane = lane
        if heir is not None:
            heir.wake()
        for ticket in batch[1:]:
            ticket.wake()

    def _gather(self, own: _Ticket) -> list[_Ticket]:
        """Own boundary and those that wait, but none of a run that another one touches.

        The two would change the same row, which one statement can't do twice. And not more than
        ``BATCH_BYTES``: what is small does not wait until much is written that is not its own.
        """
        batch, left = [own], deque[_Ticket]()
        size = own.size
        runs, touched = {own.boundary.run_id}, set(own.boundary.touches)
        while self._waiting and len(batch) < BATCH:
            ticket = self._waiting.popleft()
            boundary = ticket.boundary
            if (
                size + ticket.size > BATCH_BYTES
                or boundary.run_id in touched
                or not runs.isdisjoint(boundary.touches)
            ):
                left.append(ticket)
                continue
            batch.append(ticket)
            size += ticket.size
            runs.add(boundary.run_id)
            touched.update(boundary.touches)
        left.extend(self._waiting)
        self._waiting = left
        return batch

    def _flush(self, lane: Link, batch: list[_Ticket]) -> None:
        """Settle every ticket of the batch; never raises."""
        try:
            verdicts = lane.run(lambda c: store.write(c, [ticket.boundary for ticket in batch]))
        except Disconnected as error:
            log.warning("lost the database at a boundary", extra={"error": str(error)})
            for ticket in batch:
                self._settle_alone(lane, ticket, again=True)
        except Exception:  # one boundary is refused: find out which
            for ticket in batch:
                self._settle_alone(lane, ticket, again=False)
        else:
            for ticket, verdict in zip(batch, verdicts, strict=True):
                ticket.verdict = verdict
            self._clock.told(verdicts[-1].now)

    def _settle_alone(self, lane: Link, ticket: _Ticket, *, again: bool) -> None:
        tries = 0
        while True:
            write = partial(_write_once, boundary=ticket.boundary, again=again)
            try:
                ticket.verdict = lane.run(write)
                return
            except Disconnected as error:
                again = True
                try:
                    self._pause(tries, error)
                except GaveUp as gave_up:
                    ticket.error = gave_up
                    return
                tries += 1
            except psycopg2.errors.UniqueViolation as error:
                if not again or tries > len(RECONNECT_SECONDS):
                    ticket.error = error
                    return
                tries += 1  # the lost statement was committed just after we had asked: ask again
            except Exception as error:
                ticket.error = error
                return

    def _pause(self, tries: int, error: Disconnected) -> None:
        wait = RECONNECT_SECONDS[min(tries, len(RECONNECT_SECONDS) - 1)]
        log.warning("the database is away", extra={"error": str(error), "retryIn": wait})
        if self.closing.wait(wait):
            raise GaveUp from error


def _write_once(connection: RawConnection, boundary: Boundary, again: bool) -> Verdict:
    """Write a boundary; where an earlier try may have been committed, look for it first."""
    if again and boundary.starts:
        known = store.recorded(connection, boundary)
        if known is not None:
            return known
    return store.write(connection, [boundary])[0]
