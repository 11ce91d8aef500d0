"""Nodes that only compute: their steps come with the next boundary, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.domain.models import Run
from app.domain.outcomes import Done, Outcome
from app.engine import pending
from app.engine.walk import Walk
from app.services import transitions
from app.store.boundary import Boundary
from app.store.leases import NextNode
from tests.engine.bodies import retry, sql
from tests.engine.conftest import ACTOR, Lab, node
from tests.engine.rides import CHAIN, WHOLE, Pure, starts, watched
from tests.processes import PATIENCE, wait_for


@pytest.mark.usefixtures("unhurried")
def test_a_boundary_carries_all_that_was_computed_before_it(lab: Lab) -> None:
    lab.gate.open.set()
    seen = watched(lab.start())
    run = lab.queue(*CHAIN)
    ended = lab.until(run, "completed")
    assert ended.output == {"value": 2}
    assert starts(seen) == [["trigger", "one", "two", "gate"], ["three"], ["four", "end"]]
    assert [end.seq for end in seen[1].ends] == [4], "what the gate did is written before the rest"
    assert lab.statuses(run) == [(name, "completed") for name in WHOLE]
    trace = lab.trace(run)
    assert [step.seq for step in trace] == list(range(1, 8))
    assert [step.output for step in trace[1:3]] == [{"value": 1}, {"value": 2}]
    moments = [moment for step in trace for moment in (step.started_at, step.completed_at)]
    assert None not in moments
    assert moments == sorted(moments), "one after the other"  # type: ignore[type-var]


@pytest.mark.usefixtures("unhurried")
def test_what_is_next_is_put_together_for_nobody_but_who_stops(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run with a thousand nodes side by side it took half the time."""
    asked, nexts = [], Walk.nexts

    def told(walk: Walk) -> list[NextNode]:
        asked.append(walk)
        return nexts(walk)

    monkeypatch.setattr(Walk, "nexts", told)
    lab.start()
    lab.gate.open.set()
    run = lab.queue(*CHAIN)
    lab.until(run, "completed")
    assert asked == []


