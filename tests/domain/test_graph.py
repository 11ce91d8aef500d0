from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.graph import Edge, Issue, Node, check_shape, parse
from app.nodes import REGISTRY

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_FIELDS = (
    *("id", "kind", "data", "config", "position", "parentId", "label", "outputKey", "retry"),
    *("timeoutMs", "source", "target", "sourceHandle", "conditions", "field", "operator"),
    *("expression", "url", "seconds", "maxAttempts", "output", "headers", "subtype", "operation"),
    *("loopType", "iterations", "maxIterations", "inputBinding", "batchSize", "rule", "delimiter"),
    *("title", "deadline", "deadlineSeconds", "onDeadline", "workflowId", "input", "inputJson"),
)
_KINDS = st.sampled_from([*REGISTRY, "for_each", "until", "a", "b", ""])
_OBJECT = st.dictionaries(st.sampled_from(_FIELDS), _KINDS | _JSON, max_size=6)
_NEARLY = st.fixed_dictionaries(
    {
        "nodes": st.lists(
            st.dictionaries(st.sampled_from(_FIELDS), _KINDS | _OBJECT | st.lists(_OBJECT)) | _JSON
        ),
        "edges": st.lists(_OBJECT | _JSON),
    }
)


def node(id: str, kind: str = "note", **config: Any) -> dict[str, Any]:
    return {"id": id, "kind": kind, "config": config}


def edge(source: str, target: str, handle: str | None = None) -> dict[str, Any]:
    return {"id": f"{source}-{target}", "source": source, "target": target, "sourceHandle": handle}


def issues(*nodes: Any, edges: Any = ()) -> list[Issue]:
    return check_shape({"nodes": list(nodes), "edges": list(edges)}, REGISTRY)


def test_a_sound_definition_of_both_shapes_has_no_issue() -> None:
    definition = {
        "version": 1,
        "name": "n",
        "nodes": [
            {"id": "t", "kind": "trigger", "subtype": "manual", "position": {"x": 1}, "style": {}},
            {
                "id": "c",
                "type": "condition",
                "position": {"x": 0, "y": 0},
                "selected": True,
                "data": {
                    "kind": "condition",
                    "config": {"conditions": [{"id": "big", "expression": "trigger.input.n > 1"}]},
                },
            },
            node("x", "transform", output="{{ trigger.input }}", outputKey="shaped"),
            node("e", "end", retry={"maxAttempts": 3, "backoffSeconds": 0.5}, timeoutMs=1000),
        ],
        "edges": [
            edge("t", "c"),
            edge("c", "x", "big"),
            {"source": "c", "target": "e", "sourceHandle": "false", "animated": True},
            edge("x", "e"),
        ],
    }
    assert check_shape(definition, REGISTRY) == []
    graph = parse(definition)
    assert list(graph.nodes) == ["t", "c", "x", "e"]
    assert graph.nodes["x"] == Node(
        "x",
        "transform",
        None,
        None,
        {"output": "{{ trigger.input }}", "outputKey": "shaped"},
        "shaped",
        None,
        2,
    )
    assert graph.nodes["c"].kind == "condition"
    assert graph.outgoing["c"] == (Edge("c-x", "c", "x", "big"), Edge(None, "c", "e", "false"))
    assert [e.source for e in graph.incoming["e"]] == ["c", "x"]
    assert graph.incoming["t"] == ()


