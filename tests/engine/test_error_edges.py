"""Failures as edges: what a node that has failed for good leads to, inside and outside of loops."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.lifecycle import PAUSE, RESUME
from tests.engine.bodies import (
    ITERATION,
    Probe,
    answer,
    asleep,
    inside,
    loop,
    lose,
    outline,
    round_and_end,
    told,
    watch,
)
from tests.engine.conftest import Lab, node
from tests.engine.test_pause import take

FAILS: dict[str, Any] = {"failsAt": [], "failures": 99}


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


def test_the_error_edge_is_taken_instead_of_the_others(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", **FAILS),
        node("probe", "good"),
        node("probe", "behind_good"),
        node("probe", "mend", output={"because": "{{ steps.risky.error }}"}),
        node("end"),
        edges="trigger>risky risky>good good>behind_good risky>mend:error behind_good>end mend>end",
    )
    ended = lab.until(run, "completed")
    assert ended.output == {"because": "told to"}
    assert ended.error is None
    assert outline(lab, run) == [
        "trigger completed",
        "risky failed",
        "good skipped",
        "behind_good skipped",
        "mend completed",
        "end completed",
    ]
    risky = lab.trace(run)[1]
    assert (risky.error, risky.metadata) == ("told to", {"branch": "error"})


def test_without_a_failure_the_error_edge_is_passed_over(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", output={"fine": True}),
        node("probe", "mend"),
        node("end"),
        edges="trigger>risky risky>end risky>mend:error mend>end",
    )
    assert lab.until(run, "completed").output == {"fine": True}
    assert outline(lab, run)[2:] == ["mend skipped", "end completed"]


def test_without_an_error_edge_the_run_fails(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(node("trigger"), node("probe", "risky", **FAILS), node("end"))
    assert lab.until(run, "failed").error == "node risky failed: told to"
    assert outline(lab, run) == ["trigger completed", "risky failed"]


def test_the_error_edge_comes_after_the_retries(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", **FAILS, retry={"maxAttempts": 3, "backoffSeconds": 0.05}),
        node("probe", "mend"),
        edges="trigger>risky risky>mend:error",
        max_attempts=5,
    )
    assert lab.until(run, "completed").attempt_count == 1
    assert outline(lab, run)[1:] == [*["risky failed"] * 3, "mend completed"]
    metadata = [step.metadata or {} for step in lab.trace(run) if step.node_id == "risky"]
    assert ["branch" in one for one in metadata] == [False, False, True]


def test_a_retry_that_helps_leaves_the_error_edge_alone(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", failsAt=[], retry={"maxAttempts": 2, "backoffSeconds": 0.05}),
        node("probe", "mend"),
        edges="trigger>risky risky>mend:error",
    )
    lab.until(run, "completed")
    assert outline(lab, run)[1:] == ["risky failed", "risky completed", "mend skipped"]


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (node("transform", "risky", output="{{ nowhere }}"), "nowhere"),
        (node("transform", "risky"), "config.output"),
        (node("flaky", "risky", raises=True), "RuntimeError: out of the blue"),
        (node("flaky", "risky", value="x" * 20_000), "bigger than"),
        (node("loop", "risky", iterations=2), "no node inside"),
        (node("delay", "risky", seconds="{{ 'soon' }}"), "seconds"),
    ],
)
def test_every_failure_of_a_node_takes_it(lab: Lab, probe: Probe, one: Any, why: str) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        one,
        node("probe", "mend", output={"because": "{{ steps.risky.error }}"}),
        edges="trigger>risky risky>mend:error",
    )
    output = lab.until(run, "completed").output
    assert output
    assert why in output["because"]


def test_a_condition_may_have_an_error_edge_beside_its_branches(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("condition", conditions=[{"id": "yes", "expression": "trigger.input.n > 1"}]),
        node("probe", "yes"),
        node("probe", "otherwise"),
        node("probe", "mend", output={"because": "{{ steps.condition.error }}"}),
        edges="trigger>condition condition>yes:yes condition>otherwise:else condition>mend:error",
        input={"n": "three"},
    )
    output = lab.until(run, "completed").output
    assert output
    assert set(outline(lab, run)[1:]) == {
        "condition failed",
        "yes skipped",
        "otherwise skipped",
        "mend completed",
    }


def test_a_join_behind_the_failure_goes_on_with_what_is_there(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", **FAILS),
        node("probe", "other", output={"other": 1}),
        node("probe", "mend", output={"mended": 1}),
        node("end", output={"got": "{{ inbound }}"}),
        edges="trigger>risky trigger>other risky>end risky>mend:error mend>end other>end",
    )
    assert lab.until(run, "completed").output == {
        "got": {"mend": {"mended": 1}, "other": {"other": 1}, "risky": {}}
    }


def test_a_failure_behind_a_failure_fails_the_run(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", **FAILS),
        node("probe", "mend", **FAILS),
        edges="trigger>risky risky>mend:error",
    )
    assert lab.until(run, "failed").error == "node mend failed: told to"


@pytest.mark.parametrize("how", ["pause", "sleep", "lost"])
def test_another_claim_goes_the_same_way(lab: Lab, probe: Probe, how: str) -> None:
    first = lab.start(threads=1)
    run = lab.queue(
        node("trigger"),
        node("probe", "risky", **FAILS),
        node("probe", "good"),
        node("delay", seconds=1.2 if how == "sleep" else 0),
        node("probe", "hold", holdsAt=[] if how != "sleep" else [9]),
        node("probe", "mend", output={"because": "{{ steps.risky.error }}"}),
        edges="trigger>risky risky>good risky>delay:error delay>hold hold>mend good>mend",
    )
    if how == "sleep":
        asleep(lab, run)
        lab.stop(first)
        lab.start()
    else:
        assert probe.begun.wait(10)
        if how == "pause":
            take(lab, PAUSE, run)
        else:
            probe.begun.clear()
            lab.start(threads=1)
            lose(lab, run)
            assert probe.begun.wait(10)
        probe.open.set()
        if how == "pause":
            lab.until(run, "paused")
            take(lab, RESUME, run)
    assert lab.until(run, "completed").output == {"because": "told to"}
    assert len(probe.paths("risky")) == 1
    assert outline(lab, run).count("good skipped") == 1


def test_inside_of_a_body_it_leads_on_in_the_iteration(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("probe", "risky", failsAt=[1], output={"i": ITERATION}),
        node("probe", "mend", output={"because": "{{ steps.risky.error }}"}),
        node("probe", "good", output={"i": ITERATION}),
        edges="risky>good risky>mend:error",
    )
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"because": "told to"}, {"i": 2}]
    assert told(lab, run, "good") == [((0,), "completed"), ((1,), "skipped"), ((2,), "completed")]
    assert told(lab, run, "mend") == [((0,), "skipped"), ((1,), "completed"), ((2,), "skipped")]


def test_a_loop_whose_body_fails_takes_its_error_edge(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=3),
        *inside(
            "loop",
            node("probe", "a", output={"i": ITERATION}),
            node("delay", "nap", seconds="{{ 3600 if loop.index == 1 else 0 }}"),
            node("probe", "risky", failsAt=[1]),
            node("probe", "behind"),
        ),
        node("probe", "good"),
        node("probe", "mend", output={"because": "{{ steps.loop.error }}"}),
        node("end"),
        edges="trigger>loop loop>good loop>mend:error good>end mend>end a>risky risky>behind",
    )
    assert lab.until(run, "completed").output == {"because": "node risky failed: told to"}
    assert told(lab, run, "loop") == [((), "failed")]
    assert told(lab, run, "risky") == [((0,), "completed"), ((1,), "failed")]
    assert told(lab, run, "nap") == [((0,), "completed"), ((1,), "cancelled")]
    assert told(lab, run, "behind") == [((0,), "completed")]
    assert told(lab, run, "good") == [((), "skipped")]
    assert probe.paths("mend") == [()]
    one = next(step for step in lab.trace(run) if step.node_id == "loop")
    assert one.metadata
    assert one.metadata["branch"] == "error"


def loops_in_loops(outer: dict[str, Any], inner: dict[str, Any]) -> list[dict[str, Any]]:
    """A loop in a loop, whose node fails in the second iteration of both; and nodes behind them."""
    return [
        node("trigger"),
        {**loop("outer", iterations=3, **outer)},
        *inside(
            "outer",
            loop("inner", iterations=2, **inner),
            node("probe", "behind_inner", output={"i": ITERATION}),
        ),
        *inside("inner", node("probe", "risky", failsAt=[1, 1], failures=9)),
        node("probe", "good"),
        node("probe", "mend_outer", output={"because": "{{ steps.outer.error }}"}),
    ]


def test_the_nearest_loop_with_a_way_on_takes_it(lab: Lab, probe: Probe) -> None:
    lab.start()
    mend = node("probe", "mend_inner", output={"because": "{{ steps.inner.error }}"})
    run = lab.queue(
        *loops_in_loops({}, {}),
        *inside("outer", mend),
        edges="trigger>outer outer>good outer>mend_outer:error"
        " inner>behind_inner inner>mend_inner:error",
    )
    lab.until(run, "completed")
    assert told(lab, run, "inner") == [((0,), "completed"), ((1,), "failed"), ((2,), "completed")]
    assert told(lab, run, "behind_inner") == [
        ((0,), "completed"),
        ((1,), "skipped"),
        ((2,), "completed"),
    ]
    assert probe.paths("mend_inner") == [(1,)]
    assert probe.paths("good") == [()]
    (outer,) = [step for step in lab.trace(run) if step.node_id == "outer"]
    assert outer.output
    assert outer.output["outputs"] == [
        {"i": 0},
        {"because": "node risky failed: told to"},
        {"i": 2},
    ]


def test_a_failure_goes_up_to_the_loop_that_has_an_error_edge(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        *loops_in_loops({}, {}),
        edges="trigger>outer outer>good outer>mend_outer:error inner>behind_inner",
    )
    assert lab.until(run, "completed").output == {"because": "node risky failed: told to"}
    assert told(lab, run, "outer") == [((), "failed")]
    assert told(lab, run, "inner")[1][1] in ("failed", "cancelled")
    assert probe.paths("behind_inner") == [(0,)]
    assert probe.paths("good") == []


def test_a_loop_with_retries_inside_of_one_with_an_error_edge(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        *loops_in_loops({}, {"retry": {"maxAttempts": 2, "backoffSeconds": 0.05}}),
        edges="trigger>outer outer>good outer>mend_outer:error inner>behind_inner",
    )
    assert lab.until(run, "completed").output == {
        "because": "node inner failed: node risky failed: told to"
    }
    assert told(lab, run, "inner") == [((0,), "completed"), ((1,), "failed"), ((1,), "failed")]
    assert probe.paths("risky") == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 1)]


def test_a_loop_that_failed_is_not_taken_up_by_another_claim(lab: Lab, probe: Probe) -> None:
    first = lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=3),
        *inside("loop", node("probe", "risky", failsAt=[1])),
        node("probe", "good"),
        node("delay", "mend", seconds=1.2),
        edges="trigger>loop loop>good loop>mend:error",
    )
    asleep(lab, run)
    lab.stop(first)
    lab.start()
    lab.until(run, "completed")
    assert probe.paths("risky") == [(0,), (1,)]
    assert outline(lab, run)[1:] == [
        "loop failed",
        "risky/0 completed",
        "risky/1 failed",
        "good skipped",
        "mend completed",
    ]
