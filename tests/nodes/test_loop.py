from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from app.domain.outcomes import Failed, LoopPlan, Repeat
from app.nodes import REGISTRY
from app.nodes.loop import DEFAULT_MAX_ITERATIONS, MAX_ITERATIONS, Loop

Run = Callable[..., Any]
LOOP = cast(Loop, REGISTRY["loop"])
SCOPE = {
    "trigger": {
        "input": {"n": 3, "half": 2.0, "t": " 4 ", "files": ["a", ["b"], None], "none": [], "o": {}}
    }
}


@pytest.mark.parametrize(
    ("config", "plan"),
    [
        ({"iterations": 3}, LoopPlan(3, None, None, DEFAULT_MAX_ITERATIONS)),
        ({"loopType": "fixed_count", "iterations": 0}, LoopPlan(0, None, None, 10_000)),
        ({"iterations": "5", "maxIterations": 5}, LoopPlan(5, None, None, 5)),
        ({"iterations": "{{ trigger.input.n }}"}, LoopPlan(3, None, None, 10_000)),
        ({"iterations": "{{ trigger.input.n }}0"}, LoopPlan(30, None, None, 10_000)),
        ({"iterations": "{{ trigger.input.half }}"}, LoopPlan(2, None, None, 10_000)),
        ({"iterations": "{{ trigger.input.t }}"}, LoopPlan(4, None, None, 10_000)),
        (
            {"iterations": 2, "rule": "{{ loop.index > 0 }}"},
            LoopPlan(2, None, "loop.index > 0", 10_000),
        ),
        ({"iterations": 2, "batchSize": 5}, LoopPlan(2, None, None, 10_000)),
        (
            {"loopType": "for_each", "inputBinding": "trigger.input.files"},
            LoopPlan(3, (["a"], [["b"]], [None]), None, 10_000),
        ),
        (
            {"loopType": "for_each", "inputBinding": "{{ trigger.input.files }}", "batchSize": 2},
            LoopPlan(2, (["a", ["b"]], [None]), None, 10_000),
        ),
        (
            {"loopType": "for_each", "inputBinding": "trigger.input.files", "maxIterations": 3},
            LoopPlan(3, (["a"], [["b"]], [None]), None, 3),
        ),
        (
            {"loopType": "for_each", "inputBinding": "trigger.input.none", "rule": "loop.index"},
            LoopPlan(0, (), "loop.index", 10_000),
        ),
        (
            {"loopType": "until", "rule": "steps.a.output.ok", "maxIterations": 7},
            LoopPlan(None, None, "steps.a.output.ok", 7),
        ),
    ],
)
def test_a_loop_says_how_often_it_goes_round(
    run: Run, lacks: Run, config: dict[str, Any], plan: LoopPlan
) -> None:
    assert lacks("loop", config) == []
    assert run("loop", config, SCOPE) == Repeat(plan)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"iterations": "{{ trigger.input.files }}"}, "whole number"),
        ({"iterations": "{{ trigger.input.n / 2 }}"}, "whole number"),
        ({"iterations": "{{ 0 - trigger.input.n }}"}, "not less than 0"),
        ({"iterations": "{{ trigger.input.n > 1 }}"}, "whole number"),
        ({"iterations": "{{ 1000000000000 }}"}, "maxIterations is 10,000, as the config sets no"),
        ({"iterations": "{{ trigger.input.n }}", "maxIterations": 2}, "3 times; maxIterations is"),
        ({"loopType": "for_each", "inputBinding": "trigger.input.o"}, "a list, but gave an object"),
        ({"loopType": "for_each", "inputBinding": "'abc'"}, "a list, but gave a text"),
        ({"loopType": "for_each", "inputBinding": "null"}, "a list, but gave null"),
        (
            {"loopType": "for_each", "inputBinding": "trigger.input.files", "maxIterations": 2},
            "would go round 3 times; maxIterations is 2",
        ),
    ],
)
def test_a_loop_that_can_not_go_round_as_told_fails_before_it_begins(
    run: Run, config: dict[str, Any], error: str
) -> None:
    outcome = run("loop", config, SCOPE)
    assert isinstance(outcome, Failed)
    assert not outcome.retryable
    assert error in outcome.error


