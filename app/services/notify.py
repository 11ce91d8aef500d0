"""Tell idle executors that a run was queued, without a request waiting for it.

One thread a process sends NOTIFY on a connection of its own, one at a time; what is told meanwhile
goes with the next. (NOTIFY inside every transaction would make their commits wait for each other.)
A notification that is lost costs time, never a run: executors look for due runs anyway.
"""

from __future__ import annotations

import logging
import os
import threading

import psycopg2

from app.db import Database, RawConnection
from app.store.leases import DUE_CHANNEL

log = logging.getLogger(__name__)


class DueNotifier:
    """Sends the notifications of one process; the thread starts with the first of them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: RawConnection | None = None
        self._start_again()

    def _start_again(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._told = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def close(self) -> None:
        """End the thread, if there is one; nothing is told any more."""
        self._closed = True
        self._told.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(10)

    def tell(self) -> None:
        """Say that a run is due; returns at once and never fails."""
        if self._pid != os.getpid():  # a fork has the state of its parent, but not its thread
            self._connection = None
            self._start_again()
        self._told.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name="due-notifier", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has none left: the next one who tells tries
            log.warning("could not notify the executors", extra={"error": str(error)})
        else:
            self._thread = thread

    def _run(self) -> None:
        while self._told.wait() and not self._closed:
            self._told.clear()
            if not self._send() and not self._send():
                log.warning("could not notify the executors; they find the run by polling")
        if self._connection is not None:
            self._connection.close()

    def _send(self) -> bool:
        try:
            if self._connection is None:
                self._connection = self._db.raw(application_name="metronome-notify")
            with self._connection.cursor() as cursor:
                cursor.execute(f"NOTIFY {DUE_CHANNEL}")
        except psycopg2.Error:
            self._connection = None
            return False
        return True
