"""Cancel, pause and resume of a run with runs below it; at the store."""

from __future__ import annotations

import time

import pytest

from app.domain.lifecycle import (
    CANCEL,
    CANCELLED,
    COMPLETED,
    FAILED,
    PAUSE,
    PAUSED,
    QUEUED,
    RESUME,
    RUN_STATUSES,
    RUNNING,
    TERMINAL,
    WAITING_APPROVAL,
)
from app.domain.models import Transitioned
from app.store import leases, transitions
from tests.store.world import ACTOR, METRONOME, World

ACTIVE = [status for status in RUN_STATUSES if status not in TERMINAL]


def statuses(world: World, *run_ids: str) -> list[str]:
    """The statuses of runs."""
    return [world.run(run_id)["status"] for run_id in run_ids]


def told(world: World) -> list[tuple[str, int, str]]:
    """Run, step and event of all that connectors have to be told."""
    rows = world.query("SELECT run_id, seq, event FROM outbox ORDER BY run_id, seq, created_at")
    return [(row["run_id"], row["seq"], row["event"]) for row in rows]


def resume(world: World, run_id: str, *, confirm: bool) -> Transitioned:
    """Resume a run that exists."""
    with world.db.connect() as connection:
        done = transitions.request(connection, RESUME, ACTOR, METRONOME, run_id, confirm=confirm)
    assert done is not None
    return done


# -- cancel


@pytest.mark.parametrize("status", ACTIVE)
def test_cancel_reaches_every_depth(world: World, status: str) -> None:
    root = world.put(RUNNING)
    child = world.put(status, parent=root)
    grandchild = world.put(status, parent=child, metronome_id="'met_other'")
    ended = world.put(COMPLETED, parent=child)
    for run_id in (root, child, grandchild):
        world.put_step(run_id, 1, RUNNING)
    before = world.run(ended)

    assert world.done(CANCEL, root).moved

    assert statuses(world, root, child, grandchild) == [CANCELLED] * 3
    assert world.run(ended) == before
    assert len({world.run(one)["completed_at"] for one in (root, child, grandchild)}) == 1
    for run_id in (root, child, grandchild):
        assert [one["status"] for one in world.steps(run_id)] == [CANCELLED]
        assert world.run(run_id)["due_at"] is None
        assert world.audits(run_id) == ["run.cancelled"]
    assert world.audits(ended) == []


def test_the_audit_of_a_nested_run_names_the_run_that_was_cancelled(world: World) -> None:
    root = world.put(RUNNING)
    child = world.put(QUEUED, parent=root)
    world.put(QUEUED, parent=child)

    world.done(CANCEL, root)

    events = world.query(
        "SELECT run_id, payload ->> 'cascadedFrom' AS origin FROM audit_events ORDER BY id"
    )
    assert [event["origin"] for event in events] == [None, root, root]
    assert events[0]["run_id"] == root


@pytest.mark.parametrize("action", [CANCEL, PAUSE, RESUME], ids=lambda action: action.name)
def test_what_is_above_or_beside_stays_as_it_is(world: World, action: object) -> None:
    status = PAUSED if action is RESUME else QUEUED
    root = world.put(RUNNING, held=True)
    child, beside = world.put(status, parent=root), world.put(status, parent=root)
    below_beside = world.put(status, parent=beside)
    before = [world.run(one) for one in (beside, below_beside)]

    assert world.done(action, child).moved  # type: ignore[arg-type]

    assert [world.run(one) for one in (beside, below_beside)] == before
    assert world.run(root)["status"] == RUNNING
    assert world.audits(root) == world.audits(beside) == []


def test_a_cancel_of_a_child_wakes_the_run_that_waits_for_it(world: World) -> None:
    root = world.put(RUNNING, due_at="'infinity'")
    child = world.put(QUEUED, parent=root)

    world.done(CANCEL, child)

    assert world.run(root)["signalled"]
    assert world.claim().id == root


