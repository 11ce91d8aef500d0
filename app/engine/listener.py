"""LISTEN: news from the database that makes things happen sooner, and decides nothing.

Everything works without it, by polling. A connection pooler may accept LISTEN and deliver nothing,
so the listener believes in a connection only after it has heard itself through it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable

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
        self._end_read, self._end_write = os.pipe()
        self._ending = False
        self.live = False

    def run(self) -> None:
        """Listen until ``end``; come back after a lost connection."""
        while not self._ending:
            try:
                self._listen()
            except psycopg2.Error as error:
                log.warning("notifications are off, polling", extra={"error": str(error).strip()})
            was_live, self.live = self.live, False
            if not self._ending:
                select.select([self._end_read], [], [], 0.2 if was_live else RETRY_SECONDS)

    def end(self) -> None:
        """Stop listening; the thread ends at once."""
        self._ending = True
        os.write(self._end_write, b"x")

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
            wait = None if probe is None else until - time.monotonic()
            if wait is not None and wait <= 0:
                return False
            sockets = [connection.fileno(), self._end_read]
            ready, _, _ = select.select(sockets, [], [], wait)
            if sockets[0] not in ready:
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