@pytest.mark.parametrize("empty", [{}, {"nodes": [], "edges": []}])
def test_an_empty_definition_is_a_draft(empty: dict[str, Any]) -> None:
    assert check_shape(empty, REGISTRY) == []
    assert parse(empty).nodes == {}


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (5, "invalid_type", "definition.nodes.0"),
        ({"kind": "note"}, "missing_id", "definition.nodes.0.id"),
        ({"id": "", "kind": "note"}, "invalid_id", "definition.nodes.0.id"),
        ({"id": 7, "kind": "note"}, "invalid_id", "definition.nodes.0.id"),
        ({"id": "x" * 129, "kind": "note"}, "invalid_id", "definition.nodes.0.id"),
        ({"id": "a"}, "missing_kind", "definition.nodes.0.kind"),
        ({"id": "a", "data": {}}, "missing_kind", "definition.nodes.0.data.kind"),
        ({"id": "a", "kind": []}, "invalid_type", "definition.nodes.0.kind"),
        ({"id": "a", "kind": "nope"}, "unknown_kind", "definition.nodes.0.kind"),
        ({"id": "a", "kind": "note", "label": 3}, "invalid_type", "definition.nodes.0.label"),
        ({"id": "a", "kind": "note", "position": 3}, "invalid_type", "definition.nodes.0.position"),
        ({"id": "a", "kind": "note", "config": []}, "invalid_type", "definition.nodes.0.config"),
        (
            {"id": "a", "data": {"kind": "note", "subtype": 1}},
            "invalid_type",
            "definition.nodes.0.data.subtype",
        ),
        ({"id": "a", "kind": "note", "parentId": 5}, "invalid_type", "definition.nodes.0.parentId"),
        (node("a", outputKey="loop"), "invalid_output_key", "definition.nodes.0.config.outputKey"),
        (node("a", outputKey="run"), "invalid_output_key", "definition.nodes.0.config.outputKey"),
        (node("a", outputKey="a b"), "invalid_output_key", "definition.nodes.0.config.outputKey"),
        (node("a", outputKey=[]), "invalid_output_key", "definition.nodes.0.config.outputKey"),
        (node("a", timeoutMs=0), "invalid_config", "definition.nodes.0.config.timeoutMs"),
        (node("a", timeoutMs=True), "invalid_config", "definition.nodes.0.config.timeoutMs"),
        (node("a", timeoutMs=2592000001), "invalid_config", "definition.nodes.0.config.timeoutMs"),
        (node("a", retry=3), "invalid_config", "definition.nodes.0.config.retry"),
        (
            node("a", retry={"maxAttempts": 1.5}),
            "invalid_config",
            "definition.nodes.0.config.retry.maxAttempts",
        ),
        (
            node("a", retry={"backoffSeconds": -1}),
            "invalid_config",
            "definition.nodes.0.config.retry.backoffSeconds",
        ),
        (node("a", "http", url="ftp://x"), "invalid_config", "definition.nodes.0.config.url"),
        (
            {"id": "a", "data": {"kind": "transform", "config": {"output": {"b": "{{ ( }}"}}}},
            "invalid_config",
            "definition.nodes.0.data.config.output.b",
        ),
    ],
)
def test_a_bad_node_is_named_by_its_path(bad: Any, code: str, field: str) -> None:
    found = issues(bad)
    assert [(issue.level, issue.code, issue.field) for issue in found] == [("error", code, field)]


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        ("x", "invalid_type", "definition.edges.1"),
        ({"id": 3, "source": "a", "target": "c"}, "invalid_id", "definition.edges.1.id"),
        ({"id": "a-b", "source": "a", "target": "c"}, "duplicate_id", "definition.edges.1.id"),
        ({"target": "c"}, "missing_field", "definition.edges.1.source"),
        ({"source": "a", "target": []}, "invalid_type", "definition.edges.1.target"),
        ({"source": "a", "target": "z"}, "dangling_edge", "definition.edges.1.target"),
        ({"source": "z", "target": "a"}, "dangling_edge", "definition.edges.1.source"),
        ({"source": "c", "target": "c"}, "self_loop", "definition.edges.1"),
        (
            {"source": "a", "target": "c", "sourceHandle": {}},
            "invalid_type",
            "definition.edges.1.sourceHandle",
        ),
    ],
)
def test_a_bad_edge_is_named_by_its_path(bad: Any, code: str, field: str) -> None:
    found = issues(node("a"), node("b"), node("c"), edges=[edge("a", "b"), bad])
    assert [(issue.code, issue.field) for issue in found] == [(code, field)]