@pytest.mark.parametrize("status", [QUEUED, PAUSED])
def test_the_run_above_is_signalled_but_not_hurried(world: World, status: str) -> None:
    root = world.put(
        status, due_at="clock_timestamp() + interval '1 hour'" if status == QUEUED else "NULL"
    )
    child = world.put(QUEUED, parent=root)
    due = world.run(root)["due_at"]

    world.done(CANCEL, child)

    assert world.run(root)["signalled"]
    assert world.run(root)["due_at"] == due
    assert leases.claim(world.raw(), "executor-1", limit=9, lease=60) == []


def test_an_ended_run_above_is_left_alone(world: World) -> None:
    root = world.put(FAILED)
    child = world.put(QUEUED, parent=root)
    before = world.run(root)

    world.done(CANCEL, child)

    assert world.run(root) == before


def test_a_cancel_of_an_ended_run_stops_what_it_left_below(world: World) -> None:
    root = world.put(FAILED)
    child = world.put(RUNNING, parent=root)
    before = world.run(root)

    assert not world.done(CANCEL, root).moved

    assert world.run(root) == before
    assert statuses(world, child) == [CANCELLED]
    assert (world.audits(root), world.audits(child)) == ([], ["run.cancelled"])


def test_in_flight_are_the_nodes_of_the_whole_tree(world: World) -> None:
    root = world.put(RUNNING, held=True)
    child = world.put(RUNNING, held=True, parent=root)
    cancelled = world.put(CANCELLED, held=True, parent=child)
    for run_id, node in ((root, "a"), (child, "b/c"), (cancelled, "d")):
        world.put_step(run_id, 1, RUNNING, node_id=f"'{node}'", lease_token="'token'")
        world.put_step(run_id, 2, RUNNING, node_id="'parked'")

    first = world.done(CANCEL, root)
    again = world.done(CANCEL, root)

    for done in (first, again):
        assert done.in_flight == ("a",)
        assert done.nested_in_flight == ((child, "b/c"), (cancelled, "d"))
    assert world.done(CANCEL, child).in_flight == ("b/c",)


def test_connectors_are_told_of_every_open_step_of_theirs(world: World) -> None:
    root = world.put(RUNNING, held=True)
    child = world.put(RUNNING, parent=root)
    world.put_step(root, 1, COMPLETED, connector="'imagine'")
    world.put_step(root, 2, RUNNING)
    world.put_step(root, 3, RUNNING, connector="'imagine'", lease_token="'token'")
    world.put_step(child, 1, RUNNING, connector="'action'")

    for _ in range(2):
        world.done(CANCEL, root)

    assert told(world) == [(root, 3, "node.cancelled"), (child, 1, "node.cancelled")]
    (row,) = world.query("SELECT * FROM outbox WHERE run_id = %s", child)
    expected = {"organization_id": "org_a", "metronome_id": METRONOME, "node_id": "n1"}
    assert expected.items() <= row.items()


def test_a_tree_of_a_thousand_is_cancelled_in_one_transaction_and_a_second(world: World) -> None:
    root = world.put(RUNNING)
    world.execute(
        "INSERT INTO runs (id, organization_id, metronome_id, user_id, version_id, trigger_type,"
        " input, status, due_at, started_at, parent_run_id, parent_seq, root_run_id, depth)"
        " SELECT %s || to_char(n, 'FM00000'), 'org_a', 'met_b', 'user_a', 'ver_a', 'metronome',"
        " '{}', 'running', 'infinity', clock_timestamp(),"
        " CASE WHEN n <= 10 THEN %s ELSE %s || to_char(n / 10, 'FM00000') END, 1, %s, 1"
        " FROM generate_series(1, 1000) n",
        *(root, root, root, root),
    )
    world.execute(
        "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
        " started_at, completed_at, connector)"
        " SELECT id, n, metronome_id, 'n' || n, 'x', CASE n WHEN 20 THEN 'running' ELSE"
        " 'completed' END, 1, clock_timestamp(), CASE n WHEN 20 THEN NULL ELSE clock_timestamp()"
        " END, 'action' FROM runs, generate_series(1, 20) n"
    )

    began = time.monotonic()
    assert world.done(CANCEL, root).moved
    took = time.monotonic() - began

    assert took < 1, took
    (row,) = world.query(
        "SELECT count(*) AS runs, count(DISTINCT xmin::text) AS transactions,"
        " count(DISTINCT completed_at) AS moments FROM runs WHERE status = 'cancelled'"
    )
    assert row == {"runs": 1001, "transactions": 1, "moments": 1}
    for table, condition in (
        ("steps", "status = 'cancelled'"),
        ("audit_events", "action = 'run.cancelled'"),
        ("outbox", "event = 'node.cancelled'"),
    ):
        (row,) = world.query(
            "SELECT count(*) AS rows, count(DISTINCT t.xmin::text) AS transactions,"
            f" min(t.xmin::text) = min(r.xmin::text) AS the_same FROM {table} t"
            f" JOIN runs r ON r.id = t.run_id WHERE t.{condition}"
        )
        assert row == {"rows": 1001, "transactions": 1, "the_same": True}


