"""The end of a nested run wakes the run that waits for it, whatever that one is doing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.db import RawConnection
from app.domain.lifecycle import (
    AWAIT_APPROVAL,
    BACKOFF,
    CANCEL,
    CANCELLED,
    COMPLETE,
    COMPLETED,
    DOUBT,
    FAIL,
    PAUSE,
    PAUSED,
    QUEUED,
    RESUME,
    RUNNING,
    SLEEP,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
)
from app.store import boundary, leases, sweeps
from app.store.boundary import Boundary, Move
from app.store.leases import DUE_CHANNEL, Claimed
from tests.store.world import METRONOME, Ear, World, bound, make_move, step

ENDS = pytest.mark.parametrize("end", [COMPLETE, FAIL], ids=lambda move: move.name)
PARKING = pytest.mark.parametrize("park", [SLEEP, AWAIT_APPROVAL], ids=lambda move: move.name)


def ending(child: Claimed, end: Action = COMPLETE) -> Boundary:
    """The boundary with which a nested run ends."""
    return bound(child, move=make_move(child, end.name))


def claimable(world: World) -> list[str]:
    """The runs that an executor would take now."""
    return [one.id for one in leases.claim(world.raw(), "executor-9", limit=9, lease=60)]


@ENDS
@pytest.mark.parametrize("status", [RUNNING, WAITING_APPROVAL])
@pytest.mark.parametrize("due", ["'infinity'", "clock_timestamp() + interval '1 hour'"])
def test_the_end_of_a_nested_run_wakes_the_parked_run_above(
    world: World, end: Action, status: str, due: str
) -> None:
    parent = world.put(status, due_at=due)
    child = world.in_flight(parent=parent)
    heard = Ear(world, DUE_CHANNEL)

    assert world.write(ending(child, end)).answer == "go"

    row = world.run(parent)
    assert (row["status"], row["signalled"]) == (status, True)
    assert row["due_at"] == world.run(child.id)["completed_at"]
    assert heard.all() == [""]
    assert claimable(world) == [parent]
    assert world.run(parent)["signalled"] is False


@ENDS
@PARKING
def test_a_run_that_is_held_is_signalled_and_its_next_park_is_due_at_once(
    world: World, end: Action, park: Action
) -> None:
    parent = world.in_flight()
    child = world.in_flight(parent=parent.id)
    due = world.run(parent.id)["due_at"]

    world.write(ending(child, end))

    row = world.run(parent.id)
    assert (row["signalled"], row["due_at"], row["lease_token"]) == (True, due, parent.token)
    assert claimable(world) == []
    world.write(bound(parent, move=Move(park.name)))
    assert claimable(world) == [parent.id]


@PARKING
@pytest.mark.parametrize("park_first", [True, False], ids=["park first", "end first"])
def test_an_end_and_a_park_at_the_same_moment_lose_no_wake_up(
    world: World, park: Action, park_first: bool
) -> None:
    parent = world.in_flight()
    child = world.in_flight(parent=parent.id)
    parking, end = bound(parent, move=Move(park.name)), ending(child)
    with world.locked(parent.id):
        begun = []
        for count, one in enumerate([parking, end] if park_first else [end, parking], 1):
            begun.append(world.begin(boundary.write, world.raw(), [one]))
            world.wait_for_waiters(count)
    assert [one.result(10)[0].answer for one in begun] == ["go", "go"]
    assert claimable(world) == [parent.id]


def test_a_paused_run_above_hears_of_it_when_it_is_resumed(world: World) -> None:
    parent = world.put(RUNNING, due_at="'infinity'", next_attempt_at="NULL")
    child = world.in_flight(parent=parent)
    world.execute("UPDATE runs SET status = 'paused', due_at = NULL WHERE id = %s", parent)

    world.write(ending(child))

    row = world.run(parent)
    assert (row["status"], row["signalled"], row["due_at"]) == (PAUSED, True, None)
    assert claimable(world) == []
    world.done(RESUME, parent)
    assert claimable(world) == [parent]


@pytest.mark.parametrize("status", TERMINAL)
def test_a_run_above_that_has_ended_is_left_as_it_is(world: World, status: str) -> None:
    parent = world.put(status)
    child = world.in_flight(parent=parent)
    before = world.run(parent)
    assert world.write(ending(child)).answer == "go"
    assert world.run(parent) == before


def test_a_run_above_that_backs_off_is_signalled_and_not_hurried(world: World) -> None:
    """Another branch of it has failed: its next attempt has its time."""
    parent = world.in_flight()
    child = world.in_flight(parent=parent.id)
    world.write(step(parent, end=1, move="backoff"))
    due = world.run(parent.id)["due_at"]

    world.write(ending(child))

    row = world.run(parent.id)
    assert (row["status"], row["signalled"], row["due_at"]) == (QUEUED, True, due)
    assert claimable(world) == []


@pytest.mark.parametrize("move", [SLEEP, AWAIT_APPROVAL, BACKOFF, DOUBT], ids=lambda m: m.name)
def test_a_nested_run_that_goes_on_wakes_nobody(world: World, move: Action) -> None:
    parent = world.put(RUNNING, due_at="'infinity'")
    child = world.in_flight(parent=parent)
    before = world.run(parent)
    one = Boundary(
        child.id, METRONOME, child.token, move=make_move(child, move.name), touches=[parent]
    )
    assert world.write(one).answer == "go"
    assert world.run(parent) == before


@pytest.mark.parametrize("stop", [CANCEL, PAUSE], ids=lambda action: action.name)
def test_an_end_that_comes_behind_a_stop_wakes_nobody(world: World, stop: Action) -> None:
    parent = world.put(RUNNING, due_at="'infinity'")
    child = world.in_flight(parent=parent)
    world.done(stop, child.id)
    world.execute("UPDATE runs SET signalled = false, due_at = 'infinity' WHERE id = %s", parent)
    before = world.run(parent)
    assert world.write(ending(child)).answer == "stopped"
    assert world.run(parent) == before


def test_two_nested_runs_that_end_in_one_batch_wake_the_run_above_once(world: World) -> None:
    parent = world.put(RUNNING, due_at="'infinity'")
    first, second = (world.in_flight(parent=parent) for _ in range(2))

    verdicts = boundary.write(world.raw(), [ending(first), ending(second, FAIL)])

    assert [one.answer for one in verdicts] == ["go", "go"]
    assert [world.run(one.id)["status"] for one in (first, second)] == [COMPLETED, "failed"]
    assert world.run(parent)["signalled"]
    assert claimable(world) == [parent]


def test_a_batch_of_ends_and_plain_boundaries_does_each_its_own(world: World) -> None:
    parents = [world.put(RUNNING, due_at="'infinity'") for _ in range(2)]
    ends = [world.in_flight(parent=parent) for parent in parents]
    plain = world.in_flight()
    world.done(CANCEL, ends[1].id)
    world.execute(
        "UPDATE runs SET signalled = false, due_at = 'infinity' WHERE depth = 0"
        " AND lease_token IS NULL"
    )

    batch = [ending(ends[1]), step(plain, end=1, start=2), ending(ends[0])]
    verdicts = boundary.write(world.raw(), batch)

    assert [one.answer for one in verdicts] == ["stopped", "go", "go"]
    assert [world.run(one)["signalled"] for one in parents] == [True, False]
    assert [one["status"] for one in world.steps(plain.id)] == [COMPLETED, RUNNING]


def test_a_run_whose_run_above_is_gone_can_end(world: World) -> None:
    parent = world.put(RUNNING)
    child = world.in_flight(parent=parent)
    world.execute("DELETE FROM runs WHERE id = %s", parent)
    assert world.write(ending(child)).answer == "go"
    assert world.run(child.id)["status"] == COMPLETED


# -- locks


def test_crosswise_batches_wait_for_each_other_in_one_direction(world: World) -> None:
    """Each batch ends a run whose parent the other one has in its own list."""
    parents = [world.in_flight() for _ in range(2)]
    kids = [world.in_flight(parent=one.id) for one in parents]
    batches = [
        [ending(kids[0]), step(parents[1], end=1, start=2)],
        [ending(kids[1]), step(parents[0], end=1, start=2)],
    ]
    with world.locked(*(one.id for one in (*parents, *kids))):
        writing = [world.begin(boundary.write, world.raw(), batch) for batch in batches]
        world.wait_for_waiters(2)
    for one in writing:
        assert [verdict.answer for verdict in one.result(10)] == ["go", "go"]
    assert all(world.run(one.id)["signalled"] for one in parents)


def test_ends_spawns_stops_and_chores_of_trees_never_wait_in_a_circle(world: World) -> None:
    """Wide batches in every order against cancels, pauses, resumes, heartbeats and claims."""
    parents = [world.in_flight() for _ in range(6)]
    kids = [world.in_flight(parent=one.id) for one in parents for _ in range(3)]
    pairs = [(one.id, one.token) for one in (*parents, *kids)]
    rounds = 30

    def repeat(deed: Callable[[int], object]) -> Callable[[], None]:
        def work() -> None:
            for number in range(rounds):
                deed(number)

        return work

    def writes(connection: RawConnection, batch: list[Boundary]) -> Callable[[int], object]:
        return lambda _: boundary.write(connection, batch)

    def acts(action: Action, runs: list[Claimed]) -> Callable[[int], object]:
        return lambda number: world.done(action, runs[number % len(runs)].id)

    touching = [
        Boundary(one.id, METRONOME, one.token, touches=[one.parent_run_id or ""], move=move)
        for one, move in zip(kids, [Move("fail"), None, Move("sleep")] * 6, strict=True)
    ]
    orders = (touching, touching[::-1], touching[::2] + touching[1::2])
    chores = [world.raw() for _ in range(3)]
    deeds = [
        *(writes(world.raw(), order) for order in orders),
        writes(world.raw(), [step(one, sleep=1) for one in parents[::-1]]),
        acts(PAUSE, parents),
        acts(RESUME, parents[::-1]),
        acts(PAUSE, kids),
        acts(RESUME, kids[::-1]),
        lambda _: leases.renew(chores[0], pairs, lease=0.001),
        lambda _: leases.claim(chores[1], "executor-2", limit=5, lease=0.001),
        lambda _: sweeps.sweep(chores[2]),
        acts(CANCEL, kids[1::3]),
    ]
    for one in [world.begin(repeat(deed)) for deed in deeds]:
        one.result(60)  # raises what the database has raised
    statuses = {row["status"] for row in world.query("SELECT status FROM runs WHERE depth = 1")}
    assert CANCELLED in statuses