def test_a_batch_is_one_iteration(run: Run) -> None:
    items = list(range(25))
    config = {"loopType": "for_each", "inputBinding": "items", "batchSize": 10, "maxIterations": 3}
    plan = run("loop", config, {"items": items}).plan
    assert plan.items == (items[:10], items[10:20], items[20:])


def test_a_plan_is_made_anew_from_what_was_recorded() -> None:
    config = {"loopType": "for_each", "inputBinding": "gone.by.now", "batchSize": 2}
    assert LOOP.plan(config, {"items": [1, 2, 3]}) == LoopPlan(2, ([1, 2], [3]), None, 10_000)
    assert LOOP.plan({"iterations": "{{ gone }}"}, {"iterations": 3}).count == 3
    assert LOOP.plan({"loopType": "until", "rule": "x", "maxIterations": 1}, None).until == "x"
    for kind in ("fixed_count", "for_each"):
        with pytest.raises(ValueError, match="must"):
            LOOP.plan({"loopType": kind, "iterations": 1, "inputBinding": "x"}, None)


def test_the_step_records_what_the_loop_goes_through() -> None:
    config = {"loopType": "for_each", "inputBinding": "trigger.input.files"}
    assert LOOP.record(LOOP.bind(config, SCOPE)) == {"items": ["a", ["b"], None]}
    assert LOOP.bind({"iterations": "{{ trigger.input.n }}"}, SCOPE) == {"iterations": 3}
    assert LOOP.record(LOOP.bind({"loopType": "until", "rule": "x"}, SCOPE)) is None


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"loopType": "ticket_status"}, "config.loopType"),
        ({"loopType": ["for_each"]}, "config.loopType"),
        ({"iterations": -1}, "config.iterations"),
        ({"iterations": 1.5}, "config.iterations"),
        ({"iterations": True}, "config.iterations"),
        ({"iterations": 10**30}, "config.iterations"),
        ({"iterations": "9" * 30}, "config.iterations"),
        ({"iterations": "three"}, "config.iterations"),
        ({"iterations": []}, "config.iterations"),
        ({"iterations": "{{ ( }}"}, "config.iterations"),
        ({"iterations": MAX_ITERATIONS + 1}, "config.iterations"),
        ({"iterations": 10_001}, "config.iterations"),
        ({"iterations": 5, "maxIterations": 4}, "config.iterations"),
        ({"maxIterations": 0}, "config.maxIterations"),
        ({"maxIterations": "5"}, "config.maxIterations"),
        ({"maxIterations": MAX_ITERATIONS + 1}, "config.maxIterations"),
        ({"batchSize": 0}, "config.batchSize"),
        ({"batchSize": True}, "config.batchSize"),
        ({"inputBinding": ["a"]}, "config.inputBinding"),
        ({"inputBinding": "a b"}, "config.inputBinding"),
        ({"inputBinding": "{{ a }} {{ b }}"}, "config.inputBinding"),
        ({"inputBinding": "(" * 5000}, "config.inputBinding"),
        ({"rule": "loop.index >"}, "config.rule"),
        ({"rule": True}, "config.rule"),
    ],
)
def test_a_bad_config_is_named(faults: Run, config: dict[str, Any], field: str) -> None:
    assert faults("loop", config) == [field]


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({}, ["config.iterations"]),
        ({"iterations": ""}, ["config.iterations"]),
        ({"iterations": 20_000, "maxIterations": 20_000}, []),
        ({"loopType": "for_each"}, ["config.inputBinding"]),
        ({"loopType": "until"}, ["config.rule", "config.maxIterations"]),
        ({"loopType": "until", "rule": "", "maxIterations": 3}, ["config.rule"]),
    ],
)
def test_a_draft_may_lack_what_ends_the_loop(
    lacks: Run, config: dict[str, Any], fields: list[str]
) -> None:
    assert lacks("loop", config) == fields