# -- pause and resume


@pytest.mark.parametrize("status", ACTIVE)
def test_pause_reaches_every_depth_and_resume_brings_it_back(world: World, status: str) -> None:
    root = world.put(RUNNING, due_at="'infinity'", next_attempt_at="NULL")
    child = world.put(QUEUED, parent=root)
    due = "NULL" if status == PAUSED else "clock_timestamp()"
    grandchild = world.put(status, parent=child, due_at=due, next_attempt_at="NULL")
    world.put_step(grandchild, 1, RUNNING, connector="'action'")
    waits = world.put(WAITING_APPROVAL, parent=root)
    world.put_step(waits, 1, WAITING_APPROVAL)
    steps = world.steps(grandchild), world.steps(waits)

    assert world.done(PAUSE, root).moved

    own = status == PAUSED  # somebody had paused that one before
    assert statuses(world, root, child, grandchild, waits) == [PAUSED] * 4
    assert [world.run(one)["paused_by"] for one in (root, child, waits)] == [root] * 3
    assert world.run(grandchild)["paused_by"] == (grandchild if own else root)
    assert leases.claim(world.raw(), "executor-1", limit=9, lease=60) == []
    assert world.audits(child) == ["run.paused"]
    assert told(world) == ([] if own else [(grandchild, 1, "node.paused")])

    assert world.done(RESUME, root).moved

    assert statuses(world, root, child, waits) == [QUEUED] * 3
    assert statuses(world, grandchild) == [PAUSED if own else QUEUED]
    assert world.run(root)["paused_by"] is None
    assert (world.steps(grandchild), world.steps(waits)) == steps
    claimed = leases.claim(world.raw(), "executor-1", limit=9, lease=60)
    assert {one.id for one in claimed} == {root, child, waits} | (set() if own else {grandchild})
    events = ["node.paused", "node.resumed"]
    assert [event for _, _, event in told(world)] == ([] if own else events)


def test_pause_leaves_a_node_in_flight_to_its_executor_and_its_connector(world: World) -> None:
    root = world.put(RUNNING, held=True)
    world.put_step(root, 1, RUNNING, connector="'action'", lease_token="'token'")
    before = world.steps(root)

    done = world.done(PAUSE, root)

    assert done.in_flight == ("n1",)
    assert world.steps(root) == before
    assert told(world) == []


def test_a_second_pause_changes_nothing(world: World) -> None:
    root = world.put(RUNNING)
    world.put(QUEUED, parent=root)
    world.done(PAUSE, root)
    before = world.everything()

    assert not world.done(PAUSE, root).moved

    assert world.everything() == before


def test_nothing_below_a_paused_run_is_resumed_alone(world: World) -> None:
    root = world.put(RUNNING)
    child = world.put(QUEUED, parent=root)
    grandchild = world.put(QUEUED, parent=child)
    alone = world.put(PAUSED, parent=child)
    world.done(PAUSE, root)
    before = world.everything()

    for run_id in (child, grandchild, alone):
        done = world.done(RESUME, run_id)
        assert not done.moved
        assert done.paused_above == (root, METRONOME)
        assert world.everything() == before


