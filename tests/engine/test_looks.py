"""When an idle executor looks again for what is due."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from app.db import RawConnection
from app.domain.models import Run
from app.engine.executor import LEAST_WAIT, MOST_WAIT, Executor, Options
from app.nodes.base import NodeLimits
from app.store import executors, leases
from tests.engine.conftest import Lab, node
from tests.processes import PATIENCE, wait_for


def _options(url: str, threads: int) -> Options:
    return Options(
        database_url=url,
        threads=threads,
        lease=30.0,
        poll=600.0,
        grace=1.0,
        listen=False,
        limits=NodeLimits(),
        liveness=False,
    )


def _idle(url: str, threads: int = 1) -> Executor:
    """One that is not running, and knows of nothing that is due before its next poll."""
    executor = Executor(_options(url, threads))
    executor._only_polls = True
    return executor


def test_what_the_monitor_saw_coming_is_looked_for_in_time(database_url: str) -> None:
    executor = _idle(database_url)
    executor._due_in(20.0)
    assert 10.0 < executor._claim(news=False) <= 20.0
    assert 10.0 < executor._claim(news=False) <= 20.0, "it is not forgotten"


def test_a_look_of_the_monitor_saves_one_of_its_own(database_url: str) -> None:
    executor = _idle(database_url)
    executor._due_in(None)
    assert executor._claim(news=False) > 50.0


def test_what_is_due_next_is_asked_behind_the_first_boundary(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []
    real = leases.next_due

    def asks(connection: RawConnection) -> float | None:
        asked.append(real(connection))
        return asked[-1]

    monkeypatch.setattr(leases, "next_due", asks)
    executor = _idle(lab.url, threads=3)
    lab.queue(node("gate"))
    assert executor._claim(news=True) == LEAST_WAIT
    assert (len(executor._holds), asked) == (1, [])

    lab.queue(node("gate"))  # and no notification of it arrives
    assert executor._claim(news=False) == LEAST_WAIT
    assert (len(executor._holds), len(asked)) == (2, 1)

    assert executor._claim(news=False) > 10.0, "until the leases end"
    assert (len(executor._holds), len(asked)) == (2, 2)


def test_what_somebody_keeps_locked_is_tried_ever_more_rarely(lab: Lab) -> None:
    executor = _idle(lab.url)
    run = lab.queue(node("gate"))
    with lab.db.transaction() as connection:
        connection.execute(text("SELECT 1 FROM runs WHERE id = :id FOR UPDATE"), {"id": run.id})
        assert executor._claim(news=True) == LEAST_WAIT
        waits = [executor._claim(news=False) for _ in range(6)]
        assert waits == sorted(waits)
        assert (waits[0], waits[-1]) == (2 * LEAST_WAIT, MOST_WAIT)
        assert executor._claim(news=True) == LEAST_WAIT, "what is told of is tried at once"
    assert executor._claim(news=False) > 10.0
    assert len(executor._holds) == 1
    assert executor._again == LEAST_WAIT


class _Late(threading.Event):
    """Whenever its first wait is over in vain, a run is queued, of which it is told at once."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab
        self.run: Run | None = None

    def wait(self, timeout: float | None = None) -> bool:
        if self.run is None and timeout is not None and timeout > LEAST_WAIT:
            self.run = self._lab.queue(node("trigger"))
            self.set()
            return False
        return super().wait(timeout)


def test_who_is_told_just_as_its_wait_is_over_looks_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "SEEN_SECONDS", 600.0)
    executor = Executor(_options(lab.url, 1), kinds=lab.kinds)
    executor._due_in(None)  # as the monitor says when it has looked
    executor._wake = late = _Late(lab)
    thread = threading.Thread(target=executor.run, daemon=True)
    thread.start()
    try:
        run = wait_for(lambda: late.run)
        lab.until(run, "completed")
    finally:
        executor.drain()
        thread.join(PATIENCE)
    assert not thread.is_alive()
