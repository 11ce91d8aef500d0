"""What the body of a loop sees, what is seen of it, and what the loop answers."""

from __future__ import annotations

import pytest

from app.nodes.base import NodeLimits
from tests.engine.bodies import (
    Probe,
    answer,
    inside,
    loop,
    round_and_end,
    told,
    watch,
)
from tests.engine.conftest import Lab, node


@pytest.fixture
def probe(lab: Lab) -> Probe:
    """The node that keeps a diary, known to the lab's executors."""
    return watch(lab)


def test_an_inner_loop_is_the_last_node_of_its_outer_one(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop("outer", iterations=2),
        *inside("outer", loop("inner", iterations=1)),
        *inside("inner", node("probe", output={"i": "{{ loop.outer.index }}"})),
        node("end"),
        edges="trigger>outer outer>end",
    )
    said = answer(lab, run)
    assert [one["last"] for one in said["outputs"]] == [{"i": 0}, {"i": 1}]
    assert said["last"]["iterations"] == 1


def test_what_an_iteration_passes_over_is_in_its_trace(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("condition", conditions=[{"id": "odd", "expression": "loop.index == 1"}]),
        node("probe", "odd", output={"odd": True}),
        node("probe", "even", output={"odd": False}),
        node("probe", "behind_odd", output={"behind": "odd"}),
        edges="condition>odd:odd condition>even:else odd>behind_odd",
    )
    said = answer(lab, run)
    assert said["outputs"] == [{"odd": False}, {"behind": "odd"}, {"odd": False}]
    assert told(lab, run, "odd") == [((0,), "skipped"), ((1,), "completed"), ((2,), "skipped")]
    assert told(lab, run, "even") == [((0,), "completed"), ((1,), "skipped"), ((2,), "completed")]
    assert told(lab, run, "behind_odd") == told(lab, run, "odd")


def test_an_iteration_without_a_last_node_answers_nothing(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=4),
        node("condition", conditions=[{"id": "one", "expression": "loop.index == 1"}]),
        node("probe", output={"i": "{{ loop.index }}"}),
        edges="condition>probe:one",
    )
    said = answer(lab, run)
    assert said == {
        "iterations": 4,
        "stoppedBy": "count",
        "outputs": [{}, {"i": 1}, {}, {}],
        "last": {},
    }


def test_an_end_inside_of_a_body_answers_for_its_iteration(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=2),
        node("probe", output={"i": "{{ loop.index }}"}),
        node("end", "stop", output={"said": "{{ steps.probe.output.i }}"}),
        node("probe", "beside", output={"never": "told"}),
        edges="probe>stop",
    )
    said = answer(lab, run)
    assert said["outputs"] == [{"said": 0}, {"said": 1}]
    assert probe.paths("beside") == [(0,), (1,)], "an end ends no more than its own branch"


def test_several_last_nodes_answer_by_their_ids(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=2),
        node("probe", "a", output={"a": "{{ loop.index }}"}),
        node("probe", "b", output={"b": "{{ loop.index }}"}),
    )
    said = answer(lab, run)
    assert said["outputs"] == [{"a": {"a": i}, "b": {"b": i}} for i in range(2)]
    assert said["last"] == said["outputs"][1]


def test_too_many_outputs_are_cut_off_after_a_whole_iteration(lab: Lab, probe: Probe) -> None:
    lab.start(limits=NodeLimits(output_max_bytes=4_000))
    run = round_and_end(
        lab,
        loop(iterations=20),
        node("probe", "a", output={"text": "ö" * 150}),
        node("probe", "b", output={"text": "b" * 150}),
    )
    said = answer(lab, run)
    assert said["truncated"] is True
    assert said["iterations"] == 20
    assert 0 < len(said["outputs"]) < 20
    assert {tuple(one) for one in said["outputs"]} == {("a", "b")}
    assert said["last"] == said["outputs"][0]


def test_many_empty_iterations_are_cut_off_as_well(lab: Lab, probe: Probe) -> None:
    lab.start(limits=NodeLimits(output_max_bytes=1_300))
    run = round_and_end(
        lab,
        loop(iterations=300),
        node("condition", conditions=[{"id": "last", "expression": "loop.index == 299"}]),
        node("probe", output={"i": "{{ loop.index }}"}),
        edges="condition>probe:last",
    )
    said = answer(lab, run)
    assert said["truncated"] is True
    assert said["last"] == {"i": 299}
    assert set(map(str, said["outputs"])) == {"{}"}


