"""Notices that an executor has died, within a second or two, so that nobody waits for its leases.

    lifeline  holds the lock of this executor, in a session of its own; comes back after a loss
    watch     waits for the lock of the next executor; so all of them watch each other in a ring

Nobody living is to be taken for dead. Whoever was watched through one and the same session, and is
gone while that session lives, gets a moment to come back. Where all sessions of the server ended at
the same time, everybody gets much longer. And nobody is dead who has any session left. Where the
database has no such locks, or a pooler is in the way, it is all left to the leases, as are
executors that hang. See app/store/liveness.py.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait  # unlike select, above 1,023 descriptors too

import psycopg2
from psycopg2.errors import QueryCanceled

from app.db import Database, RawConnection
from app.engine.link import is_passing
from app.store import liveness
from app.store.liveness import Peer

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0  # for an executor that lost its session, but not its life
SETTLED_SECONDS = 15.0  # after the end of all sessions
RETAKE_SECONDS = 0.2  # between two tries to get back a lost lock
MOST_RETAKE_SECONDS = 2.0
WATCH_SECONDS = 10.0  # of one wait for a lock
POLL_SECONDS = 2.0  # the same where no notification tells of new executors
AGAIN_SECONDS = 0.5  # to the next look at one that has a session left; then ever more
RETRY_SECONDS = 0.5


@dataclass(slots=True)
class _Suspect:
    """Somebody whose lock is free; when to look again, and how long to wait after that."""

    due: float  # in monotonic time
    wait: float = AGAIN_SECONDS


class Ring:
    """The executors, as they were seen through one session."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._peers: list[Peer] = []
        self._held: set[str] = set()
        self._suspects: dict[str, _Suspect] = {}
        self.is_read = False

    def saw(self, peers: list[Peer], now: float) -> None:
        """Take over what was read; who lacks a lock has the grace from now on."""
        self.is_read = True
        self._peers = [peer for peer in peers if peer.id != self._me]
        self._held.update(peer.id for peer in self._peers if peer.pid is not None)
        free = [peer.id for peer in self._peers if peer.pid is None]
        due = now + GRACE_SECONDS
        self._suspects = {one: self._suspects.get(one) or _Suspect(due) for one in free}

    def next(self) -> Peer | None:
        """Whom to watch: the next one, in the order of the ids, that holds its lock."""
        held = [peer for peer in self._peers if peer.pid is not None]
        return min(held, key=lambda peer: (peer.id < self._me, peer.id), default=None)

    def was_held(self, executor: str) -> bool:
        """Whether this session has seen it hold its lock."""
        return executor in self._held

    def due(self, now: float) -> list[str]:
        """Who is to be looked at again."""
        return [one for one, suspect in self._suspects.items() if suspect.due <= now]

    def later(self, executor: str, now: float, seconds: float | None = None) -> None:
        """Look at it again in so many seconds, by default ever more rarely."""
        suspect = self._suspects[executor]
        if seconds is None:
            seconds, suspect.wait = suspect.wait, min(WATCH_SECONDS, 2 * suspect.wait)
        suspect.due = now + seconds

    def wait(self, now: float) -> float | None:
        """Seconds until somebody is due; None without a suspect."""
        due = min((suspect.due for suspect in self._suspects.values()), default=None)
        return None if due is None else max(0.01, due - now)


