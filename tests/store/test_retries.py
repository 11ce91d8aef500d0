"""Retry: from the start, behind the finished steps, and of a run in doubt; at the store."""

from __future__ import annotations

from datetime import datetime, timedelta

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
    RETRY,
    RUN_STATUSES,
    RUNNING,
    WAITING_APPROVAL,
)
from app.domain.models import Transitioned
from app.store import leases, retries, sweeps, transitions
from tests.store.world import ACTOR, METRONOME, Ear, World, step


def retry(world: World, run_id: str, *, afresh: bool) -> Transitioned:
    """Retry a run that exists."""
    with world.db.connect() as connection:
        done = retries.retry(connection, ACTOR, METRONOME, run_id, afresh=afresh)
    assert done is not None
    return done


def test_a_retry_begins_a_new_attempt_and_keeps_the_trace(world: World) -> None:
    held = world.in_flight()
    world.write(step(held, end=1, move="fail"))
    before = world.steps(held.id)

    world.done(RETRY, held.id)

    queued = world.run(held.id)
    assert queued["status"] == QUEUED
    assert (queued["error"], queued["output"], queued["completed_at"]) == (None, None, None)
    assert queued["max_attempts"] == 2
    again = world.claim()
    assert (again.attempt_count, again.begun, again.lost) == (2, True, False)
    assert world.steps(held.id) == before


def test_a_retry_while_the_old_node_drains_waits_for_it(world: World) -> None:
    held = world.in_flight()
    world.done(CANCEL, held.id)
    world.done(RETRY, held.id)
    assert leases.claim(world.raw(), "executor-2", limit=1, lease=60) == []

    assert world.write(step(held, end=1, start=2)).answer == "stopped"
    assert leases.let_go(world.raw(), held.id, held.token) == QUEUED

    assert world.claim("executor-2").id == held.id
    assert [one["status"] for one in world.steps(held.id)] == [COMPLETED]


@pytest.mark.parametrize("status", [FAILED, CANCELLED])
def test_a_retry_from_the_start_leaves_what_came_before_out_of_account(
    world: World, status: str
) -> None:
    run_id = world.put(status, attempt_count="2", takeovers="3", deadline_at="clock_timestamp()")
    for seq, attempt in ((1, 1), (2, 1), (3, 4), (4, 2)):
        world.put_step(run_id, seq, COMPLETED, attempt=str(attempt))

    assert retry(world, run_id, afresh=True).moved

    run = world.run(run_id)
    assert (run["base_seq"], run["base_attempt"], run["takeovers"]) == (4, 4, 0)
    assert (run["started_at"], run["deadline_at"], run["max_attempts"]) == (None, None, 3)
    (event,) = world.query("SELECT action, payload ->> 'from' AS start FROM audit_events")
    assert (event["action"], event["start"]) == ("run.retried", "start")


def test_a_retry_of_what_failed_goes_on_behind_the_finished_steps(world: World) -> None:
    run_id = world.put(FAILED, base_seq="3", base_attempt="2", max_attempts="9")
    world.put_step(run_id, 4, COMPLETED, attempt="3")

    retry(world, run_id, afresh=False)

    run = world.run(run_id)
    assert (run["base_seq"], run["base_attempt"], run["max_attempts"]) == (3, 2, 9)
    assert run["attempt_due"]
    (event,) = world.query("SELECT payload ->> 'from' AS start FROM audit_events")
    assert event["start"] == "failed"


def test_a_run_without_steps_is_retried_from_the_start(world: World) -> None:
    run_id = world.put(CANCELLED)
    assert retry(world, run_id, afresh=True).moved
    assert (world.run(run_id)["base_seq"], world.run(run_id)["base_attempt"]) == (0, 0)


@pytest.mark.parametrize("in_doubt", [False, True], ids=["sure", "in doubt"])
@pytest.mark.parametrize("afresh", [False, True], ids=["failed", "start"])
def test_a_paused_run_is_retried_only_in_doubt(world: World, afresh: bool, in_doubt: bool) -> None:
    run_id = world.put(PAUSED, in_doubt=str(in_doubt), error="'in doubt: ...'")
    before = world.everything()

    assert retry(world, run_id, afresh=afresh).moved == in_doubt

    if not in_doubt:
        assert world.everything() == before
        return
    run = world.run(run_id)
    assert (run["status"], run["in_doubt"], run["error"]) == (QUEUED, False, None)
    assert run["paused_by"] is None
    assert world.audits(run_id) == ["run.retried"]


@pytest.mark.parametrize("status", RUN_STATUSES)
def test_a_nested_run_is_retried_by_the_run_above_only(world: World, status: str) -> None:
    above = world.put(RUNNING)
    run_id = world.put(status, parent=above, in_doubt=str(status == PAUSED))
    before = world.everything()

    assert not retry(world, run_id, afresh=True).moved

    assert world.everything() == before


def test_from_the_start_what_still_goes_on_in_a_run_in_doubt_is_given_up(world: World) -> None:
    run_id = world.put(PAUSED, in_doubt="true")
    world.put_step(run_id, 1, FAILED)
    world.put_step(run_id, 2, WAITING_APPROVAL)
    world.put_step(run_id, 3, RUNNING, connector="'imagine'")
    child = world.put(RUNNING, parent=run_id, parent_seq="2")
    world.put_step(child, 1, RUNNING, connector="'action'")

    retry(world, run_id, afresh=True)

    assert [one["status"] for one in world.steps(run_id)] == [FAILED, CANCELLED, CANCELLED]
    assert world.run(child)["status"] == CANCELLED
    assert [one["status"] for one in world.steps(child)] == [CANCELLED]
    assert world.audits(child) == ["run.cancelled"]
    told = world.query("SELECT run_id, connector, event FROM outbox ORDER BY run_id")
    assert [tuple(row.values()) for row in told] == [
        (run_id, "imagine", "node.cancelled"),
        (child, "action", "node.cancelled"),
    ]


