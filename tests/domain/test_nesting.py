"""Loops in a definition: what may be inside of them, and the graph of each level."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.graph import Issue, check_shape, parse
from app.domain.nesting import MAX_LOOP_DEPTH
from app.nodes import REGISTRY


def node(id: str, parent: str | None = None, kind: str = "transform") -> dict[str, Any]:
    """A node; one whose id begins with a capital L is a loop."""
    return {"id": id, "kind": "loop" if id[0] == "L" else kind, "parentId": parent}


def edge(source: str, target: str, handle: str | None = None) -> dict[str, Any]:
    return {"id": f"{source}-{target}", "source": source, "target": target, "sourceHandle": handle}


def issues(*nodes: Any, edges: Any = ()) -> list[Issue]:
    return check_shape({"nodes": list(nodes), "edges": list(edges)}, REGISTRY)


NESTED = {
    "nodes": [
        {"id": "t", "kind": "trigger"},
        {**node("L"), "style": {"width": 300}},
        {**node("a", "L"), "extent": "parent"},
        {"id": "b", "parentId": "L", "position": {}, "data": {"kind": "transform"}},
        node("LL", "L"),
        node("x", "LL"),
        node("y", "LL", "end"),
        node("after"),
    ],
    "edges": [
        edge("t", "L"),
        edge("L", "a", "body"),
        edge("a", "b"),
        edge("b", "LL"),
        edge("LL", "x"),
        edge("x", "y"),
        edge("y", "LL"),
        edge("LL", "L"),
        edge("L", "after"),
    ],
}


def test_each_level_is_a_graph_of_its_own() -> None:
    assert check_shape(NESTED, REGISTRY) == []
    graph = parse(NESTED)
    levels: dict[str | None, list[str]] = {
        None: ["t", "L", "after"],
        "L": ["a", "b", "LL"],
        "LL": ["x", "y"],
    }
    assert {parent: list(graph.body(parent).nodes) for parent in levels} == levels
    links = {
        parent: [
            (e.source, e.target) for edges in graph.body(parent).outgoing.values() for e in edges
        ]
        for parent in levels
    }
    assert links == {
        None: [("t", "L"), ("L", "after")],
        "L": [("a", "b"), ("b", "LL")],
        "LL": [("x", "y")],
    }
    assert graph.body("L").body("LL") is graph.body("LL")
    assert graph.body("L").nodes["b"] is graph.nodes["b"]


def test_an_edge_between_a_loop_and_its_body_is_a_drawing() -> None:
    graph = parse(NESTED)
    assert [e.target for e in graph.outgoing["L"]] == ["after"]
    assert [e.source for e in graph.incoming["L"]] == ["t"]
    assert graph.incoming["a"] == ()
    assert graph.outgoing["y"] == ()


def test_a_condition_inside_need_not_name_a_branch_on_the_way_back_to_its_loop() -> None:
    condition = node("c", "L", "condition")
    assert issues(node("L"), condition, edges=[edge("L", "c"), edge("c", "L")]) == []


def test_a_loop_may_be_empty_in_a_draft() -> None:
    assert issues(node("L")) == []
    graph = parse({"nodes": [node("L")]})
    assert graph.body("L").nodes == {}
    with pytest.raises(KeyError):
        graph.body("gone")


@pytest.mark.parametrize(
    ("nodes", "code", "at"),
    [
        ([node("a", "gone")], "dangling_parent", 0),
        ([node("a", "")], "dangling_parent", 0),
        ([node("a"), node("b", "a")], "parent_not_loop", 1),
        ([node("a", "a")], "parent_not_loop", 0),
        ([node("L", "L")], "parent_cycle", 0),
        ([node("L1", "L2"), node("L2", "L1"), node("a", "L1")], "parent_cycle", 0),
        ([node("L"), node("t", "L", "trigger")], "trigger_in_loop", 1),
    ],
)
def test_a_parent_must_be_a_loop(nodes: list[Any], code: str, at: int) -> None:
    found = issues(*nodes)
    assert [(i.code, i.field) for i in found] == [(code, f"definition.nodes.{at}.parentId")]


@pytest.mark.parametrize("extra", [0, 1, 5, 900])
def test_loops_are_nested_up_to_a_depth(extra: int) -> None:
    depth = MAX_LOOP_DEPTH + extra
    loops = [node(f"L{n}", f"L{n - 1}" if n else None) for n in range(depth)]
    found = issues(*loops, node("a", f"L{depth - 1}"))
    deep = [] if extra == 0 else ["a" if extra == 1 else f"L{MAX_LOOP_DEPTH + 1}"]
    assert [(i.code, i.node_id) for i in found] == [("too_deep", id) for id in deep]


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("out", "a", "'out' is outside of all loops, 'a' is inside of the loop 'L'"),
        ("a", "out", "'a' is inside of the loop 'L', 'out' is outside of all loops"),
        ("a", "x", "'a' is inside of the loop 'L', 'x' is inside of the loop 'LL'"),
        ("x", "L", "'x' is inside of the loop 'LL', 'L' is outside of all loops"),
        ("L", "x", "'L' is outside of all loops, 'x' is inside of the loop 'LL'"),
        ("a", "M", "'a' is inside of the loop 'L', 'M' is outside of all loops"),
    ],
)
def test_no_edge_crosses_the_border_of_a_loop(source: str, target: str, words: str) -> None:
    nodes = [node("L"), node("LL", "L"), node("a", "L"), node("x", "LL"), node("out"), node("M")]
    (found,) = issues(*nodes, edges=[edge(source, target)])
    assert (found.code, found.field) == ("edge_crosses_loop", "definition.edges.0")
    assert words in found.message
    assert (found.node_id, found.edge_id) == (source, f"{source}-{target}")


def test_cycles_are_found_on_every_level() -> None:
    nodes = [node("L"), node("a", "L"), node("b", "L"), node("c")]
    back = [edge("L", "a"), edge("a", "b"), edge("b", "L"), edge("L", "c")]
    assert issues(*nodes, edges=back) == []
    assert [i.code for i in issues(*nodes, edges=[*back, edge("b", "a")])] == ["cycle"]
    assert [i.code for i in issues(*nodes, edges=[*back, edge("c", "L")])] == ["cycle"]


def test_a_bad_parent_is_one_issue_and_not_one_for_each_edge() -> None:
    nodes = [node("a", "gone"), node("b"), node("c", "gone")]
    found = issues(*nodes, edges=[edge("a", "b"), edge("b", "c"), edge("c", "a")])
    assert [i.code for i in found] == ["dangling_parent", "dangling_parent"]


@pytest.mark.parametrize(
    ("kind", "subtype", "config", "read"),
    [
        ("loop", "for_each", {}, {"loopType": "for_each"}),
        ("loop", "for_each", {"loopType": "until"}, {"loopType": "until"}),
        ("loop", None, {}, {}),
        ("table", "parse_csv", {"operation": ""}, {"operation": "parse_csv"}),
        ("metronome", "run_workflow", {}, {"operation": "run_workflow"}),
        ("trigger", "manual", {}, {}),
    ],
)
def test_a_subtype_may_say_what_the_config_does_not(
    kind: str, subtype: str | None, config: dict[str, Any], read: dict[str, Any]
) -> None:
    body = {"kind": kind, "subtype": subtype, "config": config}
    for raw in ({"id": "a", **body}, {"id": "a", "data": body}):
        assert parse({"nodes": [raw]}).nodes["a"].config == read


def test_a_subtype_that_says_something_else_is_refused() -> None:
    for kind, field in (("loop", "loopType"), ("table", "operation"), ("metronome", "operation")):
        (found,) = issues({"id": "a", "kind": kind, "subtype": "nonsense"})
        assert (found.code, found.field) == ("invalid_config", f"definition.nodes.0.config.{field}")
