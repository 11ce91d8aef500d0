"""Executors that end while a node is in flight that is unsafe to replay: nobody guesses."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from app.domain.lifecycle import PAUSE, RESUME, Action
from app.store import transitions
from app.store.leases import EXECUTOR_LOST, EXECUTOR_STOPPED, IN_DOUBT
from benchmarks import checks
from benchmarks.server import Plan
from tests.crash.conftest import Crew

Wait = Callable[..., Any]


def _ask(crew: Crew, action: Action, plan: Plan, run_id: str, *, confirm: bool = False) -> bool:
    with crew.bench.db.connect() as connection:
        done = transitions.request(
            connection, action, crew.bench.actor, plan.metronome_id, run_id, confirm=confirm
        )
    assert done is not None
    return done.moved


def _in_doubt(crew: Crew, run_id: str) -> bool:
    run = crew.run(run_id)
    return bool(run["in_doubt"] and run["lease_token"] is None)


def _unsafe_in_flight(crew: Crew, wait_for: Wait) -> tuple[Plan, str]:
    plan = crew.plan(crew.unsafe(), crew.function("touch_file"))
    run_id = crew.queue(plan)
    wait_for(lambda: crew.marked("n1"))
    return plan, run_id


def _goes_on_when_confirmed(
    crew: Crew, wait_for: Wait, plan: Plan, run_id: str, error: str
) -> None:
    run, (_, lost) = crew.run(run_id), crew.trace(run_id)
    assert (run["status"], run["error"]) == ("paused", IN_DOUBT.format(node="n1"))
    assert (lost["status"], lost["error"]) == ("failed", error)
    assert not _ask(crew, RESUME, plan, run_id)
    assert [mark.node for mark in checks.marks(crew.marks)] == ["n1"]
    crew.open_gate()
    assert _ask(crew, RESUME, plan, run_id, confirm=True)
    wait_for(lambda: crew.ended(run_id))
    assert [mark.node for mark in checks.marks(crew.marks)] == ["n1", "n1", "n2"]
    found = checks.traces(crew.bench) + checks.side_effects(crew.bench, crew.marks)
    assert [one for one in found if one.count] == []


def test_a_killed_executor_leaves_a_doubt_to_the_one_that_takes_over(
    crew: Crew, wait_for: Wait
) -> None:
    for _ in range(2):
        crew.bench.start_executor()
    plan, run_id = _unsafe_in_flight(crew, wait_for)
    crew.holder(run_id).kill9()
    wait_for(lambda: _in_doubt(crew, run_id))
    _goes_on_when_confirmed(crew, wait_for, plan, run_id, EXECUTOR_LOST)


def test_a_killed_executor_leaves_a_doubt_in_a_paused_run_too(crew: Crew, wait_for: Wait) -> None:
    for _ in range(2):
        crew.bench.start_executor()
    plan, run_id = _unsafe_in_flight(crew, wait_for)
    assert _ask(crew, PAUSE, plan, run_id)
    crew.holder(run_id).kill9()
    wait_for(lambda: _in_doubt(crew, run_id))
    _goes_on_when_confirmed(crew, wait_for, plan, run_id, EXECUTOR_LOST)


def test_a_doubt_is_there_when_sigterm_has_left_the_node_behind(crew: Crew, wait_for: Wait) -> None:
    executor = crew.bench.start_executor(METRONOME_GRACE_SECONDS="0.3")
    plan, run_id = _unsafe_in_flight(crew, wait_for)
    assert executor.terminate() == 0
    assert _in_doubt(crew, run_id)
    crew.bench.start_executor()
    _goes_on_when_confirmed(crew, wait_for, plan, run_id, EXECUTOR_STOPPED)


def test_no_unsafe_node_runs_again_unasked_wherever_its_executor_was_killed(
    crew: Crew, wait_for: Wait
) -> None:
    nodes = [crew.function("unsafe", seconds=0.05) for _ in range(30)]
    plan = crew.plan(*nodes)
    runs = [crew.queue(plan) for _ in range(3)]
    asked: Counter[tuple[str, str]] = Counter()  # confirmations by run and node
    chance = random.Random(3)  # the same moments each time, as far as processes allow
    kills = 4

    def settle() -> bool:
        for run_id in runs:
            if _in_doubt(crew, run_id):
                last = crew.trace(run_id)[-1]
                asked[run_id, last["node_id"]] += 1
                assert _ask(crew, RESUME, plan, run_id, confirm=True)
        return all(crew.ended(run_id) for run_id in runs)

    for number in range(kills + 1):
        executor = crew.bench.start_executor()
        if number < kills:
            time.sleep(chance.uniform(0.1, 1.2))  # the moment of the kill is the input here
            executor.kill9()
            held = "SELECT 1 FROM runs WHERE lease_token IS NOT NULL AND due_at > clock_timestamp()"
            wait_for(lambda sql=held: not crew.bench.sql(sql))
            settle()
    wait_for(settle)

    ran = Counter(
        (one["run_id"], one["node_id"])
        for run_id in runs
        for one in crew.trace(run_id)
        if one["node_type"] == "function" and one["started_at"]
    )
    assert ran == Counter({key: 1 + asked[key] for key in ran})
    assert len(ran) == len(runs) * len(nodes)
    assert len(checks.marks(crew.marks)) <= ran.total()
    found = checks.traces(crew.bench) + checks.side_effects(crew.bench, crew.marks)
    assert [one for one in found if one.count] == []