def test_a_last_output_that_is_too_big_is_left_out(lab: Lab, probe: Probe) -> None:
    lab.start(limits=NodeLimits(output_max_bytes=1_500))
    big = {"text": "x" * 1_000}
    run = round_and_end(
        lab, loop(iterations=2), node("probe", "a", output=big), node("probe", "b", output=big)
    )
    said = answer(lab, run)
    assert said == {
        "iterations": 2,
        "stoppedBy": "count",
        "outputs": [],
        "last": None,
        "truncated": True,
    }


def test_output_keys_inside_are_seen_inside_only(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=2, outputKey="rounds"),
        node("probe", "first", output={"i": "{{ loop.index }}"}, outputKey="mine"),
        node("probe", "second", output={"was": "{{ mine.i }}", "input": "{{ trigger.input.n }}"}),
        edges="first>second",
    )
    assert answer(lab, run)["outputs"] == [{"was": 0, "input": 3}, {"was": 1, "input": 3}]


@pytest.mark.parametrize(
    "outside", ["{{ steps.first.output }}", "{{ mine }}", "{{ loop }}", "{{ steps.loop.mine }}"]
)
def test_nothing_of_the_body_is_seen_outside(lab: Lab, probe: Probe, outside: str) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        loop(iterations=1),
        *inside("loop", node("probe", "first", output={"i": 1}, outputKey="mine")),
        node("probe", "last", output={"x": outside}),
        edges="trigger>loop loop>last",
    )
    assert (lab.until(run, "failed").error or "").startswith("node last failed: ")


def test_the_loop_is_seen_outside_by_its_output_key(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = lab.queue(
        node("trigger"),
        node("probe", "before", output={"x": 7}, outputKey="seven"),
        loop(iterations=2, outputKey="rounds"),
        *inside("loop", node("probe", "in", output={"i": "{{ seven.x + loop.index }}"})),
        node("end", output={"all": "{{ rounds.outputs }}", "n": "{{ steps.loop.output.last.i }}"}),
        edges="trigger>before before>loop loop>end",
    )
    assert lab.until(run, "completed").output == {"all": [{"i": 7}, {"i": 8}], "n": 8}


def test_what_was_not_reached_in_an_iteration_is_not_seen_from_the_one_before(
    lab: Lab, probe: Probe
) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=2),
        node("condition", conditions=[{"id": "first", "expression": "loop.index == 0"}]),
        node("probe", "once", output={"x": 1}),
        node("probe", "always", output={"x": "{{ steps.once.output.x }}"}),
        edges="condition>once:first condition>always once>always",
    )
    error = lab.until(run, "failed").error
    assert error
    assert error.startswith("node always failed: ")
    assert told(lab, run, "always") == [((0,), "completed"), ((1,), "failed")]


def test_a_short_sleep_in_a_body_is_waited_for(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node("delay", "nap", seconds=0.1),
        node("probe", output={"i": "{{ loop.index }}", "n": "{{ steps.nap.output.waitedMs }}"}),
        edges="nap>probe",
    )
    said = answer(lab, run)
    assert [one["i"] for one in said["outputs"]] == [0, 1, 2]
    assert all(100 <= one["n"] < 5_000 for one in said["outputs"])
    assert lab.get(run).attempt_count == 1


def test_a_node_in_a_body_is_tried_again_in_its_iteration(lab: Lab, probe: Probe) -> None:
    lab.start()
    run = round_and_end(
        lab,
        loop(iterations=3),
        node(
            "probe",
            output={"i": "{{ loop.index }}"},
            failsAt=[1],
            failures=2,
            retry={"maxAttempts": 3, "backoffSeconds": 0.05},
        ),
    )
    assert answer(lab, run)["outputs"] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert [(s.iteration, s.attempt) for s in lab.trace(run) if s.node_id == "probe"] == [
        (0, 1),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
    ], "each iteration counts its attempts anew"
    assert lab.get(run).attempt_count == 1