def test_behind_the_finished_steps_the_other_branches_of_a_run_in_doubt_go_on(
    world: World,
) -> None:
    run_id = world.put(PAUSED, in_doubt="true", signalled="true")
    world.put_step(run_id, 1, FAILED)
    world.put_step(run_id, 2, RUNNING, connector="'imagine'")
    child = world.put(RUNNING, parent=run_id, parent_seq="2")
    before = world.steps(run_id), world.run(child)

    retry(world, run_id, afresh=False)

    assert (world.steps(run_id), world.run(child)) == before
    assert world.run(run_id)["signalled"]
    told = world.query("SELECT run_id, seq, event FROM outbox")
    assert told == [{"run_id": run_id, "seq": 2, "event": "node.resumed"}]


def test_a_run_in_doubt_that_goes_on_takes_along_what_its_pause_had_paused(world: World) -> None:
    root = world.put(RUNNING)
    child = world.put(RUNNING, parent=root, parent_seq="1")
    grandchild = world.put(WAITING_APPROVAL, parent=child)
    own = world.put(PAUSED, parent=child)
    below = world.put(RUNNING, parent=own)
    lost = world.put(RUNNING, parent=root, parent_seq="2", held=True)
    world.put_step(root, 1, RUNNING)
    waits = """'{"callback": {"deadline": "2999-01-01T00:00:00Z", "heartbeatMs": 60000}}'"""
    columns = {"connector": "'action'", "output": waits, "wake_at": "'2001-01-01Z'"}
    world.put_step(child, 1, RUNNING, **columns)
    unsafe = {"unsafe": "true", "lease_token": "'gone'"}
    world.put_step(lost, 1, RUNNING, **unsafe)
    world.done(PAUSE, root)
    world.execute("UPDATE runs SET in_doubt = true WHERE id = %s", root)
    world.expire(lost)
    assert sweeps.sweep(world.raw()).runs == (lost,)
    heard = Ear(world, leases.DUE_CHANNEL)

    assert retry(world, root, afresh=False).moved

    statuses = [world.run(one)["status"] for one in (root, child, grandchild, own, below, lost)]
    assert statuses == [QUEUED, QUEUED, QUEUED, PAUSED, PAUSED, PAUSED]
    assert world.run(lost)["in_doubt"]
    assert world.run(child)["paused_by"] is None
    assert heard.all() == [""]
    assert (world.audits(root), world.audits(child)) == (
        ["run.paused", "run.retried"],
        ["run.paused", "run.resumed"],
    )
    (event,) = world.query(
        "SELECT payload ->> 'cascadedFrom' AS origin FROM audit_events"
        " WHERE run_id = %s AND action = 'run.resumed'",
        grandchild,
    )
    assert event["origin"] == root
    rows = world.query("SELECT event FROM outbox WHERE run_id = %s ORDER BY created_at", child)
    assert [row["event"] for row in rows] == ["node.paused", "node.resumed"]
    silent: datetime = world.steps(child)[0]["wake_at"]
    assert silent - world.run(child)["updated_at"] == timedelta(seconds=60)
    claimed = leases.claim(world.raw(), "executor-1", limit=9, lease=60)
    assert {one.id for one in claimed} == {root, child, grandchild}
    with world.db.connect() as connection:
        resumed = transitions.request(connection, RESUME, ACTOR, METRONOME, lost, confirm=True)
    assert resumed is not None
    assert resumed.moved


def test_a_retry_from_the_start_of_a_run_in_doubt_resumes_nothing_below(world: World) -> None:
    root = world.put(RUNNING)
    child = world.put(RUNNING, parent=root)
    world.done(PAUSE, root)
    world.execute("UPDATE runs SET in_doubt = true WHERE id = %s", root)
    assert retry(world, root, afresh=True).moved
    assert world.run(child)["status"] == CANCELLED
    assert world.audits(child) == ["run.paused", "run.cancelled"]


@pytest.mark.parametrize("afresh", [False, True], ids=["failed", "start"])
@pytest.mark.parametrize("status", [PAUSED, FAILED, CANCELLED])
def test_what_a_retry_confirms(world: World, status: str, afresh: bool) -> None:
    """Who retries a run in doubt knows of it; who retries a failed one need not."""
    run_id = world.put(status, in_doubt=str(status == PAUSED), confirmed_seq="1")
    for seq in (1, 2, 3):
        world.put_step(run_id, seq, FAILED)
    assert retry(world, run_id, afresh=afresh).moved
    confirmed = 3 if afresh or status == PAUSED else 1
    assert world.run(run_id)["confirmed_seq"] == confirmed
    assert world.claim().confirmed_seq == confirmed


def test_a_retry_cancels_what_an_earlier_attempt_left_below(world: World) -> None:
    run_id = world.put(FAILED)
    child = world.put(QUEUED, parent=run_id)
    grandchild = world.put(RUNNING, parent=child, held=True)

    retry(world, run_id, afresh=False)

    assert world.run(run_id)["status"] == QUEUED
    assert {world.run(one)["status"] for one in (child, grandchild)} == {CANCELLED}
    assert world.run(grandchild)["lease_token"] is not None