def test_what_was_paused_further_down_stays_so_with_all_below_it(world: World) -> None:
    root = world.put(RUNNING)
    child = world.put(RUNNING, parent=root)
    grandchild = world.put(RUNNING, parent=child)
    doubtful = world.put(PAUSED, parent=grandchild, in_doubt="true")
    world.done(PAUSE, child)
    world.done(PAUSE, root)

    resume(world, root, confirm=True)

    assert statuses(world, root, child, grandchild, doubtful) == [QUEUED, PAUSED, PAUSED, PAUSED]
    assert world.done(RESUME, child).moved
    assert statuses(world, child, grandchild, doubtful) == [QUEUED, QUEUED, PAUSED]


def test_a_signal_in_a_pause_is_looked_at_at_once_behind_it(world: World) -> None:
    root = world.put(RUNNING)  # it sleeps for an hour
    child = world.put(RUNNING, parent=root)
    world.done(PAUSE, root)
    world.done(CANCEL, child)
    world.done(RESUME, root)
    assert world.claim().id == root


# -- in doubt


def doubtful(world: World, parent: str | None = None) -> str:
    """A run of which nobody knows whether its node "ship" has run."""
    run_id = world.put(PAUSED, parent=parent, in_doubt="true", error="'in doubt'")
    lost = f"'{leases.EXECUTOR_LOST}'"
    world.put_step(run_id, 1, FAILED, node_id="'again'", unsafe="true", error=lost)
    world.put_step(run_id, 2, COMPLETED, node_id="'again'", unsafe="true")
    world.put_step(run_id, 3, FAILED, node_id="'refused'", unsafe="true", error="'no'")
    world.put_step(run_id, 4, FAILED, node_id="'ship'", unsafe="true", error=lost)
    return run_id


def test_a_run_in_doubt_is_resumed_with_a_confirmation_only(world: World) -> None:
    run_id = doubtful(world)
    child = world.put(PAUSED, parent=run_id, paused_by=f"'{run_id}'")
    before = world.everything()

    done = resume(world, run_id, confirm=False)
    assert not done.moved
    assert done.run.in_doubt
    assert done.doubtful == ("ship",)
    assert world.everything() == before

    done = resume(world, run_id, confirm=True)
    assert done.moved
    assert (done.run.in_doubt, done.run.error, done.doubtful) == (False, None, ())
    assert statuses(world, run_id, child) == [QUEUED, QUEUED]


@pytest.mark.parametrize("confirm", [False, True])
def test_a_nested_run_in_doubt_has_to_be_confirmed_too(world: World, confirm: bool) -> None:
    root = world.put(RUNNING)
    between = world.put(RUNNING, parent=root)
    nested = doubtful(world, parent=between)
    world.done(PAUSE, root)

    assert resume(world, root, confirm=confirm).moved

    assert statuses(world, root, between) == [QUEUED, QUEUED]
    assert statuses(world, nested) == [QUEUED if confirm else PAUSED]
    assert world.run(nested)["in_doubt"] != confirm
    if not confirm:
        assert resume(world, nested, confirm=True).moved


def test_below_a_run_in_doubt_others_are_paused_and_resumed_alone(world: World) -> None:
    root = doubtful(world)
    child = world.put(RUNNING, parent=root)
    assert world.done(PAUSE, child).moved
    assert world.done(RESUME, child).moved


def test_a_pause_of_a_run_in_doubt_pauses_what_is_below(world: World) -> None:
    root = doubtful(world)
    child = world.put(RUNNING, parent=root)

    assert not world.done(PAUSE, root).moved

    assert statuses(world, child) == [PAUSED]
    done = world.done(RESUME, child)
    assert (done.moved, done.paused_above) == (False, (root, METRONOME))
    resume(world, root, confirm=True)
    assert statuses(world, root, child) == [QUEUED, QUEUED]


def test_cancel_of_a_run_in_doubt_ends_it(world: World) -> None:
    run_id = doubtful(world)
    done = world.done(CANCEL, run_id)
    assert (done.run.status, done.run.in_doubt, done.run.error) == (CANCELLED, False, None)
