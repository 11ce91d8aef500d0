"""Loops that are stopped and lost, and go on: no iteration twice, none left out."""

from __future__ import annotations

from functools import partial

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from app.domain.models import Run
from app.store.leases import EXECUTOR_LOST
from tests.engine.bodies import (
    ITERATION,
    Probe,
    answer,
    asleep,
    loop,
    lose,
    nested,
    outline,
    retry,
    round_and_end,
    steps_of,
    three,
    told,
    twice,
    watch,
)
from tests.engine.conftest import Lab, node
from tests.engine.test_pause import take
from tests.processes import wait_for


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


def test_cancel_stops_between_the_nodes_of_an_iteration(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = three(lab)
    assert probe.begun.wait(10)

    cancelled = lab.cancel(run)

    assert cancelled.in_flight == ("b",), "a loop that goes on is no node in flight"
    assert told(lab, run, "loop") == [((), "cancelled")]
    probe.open.set()
    ended = lab.until(run, "cancelled")
    assert outline(lab, run)[2:] == [
        "a/0 completed",
        "b/0 completed",
        "c/0 completed",
        "a/1 completed",
        "b/1 completed",
        "c/1 cancelled",
    ]
    assert probe.calls[-1] == ("b", (1,))
    assert ended.completed_at
    assert all(s.started_at < ended.completed_at for s in lab.trace(run) if s.started_at)
    assert lab.trace(run)[-1].started_at is None


def test_cancel_in_the_last_node_of_an_iteration_keeps_the_next_from_beginning(
    lab: Lab, probe: Probe
) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("probe", "a"),
        node("probe", "b", holdsAt=[1]),
        edges="a>b",
    )
    assert probe.begun.wait(10)
    lab.cancel(run)
    probe.open.set()
    lab.until(run, "cancelled")
    assert outline(lab, run)[-2:] == ["b/1 completed", "a/2 cancelled"]
    assert probe.paths("a") == [(0,), (1,)]


@pytest.mark.parametrize("again", ["cancelled", "paused"])
def test_a_stop_in_the_last_node_of_a_loop_leaves_its_end_to_who_goes_on(
    lab: Lab, probe: Probe, again: str
) -> None:
    lab.start()
    run = round_and_end(
        lab, loop(iterations=2), node("probe", "b", holdsAt=[1], output={"i": ITERATION})
    )
    assert probe.begun.wait(10)
    if again == "paused":
        take(lab, PAUSE, run)
    else:
        lab.cancel(run)
    probe.open.set()
    lab.until(run, again)
    assert outline(lab, run)[-1] == "b/1 completed"
    if again == "paused":
        take(lab, RESUME, run)
    else:
        retry(lab, run)
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}]
    assert probe.paths("b") == [(0,), (1,)]
    assert twice(lab, run) == []


