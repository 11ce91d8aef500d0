"""The stress run sees what it looks for: each kind of lie that is told to its database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    WAITING_APPROVAL,
    Action,
)
from app.store.leases import EXECUTOR_LOST
from benchmarks import ledger
from benchmarks.server import Bench, Server
from tests.store.world import World, step

NOW = "clock_timestamp()"


@pytest.fixture
def bench(server_url: str, tmp_path: Path) -> Iterator[Bench]:
    """A database in which everything is written down."""
    with Server(server_url, tmp_path, None).bench() as bench:
        ledger.install(bench)
        yield bench


@pytest.fixture
def world(bench: Bench) -> Iterator[World]:
    """What puts runs into it."""
    world = World(bench.db)
    yield world
    world.close()


def _found(bench: Bench) -> set[str]:
    return {one.name for one in ledger.judge(bench) if one.count} - {
        # the world puts runs and steps into the tables as nobody else would
        "runs without exactly one audit event of their begin",
        "nested runs whose step is not theirs",
        "steps that started while their run was not running",
    }


def _ended(world: World) -> str:
    """A run that has completed, with one step."""
    claimed = world.in_flight()
    assert world.write(step(claimed, end=1, move="complete")).answer == "go"
    return claimed.id


def test_nothing_is_found_where_all_went_well(world: World, bench: Bench) -> None:
    run_id = _ended(world)
    for action in (CANCEL, PAUSE, RETRY):
        world.done(action, run_id)
    claimed = world.in_flight()
    for action in (PAUSE, RESUME, CANCEL, CANCEL, RETRY, CANCEL):
        world.done(action, claimed.id)
    waits = world.put(WAITING_APPROVAL)
    world.put_step(waits, 1, WAITING_APPROVAL)
    world.decide(waits)
    world.done(CANCEL, waits)
    world.write(step(claimed, end=1))
    world.expire(claimed.id)
    assert _found(bench) == set()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("UPDATE runs SET error = 'late'", "changes of what had ended"),
        ("UPDATE runs SET output = '{}', updated_at = updated_at", "changes of what had ended"),
        ("UPDATE steps SET output = NULL", "changes of what had ended"),
        ("DELETE FROM steps", "changes of what had ended"),
        (
            f"UPDATE runs SET status = '{CANCELLED}'",
            "changes of status that the lifecycle does not have",
        ),
        (
            f"UPDATE runs SET status = '{QUEUED}', completed_at = NULL, due_at = {NOW}",
            "changes without exactly one audit event of their own",
        ),
    ],
)
def test_a_change_of_what_has_ended_is_found(
    world: World, bench: Bench, change: str, check: str
) -> None:
    _ended(world)
    assert check not in _found(bench)
    bench.sql("DROP TABLE places")
    world.execute(change)
    assert check in _found(bench)


def test_what_a_late_callback_leaves_is_no_change(world: World, bench: Bench) -> None:
    _ended(world)
    world.execute("""UPDATE steps SET metadata = '{"lateCallback": {}}'""")
    world.execute("UPDATE runs SET due_at = NULL")
    assert _found(bench) == set()


@pytest.mark.parametrize(
    ("action", "change"),
    [
        (CANCEL, f"status = '{CANCELLED}', completed_at = {NOW}, due_at = NULL"),
        (PAUSE, f"status = '{PAUSED}', due_at = NULL"),
    ],
)
def test_a_stop_without_audit_and_an_audit_without_stop_are_found(
    world: World, bench: Bench, action: Action, change: str
) -> None:
    world.execute(f"UPDATE runs SET {change} WHERE id = %s", world.put())
    world.done(action, world.put())
    world.execute("UPDATE audit_events SET xid = '3'")
    assert {
        "changes without exactly one audit event of their own",
        "audit events that tell of no change",
    } <= _found(bench)


def test_a_decision_that_is_audited_twice_is_found(world: World, bench: Bench) -> None:
    run_id = world.put(WAITING_APPROVAL)
    world.put_step(run_id, 1, WAITING_APPROVAL)
    world.decide(run_id)
    assert world.audits(run_id) == [APPROVE.audit]
    assert _found(bench) == set()
    bench.sql("DROP TABLE places")
    world.execute(
        "INSERT INTO audit_events (id, organization_id, metronome_id, user_id, actor_user_id,"
        " actor_key_id, run_id, action, payload) SELECT id || '2', organization_id, metronome_id,"
        " user_id, actor_user_id, actor_key_id, run_id, action, payload FROM audit_events"
    )
    assert "decisions without exactly one audit event" in _found(bench)


@pytest.mark.parametrize("action", [CANCEL, PAUSE])
def test_a_start_behind_a_stop_is_found_wherever_in_the_tree(
    world: World, bench: Bench, action: Action
) -> None:
    above = world.in_flight()
    below = world.put(parent=above.id)
    world.done(action, above.id)
    for run_id in (above.id, below):
        world.put_step(run_id, 2, RUNNING, lease_token="'gone'")
    found = {one.name: one for one in ledger.judge(bench)}
    of_below = (
        f"steps that started below a run that {'was paused' if action is PAUSE else 'had ended'}"
    )
    assert found["steps that started while their run was not running"].count == 2
    assert found[of_below].count == 1


def test_a_run_that_outlives_the_one_above_is_found(world: World, bench: Bench) -> None:
    above = world.in_flight()
    world.done(CANCEL, above.id)
    world.put(parent=above.id, created_at=f"{NOW} - interval '1 hour'")
    world.put(parent=above.id)
    found = _found(bench)
    assert "runs that outlived the end of one above" in found
    assert "runs that began while the one above was not running" in found
    assert "runs that go on below one that has ended" in found


def test_nodes_are_told_apart_by_their_iteration_and_by_the_attempt_of_the_run(
    world: World, bench: Bench
) -> None:
    run_id = world.put(RUNNING)
    world.put_step(run_id, 1, FAILED, node_type="'loop'", node_id="'l'")
    inside = {"node_id": "'n'", "parent_seq": "1"}
    world.put_step(run_id, 2, COMPLETED, **inside, iteration="0")
    world.put_step(run_id, 3, COMPLETED, **inside, iteration="1")
    assert "finished nodes run twice in one iteration" not in _found(bench)
    bench.sql("DROP TABLE places")
    goes_on = f"""'{{"continues": "step_{run_id.removeprefix("run_")}_000001"}}'"""
    world.put_step(
        run_id, 4, RUNNING, node_type="'loop'", node_id="'l'", attempt="2", metadata=goes_on
    )
    world.put_step(run_id, 5, COMPLETED, node_id="'n'", parent_seq="4", iteration="1", attempt="2")
    found = _found(bench)
    assert "finished nodes run twice in one iteration" in found
    assert "nodes started again after they finished in that iteration" in found


def test_an_unsafe_node_that_runs_again_unasked_is_found(world: World, bench: Bench) -> None:
    run_id = world.put(RUNNING)
    node = {"node_id": "'n'", "unsafe": "true"}
    world.put_step(run_id, 1, FAILED, **node, error=f"'{EXECUTOR_LOST}'")
    world.put_step(run_id, 2, RUNNING, **node, attempt="2")
    assert "unsafe nodes that ran again though nobody said so" in _found(bench)


def test_waits_that_nobody_ends_are_found(world: World, bench: Bench) -> None:
    world.put(RUNNING, due_at="'infinity'")
    heard = world.put(RUNNING)
    world.put_step(heard, 1, RUNNING, result="'{}'")
    names = {one.name for one in ledger.snapshot(bench)}
    assert "runs that wait for what will never come" in names
    assert "runs with news that nobody is to look at" in names
