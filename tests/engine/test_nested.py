"""Nested runs: how a run waits for one, what it makes of its end, and which ones it may start."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from app.domain.models import Actor, Run
from app.services import metronomes
from app.store.leases import EXECUTOR_LOST
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.operators import (
    child,
    children,
    due,
    ended,
    is_whole,
    lose,
    request,
    retry,
    sql,
    step,
    waits,
)
from tests.processes import wait_for

ENDLESS = node("delay", "endless", seconds=3600)


def calls(workflow_id: str, id: str = "call", **config: Any) -> dict[str, Any]:
    """A node that runs another workflow."""
    return node("metronome", id, workflowId=workflow_id, **config)


def gated(lab: Lab, name: str = "child") -> str:
    """A workflow that ends when the test opens the gate."""
    return lab.workflow(name, node("trigger"), node("gate"), node("end", output={"n": 7}))


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
def test_an_error_edge_is_taken_when_the_nested_run_does_not_complete(
    lab: Lab, how: str
) -> None:
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


# -- which workflow


def test_a_workflow_is_named_by_its_name(lab: Lab) -> None:
    lab.start()
    lab.workflow("the one", node("trigger"), node("end", output={"n": 1}))
    call = node("metronome", "call", workflowName="{{ trigger.input.which }}")
    run = lab.queue(node("trigger"), call, node("end"), input={"which": "the one"})
    answered = lab.until(run, "completed")
    assert answered.output is not None
    assert answered.output["output"] == {"n": 1}


def refused(lab: Lab, **config: Any) -> str:
    """The error with which a run fails whose nested run can't be started."""
    run = lab.queue(
        node("trigger"), node("metronome", "call", **config), node("end"), max_attempts=3
    )
    answered = lab.until(run, "failed")
    assert answered.attempt_count == 1, "trying again can't help"
    assert children(lab, run) == []
    return str(answered.error).removeprefix("node call failed: ")


def test_a_workflow_that_can_not_be_run_fails_the_node_with_a_clear_error(lab: Lab) -> None:
    lab.start()
    for _ in range(2):
        lab.workflow("twice", node("trigger"), node("end"))
    other = Actor("key_other", "user_other", "org_other")
    foreign = lab.workflow("foreign", node("trigger"), node("end"), actor=other)
    old = lab.workflow("old", node("trigger"), node("end"))
    metronomes.archive(lab.db, ACTOR, old)

    assert refused(lab, workflowId="met_nowhere") == "there is no workflow 'met_nowhere'"
    assert refused(lab, workflowName="nobody") == "there is no workflow 'nobody'"
    assert refused(lab, workflowName="twice") == (
        "there are several workflows 'twice'; use workflowId"
    )
    assert refused(lab, workflowId=old) == f"the workflow '{old}' is archived"
    assert refused(lab, workflowName="old") == "there is no workflow 'old'"
    assert refused(lab, workflowId=foreign) == f"there is no workflow '{foreign}'"
    assert refused(lab, workflowName="foreign") == "there is no workflow 'foreign'"
    is_whole(lab)


def test_a_draft_without_a_version_becomes_one_and_keeps_it(lab: Lab) -> None:
    lab.start()
    below = lab.workflow("child", node("trigger"), node("end"))
    both = [lab.queue(node("trigger"), calls(below), node("end")) for _ in range(2)]
    for run in both:
        lab.until(run, "completed")
    ((version,),) = sql(lab, "SELECT id FROM versions WHERE metronome_id = :id", id=below)
    assert {child(lab, run).version_id for run in both} == {version}


def test_a_workflow_can_not_run_inside_of_itself(lab: Lab) -> None:
    lab.start()
    own = lab.workflow("own", node("trigger"), node("end"))
    redefine(lab, own, calls(own))
    run = lab.begin(own)
    answered = lab.until(run, "failed")
    assert answered.error == f"node call failed: the workflow '{own}' would run inside of itself"
    assert children(lab, run) == []


