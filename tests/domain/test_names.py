"""Which names an expression may use, seen from each place of a workflow."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.expressions import compile_expression
from app.domain.graph import parse
from app.domain.names import Names

OUTPUTS = {"http": frozenset({"status", "body"}), "transform": None}
# start -> fetch -> each (inside: one -> two -> deep (inside: inner)) -> after -> done
#                \-> side -----------------------------------------------------^
#          fetch --error--> tell
NODES: list[dict[str, Any]] = [
    {"id": "start", "kind": "trigger"},
    {"id": "fetch", "kind": "http", "config": {"outputKey": "page"}},
    {"id": "each", "kind": "loop"},
    {"id": "one", "kind": "transform", "parentId": "each", "config": {"outputKey": "first"}},
    {"id": "two", "kind": "transform", "parentId": "each"},
    {"id": "deep", "kind": "loop", "parentId": "each"},
    {"id": "inner", "kind": "transform", "parentId": "deep"},
    {"id": "after", "kind": "transform"},
    {"id": "side", "kind": "transform"},
    {"id": "tell", "kind": "transform"},
    {"id": "done", "kind": "end"},
    {"id": "my-node", "kind": "transform"},
]
EDGES = [
    *(("start", "fetch"), ("fetch", "each"), ("each", "after"), ("after", "done")),
    *(("fetch", "side"), ("side", "done"), ("one", "two"), ("two", "deep"), ("start", "my-node")),
]


@pytest.fixture
def names() -> Names:
    edges = [{"source": source, "target": target} for source, target in EDGES]
    edges.append({"source": "fetch", "target": "tell", "sourceHandle": "error"})
    return Names(parse({"nodes": NODES, "edges": edges}), OUTPUTS)


def codes(names: Names, source: str, node: str, inside: bool = False) -> list[str]:
    graph = names._graph
    faults = [
        names.fault(path, graph.nodes[node], inside)
        for path in sorted(compile_expression(source).names())
    ]
    return [fault.code for fault in faults if fault is not None]


@pytest.mark.parametrize(
    ("source", "node"),
    [
        ("trigger.input.a.b[0]", "fetch"),
        ("trigger.type == 'manual' and run.id and run.attempt > 1", "fetch"),
        ("steps.start.output.a", "fetch"),
        ("steps.fetch.output.body.x and page.status == 200 and page", "after"),
        ("steps.fetch.error", "tell"),
        ("steps.fetch", "after"),
        ("steps", "after"),
        ("steps[trigger.input.which]", "after"),
        ("steps['fetch'].output", "after"),
        ("steps.each.output.outputs", "after"),
        ("inbound.after.x and inbound['side'] and steps.side.output", "done"),
        ("loop.index + loop.count", "one"),
        ("steps.one.output.x and first.x and steps.fetch.output.status", "two"),
        ("loop.outer.item and loop.previous and steps.two.output", "inner"),
        ("loop.outer", "one"),
    ],
)
def test_what_exists_may_be_named(names: Names, source: str, node: str) -> None:
    assert codes(names, source, node) == []


@pytest.mark.parametrize(
    ("source", "node", "code"),
    [
        ("stepz.fetch.output", "after", "unknown_name"),
        ("input.a", "after", "unknown_name"),
        ("trigger.inputs", "fetch", "unknown_name"),
        ("run.name", "fetch", "unknown_name"),
        ("steps.fetsh.output", "after", "unknown_step"),
        ("steps.fetsh.output|default(1)", "after", "unknown_step"),
        ("steps.fetch.outputs.body", "after", "unknown_name"),
        ("steps.fetch.output.boddy", "after", "unknown_output"),
        ("page.boddy", "after", "unknown_output"),
        ("steps.side.error", "done", "no_error_edge"),
        ("steps.after.output", "fetch", "step_not_before"),  # behind it
        ("steps.fetch.output", "fetch", "step_not_before"),  # itself
        ("steps.side.output", "after", "step_not_before"),  # beside it
        ("steps.one.output", "after", "step_not_before"),  # inside of a loop
        ("first.x", "after", "step_not_before"),
        ("steps.each.output", "one", "step_not_before"),  # around it
        ("steps.deep.output", "two", "step_not_before"),
        ("steps.inner.output", "two", "step_not_before"),
        ("steps.two.output", "one", "step_not_before"),
        ("loop.item", "after", "not_in_loop"),
        ("loop.item", "each", "not_in_loop"),  # the loop is inside of none
        ("loop.outer.item", "one", "not_in_loop"),
        ("loop.number", "one", "unknown_name"),
        ("inbound.after", "after", "unknown_name"),
        ("inbound.fetch", "done", "unknown_name"),
    ],
)
def test_what_can_not_be_there_is_a_fault(names: Names, source: str, node: str, code: str) -> None:
    assert codes(names, source, node) == [code]


def test_a_loops_rule_sees_what_the_nodes_inside_see(names: Names) -> None:
    assert codes(names, "steps.two.output.ok and first.x and loop.index > 2", "each", True) == []
    assert codes(names, "steps.deep.output and steps.fetch.output.body", "each", True) == []
    assert codes(names, "steps.inner.output", "each", True) == ["step_not_before"]
    assert codes(names, "steps.each.output", "each", True) == ["step_not_before"]
    assert codes(names, "loop.outer.index", "each", True) == ["not_in_loop"]
    assert codes(names, "loop.outer.index and steps.inner.output", "deep", True) == []
    assert codes(names, "steps.two.output.ok", "each") == ["step_not_before"]


def test_a_fault_says_what_was_meant(names: Names) -> None:
    node = names._graph.nodes["after"]
    fault = names.fault(("steps", "fetsh", "output"), node)
    assert fault is not None
    assert "did you mean 'fetch'?" in fault.message
    fault = names.fault(("x" * 500,), node)
    assert fault is not None
    assert len(fault.message) < 300