@pytest.mark.usefixtures("unhurried")
def test_what_was_next_is_told_as_it_was_before_anything_rode(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that could have started then, and what rode is at no later attempt by that."""
    monkeypatch.setattr(pending, "RIDES", 1)

    def cancel(boundary: Boundary) -> None:
        if boundary.starts[-1].node_id == "gate":
            transitions.cancel(lab.db, ACTOR, boundary.metronome_id, boundary.run_id, free=lab.free)

    watched(lab.start(), cancel)
    run = lab.queue(
        *(node("trigger"), node("note", "one"), node("note", "two"), node("gate")),
        edges="trigger>one trigger>two trigger>gate",
    )
    lab.until(run, "cancelled")
    assert lab.gate.calls == []
    told = [(step.seq, step.node_id, step.status, step.attempt) for step in lab.trace(run)]
    assert told == [
        (1, "trigger", "completed", 1),
        (2, "one", "completed", 1),
        (3, "two", "cancelled", 1),
        (4, "gate", "cancelled", 1),
    ]


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


@pytest.mark.usefixtures("unhurried")
def test_a_cancel_at_the_very_end_of_what_was_computed(lab: Lab) -> None:
    """The step that was in flight has ended; those that rode behind it have not begun."""
    done: list[bool] = []

    def cancel(boundary: Boundary) -> None:
        if boundary.move is not None and not done:
            done.append(True)
            transitions.cancel(lab.db, ACTOR, boundary.metronome_id, boundary.run_id, free=lab.free)

    watched(lab.start(), cancel)
    lab.gate.open.set()
    run = lab.queue(*CHAIN)
    wait_for(lambda: done and lab.get(run).locked_by is None)
    assert lab.get(run).status == "cancelled"
    assert lab.statuses(run)[3:] == [
        ("gate", "completed"),
        ("three", "completed"),
        ("four", "cancelled"),
    ]


def test_a_cancel_behind_the_node_in_flight_names_what_was_next(lab: Lab) -> None:
    """Not what had been computed on from there."""
    lab.start()
    run = lab.queue(*CHAIN)
    assert lab.gate.begun.wait(PATIENCE)
    lab.cancel(run)
    lab.gate.open.set()
    wait_for(lambda: lab.get(run).locked_by is None)
    assert lab.statuses(run)[-2:] == [("gate", "completed"), ("three", "cancelled")]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("stage", [0, 1])
def test_a_run_that_is_out_of_time_has_nothing_of_what_rode(lab: Lab, stage: int) -> None:
    """Neither steps, nor skips, nor an end that follow from it."""
    late: list[bool] = []

    def end_time(boundary: Boundary) -> None:
        if boundary.rides and len(seen) == 2 * stage and not late:
            late.append(True)
            ago = "UPDATE runs SET deadline_at = clock_timestamp() WHERE id = :id"
            sql(lab, ago, id=boundary.run_id)

    seen = watched(lab.start(), end_time)
    lab.gate.open.set()
    run = lab.queue(
        node("trigger"),
        *((node("gate"),) if stage else ()),
        node("note", "one"),
        node("condition", conditions=[{"id": "yes", "expression": "true"}]),
        node("note", "unwanted"),
        node("end"),
        edges=(
            f"{'trigger>gate gate>one' if stage else 'trigger>one'} one>condition"
            " condition>unwanted:no condition>end:yes"
        ),
        timeout_ms=3_600_000,
    )
    failed = lab.until(run, "failed")
    assert late
    assert "timed out" in (failed.error or "")
    whole = [("trigger", "completed"), ("gate", "completed"), ("one", "completed")]
    assert lab.statuses(run) == (whole if stage else [])


def test_a_run_that_is_out_of_time_does_not_complete_by_what_rode(lab: Lab) -> None:
    """It would have an output, and no steps that it comes from."""

    def end_time(boundary: Boundary) -> None:
        if boundary.rides:
            late = "UPDATE runs SET deadline_at = clock_timestamp() WHERE id = :id"
            sql(lab, late, id=boundary.run_id)

    watched(lab.start(), end_time)
    run = lab.queue(node("trigger"), node("note"), node("end"), timeout_ms=3_600_000)
    failed = lab.until(run, "failed")
    assert "timed out" in (failed.error or "")
    assert (failed.output, lab.statuses(run)) == (None, [])


def test_nothing_is_computed_for_a_run_that_is_known_to_be_stopped(lab: Lab) -> None:
    def stop() -> Outcome:
        lab.cancel(run)
        wait_for(lambda: all(hold.stop.is_set() for hold in executor._holds.all()))
        return Done({})

    kind = lab.kinds["pure"] = Pure(stop)
    executor = lab.start()
    workflow = lab.workflow("stops", node("gate"), node("pure", "one"), node("pure", "two"))
    run = lab.begin(workflow)
    lab.gate.open.set()
    lab.until(run, "cancelled")
    assert len(kind.calls) == 1


def test_all_that_was_computed_is_in_the_trace_before_anybody_waits(lab: Lab) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"), node("note", "before"), node("delay", seconds=3600), node("end")
    )
    wait_for(lambda: lab.get(run).next_attempt_at)
    assert lab.statuses(run)[:2] == [("trigger", "completed"), ("before", "completed")]


@pytest.mark.usefixtures("unhurried")
def test_what_is_passed_over_stands_behind_what_decided_it(lab: Lab) -> None:
    seen = watched(lab.start())
    run = lab.queue(
        node("trigger"),
        node("condition", conditions=[{"id": "yes", "expression": "true"}]),
        node("note", "unwanted"),
        node("note", "wanted"),
        node("end"),
        edges=(
            "trigger>condition condition>unwanted:no condition>wanted:yes unwanted>end wanted>end"
        ),
    )
    lab.until(run, "completed")
    assert starts(seen) == [["trigger", "condition", "unwanted", "wanted"], ["end"]]
    assert lab.statuses(run) == [
        ("trigger", "completed"),
        ("condition", "completed"),
        ("unwanted", "skipped"),
        ("wanted", "completed"),
        ("end", "completed"),
    ]


@pytest.mark.usefixtures("unhurried")
def test_a_retry_goes_on_behind_what_rode(lab: Lab) -> None:
    lab.kinds["pure"] = Pure(lambda: Done({"n": 1}))
    lab.start()
    run = lab.queue(node("trigger"), node("pure"), node("flaky", failures=1, retryable=False))
    lab.until(run, "failed")
    retry(lab, run)
    lab.until(run, "completed")
    assert lab.statuses(run) == [
        ("trigger", "completed"),
        ("pure", "completed"),
        ("flaky", "failed"),
        ("flaky", "completed"),
    ]


def answers() -> dict[str, Any]:
    """Outputs of many kinds."""
    return {"text": "ä\"'\\", "number": 1.5, "list": [None, True], "deep": {"a": {"b": 2}}}


def test_what_rode_is_read_back_as_it_was(lab: Lab) -> None:
    lab.kinds["pure"] = Pure(lambda: Done(answers()))
    lab.start()
    run = lab.queue(
        node("trigger"), node("pure"), node("end", output="{{ steps.pure.output.deep.a }}")
    )
    assert lab.until(run, "completed").output == {"b": 2}
    assert lab.trace(run)[1].output == answers()
