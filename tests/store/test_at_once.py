"""People, and executors, who do things to one run or one tree at the same moment."""

from __future__ import annotations

import itertools
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from app.domain.lifecycle import (
    APPROVE,
    CANCEL,
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSE,
    PAUSED,
    QUEUED,
    RESUME,
    RETRY,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
    allowed,
)
from app.store import boundary
from app.store.boundary import Boundary, Spawn, StepPark, Verdict
from app.store.leases import Claimed
from tests.store.world import METRONOME, World, step

PEOPLE = [CANCEL, PAUSE, RESUME, APPROVE, RETRY]
STATUSES = [QUEUED, RUNNING, WAITING_APPROVAL, PAUSED, FAILED]


def take(world: World, action: Action, run_id: str) -> bool:
    """Take an action as the API does; whether it did anything."""
    if action is APPROVE:
        done = world.decide(run_id)
        assert done is not None
        return done.outcome == "decided"
    return world.done(action, run_id).moved


@dataclass
class Model:
    """What ought to be true of a run with a step that waits for an approval."""

    status: str
    decided: bool = False
    waits: bool = True  # the step is open

    def take(self, action: Action) -> bool:
        """What comes of an action by the table."""
        if action is APPROVE:
            if self.status in TERMINAL or self.decided or not self.waits:
                return False
            self.decided = True
            if allowed(APPROVE, self.status):
                self.status = APPROVE.target
            return True
        if not allowed(action, self.status):
            return False
        self.status = action.target
        self.waits &= action not in (CANCEL, RETRY)
        return True


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.product(PEOPLE, repeat=2)),
    ids=lambda action: action.name,
)
def test_two_who_act_at_once_come_one_after_the_other(
    world: World, first: Action, second: Action, status: str
) -> None:
    root = world.put(RUNNING)
    run_id = world.put(status) if RETRY in (first, second) else world.put(status, parent=root)
    world.put_step(run_id, 1, WAITING_APPROVAL)

    with world.locked(run_id):
        one = world.begin(take, world, first, run_id)
        world.wait_for_waiters(1)
        two = world.begin(take, world, second, run_id)
        world.wait_for_waiters(2)
    results = [one.result(20), two.result(20)]

    model = Model(status)
    assert results == [model.take(first), model.take(second)]
    run = world.run(run_id)
    assert run["status"] == model.status
    assert world.audits(run_id) == [
        action.audit for action, moved in zip((first, second), results, strict=True) if moved
    ]
    (waiting,) = world.steps(run_id)
    assert (waiting["completed_at"] is None) == model.waits
    assert (waiting["result"] is not None) == model.decided


def in_turn(deeds: list[tuple[Action, str]], below: dict[str, list[str]]) -> dict[str, Any]:
    """What ought to become of queued runs: the status, who pauses it, its audits (and if held)."""
    runs: dict[str, Any] = {run_id: (QUEUED, None, []) for run_id in below}
    for action, acted in deeds:
        tree = below[acted]
        for run_id in tree:
            status, by, audits = runs[run_id]
            moves = allowed(action, status) and (action is not RESUME or by == acted)
            if moves:
                paused_by = acted if action is PAUSE else None
                runs[run_id] = (action.target, paused_by, [*audits, (action.audit, False)])
            elif action is PAUSE and (status, run_id) == (PAUSED, acted) and by not in tree:
                # It was paused from above: from now on it is held by itself.
                runs[run_id] = (status, acted, [*audits, (action.audit, True)])
    return runs


@pytest.mark.parametrize("first", ["above", "below"])
@pytest.mark.parametrize(
    ("above", "below"),
    list(itertools.product([CANCEL, PAUSE, RESUME], repeat=2)),
    ids=lambda action: action.name,
)
def test_two_who_act_in_one_tree_at_once_wait_for_its_root(
    world: World, above: Action, below: Action, first: str
) -> None:
    root = world.put(RUNNING)
    child = world.put(QUEUED, parent=root)
    leaf = world.put(QUEUED, parent=child)
    beside = world.put(QUEUED, parent=root)
    world.done(PAUSE, beside)
    acts = [(above, child), (below, leaf)]
    with world.locked(root):
        both = []
        for action, run_id in acts if first == "above" else reversed(acts):
            both.append(world.begin(take, world, action, run_id))
            world.wait_for_waiters(len(both))
    for one in both:
        one.result(20)

    expected = in_turn(
        acts if first == "above" else acts[::-1], {child: [child, leaf], leaf: [leaf]}
    )
    for run_id in (child, leaf):
        run = world.run(run_id)
        trail = world.query(
            "SELECT action, payload FROM audit_events WHERE run_id = %s ORDER BY id", run_id
        )
        audits = [(one["action"], "held" in (one["payload"] or {})) for one in trail]
        assert (run["status"], run["paused_by"], audits) == expected[run_id]
    assert world.audits(beside) == ["run.paused"]


