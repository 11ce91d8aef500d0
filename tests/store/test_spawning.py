"""Nested runs begin with the park of the step that waits for them, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.db import RawConnection
from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    FAILED,
    PAUSE,
    PAUSED,
    QUEUED,
    RUN_STATUSES,
    RUNNING,
)
from app.domain.lifecycle import Action as Stop
from app.ids import new_id
from app.store import boundary, leases
from app.store.boundary import Boundary, Move, Spawn, StepEnd, StepPark
from app.store.leases import DUE_CHANNEL, Claimed
from tests.store.world import METRONOME, Ear, World, as_held, bound, step

STOPS = pytest.mark.parametrize("stop", [CANCEL, PAUSE], ids=lambda action: action.name)


def spawning(held: Claimed, child: str | None = None, *, move: str | None = "sleep") -> Boundary:
    """The boundary that parks step 1 and starts a nested run for it."""
    return bound(
        held,
        parks=[StepPark(1, None, metadata='{"waitsFor": "nested_run"}')],
        spawns=[
            Spawn(1, child or new_id("run", after=held.id), "met_child", "ver_child", '{"x": 1}')
        ],
        move=None if move is None else Move(move),
    )


def children(world: World, run_id: str) -> list[dict[str, Any]]:
    """The nested runs of a run."""
    return world.query("SELECT * FROM runs WHERE parent_run_id = %s ORDER BY id", run_id)


# -- what is started


def test_a_nested_run_begins_with_the_park_of_its_step(world: World) -> None:
    heard = Ear(world, DUE_CHANNEL)
    held = world.in_flight(user_id="'user_b'")
    child_id = new_id("run", after=held.id)

    assert world.write(spawning(held, child_id)).answer == "go"

    (child,) = children(world, held.id)
    expected = {
        "id": child_id,
        "organization_id": "org_a",
        "metronome_id": "met_child",
        "version_id": "ver_child",
        "user_id": "user_b",
        "trigger_type": "metronome",
        "input": '{"x": 1}',
        "status": QUEUED,
        "parent_run_id": held.id,
        "parent_seq": 1,
        "root_run_id": held.id,
        "depth": 1,
        "attempt_count": 0,
        "max_attempts": 1,
        "attempt_due": True,
    }
    assert expected.items() <= child.items()
    (parked,) = world.steps(held.id)
    assert (parked["status"], parked["lease_token"]) == (RUNNING, None)
    assert parked["updated_at"] <= child["created_at"]
    assert world.run(held.id)["lease_token"] is None
    assert heard.all() == [""]
    claimed = world.claim()
    assert (claimed.id, claimed.parent_run_id, claimed.depth) == (child_id, held.id, 1)
    assert (claimed.root_run_id, claimed.begun) == (held.id, False)


def test_the_start_of_a_nested_run_is_audited(world: World) -> None:
    held = world.in_flight()
    world.write(spawning(held))
    (child,) = children(world, held.id)
    (event,) = world.query("SELECT *, payload::jsonb AS told FROM audit_events")
    expected = {
        "organization_id": "org_a",
        "metronome_id": "met_child",
        "user_id": "user_a",
        "actor_user_id": "user_a",
        "actor_key_id": "executor",
        "run_id": child["id"],
        "version_id": "ver_child",
        "action": "run.created",
        "created_at": child["created_at"],
        "told": {"triggerType": "metronome", "parentRunId": held.id},
    }
    assert expected.items() <= event.items()
    assert event["id"].startswith("evt_")


def test_a_run_further_down_knows_its_root_and_its_depth(world: World) -> None:
    root = world.put(RUNNING, due_at="'infinity'")
    above = world.put(RUNNING, parent=root, due_at="'infinity'")
    held = world.in_flight(parent=above)

    one = spawning(held)

    assert (one.touches, held.root_run_id, held.depth) == ([root], root, 2)
    assert world.write(one).answer == "go"
    (child,) = children(world, held.id)
    assert (child["root_run_id"], child["depth"]) == (root, 3)


def test_the_id_of_a_nested_run_sorts_behind_those_above_it(world: World) -> None:
    """All locks are taken in the order of the ids, and another host's clock may be ahead."""
    ahead = "run_ffff00000000" + new_id("run")[-20:]
    below = new_id("run", after=ahead)
    assert ahead < below < new_id("run", after=below)
    assert len(ahead) == len(below)
    above = new_id("run")
    assert above < new_id("run", after=above) < below


