"""The published SDK's node classes, validated: what they write is what the schemas describe."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import computer_agents.resources.metronomes as authoring
import jsonschema_rs
import pytest
from computer_agents.resources.metronomes import MetronomeEdge, MetronomeWorkflow, TriggerNode

TRIGGERS = [
    one for _, one in inspect.getmembers(authoring, inspect.isclass) if issubclass(one, TriggerNode)
]
CHAIN: list[Any] = [
    TriggerNode("start"),
    authoring.ConditionNode("check", conditions=[{"id": "a", "expression": "trigger.input.x > 1"}]),
    authoring.ThreadNode(
        "ask", message="Hello {{ trigger.input.x }}", input_binding="trigger.input"
    ),
    authoring.ImagineNode("draw", prompt="{{ thread.text }}"),
    authoring.FunctionNode("call", function_name="resize", payload={"a": "{{ thread.text }}"}),
    authoring.FirecrawlNode("crawl", query="metronomes"),
    authoring.TableNode("read"),
    authoring.DatabaseNode("store", records_binding="table.records", document_template={"a": 1}),
    authoring.TicketNode("tell", ticket_id="1", comment="{{ table.rowCount }} rows"),
    authoring.MetronomeRunNode("nested", workflow_name="other", input={"a": 1}),
    authoring.LoopNode("each", "for_each", input_binding="table.batches"),
    authoring.EndNode("done"),
]
BESIDE: list[Any] = [
    authoring.ThreadNode("inside", message="{{ loop.item }}", parent_id="each", output_key="inner"),
    authoring.NoteNode("note", text="A remark."),
]


def _workflow() -> MetronomeWorkflow:
    ids = [node.id for node in CHAIN]
    edges = [
        MetronomeEdge(f"e{at}", one, other, source_handle="a" if one == "check" else None)
        for at, (one, other) in enumerate(itertools.pairwise(ids))
    ]
    return MetronomeWorkflow(name="all kinds", nodes=[*CHAIN, *BESIDE], edges=edges)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_class_can_be_published(sdk: Any, trigger: Any) -> None:
    schedule = {"schedule_type": "cron", "cron_expression": "0 9 * * *"}
    start = trigger("start", more=1, **schedule if "Schedule" in trigger.__name__ else {})
    edges = [MetronomeEdge("e", "start", "done")]
    found = sdk.validate_definition(
        MetronomeWorkflow(name="w", nodes=[start, authoring.EndNode("done")], edges=edges)
    )
    assert found == {"valid": True, "mode": "publish", "issues": []}
    types = {one["type"]: one["configSchema"] for one in sdk.get_node_schemas()["triggerTypes"]}
    jsonschema_rs.validate(types[start.subtype], start.config)


def test_every_node_class_writes_what_the_schemas_say(sdk: Any) -> None:
    kinds = {one["kind"]: one["configSchema"] for one in sdk.get_node_schemas()["kinds"]}
    for node in (*CHAIN, *BESIDE):
        jsonschema_rs.validate(kinds[node.kind], node.config)


def test_a_workflow_of_all_classes_lacks_only_what_the_deployment_lacks(sdk: Any) -> None:
    workflow = _workflow()
    found = sdk.validate_definition(workflow)
    assert found["valid"] is False
    assert {(one["code"], one["nodeId"]) for one in found["issues"]} == {
        *(("no_connector", id) for id in ("ask", "draw", "crawl", "store", "tell", "inside")),
        ("unknown_function", "call"),
        ("unknown_workflow", "nested"),
        ("branch_leads_nowhere", "check"),  # else
    }
    made = sdk.create(name="all kinds", definition=workflow)
    assert sdk.validate(made["id"], mode="shape")["valid"] is True
    assert sdk.validate(made["id"])["issues"] == found["issues"]
    assert sdk.validate(made["id"], definition=workflow)["issues"] == found["issues"]
    version = sdk.create_version(made["id"])
    assert sdk.validate(made["id"], version_id=version["id"])["issues"] == found["issues"]
    (issue,) = sdk.validate(made["id"], nodes=[], edges=[])["issues"]
    assert issue["code"] == "no_trigger"
