"""What ended long ago is deleted, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from app.db import Database
from app.domain import lifecycle
from app.ids import new_id
from app.services import purges
from app.services.purges import Purged, purge
from tests.store.world import METRONOME, ORGANIZATION, World

_DAY = 24 * 3600 * 1000  # ms


@pytest.fixture
def world(db: Database) -> Iterator[World]:
    """An empty database."""
    made = World(db)
    yield made
    made.close()


def old_id(prefix: str, days: int) -> str:
    """An id that was made so many days ago."""
    moment = int(time.time() * 1000) - days * _DAY
    return f"{prefix}_{moment:012x}{new_id(prefix)[-20:]}"


def put(
    world: World,
    days: int,
    *,
    ended: int | None,
    status: str = lifecycle.COMPLETED,
    held: bool = False,
) -> str:
    """A run from so many days ago with a step; it ``ended`` that many days ago."""
    run_id = old_id("run", days)
    columns = {"id": f"'{run_id}'", "created_at": ago(days)}
    if ended is not None:
        columns["completed_at"] = ago(ended)
    world.put(status, held=held, **columns)
    world.put_step(run_id, 1, lifecycle.COMPLETED)
    return run_id


def ago(days: int) -> str:
    """The moment in SQL."""
    return f"now() - interval '{days} days'"


def put_audit(world: World, days: int, run_id: str | None) -> str:
    """An audit event from so many days ago."""
    made = old_id("evt", days)
    world.execute(
        "INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,"
        " actor_key_id, action, run_id, created_at)"
        f" VALUES (%s, %s, %s, 'u', 'u', 'k', 'x.y', %s, {ago(days)})",
        made,
        ORGANIZATION,
        METRONOME,
        run_id,
    )
    return made


def put_event(world: World, days: int, run_id: str | None) -> str:
    """A delivery from so many days ago."""
    made = old_id("tev", days)
    world.execute(
        "INSERT INTO trigger_events (id, organization_id, metronome_id, run_id, trigger_type,"
        " status, payload, created_at)"
        f" VALUES (%s, %s, %s, %s, 'email', 'ignored', '{{}}', {ago(days)})",
        made,
        ORGANIZATION,
        METRONOME,
        run_id,
    )
    return made


def ids(world: World, table: str) -> set[str]:
    """The ids in a table."""
    return {row["id"] for row in world.query(f"SELECT id FROM {table}")}


def test_runs_go_with_their_steps_and_the_runs_below(world: World, db: Database) -> None:
    gone = put(world, 40, ended=31)
    nested = world.put(lifecycle.CANCELLED, parent=gone)
    world.put_step(nested, 1, lifecycle.CANCELLED)

    assert purge(db, days=30) == Purged(1, 0, 0)

    assert ids(world, "runs") == set()
    assert world.query("SELECT FROM steps") == []
    told = world.query("SELECT run_id, action, actor_key_id FROM audit_events ORDER BY run_id")
    assert [tuple(row.values()) for row in told] == [
        (run_id, "run.deleted", "cli") for run_id in sorted((gone, nested))
    ]


def test_what_is_active_held_or_ended_lately_stays(world: World, db: Database) -> None:
    late = put(world, 40, ended=29)
    active = [
        put(world, 40, ended=None, status=status)
        for status in (lifecycle.QUEUED, lifecycle.PAUSED, lifecycle.WAITING_APPROVAL)
    ]
    draining = put(world, 40, ended=40, status=lifecycle.CANCELLED, held=True)
    above = put(world, 40, ended=40)
    below = world.put(lifecycle.CANCELLED, parent=above, held=True)

    assert purge(db, days=30) == Purged(0, 0, 0)

    assert ids(world, "runs") == {late, *active, draining, above, below}


def test_audit_events_go_after_their_runs_and_all_others_stay(world: World, db: Database) -> None:
    run_id = put(world, 40, ended=10)
    kept = {
        put_audit(world, 40, run_id),  # its run is there
        put_audit(world, 40, None),  # of a workflow
        put_audit(world, 29, "run_gone"),
    }
    for _ in range(3):
        put_audit(world, 31, "run_gone")

    assert purge(db, days=30) == Purged(0, 3, 0)

    assert ids(world, "audit_events") == kept


def test_trigger_events_go_but_for_the_last_of_a_workflow(world: World, db: Database) -> None:
    run_id = put(world, 40, ended=10)
    kept = {
        put_event(world, 40, run_id),
        put_event(world, 29, None),
        last := put_event(world, 31, None),
        matched := put_event(world, 32, "run_gone"),
    }
    world.execute(
        "INSERT INTO trigger_totals (metronome_id, trigger_type, organization_id, last_event_id,"
        " last_matched_event_id) VALUES (%s, 'email', %s, %s, %s)",
        METRONOME,
        ORGANIZATION,
        last,
        matched,
    )
    put_event(world, 33, None)
    put_event(world, 33, "run_gone")

    assert purge(db, days=30) == Purged(0, 0, 2)

    assert ids(world, "trigger_events") == kept


def test_parts_follow_each_other_to_the_end(
    world: World, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purges, "PART", 2)
    held = put(world, 50, ended=50)
    world.put(lifecycle.CANCELLED, parent=held, held=True)  # looked at once, and passed over
    for days in range(40, 45):
        put(world, days, ended=days)
        put_audit(world, days, "run_gone")
        put_event(world, days, None)

    assert purge(db, days=30) == Purged(5, 5, 5)
    assert purge(db, days=30) == Purged(0, 0, 0)