def test_several_nested_runs_begin_in_one_boundary(world: World) -> None:
    held = world.in_flight()
    world.write(step(held, start=2))
    ids = sorted(new_id("run", after=held.id) for _ in (1, 2))
    spawns = [Spawn(seq, ids[seq - 1], METRONOME, "ver_a", "{}") for seq in (1, 2)]
    parks = [StepPark(1, None), StepPark(2, None)]
    world.write(bound(held, parks=parks, spawns=spawns))
    assert [(row["id"], row["parent_seq"]) for row in children(world, held.id)] == [
        (ids[0], 1),
        (ids[1], 2),
    ]
    assert {row["lease_token"] for row in world.steps(held.id)} == {None}


def test_a_start_that_is_written_again_starts_nothing_more(world: World) -> None:
    """Its answer may have got lost, and the writer can't tell that from a lost statement."""
    held = world.in_flight()
    one = spawning(held, move=None)
    assert world.write(one).answer == "go"
    before = children(world, held.id), world.audits(one.spawns[0].run_id)

    assert world.write(one).answer == "go"

    assert (children(world, held.id), world.audits(one.spawns[0].run_id)) == before


# -- what keeps it from starting


def test_nothing_begins_for_a_step_that_ends_with_the_same_boundary(world: World) -> None:
    """Its own timeoutMs may pass before anything is written: nobody would wait for that run."""
    held = world.in_flight()
    one = replace(spawning(held, move=None), ends=[StepEnd(1, FAILED, error="timed out")])
    assert world.write(one).answer == "go"
    assert children(world, held.id) == []
    assert [row["status"] for row in world.steps(held.id)] == [FAILED]


def nothing_began(world: World, held: Claimed) -> None:
    """No nested run, no word about one, and the step is still its holder's to end."""
    assert children(world, held.id) == []
    assert world.query("SELECT * FROM audit_events WHERE action = 'run.created'") == []
    (row,) = world.steps(held.id)
    assert (row["lease_token"], row["metadata"]) == (held.token, None)


@pytest.mark.parametrize("status", [status for status in RUN_STATUSES if status != RUNNING])
def test_nothing_begins_below_a_run_that_is_not_running(world: World, status: str) -> None:
    heard = Ear(world, DUE_CHANNEL)
    run_id = world.put(status, held=True)
    held = as_held(world.run(run_id))
    world.put_step(run_id, 1, RUNNING, lease_token=f"'{held.token}'")
    for move in ("sleep", None):
        assert world.write(spawning(held, move=move)).answer == "stopped"
    nothing_began(world, held)
    assert heard.all() == []


def test_nothing_begins_below_a_run_that_somebody_else_holds(world: World) -> None:
    held = world.in_flight()
    world.expire(held.id)
    world.claim("executor-2")
    assert world.write(spawning(held)).answer == "lease_lost"
    nothing_began(world, held)


@pytest.mark.parametrize("move", ["sleep", None])
def test_nothing_begins_below_a_run_that_is_out_of_time(world: World, move: str | None) -> None:
    held = world.in_flight()
    world.execute("UPDATE runs SET deadline_at = clock_timestamp() - interval '1 second'")
    assert world.write(spawning(held, move=move)).answer == "timed_out"
    nothing_began(world, held)


def test_other_parks_of_such_a_boundary_are_kept(world: World) -> None:
    held = world.in_flight()
    world.write(step(held, start=2))
    world.done(PAUSE, held.id)
    one = Boundary(
        held.id,
        METRONOME,
        held.token,
        parks=[StepPark(1, None), StepPark(2, None)],
        spawns=[Spawn(1, new_id("run", after=held.id), METRONOME, "ver_a", "{}")],
    )
    assert world.write(one).answer == "stopped"
    assert [row["lease_token"] for row in world.steps(held.id)] == [held.token, None]


