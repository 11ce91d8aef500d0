"""A function that ends its whole process, again and again or once in each node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.engine.interpreter import MAX_LOSSES
from app.store.leases import EXECUTOR_LOST
from benchmarks import checks
from tests.crash.conftest import Crew

Wait = Callable[..., Any]


def _keep_an_executor(crew: Crew, wait_for: Wait, run_id: str, status: str) -> int:
    """Start a new executor whenever one has ended, until the run has; how many there were."""
    for started in range(1, 3 * MAX_LOSSES):
        executor = crew.bench.start_executor(wait=False, METRONOME_LEASE_SECONDS="1")
        wait_for(lambda one=executor: one.returncode is not None or crew.ended(run_id, status))
        if executor.returncode is None:
            return started
    raise AssertionError(f"{crew.run(run_id)}\n{crew.bench.processes[-1].logs()}")


def test_a_run_that_ends_its_executors_again_and_again_is_given_up(
    crew: Crew, wait_for: Wait
) -> None:
    run_id = crew.queue(crew.plan(crew.function("fatal", until=99)))

    assert _keep_an_executor(crew, wait_for, run_id, "failed") == MAX_LOSSES + 1

    run = crew.run(run_id)
    assert run["error"].startswith(f"given up: {MAX_LOSSES} executors in a row were lost")
    assert len(checks.marks(crew.marks)) == MAX_LOSSES
    lost = [step for step in crew.trace(run_id) if step["node_id"] == "n1"]
    assert [step["error"] for step in lost] == [EXECUTOR_LOST] * MAX_LOSSES
    assert [one for one in checks.traces(crew.bench) if one.count] == []


def test_a_run_that_is_lost_often_but_progresses_completes(crew: Crew, wait_for: Wait) -> None:
    nodes = [crew.function("fatal", until=1) for _ in range(MAX_LOSSES + 1)]
    run_id = crew.queue(crew.plan(*nodes))

    assert _keep_an_executor(crew, wait_for, run_id, "completed") == len(nodes) + 1

    found = checks.traces(crew.bench) + checks.side_effects(crew.bench, crew.marks)
    assert [one for one in found if one.count] == []
