"""Cancel of a run with runs below it: at any moment it reaches all of them."""

from __future__ import annotations

import time

import pytest

from app.domain.models import Run
from app.engine.executor import Executor
from app.store.boundary import Boundary, Verdict
from tests.engine.conftest import Lab, node
from tests.engine.operators import (
    ENDLESS,
    Cancelling,
    calls,
    child,
    children,
    is_whole,
    locked,
    sql,
    step,
    wait_for_lock_waiters,
    waits,
)
from tests.processes import wait_for


def late_grandchild(lab: Lab) -> Run:
    """A run whose nested run stands at the gate, behind which it starts one of its own."""
    bottom = lab.workflow("bottom", node("trigger"), ENDLESS, node("end"))
    middle = lab.workflow("middle", node("trigger"), node("gate"), calls(bottom), node("end"))
    run = lab.queue(node("trigger"), calls(middle), node("end"))
    assert lab.gate.begun.wait(10)
    return waits(lab, run)


def test_a_run_that_is_being_created_when_the_root_is_cancelled_is_cancelled_too(
    lab: Lab,
) -> None:
    """Both wait for the root's lock; whoever creates the run is the first in the queue."""
    lab.start()
    root = late_grandchild(lab)
    middle = child(lab, root)
    with locked(lab, root):
        lab.gate.open.set()
        wait_for_lock_waiters(lab, 1, "metronome writer%")
        cancelling = Cancelling(lab, root)
        wait_for_lock_waiters(lab, 2)
    assert cancelling.result().moved
    lab.until(middle, "cancelled")
    (bottom,) = children(lab, middle)
    assert bottom.status == "cancelled"
    assert bottom.completed_at == lab.get(root).completed_at, "in the same transaction"
    assert step(lab, middle, "call").status == "cancelled"
    is_whole(lab)


def test_a_run_that_is_created_after_the_cancel_of_the_root_never_is(lab: Lab) -> None:
    """Both wait for the root's lock; the cancel is the first in the queue."""
    lab.start()
    root = late_grandchild(lab)
    middle = child(lab, root)
    with locked(lab, root):
        cancelling = Cancelling(lab, root)
        wait_for_lock_waiters(lab, 1)
        lab.gate.open.set()
        wait_for_lock_waiters(lab, 1, "metronome writer%")
    assert cancelling.result().moved
    lab.until(middle, "cancelled")
    assert children(lab, middle) == []
    assert step(lab, middle, "call").status == "cancelled"
    is_whole(lab)


def at_spawn(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, executor: Executor, *, before: bool
) -> list[Run]:
    """Cancel the run of the list right before or after the boundary that starts a nested run."""
    write, runs = executor._writer.write, list[Run]()

    def interrupted(boundary: Boundary) -> Verdict:
        if boundary.spawns and before:
            lab.cancel(wait_for(lambda: runs)[0])
        verdict = write(boundary)
        if boundary.spawns and not before:
            lab.cancel(wait_for(lambda: runs)[0])
        return verdict

    monkeypatch.setattr(executor._writer, "write", interrupted)
    return runs


@pytest.mark.parametrize("before", [True, False])
def test_a_cancel_of_the_run_that_creates_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    executor = lab.start()
    runs = at_spawn(lab, monkeypatch, executor, before=before)
    bottom = lab.workflow("bottom", node("trigger"), ENDLESS, node("end"))
    run = lab.queue(node("trigger"), calls(bottom), node("end"))
    runs.append(run)
    lab.until(run, "cancelled")
    assert [one.status for one in children(lab, run)] == ([] if before else ["cancelled"])
    assert step(lab, run, "call").status == "cancelled"
    is_whole(lab)


def test_nothing_starts_behind_the_node_in_flight_of_a_run_far_below(lab: Lab) -> None:
    lab.start()
    bottom = lab.workflow(
        "bottom", node("trigger"), node("gate"), node("note", "after"), node("end")
    )
    middle = lab.workflow("middle", node("trigger"), calls(bottom), node("end"))
    root = lab.queue(node("trigger"), calls(middle), node("end"))
    assert lab.gate.begun.wait(10)
    waits(lab, root)
    lowest = child(lab, child(lab, root))

    cancelled = lab.cancel(root)

    assert (cancelled.moved, cancelled.in_flight) == (True, ())
    assert cancelled.nested_in_flight == ((lowest.id, "gate"),)
    lab.gate.open.set()
    lab.until(lowest, "cancelled")
    assert lab.statuses(lowest) == [
        ("trigger", "completed"),
        ("gate", "completed"),
        ("after", "cancelled"),
    ]
    for run in (root, child(lab, root)):
        assert lab.statuses(run) == [("trigger", "completed"), ("call", "cancelled")]
    is_whole(lab)


@pytest.mark.parametrize("listen", [True, False])
def test_an_interruptible_node_far_below_ends_at_once(lab: Lab, listen: bool) -> None:
    lab.start(listen=listen)
    bottom = lab.workflow("bottom", node("trigger"), node("stoppable"), node("end"))
    middle = lab.workflow("middle", node("trigger"), calls(bottom), node("end"))
    root = lab.queue(node("trigger"), calls(middle), node("end"))
    assert lab.stoppable.begun.wait(10)
    lab.cancel(root)
    lowest = lab.until(child(lab, child(lab, root)), "cancelled")
    assert step(lab, lowest, "stoppable").error == "interrupted: stopped: cancelled"
    is_whole(lab)


def test_a_cancel_without_any_executor_reaches_the_whole_tree(lab: Lab) -> None:
    executor = lab.start()
    bottom = lab.workflow("bottom", node("trigger"), node("approval"), node("end"))
    middle = lab.workflow("middle", node("trigger"), calls(bottom), node("end"))
    root = lab.queue(node("trigger"), calls(middle), node("end"))
    lowest = child(lab, child(lab, root))
    waits(lab, lowest, "waiting_approval")
    lab.stop(executor)
    lab.cancel(root)
    for run in (root, child(lab, root), lowest):
        assert lab.get(run).status == "cancelled"
    is_whole(lab)


def test_a_tree_of_hundreds_of_runs_is_cancelled_in_one_transaction(lab: Lab) -> None:
    lab.start(threads=8)
    leaf = lab.workflow("leaf", node("trigger"), ENDLESS)
    names = [f"call{number}" for number in range(20)]
    edges = " ".join(f"trigger>{name}" for name in names)
    branch = lab.workflow(
        "branch", node("trigger"), *(calls(leaf, name) for name in names), edges=edges
    )
    names = names[:10]
    edges = " ".join(f"trigger>{name}" for name in names)
    root = lab.queue(node("trigger"), *(calls(branch, name) for name in names), edges=edges)
    asleep = "SELECT count(*) FROM runs WHERE status = 'running' AND lease_token IS NULL"
    wait_for(lambda: sql(lab, asleep) == [(211,)])

    began = time.monotonic()
    assert lab.cancel(root).moved
    took = time.monotonic() - began

    assert took < 1, "a bound for one statement, not a measure of it"
    assert sql(lab, "SELECT status, count(*) FROM runs GROUP BY 1") == [("cancelled", 211)]
    assert sql(lab, "SELECT count(DISTINCT CAST(xmin AS text)) FROM runs") == [(1,)]
    audits = "SELECT count(*) FROM audit_events WHERE action = 'run.cancelled'"
    assert sql(lab, audits) == [(211,)]
    is_whole(lab)