@STOPS
@pytest.mark.parametrize("target", ["root", "middle", "own"])
def test_a_stop_that_came_first_while_the_start_waited_lets_nothing_begin(
    world: World, stop: Stop, target: str
) -> None:
    root = world.put(RUNNING, due_at="'infinity'")
    middle = world.put(RUNNING, parent=root, due_at="'infinity'")
    held = world.in_flight(parent=middle)
    run_id = {"root": root, "middle": middle, "own": held.id}[target]
    writer = world.raw()

    with world.locked(root):
        stopping = world.begin(world.done, stop, run_id)
        world.wait_for_waiters(1)
        writing = world.begin(boundary.write, writer, [spawning(held)])
        world.wait_for_waiters(2)

    done = stopping.result(10)
    assert done.moved
    (verdict,) = writing.result(10)
    assert (verdict.answer, verdict.status) == ("stopped", stop.target)
    nothing_began(world, held)


@STOPS
@pytest.mark.parametrize("target", ["root", "middle", "own"])
def test_a_stop_that_waited_for_a_start_reaches_what_began(
    world: World, stop: Stop, target: str
) -> None:
    root = world.put(RUNNING, due_at="'infinity'")
    middle = world.put(RUNNING, parent=root, due_at="'infinity'")
    held = world.in_flight(parent=middle)
    run_id = {"root": root, "middle": middle, "own": held.id}[target]
    writer = world.raw()

    with world.locked(root):
        writing = world.begin(boundary.write, writer, [spawning(held)])
        world.wait_for_waiters(1)
        stopping = world.begin(world.done, stop, run_id)
        world.wait_for_waiters(2)

    assert writing.result(10)[0].answer == "go"
    done = stopping.result(10)
    assert (done.in_flight, done.nested_in_flight) == ((), ())
    (child,) = children(world, held.id)
    assert child["status"] == stop.target
    assert child["created_at"] < child["updated_at"] == world.run(run_id)["updated_at"]
    assert world.audits(child["id"]) == ["run.created", stop.audit]
    open_steps = [row["status"] for row in world.steps(held.id)]
    assert open_steps == [CANCELLED if stop is CANCEL else RUNNING]
    claimed = leases.claim(world.raw(), "executor-2", limit=9, lease=60)
    assert {one.id for one in claimed} <= {root, middle}  # one of which hears of that end


@pytest.mark.parametrize("above", [CANCELLED, PAUSED])
def test_a_tree_grows_only_under_its_roots_lock(world: World, above: str) -> None:
    root = world.put(above)
    held = world.in_flight(parent=root)
    with world.locked(root):
        writing = world.begin(boundary.write, world.raw(), [spawning(held)])
        world.wait_for_waiters(1)
        assert not writing.done()
    assert writing.result(10)[0].answer == "go"


@STOPS
def test_starts_and_stops_of_one_tree_at_once_leave_nothing_behind(
    world: World, stop: Stop
) -> None:
    """Random interleavings: whatever began was reached by the stop of the root."""
    root = world.put(RUNNING, due_at="'infinity'")
    held = [world.in_flight(parent=root) for _ in range(12)]
    connections = [world.raw() for _ in range(4)]

    def spawn(connection: RawConnection, mine: list[Claimed]) -> None:
        for one in mine:
            boundary.write(connection, [spawning(one)])

    spawners = [
        world.begin(spawn, connection, held[index::4])
        for index, connection in enumerate(connections)
    ]
    assert world.begin(world.done, stop, root).result(30).moved
    for one in spawners:
        one.result(30)

    assert world.query(f"SELECT * FROM runs WHERE status <> '{stop.target}'") == []
    rows = world.query("SELECT count(*) AS runs, count(DISTINCT updated_at) AS n FROM runs")
    assert rows[0]["n"] == 1
    parked = world.query(
        "SELECT count(*) AS n FROM steps WHERE metadata IS NOT NULL"  # of which one began
    )
    assert rows[0]["runs"] == 1 + len(held) + parked[0]["n"]