def test_nor_inside_of_one_that_it_runs_itself(lab: Lab) -> None:
    lab.start()
    a = lab.workflow("a", node("trigger"), node("end"))
    b = lab.workflow("b", node("trigger"), calls(a), node("end"))
    redefine(lab, a, calls(b))
    run = lab.begin(a)
    answered = lab.until(run, "failed")
    assert f"the workflow '{a}' would run inside of itself" in str(answered.error)
    (nested,) = children(lab, run)
    assert children(lab, nested) == []
    is_whole(lab)


def redefine(lab: Lab, workflow_id: str, call: dict[str, Any]) -> None:
    """Put a call into a workflow that is there already."""
    edges = [{"id": "e", "source": "trigger", "target": "call"}]
    changes = {"definition": {"nodes": [node("trigger"), call], "edges": edges}}
    metronomes.update(lab.db, ACTOR, workflow_id, changes)


def test_runs_are_not_nested_deeper_than_allowed(lab: Lab) -> None:
    lab.start()
    below = lab.workflow("level 12", node("trigger"), node("end"))
    for level in range(11, 0, -1):
        below = lab.workflow(f"level {level}", node("trigger"), calls(below), node("end"))
    run = lab.begin(below)
    answered = lab.until(run, "failed")
    assert answered.error is not None
    assert answered.error.endswith("runs are nested 10 deep at most, and this one already is")
    assert sql(lab, "SELECT max(depth), count(*) FROM runs") == [(10, 11)]
    is_whole(lab)


# -- what happens meanwhile


def test_an_executor_that_is_lost_while_its_run_waits_takes_nothing_along(lab: Lab) -> None:
    executor = lab.start()
    run = lab.queue(node("trigger"), calls(gated(lab)), node("end"))
    assert lab.gate.begun.wait(10)
    waits(lab, run)
    lab.start()
    lose(lab, child(lab, run))
    wait_for(lambda: len(lab.gate.calls) == 2)
    lab.gate.open.set()
    lab.until(run, "completed")
    assert step(lab, run, "call").attempt == 1
    (nested,) = children(lab, run)
    assert [one.error for one in lab.trace(nested) if one.status == "failed"] == [EXECUTOR_LOST]
    lab.stop(executor)
    is_whole(lab)


def test_a_run_whose_executor_is_lost_finds_its_nested_run_again(lab: Lab) -> None:
    """The lease ends while another branch is in flight, and the nested run goes on."""
    lab.start()
    endless = lab.workflow("endless", node("trigger"), node("delay", seconds=1.2), node("end"))
    run = lab.queue(
        node("trigger"),
        calls(endless),
        node("gate"),
        node("end"),
        edges="trigger>call trigger>gate call>end gate>end",
    )
    assert lab.gate.begun.wait(10)
    lose(lab, run)
    wait_for(lambda: len(lab.gate.calls) == 2)
    lab.gate.open.set()
    lab.until(run, "completed")
    assert len(children(lab, run)) == 1
    is_whole(lab)


def test_a_nested_run_that_was_cancelled_in_a_pause_is_heard_of_after_the_resume(
    lab: Lab,
) -> None:
    lab.start()
    endless = lab.workflow("endless", node("trigger"), ENDLESS, node("end"))
    run = lab.queue(node("trigger"), calls(endless), node("end"))
    nested = waits(lab, child(lab, run))
    waits(lab, run)
    assert request(lab, PAUSE, run).moved
    assert lab.get(nested).status == "paused"
    lab.cancel(nested)
    assert lab.get(run).status == "paused"
    assert request(lab, RESUME, run).moved
    assert lab.until(run, "failed").error == (
        f"node call failed: The nested run {nested.id} was cancelled."
    )
    is_whole(lab)


def test_a_pause_reaches_the_nested_run_and_a_resume_both(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), calls(gated(lab)), node("end"))
    assert lab.gate.begun.wait(10)
    waits(lab, run)
    paused = request(lab, PAUSE, run)
    assert paused.nested_in_flight == ((child(lab, run).id, "gate"),)
    lab.gate.open.set()
    nested = lab.until(child(lab, run), "paused")
    assert lab.statuses(nested) == [("trigger", "completed"), ("gate", "completed")]
    assert request(lab, RESUME, run).moved
    lab.until(run, "completed")
    assert lab.gate.calls == ["gate"]
    is_whole(lab)


