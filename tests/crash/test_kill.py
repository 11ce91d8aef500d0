"""Executors that are killed, stopped, frozen; and what another one makes of their runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

from app.services import concurrency, transitions
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED
from benchmarks import checks
from tests.crash.conftest import NO_END, Crew

Wait = Callable[..., Any]


def _nothing_is_wrong(crew: Crew) -> None:
    found = checks.traces(crew.bench) + checks.side_effects(crew.bench, crew.marks)
    assert [one for one in found if one.count] == []


def _completed(crew: Crew, run_id: str) -> list[str]:
    return [step["node_id"] for step in crew.trace(run_id) if step["status"] == "completed"]


def test_killed_executors_lose_no_run_and_run_no_finished_node_twice(
    crew: Crew, wait_for: Wait
) -> None:
    # The last node keeps every run from its end, so that whoever is to be killed holds one.
    nodes = [*(crew.function("deaf", seconds=0.1) for _ in range(11)), crew.gated()]
    plan = crew.plan(*nodes)
    executors = [crew.bench.start_executor(METRONOME_EXECUTOR_THREADS="4") for _ in range(2)]
    queued = [crew.queue(plan) for _ in range(6)]
    holds = "SELECT 1 FROM runs WHERE locked_by LIKE %s AND status = 'running'"
    for number in range(2):
        victim = executors[number]
        wait_for(lambda name=f"%:{victim.pid}:%": crew.bench.sql(holds, name))
        victim.kill9()
        executors.append(crew.bench.start_executor(METRONOME_EXECUTOR_THREADS="4"))

    crew.open_gate()
    crew.bench.wait_until_idle()

    for run_id in queued:
        assert crew.run(run_id)["status"] == "completed"
        assert len(_completed(crew, run_id)) == len(nodes) + 2
    assert {mark.node for mark in checks.marks(crew.marks)} == {f"n{n}" for n in range(1, 13)}
    _nothing_is_wrong(crew)


def test_where_nothing_else_tells_of_a_death_the_end_of_the_lease_does(
    crew: Crew, wait_for: Wait
) -> None:
    for _ in range(2):
        crew.bench.start_executor(METRONOME_LIVENESS="off")
    run_id = crew.queue(crew.plan(crew.function("touch_file"), crew.gated()))
    wait_for(lambda: crew.marked("n2"))
    crew.holder(run_id).kill9()
    held = crew.run(run_id)
    wait_for(lambda: crew.run(run_id)["lease_token"] != held["lease_token"])

    crew.open_gate()

    wait_for(lambda: crew.ended(run_id))
    trace = [step for step in crew.trace(run_id) if step["node_id"] == "n2"]
    lost, again = trace[-2:]
    assert (lost["status"], lost["error"]) == ("failed", EXECUTOR_LOST)
    assert (again["status"], again["attempt"]) == ("completed", lost["attempt"] + 1)
    lease_ended = datetime.fromisoformat(held["due_at"])
    assert datetime.fromisoformat(again["started_at"]) >= lease_ended
    assert [mark.node for mark in checks.marks(crew.marks)] == ["n1", *("n2" for _ in trace)]
    assert _completed(crew, run_id) == ["t", "n1", "n2", "end"]
    _nothing_is_wrong(crew)


def test_a_run_cancelled_while_its_executor_was_dead_is_closed_and_never_resumed(
    crew: Crew, wait_for: Wait
) -> None:
    executor = crew.bench.start_executor()
    plan = crew.plan(crew.gated(), crew.function("touch_file"))
    run_id = crew.queue(plan)
    wait_for(lambda: crew.in_flight(run_id, "n1"))
    executor.kill9()

    done = transitions.cancel(
        crew.bench.db, crew.bench.actor, plan.metronome_id, run_id, free=concurrency.leave
    )

    assert (done.run.status, done.in_flight) == ("cancelled", ("n1",))
    cancelled = crew.run(run_id)
    crew.bench.start_executor()
    wait_for(lambda: crew.ended(run_id, "cancelled"))
    run = crew.run(run_id)
    assert (run["completed_at"], run["updated_at"]) == (
        cancelled["completed_at"],
        cancelled["updated_at"],
    )
    (step,) = (step for step in crew.trace(run_id) if step["node_id"] == "n1")
    assert (step["status"], step["error"]) == ("failed", EXECUTOR_LOST)
    assert [step["node_id"] for step in crew.trace(run_id) if step["started_at"]] == ["t", "n1"]
    _nothing_is_wrong(crew)


def test_sigterm_lets_the_node_end_and_hands_the_run_over(crew: Crew, wait_for: Wait) -> None:
    nodes = [crew.function("touch_file"), crew.gated(), *(("note", {}) for _ in range(4))]
    run_id = crew.queue(crew.plan(*nodes))
    executor = crew.bench.start_executor(METRONOME_LEASE_SECONDS=NO_END, METRONOME_LOG_LEVEL="info")
    wait_for(lambda: crew.marked("n2"))

    executor.signal(signal.SIGTERM)
    wait_for(lambda: "draining" in executor.logs())
    assert crew.in_flight(run_id, "n2")
    crew.open_gate()
    assert executor.terminate() == 0

    run = crew.run(run_id)
    assert (run["status"], run["lease_token"]) == ("running", None)
    assert _completed(crew, run_id) == ["t", "n1", "n2"]
    assert len(crew.trace(run_id)) == 3
    crew.bench.start_executor(METRONOME_LEASE_SECONDS=NO_END)
    wait_for(lambda: crew.ended(run_id))
    assert {(step["status"], step["attempt"]) for step in crew.trace(run_id)} == {("completed", 1)}
    assert crew.run(run_id)["attempt_count"] == 1
    _nothing_is_wrong(crew)


def test_sigterm_leaves_a_node_behind_that_does_not_end_within_the_grace(
    crew: Crew, wait_for: Wait
) -> None:
    run_id = crew.queue(crew.plan(crew.gated()))
    executor = crew.bench.start_executor(
        METRONOME_LEASE_SECONDS=NO_END, METRONOME_GRACE_SECONDS="0.3"
    )
    wait_for(lambda: crew.marked("n1"))

    assert executor.terminate() == 0

    assert crew.run(run_id)["lease_token"] is None
    assert crew.trace(run_id)[-1]["error"] == EXECUTOR_STOPPED
    crew.open_gate()
    crew.bench.start_executor(METRONOME_LEASE_SECONDS=NO_END)
    wait_for(lambda: crew.ended(run_id))
    assert [step["status"] for step in crew.trace(run_id)] == [
        "completed",
        "failed",
        "completed",
        "completed",
    ]
    _nothing_is_wrong(crew)


def test_an_executor_that_was_frozen_beyond_its_lease_changes_nothing_afterwards(
    crew: Crew, wait_for: Wait
) -> None:
    nodes = [crew.function("deaf", seconds=0.1) for _ in range(7)]
    run_id = crew.queue(crew.plan(*nodes[:2], crew.gated(), *nodes[2:]))
    zombie = crew.bench.start_executor()
    wait_for(lambda: crew.marked("n3"))
    zombie.signal(signal.SIGSTOP)
    held = crew.run(run_id)["lease_token"]
    heir = crew.bench.start_executor(METRONOME_LEASE_SECONDS=NO_END)
    wait_for(lambda: crew.run(run_id)["lease_token"] != held)
    crew.open_gate()
    wait_for(lambda: crew.ended(run_id))
    crew.bench.stop(heir)
    before = crew.run(run_id), crew.trace(run_id), checks.marks(crew.marks)

    zombie.signal(signal.SIGCONT)

    wait_for(lambda: "the lease was lost" in zombie.logs())
    other = crew.queue(crew.plan())
    wait_for(lambda: crew.ended(other))
    assert (crew.run(run_id), crew.trace(run_id), checks.marks(crew.marks)) == before
    _nothing_is_wrong(crew)
