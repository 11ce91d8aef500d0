"""The short way to cancel a run that stands alone: it does the same, or it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.db import RawConnection
from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    COMPLETED,
    PAUSED,
    QUEUED,
    RUNNING,
    WAITING_APPROVAL,
)
from app.domain.models import Actor, Transitioned
from app.store import boundary, cancels, transitions
from app.store.boundary import Spawn, StepPark, StepStart
from app.store.trees import STOP_CHANNEL
from tests.processes import PATIENCE, wait_for
from tests.store.test_at_once import spawn, write
from tests.store.world import ACTOR, METRONOME, Ear, World, bound, step


def short(world: World, run_id: str, actor: Actor = ACTOR) -> Transitioned | None:
    """Cancel by the short message alone; None where it declines."""
    with world.db.connect() as connection:
        values = cancels.values(actor, METRONOME, run_id)
        row = cancels.MESSAGE.row(connection, actor, values)
    return None if row is None else transitions.transitioned(row)


def long(world: World, run_id: str) -> Transitioned | None:
    """Cancel by the message for trees."""
    with world.db.connect() as connection:
        return transitions.request(connection, CANCEL, ACTOR, METRONOME, run_id)


ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "queued": (QUEUED, {}),
    "backing off": (QUEUED, {"next_attempt_at": "now()", "error": "'e'"}),
    "in a group": (QUEUED, {"concurrency_key": "'k'"}),
    "held in a group": (RUNNING, {"concurrency_key": "'k'", "held": True}),
    "in flight": (RUNNING, {"held": True}),
    "between two nodes": (RUNNING, {}),
    "waiting": (WAITING_APPROVAL, {}),
    "paused": (PAUSED, {}),
    "in doubt": (PAUSED, {"in_doubt": "true", "error": "'in doubt'"}),
}


@pytest.mark.parametrize("name", ALONE)
def test_it_does_what_the_message_for_trees_does(world: World, name: str) -> None:
    status, columns = ALONE[name]
    heard = Ear(world, STOP_CHANNEL)
    results = []
    for way in (short, long):
        run_id = world.put(status, **columns)
        world.put_step(run_id, 1, COMPLETED)
        if columns.get("held"):
            world.put_step(run_id, 2, RUNNING, lease_token=f"'{world.run(run_id)['lease_token']}'")
        done = way(world, run_id)
        assert done is not None
        after = {key: str(value).replace(run_id, "RUN") for key, value in world.run(run_id).items()}
        del after["lease_token"]
        timeless = {key: value for key, value in after.items() if not key.endswith("_at")}
        set_times = {key for key, value in after.items() if key.endswith("_at") and value != "None"}
        steps = [(one["seq"], one["status"]) for one in world.steps(run_id)]
        assert done.run.completed_at == done.run.updated_at
        told = replace(done, run=None)  # type: ignore[arg-type]
        audits = [
            {key: value for key, value in one.items() if key not in ("id", "run_id", "created_at")}
            for one in world.query("SELECT * FROM audit_events WHERE run_id = %s", run_id)
        ]
        results.append((timeless, set_times, steps, told, audits, len(heard.all())))
    assert results[0] == results[1]
    assert results[0][0]["status"] == CANCELLED


def with_child(world: World) -> str:
    """A run with one below it."""
    run_id = world.put(RUNNING)
    world.put(QUEUED, parent=run_id)
    return run_id


def parked(world: World) -> str:
    """A run of which a node waits."""
    run_id = world.put(WAITING_APPROVAL)
    world.put_step(run_id, 1, WAITING_APPROVAL)
    return run_id


def remote(world: World) -> str:
    """A run of which a connector is at work for a node that is in flight."""
    run_id = world.put(RUNNING, held=True)
    token = world.run(run_id)["lease_token"]
    world.put_step(run_id, 1, RUNNING, lease_token=f"'{token}'", connector="'c'")
    return run_id


DECLINED: dict[str, Callable[[World], str]] = {
    "child": with_child,
    "nested": lambda world: world.put(QUEUED, parent=world.put(RUNNING)),
    "parked": parked,
    "remote": remote,
    "ended": lambda world: world.put(COMPLETED),
}


@pytest.mark.parametrize("name", DECLINED)
def test_it_changes_nothing_where_there_is_more_to_do(world: World, name: str) -> None:
    run_id = DECLINED[name](world)
    before = world.everything()
    assert short(world, run_id) is None
    assert world.everything() == before
    assert world.done(CANCEL, run_id).run.status == (COMPLETED if name == "ended" else CANCELLED)


def test_it_changes_nothing_of_others(world: World) -> None:
    run_id = world.put(QUEUED)
    before = world.everything()
    assert short(world, run_id, replace(ACTOR, organization_id="org_b")) is None
    assert world.everything() == before


def test_a_node_that_starts_while_it_waits_is_in_flight(world: World) -> None:
    held = world.in_flight()
    with world.locked(held.id):
        starting = world.begin(write, world, step(held, end=1, start=2))
        world.wait_for_waiters(1)
        cancelling = world.begin(short, world, held.id)
        world.wait_for_waiters(2)
    assert starting.result(20).answer == "go"
    done = cancelling.result(20)
    assert done is not None
    assert done.in_flight == ("n2",)
    (last,) = world.query("SELECT max(started_at) AS at FROM steps")
    assert done.run.completed_at is not None
    assert last["at"] < done.run.completed_at


def test_it_acts_on_no_run_that_it_has_not_locked(world: World) -> None:
    """A node waits when it looks for the first time, and none does when it looks again."""
    assert short(world, world.put(QUEUED))  # from now on its statements are prepared
    held = world.in_flight()
    world.write(step(held, sleep=1))
    child = f"{held.id}_child"
    before_first, before_second, executor = (world.raw() for _ in range(3))
    with _transaction(executor):
        with _transaction(before_second, "LOCK TABLE audit_events"):
            with _transaction(before_first, "LOCK TABLE runs"):
                cancelling = world.begin(world.done, CANCEL, held.id)
                world.wait_for_waiters(1)  # it has the snapshot of its first statement
                woken = step(held, end=1, start=2)
                assert boundary.write(before_first, [woken])[0].answer == "go"
            wait_for(lambda: world.query(_WAITS_FOR.format("relation = 'audit_events'::regclass")))
            executor.cursor().execute("SELECT FROM runs FOR NO KEY UPDATE")
        wait_for(lambda: world.query(_WAITS_FOR.format("locktype = 'transactionid'")))
        begun = bound(
            held,
            parks=[StepPark(2, None)],
            spawns=[Spawn(2, child, METRONOME, "ver_b", "{}")],
            starts=[StepStart(3, "n3", "function", 1)],
        )
        assert boundary.write(executor, [begun])[0].answer == "go"
    done = cancelling.result(PATIENCE)
    assert (done.moved, done.in_flight) == (True, ("n3",))
    assert [world.run(one)["status"] for one in (held.id, child)] == [CANCELLED, CANCELLED]
    steps = world.steps(held.id)
    assert [one["status"] for one in steps] == [COMPLETED, CANCELLED, RUNNING]
    assert done.run.completed_at is not None
    assert steps[2]["started_at"] < done.run.completed_at


_WAITS_FOR = "SELECT 1 FROM pg_locks WHERE {} AND NOT granted"


@contextmanager
def _transaction(connection: RawConnection, begins: str = "SELECT 1") -> Iterator[None]:
    """A transaction that begins so, and is committed in the end."""
    connection.autocommit = False
    try:
        connection.cursor().execute(begins)
        yield
        connection.commit()
    finally:
        connection.rollback()


def test_a_run_that_is_started_below_while_it_waits_is_cancelled_too(world: World) -> None:
    held = world.in_flight()
    child, one = spawn(world, held, held.id)
    with world.locked(held.id):
        starting = world.begin(write, world, one)
        world.wait_for_waiters(1)
        cancelling = world.begin(world.done, CANCEL, held.id)
        world.wait_for_waiters(2)
    assert starting.result(20).answer != "stopped"
    assert cancelling.result(20).moved
    assert [world.run(one)["status"] for one in (held.id, child)] == [CANCELLED, CANCELLED]
