"""Executors that start the runs of schedules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from app.domain.models import Actor
from app.services import metronomes, schedules, starts
from app.services.starts import RunRequest
from app.store import executors
from app.store.leases import DUE_CHANNEL
from app.store.schedules import Due
from tests.engine.conftest import ACTOR, Lab
from tests.schedules import next_due, now, publish, runs_by_time, set_due, told

Wait = Callable[..., Any]

EVERY_SECOND = {"intervalSeconds": 1, "catchUpSeconds": 3600}
SECOND = timedelta(seconds=1)


def _all_end(lab: Lab) -> bool:
    with lab.db.connect() as connection:
        return not connection.execute(
            text("SELECT 1 FROM runs WHERE status <> 'completed' LIMIT 1")
        ).all()


def test_two_executors_start_one_run_for_each_due_time(lab: Lab, wait_for: Wait) -> None:
    for _ in range(2):
        lab.start()

    metronome_id = publish(lab.db, ACTOR, EVERY_SECOND)
    first = next_due(lab.db, metronome_id)
    wait_for(lambda: len(runs_by_time(lab.db, metronome_id)) >= 4)
    metronomes.update(lab.db, ACTOR, metronome_id, {"status": "paused"})

    assert first is not None
    count = len(runs_by_time(lab.db, metronome_id))
    assert runs_by_time(lab.db, metronome_id) == told(*(first + n * SECOND for n in range(count)))
    wait_for(lambda: _all_end(lab))


def test_a_run_begins_soon_after_its_due_time(lab: Lab, wait_for: Wait) -> None:
    metronome_id = publish(lab.db, ACTOR, {"intervalSeconds": 3600})
    lab.start()
    due_at = now(lab.db) + 0.7 * SECOND
    set_due(lab.db, metronome_id, due_at)
    _notify(lab.db)

    wait_for(lambda: runs_by_time(lab.db, metronome_id) and _all_end(lab))

    with lab.db.connect() as connection:
        late = connection.execute(
            text("SELECT min(created_at) - :due FROM runs"), {"due": due_at}
        ).scalar_one()
    assert timedelta(0) <= late < 5 * SECOND  # some ms on a machine that is not busy


def test_a_run_begins_at_the_trigger_that_was_due(lab: Lab, wait_for: Wait) -> None:
    far = {"scheduledTime": "2099-01-01T00:00:00Z"}
    soon = {"intervalSeconds": 3600}
    metronome_id = publish(lab.db, ACTOR, far, soon)
    with lab.db.connect() as connection:
        connection.execute(
            text("UPDATE triggers SET next_due_at = clock_timestamp() WHERE node_id = 's1'")
        )
    lab.start()

    wait_for(lambda: runs_by_time(lab.db, metronome_id) and _all_end(lab))

    with lab.db.connect() as connection:
        nodes = connection.execute(
            text("SELECT node_id FROM steps WHERE status = 'completed' ORDER BY seq")
        ).scalars()
        assert list(nodes) == ["s1", "end"]


def _notify(db: Database) -> None:
    with db.connect() as connection:
        connection.execute(text(f"NOTIFY {DUE_CHANNEL}, 'schedule'"))


def test_without_notifications_a_new_schedule_is_heard_of_with_the_next_sign_of_life(
    lab: Lab, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "SEEN_SECONDS", 0.2)
    lab.start(listen=False)
    with lab.db.connect() as connection:
        wait_for(lambda: connection.execute(text("SELECT 1 FROM executors")).all())

    metronome_id = publish(lab.db, ACTOR, EVERY_SECOND)

    wait_for(lambda: runs_by_time(lab.db, metronome_id))


def test_a_schedule_that_fails_keeps_no_other_one_waiting(
    lab: Lab, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = publish(lab.db, ACTOR, {"intervalSeconds": 3600})
    sound = publish(lab.db, ACTOR, {"intervalSeconds": 3600})
    good = starts.create

    def create(
        db: Database, actor: Actor, metronome_id: str, wanted: RunRequest, **more: Any
    ) -> Any:
        if metronome_id == broken:
            raise RuntimeError("out of the blue")
        return good(db, actor, metronome_id, wanted, **more)

    monkeypatch.setattr(starts, "create", create)
    for one in (broken, sound):
        set_due(lab.db, one, now(lab.db) - SECOND)

    lab.start()

    wait_for(lambda: runs_by_time(lab.db, sound))
    wait_for(lambda: (next_due(lab.db, broken) or now(lab.db)) > now(lab.db))
    assert runs_by_time(lab.db, broken) == {}
    with lab.db.connect() as connection:
        failed = connection.execute(
            text("SELECT metronome_id, reason FROM trigger_events WHERE status = 'failed'")
        ).all()
    assert failed == [(broken, "the run could not be started: internal error")]


def test_an_executor_asks_for_schedules_only_where_there_is_one(
    lab: Lab, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    answer = schedules.upcoming

    def upcoming(db: Database, *, limit: int) -> list[Due]:
        asked.append(limit)
        return answer(db, limit=limit)

    monkeypatch.setattr(schedules, "upcoming", upcoming)
    monkeypatch.setattr(executors, "SEEN_SECONDS", 0.01)
    lab.start()
    with lab.db.connect() as connection:
        seen = text("SELECT 1 FROM executors WHERE seen_at > started_at + interval '1 second'")
        wait_for(lambda: connection.execute(seen).all())

    assert len(asked) <= 2  # at its start, and when it heard notifications
