"""What happens to a run while it waits for a nested one: losses, pauses, deadlines, failures."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from app.domain.models import Run
from app.engine.writer import GaveUp
from app.store.boundary import Boundary, Verdict
from app.store.leases import EXECUTOR_LOST
from tests.engine.conftest import Lab, node
from tests.engine.operators import (
    ENDLESS,
    calls,
    child,
    children,
    gated,
    is_whole,
    lose,
    request,
    sql,
    step,
    waits,
)
from tests.processes import wait_for


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


def test_an_executor_that_is_lost_while_it_fails_a_run_leaves_the_reason_to_its_heir(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has cancelled the nested run, and is gone before it could fail the run above."""
    first = lab.start(lease=90.0)
    run = lab.queue(
        node("trigger"),
        calls(lab.workflow("endless", node("trigger"), ENDLESS, node("end"))),
        node("gate"),
        node("flaky", failures=1),
        node("end"),
        edges="trigger>call trigger>gate gate>flaky call>end flaky>end",
    )
    waits(lab, child(lab, run))
    assert lab.gate.begun.wait(10)
    cancel, lost = first._interpreter.nested.cancel, list[Any]()

    def gone(*given: Any) -> None:
        cancel(*given)
        if not lost:
            lost.append(given)
            raise GaveUp

    monkeypatch.setattr(first._interpreter.nested, "cancel", gone)
    lab.gate.open.set()
    lab.until(child(lab, run), "cancelled")
    wait_for(lambda: lost)
    lab.start()
    lose(lab, run)
    assert lab.until(run, "failed").error == "node flaky failed: not yet"
    assert len(lab.flaky.calls) == 1
    is_whole(lab)


def test_a_pause_at_the_moment_of_the_start_starts_the_nested_run_after_the_resume(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = lab.start()
    write, paused = executor._writer.write, list[Run]()

    def pause_first(boundary: Boundary) -> Verdict:
        if boundary.spawns and not paused:
            found = wait_for(lambda: sql(lab, "SELECT metronome_id, id FROM runs"))
            paused.append(lab.get_by(*found[0]))
            assert request(lab, PAUSE, paused[0]).moved
        return write(boundary)

    monkeypatch.setattr(executor._writer, "write", pause_first)
    quick = lab.workflow("quick", node("trigger"), node("end"))
    run = lab.queue(node("trigger"), calls(quick), node("end"))
    lab.until(run, "paused")
    assert children(lab, run) == []
    assert sql(lab, "SELECT 1 FROM steps WHERE completed_at IS NULL") == []
    assert request(lab, RESUME, run).moved
    lab.until(run, "completed")
    assert len(children(lab, run)) == 1
    is_whole(lab)
