"""Loops that have failed or were cancelled, and are tried again where they stood."""

from __future__ import annotations

import pytest

from app.services import transitions
from app.store.boundary import Boundary, Verdict
from tests.engine.bodies import (
    ITERATION,
    Probe,
    answer,
    asleep,
    loop,
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
from tests.engine.conftest import ACTOR, Lab, node


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


def test_a_new_attempt_of_the_run_goes_on_in_the_loop(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("probe", "a", output={"i": ITERATION}),
        node("probe", "b", failsAt=[1], output={"i": ITERATION}),
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
        node("probe", "a", output={"i": ITERATION, "before": "{{ loop.previous }}"}),
        node("probe", "b", failsAt=[2], output={"i": ITERATION}),
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
        node("probe", "a", output={"i": ITERATION}),
        node("delay", seconds="{{ 1.2 if loop.index == 1 else 0 }}"),
        node("probe", "b", output={"i": ITERATION}),
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
            "probe",
            "a",
            output={"i": ITERATION, "before": "{{ loop.previous.i if loop.previous else 0 }}"},
        ),
        node("probe", "b", failsAt=[1], failures=2, output={"i": ITERATION}),
        node("probe", "c", failsAt=[3], output={"i": ITERATION}),
        node("probe", "d", holdsAt=[6], output={"i": ITERATION}),
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
        node("probe", "a", output={"i": ITERATION}),
        node("probe", "b", failsAt=[1], output={"i": ITERATION}),
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


def test_a_rule_is_told_the_same_again_after_a_cancel(lab: Lab, probe: Probe) -> None:
    """The next iteration was noted as cancelled, and is none that has begun."""
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=9, rule="not loop.previous if loop.index == 2 else loop.index == 4"),
        node("probe", "a"),
        node("probe", "b", holdsAt=[2], output={"i": ITERATION}),
        edges="a>b",
    )
    assert probe.begun.wait(10)
    lab.cancel(run)
    probe.open.set()
    lab.until(run, "cancelled")
    assert outline(lab, run)[-1] == "a/3 cancelled"
    retry(lab, run)
    assert answer(lab, run)["iterations"] == 5
    assert probe.paths("a") == [(i,) for i in range(5)]


def test_what_was_passed_over_is_told_once_however_often_the_run_is_stopped(lab: Lab) -> None:
    """Also where it is all that the trace has of the loop's last step."""
    executor = lab.start()
    write, stops = executor._writer.write, []

    def cancel(boundary: Boundary, at: str) -> None:
        if at not in stops:
            stops.append(at)
            transitions.cancel(lab.db, ACTOR, boundary.metronome_id, boundary.run_id, free=lab.free)

    def meddle(boundary: Boundary) -> Verdict:
        skips = [step.node_id for step in boundary.starts] == ["never"]
        if skips and boundary.ends:
            cancel(boundary, "before it is told")
        verdict = write(boundary)
        if skips and verdict.answer == "go":
            cancel(boundary, "behind it")
        return verdict

    executor._writer.write = meddle  # type: ignore[method-assign]
    run = round_and_end(
        lab,
        loop(iterations=1),
        node("condition", conditions=[{"id": "no", "expression": "false"}]),
        node("note", "never"),
        edges="condition>never:no",
    )
    for _ in range(2):
        lab.until(run, "cancelled")
        retry(lab, run)
    lab.until(run, "completed")
    assert len(stops) == 2
    assert [s.status for s in steps_of(lab, run, "never")] == ["skipped"]
