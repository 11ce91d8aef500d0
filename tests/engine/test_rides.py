"""Nodes that only compute: their steps come with the next boundary, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain.models import Run
from app.engine.executor import Executor
from app.services import transitions
from app.store.boundary import Boundary, Verdict
from tests.engine.conftest import ACTOR, Lab, node
from tests.processes import PATIENCE, wait_for

CHAIN = (
    node("trigger"),
    node("transform", "one", output=1),
    node("transform", "two", output=2),
    node("gate"),
    node("note", "three"),
    node("end", output="{{ steps.two.output.value }}"),
)
WHOLE = ["trigger", "one", "two", "gate", "three", "end"]


def watched(executor: Executor, before: Callable[[Boundary], object]) -> list[Boundary]:
    """The boundaries that the executor writes; ``before`` is called ahead of each."""
    write, seen = executor._writer.write, []

    def told(boundary: Boundary) -> Verdict:
        before(boundary)
        seen.append(boundary)
        return write(boundary)

    executor._writer.write = told  # type: ignore[method-assign]
    return seen


def test_a_boundary_carries_all_that_was_computed_before_it(lab: Lab) -> None:
    lab.gate.open.set()
    seen = watched(lab.start(), lambda boundary: None)
    run = lab.queue(*CHAIN)
    ended = lab.until(run, "completed")
    assert ended.output == {"value": 2}
    assert [[step.node_id for step in one.starts] for one in seen] == [
        ["trigger", "one", "two", "gate"],
        ["three", "end"],
    ]
    assert lab.statuses(run) == [(name, "completed") for name in WHOLE]
    for step in lab.trace(run):
        assert step.started_at
        assert step.completed_at
        assert step.started_at <= step.completed_at


@pytest.mark.parametrize("stop", [transitions.cancel, transitions.pause])
def test_what_was_computed_when_the_run_stopped_has_not_started(
    lab: Lab, stop: Callable[..., object]
) -> None:
    stopped: list[Run] = []

    def stop_it(boundary: Boundary) -> None:
        if not stopped:
            stopped.append(lab.get_by(boundary.metronome_id, boundary.run_id))
            more = {"free": lab.free} if stop is transitions.cancel else {}
            stop(lab.db, ACTOR, boundary.metronome_id, boundary.run_id, **more)

    watched(lab.start(), stop_it)
    lab.gate.open.set()
    run = lab.queue(*CHAIN)
    wait_for(lambda: stopped and lab.get(run).locked_by is None)
    assert lab.gate.calls == []
    if stop is transitions.cancel:
        assert lab.statuses(run) == [("trigger", "cancelled")], "it was next, and nothing else was"
        assert lab.trace(run)[0].started_at is None
        return
    assert lab.trace(run) == []
    transitions.resume(lab.db, ACTOR, run.metronome_id, run.id, free=lab.free)
    lab.tell()
    assert lab.until(run, "completed").output == {"value": 2}
    assert lab.statuses(run) == [(name, "completed") for name in WHOLE]


def test_a_cancel_behind_the_node_in_flight_names_what_was_next(lab: Lab) -> None:
    """Not what had been computed on from there."""
    lab.start()
    run = lab.queue(*CHAIN)
    assert lab.gate.begun.wait(PATIENCE)
    lab.cancel(run)
    lab.gate.open.set()
    wait_for(lambda: lab.get(run).locked_by is None)
    assert lab.statuses(run)[-2:] == [("gate", "completed"), ("three", "cancelled")]


def test_all_that_was_computed_is_in_the_trace_before_anybody_waits(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"), node("note", "before"), node("delay", seconds=3600), node("end")
    )
    wait_for(lambda: lab.get(run).next_attempt_at)
    assert lab.statuses(run)[:2] == [("trigger", "completed"), ("before", "completed")]


def test_a_boundary_carries_only_so_much(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.pending.RIDES", 3)
    seen = watched(lab.start(), lambda boundary: None)
    run = lab.queue(node("trigger"), *(node("note", f"n{number}") for number in range(7)))
    lab.until(run, "completed")
    assert [len(one.starts) for one in seen] == [3, 3, 2]
    assert len(lab.trace(run)) == 8


def test_large_outputs_are_written_sooner(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.pending.RIDE_BYTES", 5_000)
    seen = watched(lab.start(), lambda boundary: None)
    run = lab.queue(
        node("trigger"), *(node("transform", f"t{number}", output="x" * 3_000) for number in "abcd")
    )
    lab.until(run, "completed")
    assert [len(one.starts) for one in seen] == [3, 2, 0]


def test_a_node_that_fails_takes_the_usual_way(lab: Lab) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("transform", "bad", output="{{ nowhere }}"), node("end"))
    ended = lab.until(run, "failed")
    assert "nowhere" in (ended.error or "")
    assert lab.statuses(run) == [("trigger", "completed"), ("bad", "failed")]
