"""Gives places to runs that wait for one, in a thread of its own: nobody else has to wait for that.

One thread a process, of the API as of the executor, which starts with the first group that it is
told of. What is not done here, since the database is away, a workflow is locked for long or the
process dies, is found by the executors' sweep.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterable

from app.db import Database
from app.domain.models import Actor
from app.services import concurrency
from app.store.concurrency import Group

log = logging.getLogger(__name__)

Told = tuple[Group, Actor | None]


class Places:
    """Settles the groups that it is told of; each once, however often it was told meanwhile."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._start_again()

    def _start_again(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._told: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def free(self, groups: Iterable[Group], actor: Actor | None = None) -> None:
        """A place may have become free in these groups, or somebody new waits for one.

        Returns at once and never fails. ``actor`` is who cancels the oldest for that, where the
        policy is such; without one it is the executor, in the name of the workflow's owner.
        """
        if self._pid != os.getpid():  # a fork has the state of its parent, but not its thread
            self._start_again()
        told = [(group, actor) for group in groups]
        for one in told:
            self._told.put(one)
        if told and self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._run, name="places", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has none left: the next one who is told tries
            log.warning("places are given later", extra={"error": str(error)})
        else:
            self._thread = thread

    def close(self, seconds: float = 10.0) -> None:
        """End the thread, if there is one, after what it is at; wait for that so long."""
        if self._thread is not None and self._pid == os.getpid():
            self._told.put(None)
            self._thread.join(seconds)

    def _run(self) -> None:
        while (told := self._told.get()) is not None:
            groups: dict[Actor | None, dict[Group, None]] = {told[1]: {told[0]: None}}
            ending = False
            while not ending and not self._told.empty():
                told = self._told.get()
                if told is None:
                    ending = True
                else:
                    groups.setdefault(told[1], {})[told[0]] = None
            for actor, some in groups.items():
                try:
                    left = concurrency.settle(self._db, some, actor)
                except Exception:  # whatever it was, this thread is needed for the next group
                    log.exception("places are given later")
                    continue
                if not ending:
                    self.free(left, actor)  # behind those who have been told of meanwhile
            if ending:
                return
