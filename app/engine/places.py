"""Gives places to runs that wait for one, in a thread of its own: nobody else has to wait for that.

What is not done here, since the database is away or the process dies, is found by a sweep.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable

from app.db import Database
from app.services import concurrency
from app.store.concurrency import Group

log = logging.getLogger(__name__)


class Places(threading.Thread):
    """Settles the groups that it is told of; each once, however often it was told meanwhile."""

    def __init__(self, db: Database) -> None:
        super().__init__(name="places", daemon=True)
        self._db = db
        self._told: queue.SimpleQueue[Group | None] = queue.SimpleQueue()

    def free(self, groups: Iterable[Group]) -> None:
        """A place may have become free in these groups, or somebody new waits for one."""
        for group in groups:
            self._told.put(group)

    def end(self) -> None:
        """End the thread after what it was told."""
        self._told.put(None)

    def run(self) -> None:
        """Settle what it is told, until ``end``."""
        told: Group | None
        while (told := self._told.get()) is not None:
            groups = {told: None}
            ending = False
            while not ending and not self._told.empty():
                told = self._told.get()
                if told is None:
                    ending = True
                else:
                    groups[told] = None
            try:
                concurrency.settle(self._db, groups)
            except Exception:  # whatever it was, this thread is needed for the next group
                log.exception("places are given later")
            if ending:
                return
