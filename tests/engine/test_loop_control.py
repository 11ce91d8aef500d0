"""Loops that are stopped, lost, failed and taken up again: no iteration twice, none left out."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from app.domain.models import Run, Step
from app.store.leases import EXECUTOR_LOST
from tests.engine.bodies import (
    Probe,
    answer,
    asleep,
    inside,
    loop,
    lose,
    outline,
    retry,
    round_and_end,
    told,
    twice,
    watch,
)
from tests.engine.conftest import Lab, node
from tests.engine.test_pause import take
from tests.processes import wait_for

I = "{{ loop.index }}"  # noqa: E741


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


def three(lab: Lab, *, holds_at: int = 1, count: int = 3, **wanted: Any) -> Run:
    """A run whose loop has three nodes, of which the second waits in one iteration."""
    return round_and_end(
        lab,
        loop(iterations=count),
        node("probe", "a", output={"i": I}),
        node("probe", "b", holdsAt=[holds_at]),
        node("probe", "c", output={"i": I}),
        edges="a>b b>c",
        **wanted,
    )


def steps_of(lab: Lab, run: Run, node_id: str) -> list[Step]:
    """The steps of one node, in order."""
    return [step for step in lab.trace(run) if step.node_id == node_id]


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
    run = round_and_end(lab, loop(iterations=2), node("probe", "b", holdsAt=[1], output={"i": I}))
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


def nested(lab: Lab, **config: Any) -> Run:
    """A run of two iterations of two iterations of ``in``, with a node ``after`` the inner loop."""
    return lab.queue(
        node("trigger"),
        loop("outer", iterations=2),
        *inside("outer", loop("inner", iterations=2), node("probe", "after", output={"i": I})),
        *inside(
            "inner", node("probe", "in", output={"at": "{{ loop.outer.index }}/" + I}, **config)
        ),
        node("end", output={"outer": "{{ inbound.outer.outputs }}"}),
        edges="trigger>outer outer>end inner>after",
    )


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
    at = []

    def lose_before(boundary):  # type: ignore[no-untyped-def]
        if boundary.parks and not at:
            at.append(boundary.parks[0].seq)
            lab.start(threads=1)
            lose(lab, run)
            lab.until(run, "completed")
        return write(boundary)

    monkeypatch.setattr(executor._writer, "write", lose_before)
    run = round_and_end(lab, loop(iterations=2), node("probe", output={"i": I}))
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


def test_a_new_attempt_of_the_run_goes_on_in_the_loop(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("probe", "a", output={"i": I}),
        node("probe", "b", failsAt=[1], output={"i": I}),
        edges="a>b",
        max_attempts=3,
    )
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert lab.get(run).attempt_count == 2
    assert told(lab, run, "loop") == [((), "completed")], "the loop's step went on all the time"
    assert probe.paths("a") == [(0,), (1,), (2,)]
    assert [(s.iteration, s.status, s.attempt) for s in steps_of(lab, run, "b")] == [
        (0, "completed", 1),
        (1, "failed", 1),
        (1, "completed", 2),
        (2, "completed", 1),
    ]


def test_a_run_that_fails_in_an_iteration_says_where(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("delay", seconds="{{ 3600 if loop.index == 1 else 0 }}"),
        node("probe", failsAt=[1], retryable=False),
    )
    assert lab.until(run, "failed").error == "node probe failed: told to"
    one = steps_of(lab, run, "loop")[0]
    assert one.status != "running"
    assert one.completed_at
    assert {step.status for step in lab.trace(run)} <= {"completed", "failed", "cancelled"}


def test_a_retry_goes_on_in_the_iteration_that_failed(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=4),
        node("probe", "a", output={"i": I, "before": "{{ loop.previous }}"}),
        node("probe", "b", failsAt=[2], output={"i": I}),
        edges="a>b",
    )
    lab.until(run, "failed")
    retry(lab, run)
    assert answer(lab, run) == {
        "iterations": 4,
        "stoppedBy": "count",
        "outputs": [{"i": 0}, {"i": 1}, {"i": 2}, {"i": 3}],
        "last": {"i": 3},
    }
    assert probe.paths("a") == [(0,), (1,), (2,), (3,)]
    assert probe.paths("b") == [(0,), (1,), (2,), (2,), (3,)]
    first, second = steps_of(lab, run, "loop")
    assert (second.status, second.attempt) == ("completed", 2)
    assert second.metadata
    assert second.metadata["continues"].endswith(f"_{first.seq:06}")
    assert [s.parent_seq == first.seq for s in steps_of(lab, run, "b")] == [
        *(True, True, True),
        *(False, False),
    ]
    befores = [s.output and s.output["before"] for s in steps_of(lab, run, "a")]
    assert befores == [None, {"i": 0}, {"i": 1}, {"i": 2}]
    assert twice(lab, run) == []


def test_a_retry_goes_on_in_the_iteration_that_was_cancelled(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = three(lab)
    assert probe.begun.wait(10)
    lab.cancel(run)
    probe.open.set()
    lab.until(run, "cancelled")
    retry(lab, run)
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    for node_id in "abc":
        assert probe.paths(node_id) == [(0,), (1,), (2,)]
    assert twice(lab, run) == []


def test_a_retry_sleeps_anew_where_a_sleep_was_cancelled(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=2),
        node("probe", "a", output={"i": I}),
        node("delay", seconds="{{ 1.2 if loop.index == 1 else 0 }}"),
        node("probe", "b", output={"i": I}),
        edges="a>delay delay>b",
    )
    asleep(lab, run)
    lab.cancel(run)
    retry(lab, run)
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}]
    assert told(lab, run, "delay") == [
        ((0,), "completed"),
        ((1,), "cancelled"),
        ((1,), "completed"),
    ]
    assert probe.paths("a") == [(0,), (1,)]


def test_a_retry_goes_on_in_the_inner_loop(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = nested(lab, failsAt=[1, 1])
    lab.until(run, "failed")
    retry(lab, run)
    assert lab.until(run, "completed").output == {"outer": [{"i": 0}, {"i": 1}]}
    assert probe.paths("in") == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 1)]
    assert probe.paths("after") == [(0,), (1,)]
    assert twice(lab, run) == []
    inner = steps_of(lab, run, "inner")[-1]
    assert inner.output
    assert inner.output["outputs"] == [{"at": "1/0"}, {"at": "1/1"}]
    assert inner.metadata
    assert "continues" in inner.metadata


def test_retries_again_and_again_keep_what_each_has_done(lab: Lab, probe: Probe) -> None:
    first = lab.start()
    run = round_and_end(
        lab,
        loop(iterations=8),
        node(
            "probe", "a", output={"i": I, "before": "{{ loop.previous.i if loop.previous else 0 }}"}
        ),
        node("probe", "b", failsAt=[1], failures=2, output={"i": I}),
        node("probe", "c", failsAt=[3], output={"i": I}),
        node("probe", "d", holdsAt=[6], output={"i": I}),
        edges="a>b b>c c>d",
    )
    for tries in range(3):
        lab.until(run, "failed")
        assert len(steps_of(lab, run, "loop")) == tries + 1
        retry(lab, run)
    assert probe.begun.wait(10)
    first.drain()
    probe.open.set()
    lab.stop(first)
    lab.start()  # what it knows it has read: four steps of the loop, the last one open
    assert answer(lab, run)["outputs"] == [{"i": i} for i in range(8)]
    for node_id in "ad":
        assert probe.paths(node_id) == [(i,) for i in range(8)]
    befores = [s.output and s.output["before"] for s in steps_of(lab, run, "a")]
    assert befores == [0, *range(7)]
    assert twice(lab, run) == []
    assert [s.status for s in steps_of(lab, run, "loop")][-1] == "completed"


def test_a_retry_of_a_loop_by_node_goes_on_in_its_iteration(lab: Lab, probe: Probe) -> None:
    """The loop itself has a retry: what fails in its body fails it, and it goes on from there."""
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3, retry={"maxAttempts": 2, "backoffSeconds": 0.05}),
        node("probe", "a", output={"i": I}),
        node("probe", "b", failsAt=[1], output={"i": I}),
        edges="a>b",
    )
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert lab.get(run).attempt_count == 1
    first, second = steps_of(lab, run, "loop")
    assert (first.status, first.error) == ("failed", "node b failed: told to")
    assert (second.status, second.attempt) == ("completed", 2)
    assert probe.paths("a") == [(0,), (1,), (2,)]
    assert probe.paths("b") == [(0,), (1,), (1,), (2,)]


def test_a_loop_that_fails_in_each_of_its_attempts_fails_the_run(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3, retry={"maxAttempts": 2, "backoffSeconds": 2.5}),
        node("probe", "a"),
        node("probe", "b", failsAt=[1], failures=9),
        edges="a>b",
    )
    asleep(lab, run)  # the backoff of the loop is longer than a nap: another claim goes on
    assert lab.until(run, "failed").error == "node loop failed: node b failed: told to"
    assert [s.status for s in steps_of(lab, run, "loop")] == ["failed", "failed"]
    assert probe.paths("a") == [(0,), (1,)]
    assert probe.paths("b") == [(0,), (1,), (1,)]


def test_a_cancel_at_any_moment_of_a_loop_leaves_nothing_open(lab: Lab, probe: Probe) -> None:
    lab.start()
    runs = []
    for number in range(10):
        run = nested(lab)
        wait_for(lambda run=run, number=number: len(lab.trace(run)) > number)
        lab.cancel(run)
        runs.append(run)
    for run in runs:
        wait_for(lambda run=run: lab.get(run).locked_by is None)
        now = lab.get(run)
        assert {step.status for step in lab.trace(run)} <= {"completed", "cancelled", "skipped"}
        if now.status == "cancelled":
            assert now.completed_at
            begun = [s.started_at for s in lab.trace(run) if s.started_at]
            assert all(at <= now.completed_at for at in begun)
            retry(lab, run)
            lab.until(run, "completed")
            assert twice(lab, run) == []
