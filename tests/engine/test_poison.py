"""A run that ends its executors again and again is given up; one that only has bad luck is not."""

from __future__ import annotations

import threading
from typing import ClassVar

import pytest

from app.domain.models import Run
from app.domain.outcomes import Done, Outcome
from app.engine.interpreter import MAX_LOSSES, MAX_TAKEOVERS
from app.nodes.base import Context, NodeKind
from app.store.leases import EXECUTOR_LOST
from tests.engine.bodies import inside, loop
from tests.engine.conftest import Lab, node
from tests.engine.operators import child, is_whole, lose, retry, sql, step, waits
from tests.processes import wait_for


class Trap(NodeKind):
    """Each node holds the first ``times`` calls for ever, as if its executor had gone."""

    kind: ClassVar[str] = "trap"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.freed = threading.Event()

    def run(self, context: Context) -> Outcome:
        self.calls.append(context.node_id)
        if self.calls.count(context.node_id) <= context.config["times"]:
            assert self.freed.wait(60)
        return Done()


@pytest.fixture
def trap(lab: Lab) -> Trap:
    """The kind, known to an executor with threads enough for all that are held."""
    kind = lab.kinds["trap"] = Trap()
    lab.start(threads=32, lease=300.0)
    return kind


def lose_again(lab: Lab, trap: Trap, run: Run, times: int) -> None:
    """Lose the run's executor ``times`` times, each time with a node in flight."""
    for _ in range(times):
        before = len(trap.calls)
        lose(lab, run)
        wait_for(lambda n=before: len(trap.calls) > n or lab.get(run).completed_at)  # type: ignore[misc]


def poisoned(lab: Lab, trap: Trap) -> Run:
    """A run that was given up."""
    run = lab.queue(
        node("trigger"), node("trap", times=MAX_LOSSES + 1), node("end"), max_attempts=9
    )
    wait_for(lambda: trap.calls)
    lose_again(lab, trap, run, MAX_LOSSES)
    return lab.until(run, "failed")


def test_a_node_that_ends_its_executors_again_and_again_fails_its_run(lab: Lab, trap: Trap) -> None:
    run = poisoned(lab, trap)
    assert run.error is not None
    assert run.error.startswith(f"given up: {MAX_LOSSES} executors in a row were lost")
    assert (run.attempt_count, len(trap.calls)) == (1, MAX_LOSSES)
    attempts = [(one.attempt, one.error) for one in lab.trace(run) if one.node_id == "trap"]
    assert attempts == [(number, EXECUTOR_LOST) for number in range(1, MAX_LOSSES + 1)]
    trap.freed.set()
    is_whole(lab)


@pytest.mark.parametrize("afresh", [True, False])
def test_a_retry_of_a_run_that_was_given_up_has_all_its_chances_again(
    lab: Lab, trap: Trap, afresh: bool
) -> None:
    run = poisoned(lab, trap)
    retry(lab, run, afresh=afresh)
    wait_for(lambda: len(trap.calls) == MAX_LOSSES + 1)
    lose(lab, run)
    lab.until(run, "completed")
    trap.freed.set()
    is_whole(lab)


def test_a_run_that_is_lost_often_but_progresses_is_no_poison(lab: Lab, trap: Trap) -> None:
    names = [f"trap{number}" for number in range(MAX_LOSSES + 2)]
    run = lab.queue(node("trigger"), *(node("trap", name, times=1) for name in names), node("end"))
    for place in range(len(names)):
        wait_for(lambda n=2 * place + 1: len(trap.calls) == n)  # type: ignore[misc]
        if place == 1:  # as if it had been on its way, and lost, for very long
            sql(lab, "UPDATE runs SET takeovers = :most", most=MAX_TAKEOVERS)
        lose(lab, run)
    lab.until(run, "completed")
    assert trap.calls == [name for name in names for _ in range(2)]
    trap.freed.set()
    is_whole(lab)


def test_what_goes_well_beside_a_poisonous_node_does_not_hide_it(lab: Lab, trap: Trap) -> None:
    run = lab.queue(
        node("trigger"),
        loop(iterations=30),
        *inside("loop", node("delay", "tick", seconds=0.05)),
        loop("beside", iterations=1),
        *inside("beside", node("trap", times=MAX_LOSSES + 1)),
        node("end"),
        edges="trigger>loop trigger>beside loop>end beside>end",
    )
    ticked = """SELECT wake_at < clock_timestamp() FROM steps
        WHERE run_id = :id AND node_id = 'tick' AND status = 'running'"""
    for number in range(1, MAX_LOSSES + 1):
        wait_for(lambda n=number: len(trap.calls) == n)  # type: ignore[misc]
        wait_for(lambda: sql(lab, ticked, id=run.id)[0][0])
        lose(lab, run)
    given_up = lab.until(run, "failed")
    assert str(given_up.error).startswith(f"given up: {MAX_LOSSES} executors in a row")
    assert len(trap.calls) == MAX_LOSSES
    ticks = [one for one in lab.trace(run) if (one.node_id, one.status) == ("tick", "completed")]
    assert len(ticks) >= MAX_LOSSES - 1

    retry(lab, run, afresh=False)
    wait_for(lambda: len(trap.calls) == MAX_LOSSES + 1)
    lose(lab, run)
    lab.until(run, "completed")
    trap.freed.set()
    is_whole(lab)


def test_a_run_that_ends_executors_before_a_node_is_in_flight_is_given_up(
    lab: Lab, trap: Trap
) -> None:
    """Whatever it is that ends them: after so many take-overs without a node that ended well."""
    run = lab.queue(node("trigger"), node("trap", times=1), node("end"))
    wait_for(lambda: trap.calls)
    sql(lab, "UPDATE runs SET takeovers = :most, locked_at = clock_timestamp()", most=MAX_TAKEOVERS)
    lose(lab, run)
    ended = lab.until(run, "failed")
    assert str(ended.error).startswith(f"given up: {MAX_TAKEOVERS + 1} executors in a row")
    trap.freed.set()
    is_whole(lab)


def test_what_waits_in_a_run_that_is_given_up_ends_with_it(lab: Lab, trap: Trap) -> None:
    endless = lab.workflow("endless", node("trigger"), node("delay", seconds=3600), node("end"))
    run = lab.queue(
        node("trigger"),
        node("metronome", "call", workflowId=endless),
        node("approval"),
        node("trap", times=MAX_LOSSES + 1),
        node("end"),
        edges="trigger>call trigger>approval trigger>trap call>end approval>end trap>end",
    )
    wait_for(lambda: trap.calls)
    nested = waits(lab, child(lab, run))
    lose_again(lab, trap, run, MAX_LOSSES)
    lab.until(run, "failed")
    assert lab.get(nested).status == "cancelled"
    assert step(lab, run, "call").status == "cancelled"
    assert step(lab, run, "approval").status == "cancelled"
    trap.freed.set()
    is_whole(lab)


def test_a_nested_run_that_is_poison_fails_and_the_run_above_hears_of_it(
    lab: Lab, trap: Trap
) -> None:
    below = lab.workflow("below", node("trigger"), node("trap", times=MAX_LOSSES + 1), node("end"))
    run = lab.queue(node("trigger"), node("metronome", "call", workflowId=below), node("end"))
    wait_for(lambda: trap.calls)
    nested = child(lab, run)
    lose_again(lab, trap, nested, MAX_LOSSES)
    ended = lab.until(run, "failed")
    assert "given up" in str(ended.error)
    assert len(trap.calls) == MAX_LOSSES
    trap.freed.set()
    is_whole(lab)
