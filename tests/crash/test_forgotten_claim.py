"""A claim that PostgreSQL forgets in a crash, since it does not wait for the disk."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg2
import pytest

from app.db import Database
from app.domain.models import Run
from app.engine.executor import Executor
from app.services import transitions
from app.store.boundary import Boundary, Verdict
from benchmarks.server import server
from tests.engine.conftest import ACTOR, Lab, node
from tests.processes import PATIENCE, wait_for


class Hand:
    """Holds back the first boundary of an executor until ``over``."""

    def __init__(self, executor: Executor) -> None:
        self.reached, self.over = threading.Event(), threading.Event()
        self.answers: list[str] = []
        self._write = executor._writer.write
        executor._writer.write = self._held  # type: ignore[method-assign]

    def _held(self, boundary: Boundary) -> Verdict:
        self.reached.set()
        assert self.over.wait(PATIENCE)
        verdict = self._write(boundary)
        self.answers.append(verdict.answer)
        return verdict


class Server:
    """A durable PostgreSQL in which only that goes to the disk for which somebody waits."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._writer = self._find()
        for _ in range(20):
            os.kill(self._writer, signal.SIGSTOP)
            commit = threading.Thread(target=self._commit, daemon=True)
            commit.start()
            commit.join(2)
            if not commit.is_alive():
                return
            os.kill(self._writer, signal.SIGCONT)  # it was just holding a lock
            commit.join(PATIENCE)
        raise AssertionError("whenever the writer is stopped, it holds a lock")

    def _commit(self) -> None:
        connection = psycopg2.connect(self._url)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")  # with it, a commit waits for the disk
        connection.close()

    def let_go(self) -> None:
        """The writer goes on, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self._writer, signal.SIGCONT)

    def crash(self) -> None:
        """All its processes end, and what they had in memory is lost; it comes back by itself."""
        os.kill(self._writer, signal.SIGKILL)
        found = wait_for(self._found)
        assert found != self._writer

    def _found(self) -> int | None:
        try:
            pid = self._find()
        except psycopg2.OperationalError:
            return None
        return None if pid == self._writer else pid

    def _find(self) -> int:
        connection = psycopg2.connect(self._url)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
                return int(cursor.fetchall()[0][0])
        except IndexError:
            raise psycopg2.OperationalError("it is just starting") from None
        finally:
            connection.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database on a server of its own."""
    with server(own=True) as postgres, postgres.bench() as bench:
        assert bench.settings.database_url is not None
        yield bench.settings.database_url
        bench.reconnect()


@pytest.fixture
def lab(url: str) -> Iterator[Lab]:
    """The same for runs; its executors only poll."""
    db = Database(url)
    laboratory = Lab(db, url)
    laboratory.tell = lambda: None  # type: ignore[method-assign]  # the commit of it would wait
    yield laboratory
    laboratory.close()
    db.close()


def _pause(lab: Lab, run: Run) -> None:
    transitions.pause(lab.db, ACTOR, run.metronome_id, run.id)


@pytest.mark.parametrize("ask", [None, Lab.cancel, _pause], ids=["nothing", "cancel", "pause"])
def test_nothing_starts_under_a_claim_that_was_forgotten(
    url: str, lab: Lab, ask: Callable[[Lab, Run], Any] | None
) -> None:
    executor = lab.start(liveness=False, listen=False, threads=1)
    wait_for(lambda: executor._looked, message="what the monitor writes goes to the disk")
    hand, postgres = Hand(executor), Server(url)
    lab.gate.open.set()
    run = lab.queue(node("gate"), node("end"))
    assert hand.reached.wait(PATIENCE)
    try:
        assert lab.get(run).locked_by is not None
        postgres.crash()
        lab.db.close()  # its pooled connections are gone
        forgotten = lab.get(run)
        assert (forgotten.status, forgotten.locked_by) == ("queued", None)
        if ask is not None:
            ask(lab, run)
    finally:
        postgres.let_go()
        hand.over.set()
    wait_for(lambda: hand.answers)
    assert hand.answers[0] == "lease_lost"
    if ask is not None:
        assert (lab.gate.calls, lab.trace(run)) == ([], [])
    if ask is Lab.cancel:
        assert lab.get(run).status == "cancelled"
        return
    if ask is not None:
        lab.resume(run)
    ended = lab.until(run, "completed")
    assert (ended.attempt_count, lab.gate.calls) == (1, ["gate"])
    assert lab.statuses(run) == [("gate", "completed"), ("end", "completed")]
