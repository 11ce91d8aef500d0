"""What a person asks of a run without others below it: cancel, pause, resume, retry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.lifecycle import (
    ACTIONS,
    CANCEL,
    CANCELLED,
    CLAIMABLE,
    COMPLETED,
    FAILED,
    PAUSE,
    PAUSED,
    QUEUED,
    RESUME,
    RETRY,
    RUN_STATUSES,
    RUNNING,
    SKIPPED,
    TERMINAL,
    WAITING_APPROVAL,
    Action,
)
from app.store import leases, runs
from tests.processes import PATIENCE
from tests.store.world import ACTOR, METRONOME, ORGANIZATION, World, step

REQUESTS = [CANCEL, PAUSE, RESUME, RETRY]


def test_every_action_of_people_is_tried_in_the_tests_of_the_store() -> None:
    elsewhere = {"approve", "reject", "retry_in_doubt"}  # test_decisions.py, test_retries.py
    asked = {action.name for action in ACTIONS if action.audit}
    assert {action.name for action in REQUESTS} == asked - elsewhere


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("status", RUN_STATUSES)
@pytest.mark.parametrize("action", REQUESTS, ids=lambda action: action.name)
def test_an_action_moves_a_run_exactly_where_the_table_allows_it(
    world: World, action: Action, status: str, held: bool
) -> None:
    run_id = world.put(status, held=held)
    world.put_step(run_id, 1, COMPLETED, output="'{}'")
    before = world.everything()

    result = world.done(action, run_id)

    assert result.run.id == run_id
    if status not in action.sources:
        assert not result.moved
        assert result.run.status == status
        assert world.everything() == before
        return
    assert result.moved
    after = world.run(run_id)
    assert result.run.status == after["status"] == action.target
    assert result.run.updated_at == after["updated_at"]
    assert world.audits(run_id) == [action.audit]
    assert (after["completed_at"] is not None) == (action.target in TERMINAL)
    assert after["lease_token"] == before["runs"][0]["lease_token"]  # the holder keeps its hold
    if held:
        assert after["due_at"] == before["runs"][0]["due_at"]  # until the lease has ended
    else:
        assert (after["due_at"] is not None) == (action.target in CLAIMABLE)
    assert world.steps(run_id) == before["steps"]


def test_cancel_tells_who_did_it_in_the_same_transaction(world: World) -> None:
    run_id = world.put(RUNNING, held=True)
    by = replace(ACTOR, key_id="key_b", user_id="user_b")

    world.request(CANCEL, run_id, actor=by)

    (event,) = world.query("SELECT * FROM audit_events")
    told = {name: event[name] for name in ("actor_user_id", "actor_key_id", "user_id", "run_id")}
    assert told == {
        "actor_user_id": "user_b",
        "actor_key_id": "key_b",
        "user_id": "user_a",
        "run_id": run_id,
    }
    assert event["created_at"] >= world.run(run_id)["completed_at"]


# -- P3: nobody has to be alive


@pytest.mark.parametrize("status", [QUEUED, RUNNING, PAUSED, WAITING_APPROVAL])
def test_a_run_that_nobody_holds_is_cancelled_in_the_request_itself(
    world: World, status: str
) -> None:
    run_id = world.put(status, next_attempt_at="clock_timestamp() + interval '1 hour'")
    world.put_step(run_id, 1, COMPLETED, output="'{}'")
    world.put_step(run_id, 2, SKIPPED)
    parked = {RUNNING: RUNNING, PAUSED: PAUSED, WAITING_APPROVAL: WAITING_APPROVAL}.get(status)
    if parked is not None:
        world.put_step(run_id, 3, parked, wake_at="clock_timestamp() + interval '1 hour'")
    finished = world.steps(run_id)[:2]

    result = world.done(CANCEL, run_id)

    assert result.moved
    assert result.in_flight == ()
    run = world.run(run_id)
    assert run["status"] == CANCELLED
    assert (run["due_at"], run["next_attempt_at"], run["lease_token"]) == (None, None, None)
    assert run["completed_at"] is not None
    assert world.steps(run_id)[:2] == finished
    for closed in world.steps(run_id)[2:]:
        assert closed["status"] == CANCELLED
        assert closed["wake_at"] is None
        assert closed["started_at"] <= closed["completed_at"]
    assert leases.claim(world.raw(), "executor-1", limit=10, lease=60) == []


def test_a_backing_off_run_is_cancelled_and_never_wakes(world: World) -> None:
    held = world.in_flight()
    assert world.write(step(held, end=1, move="backoff")).answer == "go"
    assert world.run(held.id)["next_attempt_at"] is not None

    assert world.done(CANCEL, held.id).moved

    assert world.run(held.id)["next_attempt_at"] is None
    assert leases.next_due(world.raw()) is None


def test_a_paused_backoff_is_still_a_backoff_when_it_is_resumed(world: World) -> None:
    held = world.in_flight()
    world.write(step(held, end=1, move="backoff"))
    wanted = world.run(held.id)["due_at"]

    world.done(PAUSE, held.id)
    assert world.run(held.id)["due_at"] is None
    world.done(RESUME, held.id)

    resumed = world.run(held.id)
    assert abs((resumed["due_at"] - wanted).total_seconds()) < 1
    assert resumed["next_attempt_at"] is not None
    assert leases.claim(world.raw(), "executor-1", limit=1, lease=60) == []


def test_a_run_that_was_paused_beyond_its_backoff_is_due_at_once(world: World) -> None:
    run_id = world.put(PAUSED, next_attempt_at="clock_timestamp() - interval '1 second'")

    world.done(RESUME, run_id)

    assert world.run(run_id)["next_attempt_at"] is None
    assert world.claim().id == run_id


# -- P4: a second cancel changes nothing


@pytest.mark.parametrize("status", TERMINAL)
def test_cancel_of_a_run_that_has_ended_changes_nothing_at_all(world: World, status: str) -> None:
    run_id = world.put(status, output="'{\"n\": 1}'", error="'why'")
    world.put_step(run_id, 1, COMPLETED)
    before = world.everything()

    for _ in range(3):
        result = world.done(CANCEL, run_id)
        assert not result.moved
        assert result.run.status == status

    assert world.everything() == before


def test_a_second_cancel_changes_nothing_while_a_node_is_in_flight(world: World) -> None:
    held = world.in_flight()
    first = world.done(CANCEL, held.id)
    before = world.everything()

    second = world.done(CANCEL, held.id)

    assert (first.moved, second.moved) == (True, False)
    assert second.run == first.run
    assert first.in_flight == second.in_flight == ("n1",)
    assert world.everything() == before


def test_twenty_cancels_at_once_are_one_transition_and_one_audit_event(world: World) -> None:
    held = world.in_flight()
    with world.locked(held.id):
        waiting = [world.begin(lambda: world.done(CANCEL, held.id)) for _ in range(20)]
        world.wait_for_waiters(8)  # nearly as many as the pool has connections
    results = [one.result(PATIENCE) for one in waiting]

    assert sum(result.moved for result in results) == 1
    assert all(result.run == results[0].run for result in results)
    assert world.audits(held.id) == ["run.cancelled"]


# -- P5: what has happened stays


def test_cancel_leaves_what_is_in_flight_and_what_has_ended(world: World) -> None:
    run_id = world.put(RUNNING, held=True)
    world.put_step(run_id, 1, COMPLETED, output="'{\"a\": 1}'")
    world.put_step(run_id, 2, FAILED, error="'first try'")
    world.put_step(run_id, 3, SKIPPED)
    world.put_step(run_id, 4, RUNNING, lease_token="'token'")
    world.put_step(run_id, 5, RUNNING, wake_at="clock_timestamp() + interval '1 hour'")
    before = world.steps(run_id)

    result = world.done(CANCEL, run_id)

    after = world.steps(run_id)
    assert after[:4] == before[:4]
    assert after[4]["status"] == CANCELLED
    assert result.in_flight == ("n4",)


def test_cancel_touches_no_other_run(world: World) -> None:
    others = [world.put(status) for status in RUN_STATUSES]
    for run_id in others[1:4]:
        world.put_step(run_id, 1, RUNNING, wake_at="clock_timestamp()")
    cancelled = world.put(QUEUED)
    before = {run_id: (world.run(run_id), world.steps(run_id)) for run_id in others}

    world.done(CANCEL, cancelled)

    assert {run_id: (world.run(run_id), world.steps(run_id)) for run_id in others} == before


def test_a_resume_while_the_old_node_drains_waits_for_it_or_its_lease(world: World) -> None:
    held = world.in_flight()
    world.done(PAUSE, held.id)
    world.done(RESUME, held.id)
    assert leases.claim(world.raw(), "executor-2", limit=1, lease=60) == []

    world.expire(held.id)

    again = world.claim("executor-2")
    assert (again.id, again.lost, again.attempt_count) == (held.id, True, 1)


# -- P8: what is not yours is not there


@pytest.mark.parametrize("action", REQUESTS, ids=lambda action: action.name)
@pytest.mark.parametrize("status", RUN_STATUSES)
def test_foreign_runs_answer_as_unknown_ones_and_stay_as_they_are(
    world: World, action: Action, status: str
) -> None:
    run_id = world.put(status)
    stranger = replace(ACTOR, organization_id="org_b")
    before = world.everything()

    assert world.request(action, "run_unknown") is None
    assert world.request(action, run_id, actor=stranger) is None
    assert world.request(action, run_id, metronome="met_b") is None
    assert world.request(action, run_id, metronome="") is None

    assert world.everything() == before


def test_foreign_runs_are_neither_read_nor_attached_nor_deleted(world: World) -> None:
    run_id = world.put(COMPLETED)
    world.put_step(run_id, 1, COMPLETED)
    stranger = replace(ACTOR, organization_id="org_b")
    before = world.everything()
    strange = [
        (stranger, METRONOME, run_id),
        (ACTOR, "met_b", run_id),
        (ACTOR, METRONOME, "run_unknown"),
    ]
    with world.db.connect() as connection:
        for actor, metronome, run in strange:
            changes = {"attached_project_id": "p"}
            assert runs.get(connection, actor.organization_id, metronome, run) is None
            assert runs.attach(connection, actor, metronome, run, changes) is None
            assert runs.delete(connection, actor, metronome, run) is False
    assert world.everything() == before
    with world.db.connect() as connection:
        assert runs.get(connection, ORGANIZATION, METRONOME, run_id) is not None


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("status", RUN_STATUSES)
def test_only_a_run_that_has_ended_and_that_nobody_holds_is_deleted(
    world: World, status: str, held: bool
) -> None:
    run_id, other = world.put(status, held=held), world.put(COMPLETED)
    world.put_step(run_id, 1, COMPLETED)
    world.put_step(other, 1, COMPLETED)
    before = world.everything()
    wanted = status in TERMINAL and not held

    with world.db.connect() as connection:
        assert runs.delete(connection, ACTOR, METRONOME, run_id) is wanted

    if wanted:
        assert world.steps(run_id) == []
        assert [row["id"] for row in world.query("SELECT id FROM runs")] == [other]
        assert world.audits(run_id) == ["run.deleted"]
        assert len(world.steps(other)) == 1
    else:
        assert world.everything() == before