class Lifeline:
    """Two threads; errors in them are logged, and never end the executor."""

    def __init__(
        self,
        db: Database,
        *,
        executor: str,
        threads: int,
        listening: Callable[[], bool],
        on_death: Callable[[], None],
    ) -> None:
        self._db = db
        self._executor = executor
        self._threads = threads
        self._listening = listening
        self._on_death = on_death
        self._bell, self._rope = socket.socketpair()
        self._rope.setblocking(False)
        self._news = threading.Event()  # the ring is to be read again
        self._ending = threading.Event()  # of the watch
        self._closing = threading.Event()
        self._lock = threading.Lock()
        # the watch's, where it waits for a lock since a moment
        self._waiting: tuple[RawConnection, float] | None = None
        self._pid: int | None = None  # of the session that holds our lock
        self._proven = False  # our lock was seen from another session
        self._off = False
        self.ready = threading.Event()  # the lock was taken, or it was given up
        self._holder = threading.Thread(target=self._hold, name="lifeline", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Take the lock, and begin to watch."""
        self._holder.start()
        self._watcher.start()

    def nudge(self) -> None:
        """Read the ring again: somebody has come, or notifications have begun."""
        self._news.set()
        with suppress(OSError):  # it rings already, or it is closed
            self._rope.send(b"x")

    def end(self, seconds: float) -> None:
        """Watch nobody any more; it is waited for so long that the watch ends. The lock stays."""
        self._ending.set()
        self.nudge()
        if self._watcher.ident is not None:
            self._watcher.join(seconds)

    def close(self, seconds: float) -> None:
        """Let go of the lock; the others must have been told by now that this is no death."""
        self._closing.set()
        self.nudge()
        if self._holder.ident is not None:
            self._holder.join(seconds)
        if not self._holder.is_alive():
            self._bell.close()
            self._rope.close()

    # -- our own lock

    def _hold(self) -> None:
        tries = 0
        while not self._closing.is_set():
            try:
                with closing(self._db.raw(application_name=liveness.LIFELINE)) as connection:
                    self._keep(connection)
            except psycopg2.Error as error:
                self._failed(error)
            except Exception:
                log.exception("the lifeline stumbled")
            tries = 0 if self._pid else tries + 1
            self._pid = None
            self._rest(_pause(tries))

    def _keep(self, connection: RawConnection) -> None:
        """Take the lock, and wait for the end of the session, which raises, or of this process."""
        if not liveness.is_supported(connection):
            return self._give_up("the database is not PostgreSQL")
        tries = 0
        while not (mine := liveness.hold(connection, self._executor, self._threads)):
            if mine is None:
                return self._give_up("the sessions belong to a pooler")
            tries += 1
            self._rest(_pause(tries))
            if self._closing.is_set():
                return None
        self._pid = connection.info.backend_pid
        self._news.set()  # the watch is to see the lock, and may have looked before
        self.ready.set()
        while not self._closing.is_set():
            if self._rest(None, connection):
                connection.poll()
        if self._off:
            liveness.unwatched(connection, self._executor)
        return None

    def _rest(self, seconds: float | None, connection: RawConnection | None = None) -> bool:
        """Pause, or wait until the connection has something to say, which is answered.

        Meanwhile whoever nudges the watch is heard.
        """
        until = None if seconds is None else time.monotonic() + seconds
        bell, talk = self._bell.fileno(), None if connection is None else connection.fileno()
        heard = [bell] if talk is None else [bell, talk]
        while not self._closing.is_set():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._news.is_set():
                self._cut()
                left = RETAKE_SECONDS if left is None else min(left, RETAKE_SECONDS)
            ready = wait(heard, left)
            if bell in ready:
                self._bell.recv(1000)
            if talk in ready:
                return True
        return False

    def _cut(self) -> None:
        """End the watch's wait; once, and not before it has begun, or something else is hit."""
        with self._lock:
            if self._waiting is None or time.monotonic() < self._waiting[1] + RETAKE_SECONDS:
                return
            connection, self._waiting = self._waiting[0], None
            with suppress(psycopg2.Error):
                connection.cancel()

    # -- the others'

    def _watch(self) -> None:
        first = True
        while not self._ending.is_set():
            opened = time.monotonic()
            try:
                with closing(self._db.raw(application_name=liveness.WATCH)) as connection:
                    ring = Ring(self._executor)
                    while not self._ending.is_set():
                        self._round(connection, ring, opened, first=first)
            except psycopg2.Error as error:
                self._failed(error)
            except Exception:
                log.exception("the watch stumbled")
            first = False
            self._ending.wait(RETRY_SECONDS)

    def _round(self, connection: RawConnection, ring: Ring, opened: float, *, first: bool) -> None:
        """Wait for the next one's lock, or for news; see who is there; judge who is not."""
        try:
            self._look(connection, ring)
            for executor in ring.due(time.monotonic()):
                age = time.monotonic() - opened
                if not ring.was_held(executor):
                    if first and age < SETTLED_SECONDS:
                        age = liveness.server_age(connection)
                    if age < SETTLED_SECONDS:
                        ring.later(executor, time.monotonic(), SETTLED_SECONDS - age)
                        continue
                self._judge(connection, ring, executor)
        except QueryCanceled:  # a nudge that came late
            self._ending.wait(RETAKE_SECONDS)

    def _look(self, connection: RawConnection, ring: Ring) -> None:
        poll = WATCH_SECONDS if self._listening() else POLL_SECONDS
        due = ring.wait(time.monotonic())
        seconds = poll if due is None else min(poll, due)
        watched = ring.next()
        if watched is None and ring.is_read:
            heard = self._news.wait(seconds)
            if not heard and due is None and self._listening():
                return  # alone, and a notification will tell of others
        with self._lock:
            if news := self._news.is_set():
                self._news.clear()
            watched = None if news else watched
            self._waiting = None if watched is None else (connection, time.monotonic())
        pid = self._pid
        try:
            peers = liveness.look(connection, watched, seconds)
        finally:
            with self._lock:
                self._waiting = None
        ring.saw(peers, time.monotonic())
        if not self._proven and pid is not None and pid == self._pid:
            self._proven = any(peer.pid == pid for peer in peers if peer.id == self._executor)
            if not self._proven:
                self._give_up("the lock is not to be seen from another session")

    def _judge(self, connection: RawConnection, ring: Ring, executor: str) -> None:
        runs = liveness.bury(connection, executor)
        ring.later(executor, time.monotonic())
        if runs is not None:
            log.warning("an executor has died", extra={"executorId": executor, "runs": runs})
            self._news.set()
            self._on_death()

    # -- where it can't be done

    def _failed(self, error: psycopg2.Error) -> None:
        told = str(error).strip()
        if is_passing(error):
            log.debug("the lifeline has no database", extra={"error": told})
        elif self._proven:
            log.warning("the lifeline is refused", extra={"error": told})
        else:
            self._give_up(told)

    def _give_up(self, reason: str) -> None:
        self._off = True
        log.info("dead executors are found by their leases only", extra={"reason": reason})
        self._ending.set()
        self._closing.set()
        self.ready.set()
        self.nudge()


def _pause(tries: int) -> float:
    """Often at first, since the others' patience is short, then less."""
    return min(MOST_RETAKE_SECONDS, RETAKE_SECONDS * (1 + tries / 10))
