"""The executor process: claims due runs and hands them to worker threads.

    main thread     claim what is due, as many as there are idle workers; wait for more
    workers         take one run each from boundary to boundary (interpreter.py)
    monitor         renew leases, read statuses, deadlines, sweep (monitor.py)
    scheduler       start the runs of schedules (scheduler.py)
    places          give runs that wait for a place in their group one that is free (services)
    listener        notifications, which make all of it happen sooner (listener.py)
    lifeline        notice that another executor has died (lifeline.py)

Any number of these processes may run on any number of hosts; they meet in the database only.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg2

from app.clock import DatabaseClock
from app.config import Settings
from app.db import Database
from app.domain import connectors
from app.engine.courier import Courier
from app.engine.graphs import Graphs
from app.engine.holds import Hold, Holds
from app.engine.interpreter import Interpreter
from app.engine.lifeline import Lifeline
from app.engine.link import Disconnected, Link
from app.engine.listener import Listener
from app.engine.monitor import Monitor
from app.engine.nested import Nested
from app.engine.scheduler import Scheduler
from app.engine.writer import GaveUp, Writer
from app.nodes import RUNNABLE
from app.nodes.base import NodeKind, NodeLimits
from app.services.notify import DueNotifier
from app.services.places import Places
from app.store import executors, leases

log = logging.getLogger(__name__)

# Times the poll interval, while notifications arrive. A little more than what it takes the monitor
# to look again: that is one statement for both.
LISTENING_POLL = 12.0
LEAST_WAIT = 0.02  # seconds between two claims that found nothing
MOST_WAIT = 0.2  # the same where something stays due that somebody else keeps locked
RETRY_SECONDS = 1.0
JOIN_SECONDS = 5.0
LIFELINE_SECONDS = 2.0  # the most that the first claim waits for


@dataclass(frozen=True, slots=True)
class Options:
    """How one executor works; see Settings for the units."""

    database_url: str
    threads: int
    lease: float
    poll: float
    grace: float
    listen: bool
    limits: NodeLimits
    liveness: bool = True


class Executor:
    """One executor; ``run`` returns after ``drain`` was called and the held runs were let go."""

    def __init__(self, options: Options, kinds: Mapping[str, NodeKind] = RUNNABLE) -> None:
        self._options = options
        host = socket.gethostname().encode("ascii", "replace").decode()
        self.id = f"{host}:{os.getpid()}:{secrets.token_hex(3)}"
        self._db = Database(options.database_url, owner=self.id)
        self._link = Link(self._db, "metronome claims", leases.prepare)
        self._clock = DatabaseClock()
        self._holds = Holds(lambda: self._monitor.nudge())
        self._work: queue.SimpleQueue[Hold | None] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._draining = threading.Event()
        self._only_polls = False  # nothing is known to be due before the next look
        self._unasked = False  # what is due next, since something was claimed
        self._again = LEAST_WAIT  # after how long to claim again what was due and not to be had
        self._looked = 0.0  # when the monitor last did, and when we look again, in monotonic time
        self._looks_at = 0.0
        self._due_at = math.inf  # when a run is due, as the monitor saw
        self._writer = Writer(self._db, self._clock)
        self._places = Places(self._db)
        self._interpreter = Interpreter(
            writer=self._writer,
            clock=self._clock,
            graphs=Graphs(self._writer).get,
            kinds=kinds,
            limits=options.limits,
            nested=Nested(self._db, self._writer, self._places.free),
            draining=self._draining.is_set,
        )
        self._listener = Listener(
            self._db,
            on_due=self._wake.set,
            on_stop=self._holds.told,
            on_outbox=lambda: self._courier.nudge(),
            on_schedule=lambda: self._scheduler.nudge(),
            on_executors=lambda: self._lifeline.nudge(),
            on_live=self._on_live,
        )
        self._courier = Courier(
            self._db,
            options.limits.connectors,
            poll=options.poll,
            listening=lambda: self._listener.live,
        )
        self._notifier = DueNotifier(self._db)
        self._scheduler = Scheduler(self._db, tell=self._on_started, free=self._places.free)
        self._monitor = Monitor(
            self._db,
            self._holds,
            self._clock,
            executor=self.id,
            threads=options.threads,
            lease=options.lease,
            poll=options.poll,
            listening=lambda: self._listener.live,
            on_schedule=self._scheduler.due_in,
            on_due=self._due_in,
            on_places=self._places.free,
        )
        self._lifeline = Lifeline(
            self._db,
            executor=self.id,
            threads=options.threads,
            listening=lambda: self._listener.live,
            on_death=self._on_death,
        )
        self._workers = [
            threading.Thread(target=self._worker, name=f"worker-{number}", daemon=True)
            for number in range(options.threads)
        ]

    def run(self) -> None:
        """Claim and walk runs until ``drain``; then let go of everything, in order."""
        for worker in self._workers:
            worker.start()
        self._monitor.start()
        self._scheduler.start()
        if self._options.limits.connectors:  # without any there is nobody to tell
            self._courier.start()
        if self._options.listen:
            self._listener.start()
        if self._options.liveness:  # first, since what is claimed before it is left to the lease
            self._lifeline.start()
            self._lifeline.ready.wait(LIFELINE_SECONDS)
        log.info("executor started", extra={"executorId": self.id})
        woken = True
        while not self._draining.is_set():
            wait = self._claim(news=woken)
            self._looks_at = time.monotonic() + wait
            if woken := self._wake.wait(wait):  # else whoever comes just now wakes us at once
                self._wake.clear()
        self._drain()

    def drain(self) -> None:
        """Ask the executor to end, from any thread (not in a signal handler: it takes locks)."""
        self._draining.set()
        self._wake.set()

    def _claim(self, *, news: bool) -> float:
        """Claim for the idle workers; seconds to wait before the next claim.

        Without ``news``, where it only waited for nothing or has just claimed, it looks first
        whether something is due.
        """
        idle = self._options.threads - len(self._holds)
        if idle <= 0:
            return self._options.lease
        unasked, self._unasked = self._unasked and not news, False
        only_polls, self._only_polls = self._only_polls and not news, False
        left = min(self._looked + self._poll(), self._due_at) - time.monotonic()
        if only_polls and left > 0:
            self._only_polls = True
            return left
        try:
            if only_polls or unasked:
                due = self._link.run(leases.next_due)
                if due is None or due > 0:
                    return self._until(due)
            claimed = self._link.run(
                lambda c: leases.claim(c, self.id, limit=idle, lease=self._options.lease)
            )
            for run in claimed:
                self._clock.told(run.now)
                self._work.put(self._holds.add(run))
            if claimed or news:
                self._again = LEAST_WAIT
            if any(run.deadline_at is not None for run in claimed):
                self._monitor.nudge()
            if len(claimed) == idle:
                return self._options.lease
            if claimed:  # to ask now what is due next would delay their first boundaries
                self._unasked = True
                return LEAST_WAIT
            due = self._link.run(leases.next_due)
        except (Disconnected, psycopg2.Error) as error:
            log.warning("can't claim", extra={"error": str(error).strip()})
            return RETRY_SECONDS
        return self._until(due)

    def _until(self, due: float | None) -> float:
        """How long to wait for what is due in so many seconds; None: for nothing that is known."""
        poll = self._poll()
        self._only_polls = due is None or due > poll
        if due is not None and due <= 0:
            wait, self._again = self._again, min(MOST_WAIT, 2 * self._again)
            return wait
        self._again = LEAST_WAIT
        return poll if due is None else max(LEAST_WAIT, min(poll, due))

    def _poll(self) -> float:
        return self._options.poll * (LISTENING_POLL if self._listener.live else 1.0)

    def _due_in(self, seconds: float | None) -> None:
        """The monitor has looked: a run is due in so many seconds, None where none is."""
        self._looked = time.monotonic()
        self._due_at = math.inf if seconds is None else self._looked + seconds
        if seconds is not None and self._looked + seconds < self._looks_at - LEAST_WAIT:
            self._wake.set()

    def _worker(self) -> None:
        while (hold := self._work.get()) is not None:
            try:
                self._interpreter.drive(hold)
            except GaveUp:
                log.warning("run left to its lease", extra={"runId": hold.claimed.id})
            except Exception:  # whatever it was, this thread is needed for the next run
                log.exception("run left to its lease", extra={"runId": hold.claimed.id})
            finally:
                if (key := hold.claimed.concurrency_key) is not None:
                    self._places.free([(hold.claimed.metronome_id, key)])
                self._holds.remove(hold)
                self._wake.set()

    def _on_live(self) -> None:
        """Notifications have begun: look once at what came before them."""
        self._wake.set()
        self._monitor.look()
        self._courier.nudge()
        self._scheduler.nudge()
        self._lifeline.nudge()

    def _on_death(self) -> None:
        """The leases of another executor have ended: take its runs over, tidy up behind it."""
        self._wake.set()
        self._monitor.sweep()

    def _on_started(self) -> None:
        """A schedule has started a run: take it, or let another executor take it."""
        self._wake.set()
        self._notifier.tell()

    def _drain(self) -> None:
        """Nodes in flight may end within the grace; then they are stopped, or left behind."""
        log.info("draining", extra={"executorId": self.id, "held": len(self._holds)})
        self._scheduler.end()
        for hold in self._holds.all():
            hold.look.set()
        self._await_workers(self._options.grace)
        for hold in self._holds.all():
            hold.end("shutdown")
        self._await_workers(min(2.0, 0.5 + self._options.grace))
        self._writer.closing.set()
        for hold in self._holds.all():
            self._abandon(hold)
        for _ in self._workers:
            self._work.put(None)
        self._listener.end()
        self._courier.end()
        self._monitor.end()
        self._places.close(JOIN_SECONDS)
        self._scheduler.join(JOIN_SECONDS)
        self._notifier.close()
        self._monitor.join(JOIN_SECONDS)  # or it would say once more that this executor lives
        self._lifeline.end(JOIN_SECONDS)
        try:
            self._link.run(lambda c: executors.gone(c, self.id))
        except (Disconnected, psycopg2.Error) as error:
            log.warning("could not sign off", extra={"error": str(error).strip()})
        self._lifeline.close(JOIN_SECONDS)
        self._listener.close(JOIN_SECONDS)
        self._writer.close()
        self._link.close()
        self._db.close()
        log.info("executor ended", extra={"executorId": self.id})

    def _await_workers(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while len(self._holds) and (left := until - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()

    def _abandon(self, hold: Hold) -> None:
        """A node would not end: record that, and give its run to another executor."""
        run = hold.claimed
        log.warning("node left behind", extra={"runId": run.id})
        try:
            self._link.run(
                lambda c: leases.let_go(
                    c, run.id, run.token, error=leases.EXECUTOR_STOPPED, unfinished=True
                )
            )
        except (Disconnected, psycopg2.Error) as error:
            log.warning("run left to its lease", extra={"runId": run.id, "error": str(error)})


def main(settings: Settings) -> int:
    """Run an executor in this process until SIGTERM or SIGINT; answers the exit code."""
    if settings.database_url is None:
        raise ValueError("an executor needs DATABASE_URL")
    # Blocked in every thread, and waited for in one: a handler would run inside the main thread,
    # perhaps while that holds the lock of the very Event that drain sets, and hang for ever.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    executor = Executor(
        Options(
            database_url=settings.database_url,
            threads=settings.executor_threads,
            lease=settings.lease_seconds,
            poll=settings.poll_seconds,
            grace=settings.grace_seconds,
            listen=settings.listen,
            liveness=settings.liveness != "off",
            limits=NodeLimits(
                http_allowed_private=settings.http_allow_private,
                output_max_bytes=settings.max_output_bytes,
                connectors=connectors.load(settings.connectors_file),
                public_url=settings.base_url,
            ),
        )
    )

    def drain_when_told() -> None:
        while True:
            signal.sigwait(signals)
            executor.drain()

    threading.Thread(target=drain_when_told, name="signals", daemon=True).start()
    executor.run()
    # A node that would not end still has its thread; nothing of it may run on.
    logging.shutdown()
    os._exit(0)