def test_cancel_stops_loops_in_loops(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = nested(lab, holdsAt=[1, 0])
    assert probe.begun.wait(10)
    lab.cancel(run)
    probe.open.set()
    lab.until(run, "cancelled")
    assert told(lab, run, "outer") == [((), "cancelled")]
    assert told(lab, run, "inner") == [((0,), "completed"), ((1,), "cancelled")]
    assert outline(lab, run)[-2:] == ["in/1/0 completed", "in/1/1 cancelled"]


def test_pause_and_resume_go_on_in_the_same_iteration(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = three(lab)
    assert probe.begun.wait(10)
    take(lab, PAUSE, run)
    probe.open.set()
    lab.until(run, "paused")
    assert outline(lab, run)[-1] == "b/1 completed"
    assert told(lab, run, "loop") == [((), "running")]

    take(lab, RESUME, run)

    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    for node_id in "abc":
        assert probe.paths(node_id) == [(0,), (1,), (2,)]
    assert told(lab, run, "loop") == [((), "completed")]


def test_pause_while_a_body_sleeps_keeps_the_sleep(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab, loop(iterations=2), node("delay", seconds=1.2), node("probe"), edges="delay>probe"
    )
    asleep(lab, run)
    take(lab, PAUSE, run)
    assert lab.get(run).status == "paused"
    take(lab, RESUME, run)
    answer(lab, run)
    assert told(lab, run, "delay") == [((0,), "completed"), ((1,), "completed")]
    assert probe.paths("probe") == [(0,), (1,)]


def test_a_lost_executor_costs_no_more_than_the_node_in_flight(lab: Lab, probe: Probe) -> None:
    lab.start(threads=1)
    run = three(lab)
    assert probe.begun.wait(10)
    probe.begun.clear()
    lab.start(threads=1)
    lose(lab, run)
    assert probe.begun.wait(10), "the other executor calls the node again"
    probe.open.set()
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert [(s.iteration, s.status, s.attempt) for s in steps_of(lab, run, "b")] == [
        (0, "completed", 1),
        (1, "failed", 1),
        (1, "completed", 2),
        (2, "completed", 1),
    ]
    lost, again = steps_of(lab, run, "b")[1:3]
    assert lost.error == EXECUTOR_LOST
    assert again.metadata
    assert again.metadata["replayOf"].endswith(f"_{lost.seq:06}")
    assert probe.paths("a") == [(0,), (1,), (2,)]
    assert twice(lab, run) == []


def test_a_lost_executor_in_a_loop_of_a_loop(lab: Lab, probe: Probe) -> None:
    lab.start(threads=1)
    run = nested(lab, holdsAt=[1, 0])
    assert probe.begun.wait(10)
    probe.begun.clear()
    lab.start(threads=1)
    lose(lab, run)
    assert probe.begun.wait(10)
    probe.open.set()
    assert lab.until(run, "completed").output == {"outer": [{"i": 0}, {"i": 1}]}
    assert probe.paths("in") == [(0, 0), (0, 1), (1, 0), (1, 0), (1, 1)]
    assert told(lab, run, "inner") == [((0,), "completed"), ((1,), "completed")]
    assert twice(lab, run) == []
    inner = steps_of(lab, run, "inner")[1].output
    assert inner
    assert [one["at"] for one in inner["outputs"]] == ["1/0", "1/1"]


def test_a_loop_that_was_lost_before_its_first_iteration_begins_anew(
    lab: Lab, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is gone between the start of the loop's step and that of the first node."""
    executor = lab.start(threads=1)
    write = executor._writer.write
    at: list[int] = []

    def lose_before(boundary):  # type: ignore[no-untyped-def]
        if boundary.parks and not at:
            at.append(boundary.parks[0].seq)
            lab.start(threads=1)
            lose(lab, run)
            lab.until(run, "completed")
        return write(boundary)

    monkeypatch.setattr(executor._writer, "write", lose_before)
    run = round_and_end(lab, loop(iterations=2), node("probe", output={"i": ITERATION}))
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}]
    lost, again = steps_of(lab, run, "loop")
    assert (lost.status, lost.error, again.attempt) == ("failed", EXECUTOR_LOST, 2)
    assert probe.paths("probe") == [(0,), (1,)]


def test_a_drain_between_the_nodes_of_an_iteration(lab: Lab, probe: Probe) -> None:
    first = lab.start(grace=10.0)
    run = three(lab)
    assert probe.begun.wait(10)
    first.drain()
    probe.open.set()
    lab.stop(first)
    assert outline(lab, run)[-1] == "b/1 completed"
    lab.start()
    answer(lab, run)
    for node_id in "abc":
        assert probe.paths(node_id) == [(0,), (1,), (2,)]
    assert told(lab, run, "loop") == [((), "completed")]


def _has_steps(lab: Lab, run: Run, count: int) -> bool:
    return len(lab.trace(run)) >= count


def _is_free(lab: Lab, run: Run) -> bool:
    return lab.get(run).locked_by is None


def test_a_cancel_at_any_moment_of_a_loop_leaves_nothing_open(lab: Lab, probe: Probe) -> None:
    lab.start()
    runs = []
    for number in range(10):
        run = nested(lab)
        wait_for(partial(_has_steps, lab, run, number + 1))
        lab.cancel(run)
        runs.append(run)
    for run in runs:
        wait_for(partial(_is_free, lab, run))
        now = lab.get(run)
        assert {step.status for step in lab.trace(run)} <= {"completed", "cancelled", "skipped"}
        if now.status == "cancelled":
            assert now.completed_at
            begun = [s.started_at for s in lab.trace(run) if s.started_at]
            assert all(at <= now.completed_at for at in begun)
            retry(lab, run)
            lab.until(run, "completed")
            assert twice(lab, run) == []
