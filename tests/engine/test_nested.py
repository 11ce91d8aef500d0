"""Nested runs: how a run waits for one, and what it makes of its end."""

from __future__ import annotations

import pytest

from tests.engine.conftest import Lab, node
from tests.engine.operators import (
    ENDLESS,
    calls,
    child,
    children,
    due,
    ended,
    gated,
    is_whole,
    lose,
    retry,
    sql,
    step,
    waits,
)
from tests.processes import wait_for

# -- to wait, and to wake


def test_a_run_waits_for_its_nested_run_without_a_thread_and_without_a_lease(lab: Lab) -> None:
    lab.start(threads=1, poll=30.0, lease=90.0)
    below = lab.workflow(
        "child",
        node("trigger"),
        node("gate"),
        node("end", output={"double": "{{ trigger.input.n * 2 }}"}),
    )
    run = lab.queue(
        node("trigger"),
        calls(below, input={"n": "{{ trigger.input.n + 1 }}"}),
        node("end", output={"made": "{{ steps.call.output.output.double }}"}),
        input={"n": 20},
    )
    assert lab.gate.begun.wait(10), "the only thread is free for the nested run"

    above = waits(lab, run)
    assert (above.next_attempt_at, due(lab, run)) == (None, "infinity")
    call = step(lab, run, "call")
    assert (call.status, call.completed_at) == ("running", None)
    nested = child(lab, run)
    assert call.metadata is not None
    assert call.metadata["childRunId"] == nested.id
    assert (nested.parent_run_id, nested.parent_seq) == (run.id, call.seq)
    assert (nested.root_run_id, nested.trigger_type) == (run.id, "metronome")
    assert nested.input == {"n": 21}
    assert nested.id > run.id

    lab.gate.open.set()

    answered = lab.until(run, "completed")
    assert answered.output == {"made": 42}
    output = {"runId": nested.id, "status": "completed", "output": {"double": 42}}
    assert step(lab, run, "call").output == output
    assert answered.attempt_count == 1, "to wake up is no new attempt"
    is_whole(lab)


def test_the_end_of_the_nested_run_wakes_the_run_above_in_milliseconds(lab: Lab) -> None:
    """The polls of minutes would be too late: the news can only be the notification."""
    lab.start(poll=60.0, lease=180.0)
    run = lab.queue(node("trigger"), calls(gated(lab)), node("end"))
    assert lab.gate.begun.wait(10)
    waits(lab, run)
    lab.gate.open.set()
    answered = lab.until(run, "completed")
    woken = ended(answered) - ended(child(lab, run))
    assert woken.total_seconds() < 2, "a bound for the notification, not a measure of it"


def test_without_notifications_the_run_above_wakes_by_polling(lab: Lab) -> None:
    lab.start(listen=False)
    run = lab.queue(node("trigger"), calls(gated(lab)), node("end"))
    assert lab.gate.begun.wait(10)
    waits(lab, run)
    lab.gate.open.set()
    lab.until(run, "completed")
    is_whole(lab)


def test_a_nested_run_that_ends_before_the_run_above_has_parked_is_heard(lab: Lab) -> None:
    """The other branch keeps the run above busy, while its nested run comes to its end."""
    lab.start(poll=30.0, lease=90.0)
    quick = lab.workflow("quick", node("trigger"), node("end", output={"n": 1}))
    run = lab.queue(
        node("trigger"),
        calls(quick),
        node("gate"),
        node("end", output={"n": "{{ steps.call.output.output.n }}"}),
        edges="trigger>call trigger>gate call>end gate>end",
    )
    assert lab.gate.begun.wait(10)
    lab.until(child(lab, run), "completed")
    lab.gate.open.set()
    assert lab.until(run, "completed").output == {"n": 1}
    is_whole(lab)


def test_nested_runs_of_parallel_branches_go_on_side_by_side(lab: Lab) -> None:
    lab.start()
    names = ("one", "two", "three")
    ids = {name: gated(lab, name) for name in names}
    run = lab.queue(
        node("trigger"),
        *(calls(ids[name], name) for name in names),
        node("end"),
        edges=" ".join(f"trigger>{name} {name}>end" for name in names),
    )
    wait_for(lambda: len(lab.gate.calls) == 3)
    lab.gate.open.set()
    lab.until(run, "completed")
    assert [one.status for one in children(lab, run)] == ["completed"] * 3
    is_whole(lab)


def test_each_iteration_of_a_loop_has_a_nested_run_of_its_own(lab: Lab) -> None:
    lab.start()
    square = lab.workflow(
        "square",
        node("trigger"),
        node("end", output={"n": "{{ trigger.input.n * trigger.input.n }}"}),
    )
    body = {**calls(square, input={"n": "{{ loop.index }}"}), "parentId": "loop"}
    run = lab.queue(
        node("trigger"),
        node("loop", loopType="fixed_count", count=4, iterations=4),
        body,
        node("end", output={"all": "{{ steps.loop.output.outputs }}"}),
        edges="trigger>loop loop>end",
    )
    answered = lab.until(run, "completed")
    assert answered.output is not None
    assert [one["output"]["n"] for one in answered.output["all"]] == [0, 1, 4, 9]
    steps = [one for one in lab.trace(run) if one.node_id == "call"]
    assert [one.iteration for one in steps] == [0, 1, 2, 3]
    assert [one.parent_seq for one in children(lab, run)] == [one.seq for one in steps]
    is_whole(lab)