# -- a tree that grows


def spawn(world: World, held: Claimed, root: str) -> tuple[str, Boundary]:
    """A boundary that starts a nested run for the step 1, and that one's id."""
    child = f"{held.id}_child"
    return child, Boundary(
        held.id,
        METRONOME,
        held.token,
        parks=[StepPark(1, None)],
        spawns=[Spawn(1, child, "met_b", "ver_b", "{}")],
        touches=[] if root == held.id else [root],
    )


def nested_in_flight(world: World, root: str) -> Claimed:
    """A nested run that is held, with the node of its step 1 in flight."""
    world.put(QUEUED, parent=root, due_at="'2000-01-01Z'")
    held = world.claim()
    assert world.write(step(held, start=1)).answer == "go"
    return held


@pytest.mark.parametrize("action", [CANCEL, PAUSE], ids=lambda action: action.name)
def test_a_run_that_is_started_before_the_action_is_stopped_with_the_others(
    world: World, action: Action
) -> None:
    root = world.put(RUNNING)
    held = nested_in_flight(world, root)
    child, one = spawn(world, held, root)
    with world.locked(root):
        starting = world.begin(write, world, one)
        world.wait_for_waiters(1)
        stopping = world.begin(take, world, action, root)
        world.wait_for_waiters(2)
    assert starting.result(20).answer == "go"
    assert stopping.result(20)
    assert {world.run(run_id)["status"] for run_id in (root, held.id, child)} == {action.target}
    assert world.audits(child)[1:] == [action.audit]


@pytest.mark.parametrize("action", [CANCEL, PAUSE], ids=lambda action: action.name)
def test_a_run_that_is_started_behind_the_action_never_is(world: World, action: Action) -> None:
    root = world.put(RUNNING)
    held = nested_in_flight(world, root)
    child, one = spawn(world, held, root)
    with world.locked(root):
        stopping = world.begin(take, world, action, root)
        world.wait_for_waiters(1)
        starting: Future[Verdict] = world.begin(write, world, one)
        world.wait_for_waiters(2)
    assert stopping.result(20)
    assert starting.result(20).answer == "stopped"
    assert world.query("SELECT id FROM runs WHERE id = %s", child) == []


def write(world: World, one: Boundary) -> Verdict:
    """Write a boundary on a connection of its own."""
    return boundary.write(world.raw(), [one])[0]


def test_a_run_that_is_started_in_the_middle_of_the_locking_is_seen(world: World) -> None:
    """Somebody holds a run below: the action has the root's lock, and waits. Nothing grows now."""
    root = world.put(RUNNING)
    held = nested_in_flight(world, root)
    other = world.put(RUNNING, parent=root)
    child, one = spawn(world, held, root)
    with world.locked(other):
        cancelling = world.begin(take, world, CANCEL, root)
        world.wait_for_waiters(1)
        starting = world.begin(write, world, one)
        world.wait_for_waiters(2)
    assert cancelling.result(20)
    assert starting.result(20).answer == "stopped"
    assert world.query("SELECT id FROM runs WHERE id = %s", child) == []


def test_a_node_that_starts_below_while_the_cancel_waits_is_in_flight(world: World) -> None:
    root = world.put(RUNNING)
    held = nested_in_flight(world, root)
    with world.locked(held.id):
        starting = world.begin(write, world, step(held, end=1, start=2))
        world.wait_for_waiters(1)
        cancelling = world.begin(world.done, CANCEL, root)
        world.wait_for_waiters(2)
    assert starting.result(20).answer == "go"
    done = cancelling.result(20)
    assert done.nested_in_flight == ((held.id, "n2"),)
    (last,) = world.query("SELECT max(started_at) AS at FROM steps")
    assert done.run.completed_at is not None
    assert last["at"] < done.run.completed_at


@pytest.mark.parametrize("cancel_first", [True, False])
def test_a_child_that_ends_while_it_is_cancelled_ends_once(
    world: World, cancel_first: bool
) -> None:
    root = world.put(RUNNING, due_at="'infinity'")
    held = nested_in_flight(world, root)
    ending = Boundary(
        held.id,
        METRONOME,
        held.token,
        ends=step(held, end=1).ends,
        move=step(held, move="complete").move,
        touches=[root],
    )
    work: list[Future[Any]] = []
    with world.locked(root):
        for cancels in (cancel_first, not cancel_first):
            if cancels:
                work.append(world.begin(take, world, CANCEL, held.id))
            else:
                work.append(world.begin(write, world, ending))
            world.wait_for_waiters(len(work))
    for one in work:
        one.result(20)

    assert world.run(held.id)["status"] == (CANCELLED if cancel_first else COMPLETED)
    assert world.audits(held.id) == (["run.cancelled"] if cancel_first else [])
    assert world.steps(held.id)[0]["status"] == COMPLETED
    assert world.run(root)["signalled"]
    assert world.claim().id == root
