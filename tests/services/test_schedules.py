"""What is done about a due time: one run, or a reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.clock import iso
from app.db import Database
from app.domain.models import Actor, Page, Run
from app.services import metronomes, schedules
from app.services.starts import RunRequest, create
from app.store import schedules as table
from app.store import trigger_events
from app.store.runs import get as get_run
from app.store.schedules import Due
from app.store.trigger_events import EventFilter
from tests.schedules import next_due, now, publish, runs_by_time, set_due, told

ACTOR = Actor("key_test", "user_test", "org_test")
SECOND = timedelta(seconds=1)


def _publish_due(
    db: Database, config: dict[str, Any], late: float = 0.5, **workflow: Any
) -> tuple[str, datetime]:
    """A published workflow whose schedule has been due for a while; when that was."""
    metronome_id = publish(db, ACTOR, config, **workflow)
    moment = (now(db) - timedelta(seconds=late)).replace(microsecond=0)
    set_due(db, metronome_id, moment)
    return metronome_id, moment


def _due(db: Database) -> Due:
    (found,) = schedules.upcoming(db, limit=10)
    return found


def _fire(db: Database, due: Due) -> None:
    schedules.fire(db, due, tell=lambda: None)


def _events(db: Database) -> list[tuple[str, str | None]]:
    with db.connect() as connection:
        found = trigger_events.page(connection, ACTOR.organization_id, EventFilter(), Page(50))
    return [(event.status, event.reason) for event in reversed(found)]


def _only_run(db: Database, metronome_id: str) -> Run:
    with db.connect() as connection:
        (run_id,) = connection.execute(text("SELECT id FROM runs")).scalars()
        run = get_run(connection, ACTOR.organization_id, metronome_id, run_id)
    assert run is not None
    return run


def test_a_due_time_starts_a_run_of_the_published_version(db: Database) -> None:
    config = {"cronExpression": "* * * * *", "scheduleTimezone": "Europe/Berlin"}
    metronome_id = publish(db, ACTOR, config)
    due_at = now(db).replace(second=0, microsecond=0)
    set_due(db, metronome_id, due_at)
    due, calls = _due(db), []

    schedules.fire(db, due, tell=lambda: calls.append(1))

    run = _only_run(db, metronome_id)
    assert run.input == {
        "scheduledTime": iso(due_at),
        "firedAt": iso(due.now),
        "scheduleType": "cron",
        "scheduleTimezone": "Europe/Berlin",
        "cronExpression": "* * * * *",
        "triggerNodeId": "s0",
    }
    assert (run.trigger_type, run.user_id, run.status) == ("periodic", "user_test", "queued")
    assert run.idempotency_key == f"periodic:s0:{iso(due_at)}"
    published = metronomes.get(db, ACTOR, metronome_id).published_version_id
    assert run.version_id == published
    assert run.trigger_event_id is not None
    assert _events(db) == [("matched", None)]
    assert next_due(db, metronome_id) == due_at + timedelta(minutes=1)
    assert calls == [1]


def test_who_comes_later_with_the_same_due_time_starts_nothing(db: Database) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 10})
    due = _due(db)

    for _ in range(3):
        _fire(db, due)

    assert runs_by_time(db, metronome_id) == told(due_at)
    assert _events(db) == [("matched", None)]
    following = next_due(db, metronome_id)
    assert following is not None
    assert due_at < following <= due_at + 10 * SECOND


def test_who_died_between_the_run_and_the_next_due_time_leaves_one_run(db: Database) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 10})
    _fire(db, _due(db))
    set_due(db, metronome_id, due_at)  # as it is where only the run was committed

    _fire(db, _due(db))

    assert runs_by_time(db, metronome_id) == told(due_at)
    assert next_due(db, metronome_id) != due_at


def test_many_at_once_start_one_run_for_each_due_time(db: Database) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 1}, late=20)
    together = threading.Barrier(6)

    def work(number: int) -> None:
        together.wait(30)
        while (due := _due(db)).due_at <= due.now:
            _fire(db, due)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))

    following = next_due(db, metronome_id)
    assert following is not None
    count = int((following - due_at).total_seconds())
    assert count >= 20
    assert runs_by_time(db, metronome_id) == told(*(due_at + n * SECOND for n in range(count)))
    assert _events(db)[:50] == [("matched", None)] * min(50, count)


def test_what_is_too_late_is_told_and_only_the_latest_is_made_up_for(db: Database) -> None:
    config = {"intervalSeconds": 100, "catchUpSeconds": 0}
    metronome_id, _ = _publish_due(db, config)
    first = datetime.fromtimestamp(1_000_000_000, now(db).tzinfo)
    set_due(db, metronome_id, first)

    _fire(db, _due(db))

    following = next_due(db, metronome_id)
    assert following is not None
    assert runs_by_time(db, metronome_id) == told(following - 100 * SECOND)
    assert following > now(db) - SECOND
    statuses = [status for status, _ in _events(db)]
    assert sorted(statuses) == ["ignored", "matched"]
    (reason,) = (reason for status, reason in _events(db) if status == "ignored")
    assert reason is not None
    assert reason.startswith(f"missed: due times from {iso(first)} on were more than 0 s late")


def test_what_is_too_late_can_be_skipped(db: Database) -> None:
    config = {"intervalSeconds": 100, "catchUpSeconds": 1, "missed": "skip"}
    metronome_id, first = _publish_due(db, config, late=3600)

    stale = _due(db)
    _fire(db, stale)
    _fire(db, stale)

    assert runs_by_time(db, metronome_id) == {}
    assert [status for status, _ in _events(db)] == ["ignored"]
    following = next_due(db, metronome_id)
    assert following is not None
    assert following > first + 3400 * SECOND


def test_a_single_time_is_over_once_it_has_its_run(db: Database) -> None:
    moment = now(db) + timedelta(hours=1)
    metronome_id = publish(db, ACTOR, {"scheduledTime": iso(moment)})
    assert next_due(db, metronome_id) == moment
    due = _due(db)
    assert due.due_at == moment > due.now

    _fire(db, replace(due, now=moment + SECOND))

    assert runs_by_time(db, metronome_id) == told(moment)
    assert next_due(db, metronome_id) is None
    assert schedules.upcoming(db, limit=10) == []


def test_a_due_time_that_the_limit_rejects_is_recorded_once_and_not_made_up_for(
    db: Database,
) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 10})
    with db.connect() as connection:
        connection.execute(
            text("UPDATE metronomes SET max_concurrent_runs = 1, on_limit = 'reject'")
        )
    create(db, ACTOR, metronome_id, RunRequest(), tell=lambda: None)
    stale = _due(db)

    _fire(db, stale)
    _fire(db, stale)

    assert [status for status, _ in _events(db)] == ["ignored"]
    assert "allows 1 run at once" in (_events(db)[0][1] or "")
    assert next_due(db, metronome_id) != due_at
    assert runs_by_time(db, metronome_id) == {None: 1}


def test_a_run_that_somebody_else_gave_the_key_of_a_due_time_is_told_of(db: Database) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 10})
    wanted = RunRequest(idempotency_key=f"periodic:s0:{iso(due_at)}")
    run, _ = create(db, ACTOR, metronome_id, wanted, tell=lambda: None)

    _fire(db, _due(db))

    ((status, reason),) = _events(db)
    assert status == "ignored"
    assert run.id in (reason or "")
    assert next_due(db, metronome_id) != due_at


def test_a_schedule_that_can_not_be_read_fails_once_and_rests(db: Database) -> None:
    metronome_id, _ = _publish_due(db, {"intervalSeconds": 10})
    with db.connect() as connection:
        connection.execute(text("""UPDATE triggers SET config = '{"cronExpression": "x"}'"""))

    _fire(db, _due(db))

    ((status, reason),) = _events(db)
    assert status == "failed"
    assert reason is not None
    assert "cronExpression" in reason
    assert next_due(db, metronome_id) is None


def test_what_can_not_be_started_is_given_up_and_goes_on(db: Database) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 10})

    schedules.give_up(db, _due(db), "broken")

    assert _events(db) == [("failed", "broken")]
    assert runs_by_time(db, metronome_id) == {}
    following = next_due(db, metronome_id)
    assert following is not None
    assert following > due_at


@pytest.mark.parametrize("change", ["paused", "archived"])
def test_a_schedule_of_a_workflow_that_was_stopped_is_not_due(db: Database, change: str) -> None:
    metronome_id, _ = _publish_due(db, {"intervalSeconds": 10})

    metronomes.update(db, ACTOR, metronome_id, {"status": change})

    assert schedules.upcoming(db, limit=10) == []


@pytest.mark.parametrize(
    "change", ["status = 'paused'", "published_version_id = NULL", "published_version_id = 'v'"]
)
def test_no_run_begins_behind_a_change_of_its_workflow(
    db: Database, wait_for: Callable[..., Any], change: str
) -> None:
    metronome_id, due_at = _publish_due(db, {"intervalSeconds": 10})
    due = _due(db)
    waiting = text(
        "SELECT 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(1) as threads, db.connect() as eyes:
        with db.transaction() as changing:
            changing.execute(text(f"UPDATE metronomes SET {change}"))
            fired = threads.submit(lambda: schedules.fire(db, due, tell=lambda: None))
            wait_for(lambda: fired.done() or eyes.execute(waiting).all())
            assert not fired.done()
        assert fired.result(30) is False

    assert runs_by_time(db, metronome_id) == {}
    assert _events(db) == []
    assert next_due(db, metronome_id) == due_at


def test_the_next_due_times_are_found_by_their_index(db: Database) -> None:
    with db.connect() as connection:
        connection.execute(
            text("""
            INSERT INTO triggers (id, organization_id, metronome_id, version_id, user_id, node_id,
                trigger_type, config, next_due_at)
            SELECT 'trg_' || n, 'o', 'm' || n, 'v', 'u', 'n', 'periodic', '{}',
                CASE WHEN n % 2 = 0 THEN now() + n * interval '1 second' END
            FROM generate_series(1, 20000) AS n
            """)
        )
        connection.execute(text("ANALYZE triggers"))
        (plan,) = connection.execute(
            text("EXPLAIN (FORMAT JSON) " + str(table._NEXT)), {"limit": 50}
        ).scalars()

    assert "Seq Scan" not in str(plan)
    assert [one.id for one in schedules.upcoming(db, limit=10)] == ["trg_2"]