def test_runs_may_be_nested_in_nested_runs(lab: Lab) -> None:
    lab.start(threads=1)
    bottom = lab.workflow("bottom", node("trigger"), node("end", output={"deep": True}))
    middle = lab.workflow("middle", node("trigger"), calls(bottom), node("end"))
    run = lab.queue(node("trigger"), calls(middle), node("end"))
    lab.until(run, "completed")
    below = child(lab, run)
    lowest = child(lab, below)
    assert lowest.parent_run_id == below.id
    assert {below.root_run_id, lowest.root_run_id} == {run.id}
    assert run.id < below.id < lowest.id
    assert lowest.output == {"deep": True}
    is_whole(lab)


# -- the end of the nested run


def test_a_nested_run_that_fails_fails_the_step_that_waits_for_it(lab: Lab) -> None:
    lab.start()
    bad = lab.workflow("bad", node("trigger"), node("flaky", failures=9), node("end"))
    run = lab.queue(node("trigger"), calls(bad), node("end"))
    answered = lab.until(run, "failed")
    nested = child(lab, run)
    call = step(lab, run, "call")
    assert call.error == f"The nested run {nested.id} failed: node flaky failed: not yet"
    assert answered.error == f"node call failed: {call.error}"
    assert call.output == {"runId": nested.id, "status": "failed", "output": None}
    is_whole(lab)


def test_a_nested_run_that_is_cancelled_alone_fails_the_step_and_nothing_retries_it(
    lab: Lab,
) -> None:
    lab.start(poll=30.0, lease=90.0)
    endless = lab.workflow("endless", node("trigger"), ENDLESS, node("end"))
    run = lab.queue(node("trigger"), calls(endless), node("end"), max_attempts=5)
    nested = waits(lab, child(lab, run))
    waits(lab, run)
    lab.cancel(nested)
    answered = lab.until(run, "failed")
    assert answered.error == f"node call failed: The nested run {nested.id} was cancelled."
    assert (answered.attempt_count, len(children(lab, run))) == (1, 1)
    is_whole(lab)


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_an_error_edge_is_taken_when_the_nested_run_does_not_complete(lab: Lab, how: str) -> None:
    lab.start()
    below = {
        "failed": node("flaky", failures=9),
        "cancelled": ENDLESS,
    }[how]
    bad = lab.workflow("bad", node("trigger"), below, node("end"))
    run = lab.queue(
        node("trigger"),
        calls(bad),
        node("transform", "rescue", output={"told": "{{ steps.call.error }}"}),
        node("end"),
        edges="trigger>call call>end call>rescue:error",
    )
    if how == "cancelled":
        lab.cancel(waits(lab, child(lab, run)))
    answered = lab.until(run, "completed")
    assert answered.output is not None
    assert f"The nested run {child(lab, run).id}" in answered.output["told"]
    assert step(lab, run, "end").status == "skipped"
    is_whole(lab)


def test_a_node_that_is_tried_again_starts_another_nested_run(lab: Lab) -> None:
    lab.start()
    flaky = lab.workflow("flaky", node("trigger"), node("flaky", failures=1), node("end"))
    again = {"maxAttempts": 2, "backoffSeconds": 0.05}
    run = lab.queue(node("trigger"), calls(flaky, retry=again), node("end"))
    lab.until(run, "completed")
    assert [one.status for one in children(lab, run)] == ["failed", "completed"]
    is_whole(lab)


def test_a_retry_of_the_run_above_starts_another_nested_run(lab: Lab) -> None:
    lab.start()
    flaky = lab.workflow("flaky", node("trigger"), node("flaky", failures=1), node("end"))
    run = lab.queue(node("trigger"), calls(flaky), node("end"))
    lab.until(run, "failed")
    retry(lab, run, afresh=False)
    lab.until(run, "completed")
    assert [one.status for one in children(lab, run)] == ["failed", "completed"]
    assert [(one.status, one.attempt) for one in lab.trace(run) if one.node_id == "call"] == [
        ("failed", 1),
        ("completed", 2),
    ]
    is_whole(lab)


def test_the_end_of_a_nested_run_does_not_hurry_a_backoff(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        calls(gated(lab)),
        node("flaky", failures=1),
        node("end"),
        edges="trigger>call trigger>flaky call>end flaky>end",
        max_attempts=2,
    )
    assert lab.gate.begun.wait(10)
    backing_off = wait_for(
        lambda: now if (now := lab.get(run)).status == "queued" and now.next_attempt_at else None
    )
    # far enough away that nobody could take it for the time of the next attempt
    later = """UPDATE runs SET due_at = due_at + interval '1 hour',
        next_attempt_at = next_attempt_at + interval '1 hour' WHERE id = :id"""
    sql(lab, later, id=run.id)
    lab.gate.open.set()
    lab.until(child(lab, run), "completed")
    other = lab.queue(node("trigger"), node("end"))
    lab.until(other, "completed")
    assert lab.get(run).status == "queued"
    assert lab.get(run).attempt_count == backing_off.attempt_count == 1
    lose(lab, run)
    lab.until(run, "completed")
    is_whole(lab)
