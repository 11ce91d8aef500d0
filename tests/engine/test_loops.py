"""Loops: how often they go round, alone, in each other, and while their nodes sleep."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.bodies import (
    Probe,
    answer,
    asleep,
    inside,
    loop,
    outline,
    round_and_end,
    told,
    twice,
    watch,
)
from tests.engine.conftest import Lab, node
from tests.processes import wait_for


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


def test_a_loop_by_count_goes_round_and_tells_each_iteration(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab, loop(iterations=3), node("probe", output={"i": "{{ loop.index }}"}), node("note")
    )
    assert answer(lab, run) == {
        "iterations": 3,
        "stoppedBy": "count",
        "outputs": [{"i": 0}, {"i": 1}, {"i": 2}],
        "last": {"i": 2},
    }
    assert outline(lab, run) == [
        "trigger completed",
        "loop completed",
        *(f"probe/{i} completed" for i in range(3)),
        "end completed",
    ], "a note beside the way is no node of the body"
    seqs = {step.parent_seq for step in lab.trace(run) if step.node_id == "probe"}
    assert seqs == {2}


def test_the_count_may_be_a_binding(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab, loop(iterations="{{ trigger.input.n }}"), node("probe", output="{{ loop }}")
    )
    seen = answer(lab, run)["outputs"]
    assert [one["index"] for one in seen] == [0, 1, 2]
    assert {one["count"] for one in seen} == {3}
    assert seen[0]["previous"] is None
    assert seen[1]["previous"] == seen[0]


@pytest.mark.parametrize("count", [0, "{{ trigger.input.n - 3 }}"])
def test_no_iteration_is_a_good_end(lab: Lab, probe: Probe, count: Any) -> None:
    lab.start()
    run = round_and_end(lab, loop(iterations=count), node("probe"))
    assert answer(lab, run) == {
        "iterations": 0,
        "stoppedBy": "count",
        "outputs": [],
        "last": None,
    }
    assert probe.calls == []
    assert told(lab, run, "loop") == [((), "completed")]


def test_for_each_goes_through_a_list(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(loopType="for_each", inputBinding="trigger.input.list"),
        node("probe", output={"item": "{{ loop.item }}", "of": "{{ loop.count }}"}),
    )
    said = answer(lab, run)
    assert [one["item"] for one in said["outputs"]] == ["a", "b", "c", "d", "e"]
    assert {one["of"] for one in said["outputs"]} == {5}
    assert said["stoppedBy"] == "count"


def test_for_each_goes_through_batches(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(loopType="for_each", inputBinding="trigger.input.list", batchSize=2),
        node("probe", output={"first": "{{ loop.item }}", "all": "{{ loop.items }}"}),
    )
    assert answer(lab, run)["outputs"] == [
        {"first": "a", "all": ["a", "b"]},
        {"first": "c", "all": ["c", "d"]},
        {"first": "e", "all": ["e"]},
    ]


def test_an_empty_list_is_a_good_end(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(lab, loop(loopType="for_each", inputBinding="[]"), node("probe"))
    assert answer(lab, run)["iterations"] == 0
    assert probe.calls == []


def test_until_looks_at_the_steps_of_the_iteration_that_has_ended(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(loopType="until", rule="steps.probe.output.i >= 2", maxIterations=9),
        node("probe", output={"i": "{{ loop.index }}"}),
    )
    said = answer(lab, run)
    assert (said["iterations"], said["stoppedBy"], said["last"]) == (3, "rule", {"i": 2})


def test_until_ends_at_its_bound(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab, loop(loopType="until", rule="{{ false }}", maxIterations=4), node("probe")
    )
    said = answer(lab, run)
    assert (said["iterations"], said["stoppedBy"]) == (4, "maxIterations")


@pytest.mark.parametrize(
    "config",
    [
        {"iterations": 5},
        {"loopType": "for_each", "inputBinding": "trigger.input.list"},
    ],
)
def test_a_rule_ends_other_loops_early(lab: Lab, probe: Probe, config: dict[str, Any]) -> None:
    lab.start()
    run = round_and_end(lab, loop(**config, rule="loop.index == 1"), node("probe"))
    said = answer(lab, run)
    assert (said["iterations"], said["stoppedBy"]) == (2, "rule")


def test_a_rule_that_can_not_be_told_fails_the_loop(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(lab, loop(iterations=5, rule="steps.nowhere.output.x"), node("probe"))
    error = lab.until(run, "failed").error
    assert error
    assert error.startswith("node loop failed: rule: ")
    assert "nowhere" in error
    assert probe.paths("probe") == [(0,)]
    assert told(lab, run, "loop") == [((), "failed")]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"iterations": 4, "maxIterations": 3}, "4 times; maxIterations is 3"),
        ({"iterations": "{{ trigger.input.list }}"}, "a whole number"),
        ({"loopType": "for_each", "inputBinding": "trigger.input.n"}, "must give a list"),
    ],
)
def test_a_loop_that_can_not_begin_fails(
    lab: Lab, probe: Probe, config: dict[str, Any], why: str
) -> None:
    lab.start()
    run = round_and_end(lab, loop(**config), node("probe"))
    error = lab.until(run, "failed").error
    assert error
    assert why in error
    assert probe.calls == []


@pytest.mark.parametrize("body", [[], [node("note")], [node("note"), node("probe")]])
def test_a_loop_without_a_node_to_begin_at_fails(
    lab: Lab, probe: Probe, body: list[dict[str, Any]]
) -> None:
    lab.start()
    run = round_and_end(lab, loop(iterations=5), *body, edges="note>probe" if len(body) > 1 else "")
    error = lab.until(run, "failed").error
    assert error
    assert "no node inside of it" in error


def test_loops_in_loops(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop("outer", loopType="for_each", inputBinding="['x', 'y']"),
        *inside("outer", loop("inner", iterations="{{ loop.index + 1 }}"), node("probe", "after")),
        *inside("inner", node("probe", output={"at": "{{ loop.outer.item }}{{ loop.index }}"})),
        node("end"),
        edges="trigger>outer outer>end inner>after",
    )
    lab.until(run, "completed")
    assert outline(lab, run) == [
        "trigger completed",
        "outer completed",
        "inner/0 completed",
        "probe/0/0 completed",
        "after/0 completed",
        "inner/1 completed",
        "probe/1/0 completed",
        "probe/1/1 completed",
        "after/1 completed",
        "end completed",
    ]
    inner = [step.output for step in lab.trace(run) if step.node_id == "inner"]
    assert [one and one["outputs"] for one in inner] == [
        [{"at": "x0"}],
        [{"at": "y0"}, {"at": "y1"}],
    ]


def test_two_loops_side_by_side(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop("one", iterations=2),
        loop("two", iterations=3),
        *inside("one", node("delay", "nap", seconds=0.2), node("probe", "a")),
        *inside("two", node("probe", "b")),
        node("end", output={"a": "{{ inbound.one.iterations }}"}),
        edges="trigger>one trigger>two one>end two>end nap>a",
    )
    assert lab.until(run, "completed").output == {"a": 2}
    assert probe.paths("a") == [(0,), (1,)]
    assert probe.paths("b") == [(0,), (1,), (2,)]
    assert probe.calls[:3] == [("b", (0,)), ("b", (1,)), ("b", (2,))], "one naps, two goes on"


def test_a_long_sleep_in_a_body_goes_on_in_its_iteration_at_another_executor(
    lab: Lab, probe: Probe
) -> None:
    first = lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("probe", "before"),
        node("condition", conditions=[{"id": "second", "expression": "loop.index == 1"}]),
        node("delay", "nap", seconds=1.6),
        node("probe", "after", output={"i": "{{ loop.index }}"}),
        edges="before>condition condition>nap:second nap>after condition>after",
    )
    asleep(lab, run)
    assert probe.paths("before") == [(0,), (1,)]
    lab.stop(first)
    lab.start()
    said = answer(lab, run)
    assert said["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert probe.paths("before") == probe.paths("after") == [(0,), (1,), (2,)]
    assert told(lab, run, "nap") == [((0,), "skipped"), ((1,), "completed"), ((2,), "skipped")]
    assert told(lab, run, "loop") == [((), "completed")]
    assert twice(lab, run) == []


def test_a_loop_that_goes_on_waits_for_its_iterations(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(lab, loop(iterations=2), node("delay", seconds=3600))
    asleep(lab, run)
    one, inner = lab.trace(run)[1:]
    assert (one.status, one.parked, one.wake_at) == ("running", True, None)
    assert one.metadata == {"waitsFor": "iterations"}
    assert (inner.status, inner.parked) == ("running", True)
    assert inner.wake_at
    cancelled = lab.cancel(run)
    assert cancelled.in_flight == ()
    assert outline(lab, run)[1:] == ["loop cancelled", "delay/0 cancelled"]
    wait_for(lambda: lab.get(run).next_attempt_at is None)
