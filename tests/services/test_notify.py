from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import wait
from typing import Any

import pytest

from app.db import Database, RawConnection
from app.services.notify import DueNotifier
from app.store.leases import DUE_CHANNEL
from tests.processes import PATIENCE, wait_for
from tests.wire import Wire


class Listener:
    def __init__(self, db: Database) -> None:
        self.connection: RawConnection = db.raw()
        with self.connection.cursor() as cursor:
            cursor.execute(f"LISTEN {DUE_CHANNEL}")

    def heard(self, timeout: float = PATIENCE) -> int:
        """How many notifications have come, once there is one."""
        deadline = time.monotonic() + timeout
        while not self.connection.notifies and time.monotonic() < deadline:
            wait([self.connection.fileno()], 0.1)
            self.connection.poll()
        count = len(self.connection.notifies)
        self.connection.notifies.clear()
        return count


@pytest.fixture
def listener(db: Database) -> Iterator[Listener]:
    one = Listener(db)
    yield one
    one.connection.close()


@pytest.fixture
def notifier(db: Database) -> Iterator[DueNotifier]:
    one = DueNotifier(db)
    yield one
    one.close()


def test_an_idle_executor_hears_of_a_run(notifier: DueNotifier, listener: Listener) -> None:
    for _ in range(3):
        notifier.tell()
        assert listener.heard() == 1


def test_what_is_told_while_one_is_on_its_way_goes_together(
    db: Database, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, go = threading.Event(), threading.Event()
    real = DueNotifier._send

    def held(self: DueNotifier) -> bool:
        sent.set()
        assert go.wait(PATIENCE)
        return real(self)

    monkeypatch.setattr(DueNotifier, "_send", held)
    notifier = DueNotifier(db)
    notifier.tell()
    assert sent.wait(PATIENCE)
    for _ in range(100):
        notifier.tell()
    go.set()
    heard = listener.heard()
    if heard == 1:
        heard += listener.heard()
    assert heard == 2
    assert listener.heard(timeout=0.2) == 0
    notifier.close()


def test_nothing_starts_before_the_first_run(db: Database) -> None:
    before = threading.active_count()
    notifier = DueNotifier(db)
    assert threading.active_count() == before
    notifier.close()


def test_a_fork_starts_a_thread_of_its_own(notifier: DueNotifier, listener: Listener) -> None:
    notifier.tell()
    assert listener.heard() == 1
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        notifier.tell()
        time.sleep(PATIENCE)
        os._exit(0)
    try:
        assert listener.heard() == 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    notifier.tell()
    assert listener.heard() == 1


@pytest.fixture
def wire(database_url: str) -> Iterator[Wire]:
    between = Wire(database_url)
    yield between
    between.close()


def test_a_lost_connection_is_replaced(wire: Wire, listener: Listener) -> None:
    db = Database(wire.url)
    notifier = DueNotifier(db)
    notifier.tell()
    assert listener.heard() == 1
    wire.cut()
    notifier.tell()
    assert listener.heard() in (1, 2)  # what was cut before it was answered is sent again
    notifier.close()


def test_a_database_that_is_away_fails_and_delays_nothing(
    wire: Wire, listener: Listener, caplog: Any
) -> None:
    wire.away = True
    notifier = DueNotifier(Database(wire.url))
    began = time.monotonic()
    notifier.tell()
    assert time.monotonic() - began < 10
    wait_for(lambda: "polling" in caplog.text, message="the failure is logged")
    wire.away = False
    notifier.tell()
    assert listener.heard() == 1
    notifier.close()


def test_a_system_without_a_thread_left_fails_nobody_and_is_asked_again(
    db: Database, listener: Listener, no_thread: Callable[[], AbstractContextManager[None]]
) -> None:
    notifier = DueNotifier(db)
    with no_thread():
        notifier.tell()
    notifier.tell()
    assert listener.heard() == 1
    notifier.close()
