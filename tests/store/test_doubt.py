"""Doubt: a node that may have run, and may do harm when it runs again, is left to a person."""

from __future__ import annotations

import pytest

from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    CLAIMABLE,
    COMPLETED,
    DOUBT,
    FAILED,
    PAUSE,
    PAUSED,
    QUEUED,
    RESUME,
    RETRY,
    RUNNING,
    TERMINAL,
    Action,
)
from app.store import boundary, leases, sweeps
from app.store.boundary import Move, StepEnd
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, IN_DOUBT, Claimed, NextNode
from tests.store.world import World, as_held, bound

ERROR = IN_DOUBT.format(node="ship")
LOST = [StepEnd(1, FAILED, error=EXECUTOR_LOST)]


def shipping(
    world: World, status: str = RUNNING, *, unsafe: bool = True, **columns: str
) -> Claimed:
    """A run in ``status`` whose node "ship" is in flight: running it again may do harm."""
    run_id = world.put(status, held=True, **columns)
    held = as_held(world.run(run_id))
    safe = "true" if unsafe else "false"
    world.put_step(run_id, 1, RUNNING, node_id="'ship'", unsafe=safe, lease_token=f"'{held.token}'")
    return held


def left_behind(world: World, held: Claimed) -> str | None:
    """The executor ends, and its node would not."""
    return leases.let_go(world.raw(), held.id, held.token, error=EXECUTOR_STOPPED, unfinished=True)


def is_in_doubt(world: World, run_id: str) -> bool:
    """Whether a run is in doubt, and says so as it should."""
    run = world.run(run_id)
    if not run["in_doubt"]:
        assert run["error"] != ERROR
        return False
    assert (run["status"], run["error"]) == (PAUSED, ERROR)
    assert (run["lease_token"], run["due_at"]) == (None, None)
    assert run["paused_by"] is not None
    assert leases.claim(world.raw(), "executor-2", limit=9, lease=60) == []
    return True


# -- the boundary of a take-over


@pytest.mark.parametrize("status", DOUBT.sources)
def test_a_doubt_is_told_whatever_has_become_of_the_run_meanwhile(
    world: World, status: str
) -> None:
    held = shipping(world, status)

    move = Move(DOUBT.name, error=ERROR)
    assert world.write(bound(held, ends=LOST, move=move)).answer == "go"

    assert is_in_doubt(world, held.id)
    assert [one["error"] for one in world.steps(held.id)] == [EXECUTOR_LOST]


def test_a_pause_that_comes_before_the_doubt_does_not_hide_it(world: World) -> None:
    """The lost step is closed by the same boundary, so nobody would find it again."""
    lost = shipping(world)
    world.expire(lost.id)
    owner = world.claim("executor-2")
    writer = world.raw()
    with world.locked(owner.id):
        pausing = world.begin(world.done, PAUSE, owner.id)
        world.wait_for_waiters(1)
        move = Move(DOUBT.name, error=ERROR)
        writing = world.begin(boundary.write, writer, [bound(owner, ends=LOST, move=move)])
        world.wait_for_waiters(2)

    assert pausing.result(10).moved
    assert writing.result(10)[0].answer == "go"
    assert is_in_doubt(world, owner.id)
    assert not world.done(RESUME, owner.id).moved


def test_who_paused_a_run_that_is_in_doubt_is_still_known(world: World) -> None:
    root = world.put(PAUSED)
    for deed in ("boundary", "let go"):
        nested = shipping(world, PAUSED, parent=root, paused_by=f"'{root}'")
        if deed == "boundary":
            world.write(bound(nested, ends=LOST, move=Move(DOUBT.name, error=ERROR)))
        else:
            left_behind(world, nested)
        assert is_in_doubt(world, nested.id)
        assert world.run(nested.id)["paused_by"] == root


@pytest.mark.parametrize("status", TERMINAL)
def test_a_run_that_has_ended_is_never_in_doubt(world: World, status: str) -> None:
    held = shipping(world, status)
    before = world.run(held.id)
    assert world.write(bound(held, move=Move(DOUBT.name, error=ERROR))).answer == "stopped"
    assert world.run(held.id) == before
    assert left_behind(world, held) == status
    assert not is_in_doubt(world, held.id)


# -- a node that is left behind


@pytest.mark.parametrize("unfinished", [True, False], ids=["left behind", "has ended"])
@pytest.mark.parametrize("unsafe", [True, False], ids=["unsafe", "safe"])
@pytest.mark.parametrize("status", [*DOUBT.sources, *TERMINAL])
def test_a_run_that_is_let_go_is_in_doubt_where_an_unsafe_node_was_left_behind(
    world: World, status: str, unsafe: bool, unfinished: bool
) -> None:
    held = shipping(world, status, unsafe=unsafe)
    before = world.run(held.id)

    after = leases.let_go(
        world.raw(), held.id, held.token, error=EXECUTOR_STOPPED, unfinished=unfinished
    )

    doubtful = unsafe and unfinished and status not in TERMINAL
    assert after == (PAUSED if doubtful else status)
    run = world.run(held.id)
    assert (run["status"], run["lease_token"]) == (after, None)
    assert run["completed_at"] == before["completed_at"]
    (row,) = world.steps(held.id)
    assert row["status"] == (CANCELLED if status == CANCELLED else FAILED)
    assert row["error"] == EXECUTOR_STOPPED
    assert is_in_doubt(world, held.id) == doubtful
    if not doubtful and status in CLAIMABLE:
        assert world.claim("executor-2").id == held.id


