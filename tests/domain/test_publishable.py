"""What keeps a definition from being published, as far as it alone tells."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from app.domain.graph import Issue
from app.domain.publishable import in_order, publish_faults, read
from app.nodes import REGISTRY


def node(id: str, kind: str, **config: Any) -> dict[str, Any]:
    return {"id": id, "kind": kind, "config": config}


def edge(source: str, target: str, handle: str | None = None) -> dict[str, Any]:
    return {"source": source, "target": target, "sourceHandle": handle}


def definition(nodes: list[dict[str, Any]], edges: list[dict[str, Any]]) -> dict[str, Any]:
    """These nodes between a trigger and an end."""
    return {"nodes": [node("start", "trigger"), *nodes, node("done", "end")], "edges": edges}


GOOD = definition([node("t", "transform", output=1)], [edge("start", "t"), edge("t", "done")])


def faults(given: object) -> list[Issue]:
    issues, sound = read(given, REGISTRY)
    return in_order([*issues, *(publish_faults(sound, REGISTRY) if sound else ())])


def told(given: object) -> list[tuple[str, str, str | None]]:
    return [(issue.level, issue.code, issue.node_id) for issue in faults(given)]


def test_a_good_definition_has_no_issue() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    "given", [None, [], "x", {"nodes": 1}, {"nodes": [1]}, {"a": float("nan")}]
)
def test_what_is_no_definition_is_an_issue_and_no_exception(given: Any) -> None:
    assert [level for level, _, _ in told(given)] == ["error"]


def test_a_workflow_needs_a_trigger() -> None:
    assert told({"nodes": [node("done", "end")]}) == [("error", "no_trigger", None)]
    assert told({}) == [("error", "no_trigger", None)]


def test_a_config_must_be_complete() -> None:
    lacking = definition([node("h", "http")], [edge("start", "h"), edge("h", "done")])
    (issue,) = faults(lacking)
    assert (issue.level, issue.code) == ("error", "incomplete_config")
    assert issue.field == "definition.nodes.1.config.url"


def test_the_field_of_the_builders_form_is_below_data() -> None:
    lacking = definition(
        [{"id": "h", "data": {"kind": "http", "config": {"url": "{{ stepz.a }}"}}}],
        [edge("start", "h"), edge("h", "done")],
    )
    (issue,) = faults(lacking)
    assert issue.field == "definition.nodes.1.data.config.url"


def test_every_condition_leads_somewhere() -> None:
    branches = definition(
        [
            node(
                "c",
                "condition",
                conditions=[{"id": "a", "expression": "1"}, {"id": "b", "expression": "2"}],
            )
        ],
        [edge("start", "c"), edge("c", "done", "a")],
    )
    assert told(branches) == [
        ("error", "branch_leads_nowhere", "c"),
        ("warning", "branch_leads_nowhere", "c"),
    ]
    branches["edges"] += [edge("c", "done", "b"), edge("c", "done", "else")]
    assert told(branches) == []


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("a", "else"), ("a", "false")])
def test_a_single_condition_may_be_true_or_false(yes: str, no: str) -> None:
    branches = definition(
        [node("c", "condition", conditions=[{"id": "a", "expression": "1"}])],
        [edge("start", "c"), edge("c", "done", yes), edge("c", "done", no)],
    )
    assert told(branches) == []


def test_an_approval_that_leads_nowhere_is_a_warning() -> None:
    asked = definition([node("a", "approval")], [edge("start", "a"), edge("start", "done")])
    assert told(asked) == [("warning", "branch_leads_nowhere", "a")]


def test_nodes_and_ends_must_be_reached() -> None:
    lost = copy.deepcopy(GOOD)
    lost["edges"].pop()
    assert told(lost) == [("error", "end_unreachable", "done"), ("warning", "unreachable", "done")]
    lost["nodes"].append({"id": "remark", "kind": "note"})
    lost["nodes"].pop(2)
    assert told(lost) == [("warning", "no_end", None)]


def test_a_trigger_that_nothing_follows_is_a_warning() -> None:
    two = copy.deepcopy(GOOD)
    two["nodes"].append({"id": "other", "kind": "trigger", "subtype": "github"})
    assert told(two) == [("warning", "trigger_leads_nowhere", "other")]


def test_a_loop_must_be_bounded_and_should_hold_something() -> None:
    forever = definition(
        [node("l", "loop", loopType="until", rule="loop.index > 3")],
        [edge("start", "l"), edge("l", "done")],
    )
    assert told(forever) == [("error", "incomplete_config", "l"), ("warning", "empty_loop", "l")]


def trigger(**fields: Any) -> dict[str, Any]:
    given = copy.deepcopy(GOOD)
    given["nodes"][0] |= fields
    return given


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"subtype": "periodic", "config": {}}, "invalid_config"),
        ({"subtype": "periodic", "config": {"cronExpression": "x"}}, "invalid_config"),
        ({"subtype": "github", "config": {"githubBranchContains": {}}}, "invalid_config"),
        ({"subtype": "function", "config": {"slug": "a b"}}, "invalid_slug"),
        ({"config": {"triggerType": "periodic"}}, "invalid_config"),
    ],
)
def test_a_trigger_must_be_readable(fields: dict[str, Any], code: str) -> None:
    assert told(trigger(**fields)) == [("error", code, "start")]


def test_an_unknown_trigger_type_is_a_warning() -> None:
    assert told(trigger(subtype="carrier-pigeon")) == [("warning", "unknown_trigger_type", "start")]
    assert told(trigger(subtype="github", config={"triggerType": "email"})) == [
        ("warning", "trigger_type_differs", "start")
    ]


def test_two_function_triggers_need_two_slugs() -> None:
    two = trigger(subtype="function", config={"slug": "go"})
    two["nodes"].append(
        {"id": "b", "kind": "trigger", "subtype": "function", "config": {"functionSlug": "go"}}
    )
    two["edges"].append(edge("b", "t"))
    assert told(two) == [("error", "invalid_slug", "b")]


def test_a_fault_of_one_config_hides_no_other_issue() -> None:
    given = definition(
        [node("h", "http", url=5), node("t", "transform", output="{{ steps.gone.output }}")],
        [edge("start", "h"), edge("h", "t"), edge("t", "done")],
    )
    assert told(given) == [("error", "invalid_config", "h"), ("error", "unknown_step", "t")]


@pytest.mark.parametrize(
    ("kind", "config", "field"),
    [
        ("transform", {"output": {"a": ["{{ gone.x }}"]}}, "output.a.0"),
        ("http", {"url": "https://x.org/{{ gone }}"}, "url"),
        ("http", {"url": "https://x.org", "headers": {"X-A": "{{ gone }}"}}, "headers.X-A"),
        ("http", {"url": "https://x.org", "body": {"b": "{{ gone }}"}}, "body.b"),
        ("delay", {"seconds": "{{ gone }}"}, "seconds"),
        ("approval", {"title": "{{ gone }}"}, "title"),
        ("table", {"inputBinding": "gone"}, "inputBinding"),
        ("function", {"functionName": "f", "payloadJson": '{"a": "{{ gone }}"}'}, "payloadJson.a"),
        ("function", {"functionName": "f", "payloadJson": "[{{ gone }}]"}, "payloadJson"),
        ("metronome", {"workflowName": "w", "input": {"a": "{{ gone }}"}}, "input.a"),
        ("metronome", {"workflowName": "{{ gone }}"}, "workflowName"),
        ("loop", {"loopType": "for_each", "inputBinding": "{{ gone }}"}, "inputBinding"),
        ("loop", {"iterations": "{{ gone }}"}, "iterations"),
        ("loop", {"iterations": 3, "rule": "gone"}, "rule"),
        ("action", {"message": "{{ gone }}"}, "message"),
        ("action", {"inputBindings": {"a": "gone"}}, "inputBindings.a"),
        ("action", {"anything": ["{{ gone }}"]}, "anything.0"),
        ("ticket", {"fieldsJson": '["{{ gone }}"]'}, "fieldsJson.0"),
        ("database", {"recordsBinding": "gone"}, "recordsBinding"),
    ],
)
def test_expressions_are_found_wherever_they_may_be(
    kind: str, config: dict[str, Any], field: str
) -> None:
    given = definition([node("n", kind, **config)], [edge("start", "n"), edge("n", "done")])
    found = [issue for issue in faults(given) if issue.code == "unknown_name"]
    assert [issue.field for issue in found] == [f"definition.nodes.1.config.{field}"]


def test_the_expressions_of_conditions_are_looked_at() -> None:
    conditions = [
        {"id": "a", "expression": "gone > 1"},
        {"id": "b", "field": "lost.x", "operator": "equals", "value": "{{ away }}"},
    ]
    given = definition(
        [node("c", "condition", conditions=conditions)],
        [edge("start", "c"), *(edge("c", "done", handle) for handle in ("a", "b", "else"))],
    )
    fields = {issue.field.partition("conditions.")[2] for issue in faults(given)}
    assert fields == {"0.expression", "1.field", "1.value"}


def test_what_is_no_expression_is_left_alone() -> None:
    given = definition(
        [
            node("n", "database", documentTemplate={"a": "{{ record.x }}"}),
            node("f", "function", functionName="{{ gone }}"),
        ],
        [edge("start", "n"), edge("n", "f"), edge("f", "done")],
    )
    given["nodes"].append(node("remark", "note", message="{{ gone }}"))
    assert told(given) == []


def test_there_are_a_hundred_issues_at_most_and_errors_first() -> None:
    nodes = [node(f"n{i}", "transform", output="{{ gone }}") for i in range(300)]
    found = faults({"nodes": [node("start", "trigger"), *nodes]})
    assert len(found) == 100
    assert {issue.level for issue in found} == {"error"}


def test_a_big_definition_is_looked_at_in_little_time() -> None:
    count = 990
    nodes = [
        node(f"n{i}", "transform", output={"a": f"{{{{ steps.n{max(0, i - 1)}.output.x }}}}"})
        for i in range(count)
    ]
    nodes[0]["config"]["output"] = 1
    edges = [edge("start", "n0"), *(edge(f"n{i}", f"n{i + 1}") for i in range(count - 1))]
    edges += [edge(f"n{i}", f"n{i + 5}") for i in range(count - 5)]
    began = time.perf_counter()
    found = faults(definition(nodes, [*edges, edge(f"n{count - 1}", "done")]))
    assert found == []
    assert time.perf_counter() - began < 5  # 0.2 seconds, with room for a busy machine
