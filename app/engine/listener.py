"""LISTEN: news from the database that makes things happen sooner, and decides nothing.

Everything works without it, by polling. A connection pooler may accept LISTEN and deliver nothing,
so the listener believes in a connection only after it has heard itself through it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait  # unlike select, above 1,023 descriptors too

import psycopg2

from app.db import Database, RawConnection
from app.store.leases import DUE_CHANNEL
from app.store.liveness import EXECUTORS
from app.store.outbox import OUTBOX_CHANNEL
from app.store.schedules import SCHEDULE
from app.store.trees import STOP_CHANNEL

log = logging.getLogger(__name__)

PROBE_SECONDS = 3.0  # how long to wait for our own voice
RETRY_SECONDS = 5.0
_CHANNELS = (DUE_CHANNEL, STOP_CHANNEL, OUTBOX_CHANNEL)


class Listener(threading.Thread):
    """A thread with a connection that listens; ``live`` says whether notifications arrive."""

    def __init__(
        self,
        db: Database,
        *,
        on_due: Callable[[], None],
        on_stop: Callable[[str, str], None],
        on_outbox: Callable[[], None],
        on_schedule: Callable[[], None],
        on_executors: Callable[[], None],
        on_live: Callable[[], None],
    ) -> None:
        super().__init__(name="listener", daemon=True)
        self._db = db
        self._on_due = on_due
        self._on_stop = on_stop
        self._on_outbox = on_outbox
        self._on_schedule = on_schedule
        self._on_executors = on_executors
        self._on_live = on_live
        self._bell, self._rope = socket.socketpair()
        self._ending = False
        self.live = False

    def run(self) -> None:
        """Listen until ``end``; come back after a lost connection."""
        while not self._ending:
            try:
                self._listen()
            except psycopg2.Error as error:
                log.warning("notifications are off, polling", extra={"error": str(error).strip()})
            except Exception:  # whatever it was: who polls must know that nothing is heard
                log.exception("the listener stumbled")
            was_live, self.live = self.live, False
            if not self._ending:
                wait([self._bell], 0.2 if was_live else RETRY_SECONDS)

    def end(self) -> None:
        """Stop listening; the thread ends at once, or after the connection that it opens."""
        self._ending = True
        self._rope.send(b"x")

    def close(self, seconds: float) -> None:
        """Wait for the end so long, and leave nothing open; after ``end``."""
        if self.ident is not None:
            self.join(seconds)
        if not self.is_alive():
            self._bell.close()
            self._rope.close()

    def _listen(self) -> None:
        connection = self._db.raw(application_name="metronome listener")
        try:
            probe = f"probe {os.getpid()} {time.monotonic_ns()}"
            with connection.cursor() as cursor:
                cursor.execute("; ".join(f"LISTEN {channel}" for channel in _CHANNELS))
            self._speak(probe)
            if not self._hear(connection, probe):
                raise psycopg2.OperationalError("LISTEN is accepted, but nothing is delivered")
            self.live = True
            self._on_live()
            while not self._ending:
                self._hear(connection, None)
        finally:
            connection.close()

    def _speak(self, probe: str) -> None:
        """Notify from another connection, as everybody else would."""
        speaker = self._db.raw(application_name="metronome listener")
        try:
            with speaker.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", (STOP_CHANNEL, probe))
        finally:
            speaker.close()

    def _hear(self, connection: RawConnection, probe: str | None) -> bool:
        """Wait for notifications and pass them on; True once ``probe`` has been heard."""
        until = time.monotonic() + PROBE_SECONDS
        while not self._ending:
            left = None if probe is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            talk = connection.fileno()
            if talk not in wait([talk, self._bell.fileno()], left):
                continue
            connection.poll()
            heard = [(note.channel, note.payload) for note in connection.notifies]
            connection.notifies.clear()
            for channel, payload in heard:
                self._pass_on(channel, payload)
            if probe is not None and (STOP_CHANNEL, probe) in heard:
                return True
            if probe is None:
                return False
        return False

    def _pass_on(self, channel: str, payload: str) -> None:
        if channel == DUE_CHANNEL and payload == SCHEDULE:
            self._on_schedule()
        elif channel == DUE_CHANNEL and payload == EXECUTORS:
            self._on_executors()
        elif channel == DUE_CHANNEL:
            self._on_due()
        elif channel == OUTBOX_CHANNEL:
            self._on_outbox()
        else:
            token, _, status = payload.partition(" ")
            self._on_stop(token, status)