def test_a_run_that_was_resumed_while_its_node_drained_is_in_doubt_when_that_is_left_behind(
    world: World,
) -> None:
    held = shipping(world)
    world.done(PAUSE, held.id)
    world.done(RESUME, held.id)
    assert world.run(held.id)["status"] == QUEUED
    assert left_behind(world, held) == PAUSED
    assert is_in_doubt(world, held.id)
    assert world.run(held.id)["paused_by"] == held.id


@pytest.mark.parametrize("cleared", [True, False], ids=["before the retry", "behind it"])
def test_what_came_before_a_retry_from_the_start_puts_nothing_in_doubt(
    world: World, cleared: bool
) -> None:
    held = shipping(world)
    world.done(CANCEL, held.id)
    world.done(RETRY, held.id)
    assert world.run(held.id)["base_seq"] == 1
    if not cleared:
        world.execute("UPDATE runs SET base_seq = 0")
    assert left_behind(world, held) == (QUEUED if cleared else PAUSED)
    assert is_in_doubt(world, held.id) != cleared


def test_only_the_open_step_of_the_holder_counts(world: World) -> None:
    held = shipping(world, unsafe=False)
    columns = {"node_id": "'ship'", "unsafe": "true"}
    world.put_step(held.id, 2, COMPLETED, **columns)
    world.put_step(held.id, 3, FAILED, error="'no'", **columns)
    world.put_step(held.id, 4, RUNNING, **columns)  # parked: nobody is in flight in it
    assert left_behind(world, held) == RUNNING
    assert not is_in_doubt(world, held.id)
    assert [one["status"] for one in world.steps(held.id)][1:] == [COMPLETED, FAILED, RUNNING]


def test_of_several_nodes_one_is_named(world: World) -> None:
    held = shipping(world)
    world.put_step(
        held.id, 2, RUNNING, node_id="'zz'", unsafe="true", lease_token=f"'{held.token}'"
    )
    left_behind(world, held)
    assert is_in_doubt(world, held.id)


@pytest.mark.parametrize("first", [CANCEL, PAUSE], ids=lambda action: action.name)
def test_a_stop_and_a_node_that_is_left_behind_come_one_after_the_other(
    world: World, first: Action
) -> None:
    held = shipping(world)
    with world.locked(held.id):
        stopping = world.begin(world.done, first, held.id)
        world.wait_for_waiters(1)
        leaving = world.begin(left_behind, world, held)
        world.wait_for_waiters(2)
    assert stopping.result(10).moved
    assert leaving.result(10) == first.target
    assert is_in_doubt(world, held.id) == (first is PAUSE)


def test_connectors_hear_of_a_node_that_is_left_behind(world: World) -> None:
    for status in (CANCELLED, PAUSED, RUNNING):
        held = shipping(world, status)
        world.execute("UPDATE steps SET connector = 'imagine' WHERE run_id = %s", held.id)
        leases.let_go(world.raw(), held.id, held.token, error="interrupted")
        told = world.query("SELECT event, seq FROM outbox WHERE run_id = %s", held.id)
        assert told == [{"event": "node.cancelled", "seq": 1}]


def test_what_was_next_tells_where_in_a_loop_it_was(world: World) -> None:
    held = shipping(world, CANCELLED)
    nexts = [NextNode(2, "body", "end", 1, parent_seq=1, iteration=7)]
    leases.let_go(world.raw(), held.id, held.token, nexts=nexts, error="x")
    row = world.steps(held.id)[1]
    assert (row["parent_seq"], row["iteration"], row["status"]) == (1, 7, CANCELLED)


# -- the sweep


@pytest.mark.parametrize("unsafe", [True, False], ids=["unsafe", "safe"])
@pytest.mark.parametrize("status", [PAUSED, *TERMINAL])
def test_a_paused_run_whose_executor_died_is_in_doubt_where_its_node_is_unsafe(
    world: World, status: str, unsafe: bool
) -> None:
    held = shipping(world, status, unsafe=unsafe)
    other = shipping(world, PAUSED, unsafe=False)
    before = world.run(held.id)
    world.expire(held.id, other.id)

    assert set(sweeps.sweep(world.raw()).runs) == {held.id, other.id}

    run = world.run(held.id)
    assert (run["status"], run["paused_by"]) == (status, before["paused_by"])
    assert is_in_doubt(world, held.id) == (unsafe and status == PAUSED)
    assert not is_in_doubt(world, other.id)
    assert [one["error"] for one in world.steps(held.id)] == [EXECUTOR_LOST]


def test_the_sweep_counts_what_was_in_flight_in_this_attempt(world: World) -> None:
    """Not what is parked, not what has ended, and not what came before a retry from the start."""
    run_id = world.put(PAUSED, held=True, base_seq="1")
    columns = {"node_id": "'ship'", "unsafe": "true"}
    world.put_step(run_id, 1, RUNNING, lease_token="'of the first attempt'", **columns)
    world.put_step(run_id, 2, RUNNING, **columns)
    world.put_step(run_id, 3, COMPLETED, **columns)
    world.expire(run_id)
    assert sweeps.sweep(world.raw()).runs == (run_id,)
    assert not is_in_doubt(world, run_id)
    assert [one["status"] for one in world.steps(run_id)] == [FAILED, RUNNING, COMPLETED]


def test_what_was_lost_before_a_retry_from_the_start_is_closed_by_the_next_claim(
    world: World,
) -> None:
    lost = shipping(world)
    world.done(CANCEL, lost.id)
    world.done(RETRY, lost.id)
    world.expire(lost.id)
    world.put_step(lost.id, 2, RUNNING, lease_token=f"'{lost.token}'")  # of the new attempt

    owner = world.claim("executor-2")

    first, second = world.steps(lost.id)
    assert (first["status"], first["error"]) == (FAILED, EXECUTOR_LOST)
    assert (first["lease_token"], second["status"]) == (None, RUNNING)
    assert not is_in_doubt(world, owner.id)