@pytest.mark.parametrize("listen", [True, False])
def test_a_run_out_of_time_fails_and_cancels_what_it_waits_for(lab: Lab, listen: bool) -> None:
    lab.start(listen=listen)
    lowest = lab.workflow("lowest", node("trigger"), node("stoppable"), node("end"))
    middle = lab.workflow("middle", node("trigger"), calls(lowest), node("end"))
    run = lab.queue(node("trigger"), calls(middle), node("end"), timeout_ms=1500)
    assert lab.stoppable.begun.wait(10)
    answered = lab.until(run, "failed")
    assert answered.error == "the run timed out: its timeoutMs has passed since it started"
    call = step(lab, run, "call")
    assert (call.status, call.error) == ("cancelled", "the run failed while this node waited")
    nested = lab.until(child(lab, run), "cancelled")
    lab.until(child(lab, nested), "cancelled")
    is_whole(lab)


def test_a_run_that_fails_by_another_branch_cancels_what_it_waits_for(lab: Lab) -> None:
    lab.start()
    endless = lab.workflow("endless", node("trigger"), ENDLESS, node("end"))
    run = lab.queue(
        node("trigger"),
        calls(endless),
        node("gate"),
        node("flaky", failures=9),
        node("end"),
        edges="trigger>call trigger>gate gate>flaky call>end flaky>end",
    )
    nested = waits(lab, child(lab, run))
    lab.gate.open.set()
    answered = lab.until(run, "failed")
    assert answered.error == "node flaky failed: not yet"
    assert step(lab, run, "call").status == "cancelled"
    assert lab.get(nested).status == "cancelled"
    is_whole(lab)


def test_the_timeout_of_the_node_cancels_the_nested_run_and_fails_the_step(lab: Lab) -> None:
    lab.start(poll=30.0, lease=90.0)
    lowest = lab.workflow("lowest", node("trigger"), node("stoppable"), node("end"))
    run = lab.queue(node("trigger"), calls(lowest, timeoutMs=1300), node("end"))
    assert lab.stoppable.begun.wait(10)
    answered = lab.until(run, "failed")
    assert answered.error == "node call failed: timed out after 1300 ms"
    lab.until(child(lab, run), "cancelled")
    is_whole(lab)


def test_a_nested_run_that_ended_in_time_counts_though_the_run_above_was_busy(lab: Lab) -> None:
    """The node's time has passed when somebody looks, but the end of the run came before."""
    lab.start()
    quick = lab.workflow("quick", node("trigger"), node("end", output={"n": 1}))
    run = lab.queue(
        node("trigger"),
        calls(quick, timeoutMs=1000),
        node("gate"),
        node("end"),
        edges="trigger>call trigger>gate call>end gate>end",
    )
    assert lab.gate.begun.wait(10)
    lab.until(child(lab, run), "completed")
    passed = """SELECT started_at + interval '1.1 s' < clock_timestamp()
        FROM steps WHERE node_id = 'call'"""
    wait_for(lambda: sql(lab, passed)[0][0])
    lab.gate.open.set()
    lab.until(run, "completed")
    is_whole(lab)


def test_a_run_that_can_not_be_walked_any_more_cancels_what_it_waits_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = lab.start()
    endless = lab.workflow("endless", node("trigger"), ENDLESS, node("end"))
    run = lab.queue(
        node("trigger"),
        calls(endless),
        node("gate"),
        node("end"),
        edges="trigger>call trigger>gate call>end gate>end",
    )
    nested = waits(lab, child(lab, run))
    assert lab.gate.begun.wait(10)

    def broken(*_: object) -> Run:
        raise RuntimeError("can't walk")

    interpreter = executor._interpreter
    monkeypatch.setattr(type(interpreter), "note", broken)
    lab.gate.open.set()
    answered = lab.until(run, "failed")
    assert answered.error == "internal error: RuntimeError"
    assert lab.get(nested).status == "cancelled"
    is_whole(lab)
