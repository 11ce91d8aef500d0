"""Executors that are killed while runs wait for others below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.services import concurrency, transitions
from benchmarks import checks
from benchmarks.server import Plan
from tests.crash.conftest import Crew

Wait = Callable[..., Any]


def _tree(crew: Crew, wait_for: Wait) -> tuple[Plan, list[str]]:
    """A run, the run below it and the one below that, which stands at the gate."""
    plan = crew.plan(crew.gated())
    for _ in range(2):
        plan = crew.plan(("metronome", {"workflowId": plan.metronome_id}))
    root = crew.queue(plan)
    wait_for(lambda: crew.marked("n1"))
    tree = [line[0] for line in crew.bench.sql("SELECT id FROM runs ORDER BY id")]
    assert (tree[0], len(tree)) == (root, 3)
    above = "SELECT 1 FROM runs WHERE lease_token IS NOT NULL"
    wait_for(lambda: len(crew.bench.sql(above)) == 1)  # only the last one holds a thread
    return plan, tree


def test_a_tree_whose_executor_is_killed_goes_on_at_another_one(crew: Crew, wait_for: Wait) -> None:
    for _ in range(2):
        crew.bench.start_executor()
    _, (root, middle, bottom) = _tree(crew, wait_for)
    crew.holder(bottom).kill9()
    crew.open_gate()
    for run_id in (bottom, middle, root):
        wait_for(lambda one=run_id: crew.ended(one))
    assert len(crew.bench.sql("SELECT 1 FROM runs")) == 3
    assert [one for one in checks.traces(crew.bench) if one.count] == []


def test_a_tree_that_was_cancelled_while_its_executor_was_dead_is_closed(
    crew: Crew, wait_for: Wait
) -> None:
    executor = crew.bench.start_executor()
    plan, (root, middle, bottom) = _tree(crew, wait_for)
    executor.kill9()

    done = transitions.cancel(
        crew.bench.db, crew.bench.actor, plan.metronome_id, root, free=concurrency.leave
    )

    assert done.nested_in_flight == ((bottom, "n1"),)
    assert {crew.run(one)["status"] for one in (root, middle, bottom)} == {"cancelled"}
    crew.bench.start_executor()
    wait_for(lambda: crew.ended(bottom, "cancelled"))
    assert crew.trace(bottom)[-1]["status"] == "failed"
    assert [one for one in checks.traces(crew.bench) if one.count] == []
