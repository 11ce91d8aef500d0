"""Limits on concurrent runs, where the runs are nested in others."""

from __future__ import annotations

from tests.engine.conftest import Lab, node
from tests.engine.limits import admitted, limit, limited, most_at_work, places
from tests.engine.operators import calls, child, is_whole, sql, step, waits
from tests.processes import wait_for


def test_a_nested_run_waits_for_its_place_and_the_run_above_for_it(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1)
    first = lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    above = waits(lab, lab.queue(node("trigger"), calls(workflow), node("end")))
    nested = child(lab, above)
    assert (nested.status, nested.admitted, nested.concurrency_key) == ("queued", False, "")
    lab.gate.open.set()
    lab.until(first, "completed")
    lab.until(above, "completed")
    assert lab.get(nested).status == "completed"
    assert most_at_work(lab, workflow) == {"": 1}
    is_whole(lab)


def test_a_nested_run_gets_a_free_place_at_once(lab: Lab) -> None:
    lab.gate.open.set()
    lab.start()
    workflow = limited(lab, 1)
    above = lab.queue(node("trigger"), calls(workflow), node("end"))
    lab.until(above, "completed")
    assert child(lab, above).concurrency_key == ""
    assert places(lab, workflow) == {}


def test_the_group_of_a_nested_run_comes_from_its_own_input(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1, key="trigger.input.branch ~ '@' ~ trigger.type")
    first = lab.begin(workflow, input={"branch": "main"}, trigger_type="metronome")
    assert lab.gate.begun.wait(10)
    same, other = (
        child(lab, lab.queue(node("trigger"), calls(workflow, input={"branch": branch})))
        for branch in ("main", "other")
    )
    assert first.concurrency_key == same.concurrency_key == "main@metronome"
    admitted(lab, other)
    assert not lab.get(same).admitted


def test_a_node_fails_where_the_workflow_would_reject_its_run(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1, "reject")
    lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    above = lab.until(lab.queue(node("trigger"), calls(workflow), node("end")), "failed")
    assert "allows 1 run at once" in str(step(lab, above, "call").error)
    assert sql(lab, "SELECT count(*) FROM runs WHERE parent_run_id IS NOT NULL") == [(0,)]


def test_a_node_that_was_rejected_may_be_tried_again(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1, "reject")
    first = lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    again = {"maxAttempts": 100, "backoffSeconds": 0.05}
    above = lab.queue(node("trigger"), calls(workflow, retry=again), node("end"))
    wait_for(lambda: any(one.status == "failed" for one in lab.trace(above)))
    lab.gate.open.set()
    lab.until(first, "completed")
    lab.until(above, "completed")
    assert most_at_work(lab, workflow) == {"": 1}


def test_a_node_fails_where_the_group_of_its_run_can_not_be_told(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1, key="trigger.input.branch")
    above = lab.until(lab.queue(node("trigger"), calls(workflow), node("end")), "failed")
    assert "trigger.input.branch" in str(step(lab, above, "call").error)


def test_a_nested_run_has_the_oldest_cancelled(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1, "cancel_oldest")
    first = lab.begin(workflow)
    assert lab.gate.begun.wait(10)
    above = lab.queue(node("trigger"), calls(workflow), node("end"))
    nested = child(lab, above)
    wait_for(lambda: lab.get(first).status == "cancelled")
    lab.gate.open.set()
    lab.until(above, "completed")
    assert lab.get(nested).status == "completed"
    by = "SELECT actor_key_id FROM audit_events WHERE run_id = :id AND action = 'run.cancelled'"
    assert sql(lab, by, id=first.id) == [("executor",)]
    assert most_at_work(lab, workflow) == {"": 1}


def test_two_nested_runs_of_one_run_go_one_after_the_other(lab: Lab) -> None:
    lab.start()
    workflow = limited(lab, 1)
    above = lab.queue(
        node("trigger"),
        calls(workflow, "one"),
        calls(workflow, "two"),
        node("end"),
        edges="trigger>one trigger>two one>end two>end",
    )
    assert lab.gate.begun.wait(10)
    lab.gate.open.set()
    lab.until(above, "completed")
    assert most_at_work(lab, workflow) == {"": 1}
    is_whole(lab)


def test_a_cancel_from_above_leaves_the_places_of_what_is_below(lab: Lab) -> None:
    lab.start()
    endless = lab.workflow("endless", node("trigger"), node("delay", seconds=3600), node("end"))
    limit(lab, endless, 1)
    above = lab.queue(node("trigger"), calls(endless), node("end"))
    waits(lab, child(lab, above))
    second = lab.begin(endless)
    assert not second.admitted
    lab.cancel(above)
    assert lab.get(second).admitted


def test_a_run_that_fails_leaves_the_places_of_those_nobody_waits_for(lab: Lab) -> None:
    lab.start()
    endless = lab.workflow("endless", node("trigger"), node("delay", seconds=3600), node("end"))
    limit(lab, endless, 1)
    above = lab.queue(
        node("trigger"),
        calls(endless),
        node("gate"),
        node("flaky", failures=9, retryable=False),
        edges="trigger>call trigger>gate gate>flaky",
    )
    waits(lab, child(lab, above))
    second = lab.begin(endless)
    lab.gate.open.set()
    lab.until(above, "failed")
    waits(lab, admitted(lab, second))