@pytest.mark.parametrize(
    ("definition", "code", "field"),
    [
        ([], "invalid_type", "definition"),
        (None, "invalid_type", "definition"),
        ({"nodes": {}}, "invalid_type", "definition.nodes"),
        ({"nodes": [], "edges": 1}, "invalid_type", "definition.edges"),
        ({"nodes": [node(str(n)) for n in range(1001)]}, "too_many_nodes", "definition.nodes"),
        ({"nodes": [], "edges": [{}] * 5001}, "too_many_edges", "definition.edges"),
        ({"name": "x" * 1_000_001}, "value_refused", "definition"),
        (
            {"nodes": [node("a", message="\x00")]},
            "value_refused",
            "definition.nodes.0.config.message",
        ),
    ],
)
def test_a_bad_definition_is_one_issue(definition: object, code: str, field: str) -> None:
    found = check_shape(definition, REGISTRY)
    assert [(issue.code, issue.field) for issue in found] == [(code, field)]


def test_ids_and_output_keys_are_unique() -> None:
    found = issues(node("a"), node("a"))
    assert [(i.code, i.node_id) for i in found] == [("duplicate_id", "a")]
    found = issues(node("a", outputKey="k"), node("b", outputKey="k"))
    assert [(i.code, i.node_id) for i in found] == [("duplicate_output_key", "b")]


def test_each_cycle_is_told_by_its_nodes() -> None:
    nodes = [node(id) for id in "sabcxyt"]
    links = ["sa", "ab", "bc", "ca", "cx", "xy", "yx", "yt"]
    found = issues(*nodes, edges=[edge(*link) for link in links])
    assert [i.code for i in found] == ["cycle", "cycle"]
    assert found[0].message == "The nodes form a cycle: a -> b -> c -> a."
    assert found[1].message == "The nodes form a cycle: x -> y -> x."


def test_a_long_chain_is_no_cycle_and_a_long_cycle_is_one() -> None:
    nodes = [node(str(n)) for n in range(1000)]
    chain = [edge(str(n), str(n + 1)) for n in range(999)]
    assert issues(*nodes, edges=chain) == []
    assert [i.code for i in issues(*nodes, edges=[*chain, edge("999", "0")])] == ["cycle"]


@pytest.mark.parametrize(
    ("count", "handle", "sound"),
    [
        (1, "c0", True),
        (1, "else", True),
        (1, "true", True),
        (1, "error", True),
        (1, "nope", False),
        (1, None, False),
        (2, "c1", True),
        (2, "true", False),
    ],
)
def test_an_edge_of_a_condition_names_a_branch(count: int, handle: str, sound: bool) -> None:
    conditions = [{"id": f"c{n}", "expression": "true"} for n in range(count)]
    found = issues(
        node("a", "condition", conditions=conditions), node("b"), edges=[edge("a", "b", handle)]
    )
    expected = [] if sound else [("unknown_branch", "definition.edges.0.sourceHandle", "a-b")]
    assert [(i.code, i.field, i.edge_id) for i in found] == expected


def test_all_issues_are_told_up_to_a_hundred() -> None:
    assert len(issues(*[{"id": 1}] * 40)) == 80
    assert len(issues(*[{"id": 1}] * 400)) == 100


@given(_JSON | _NEARLY)
@settings(max_examples=150, deadline=None)
def test_no_json_makes_the_check_raise_and_what_passes_can_be_parsed(definition: Any) -> None:
    found = check_shape(definition, REGISTRY)
    if not found:
        parse(definition)


def test_a_bottomless_definition_is_an_issue() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50_000):
        deep = {"config": deep}
    assert [i.code for i in check_shape({"nodes": [deep]}, REGISTRY)] == ["value_refused"]
