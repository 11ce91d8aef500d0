"""The published SDK on definitions: validation, versions, publishing, owners."""

from __future__ import annotations

from typing import Any

import pytest
from computer_agents import ApiClientError
from computer_agents.resources.metronomes import (
    ConditionNode,
    EndNode,
    LoopNode,
    MetronomeEdge,
    MetronomeNode,
    MetronomeWorkflow,
    NoteNode,
    TriggerNode,
)

from app.db import Database
from app.services import keys


def workflow(text: str = "Hello {{ trigger.input.name }}") -> MetronomeWorkflow:
    """A greeting, as the SDK's classes write it."""
    return MetronomeWorkflow(
        name="Greeting",
        nodes=[
            TriggerNode("start"),
            MetronomeNode("greet", "transform", config={"output": {"text": text}}),
            EndNode("finish"),
            NoteNode("note", text="says hello"),
        ],
        edges=[
            MetronomeEdge("e1", "start", "greet"),
            MetronomeEdge("e2", "greet", "finish"),
        ],
    )


def test_definitions_are_validated_without_being_saved(sdk: Any) -> None:
    found = sdk.validate_definition(workflow())
    assert (found["valid"], found["issues"]) == (True, [])
    plain = workflow().to_dict()
    parts = {"nodes": plain["nodes"], "edges": plain["edges"]}
    assert sdk.validate_definition(**parts, mode="shape")["valid"] is True
    made = sdk.create(name="n", definition=workflow())
    assert sdk.validate(made["id"])["valid"] is True
    assert sdk.validate(made["id"], mode="shape", **parts)["valid"] is True
    version = sdk.create_version(made["id"])
    assert sdk.validate(made["id"], version_id=version["id"])["valid"] is True
    dangling = MetronomeWorkflow(
        name="n",
        nodes=[
            TriggerNode("start"),
            ConditionNode("which", conditions=[{"id": "yes", "expression": "trigger.input.a > 1"}]),
            LoopNode("loop", "until"),
        ],
        edges=[MetronomeEdge("e1", "start", "which", None), MetronomeEdge("e2", "which", "loop")],
    )
    found = sdk.validate(made["id"], definition=dangling)
    assert found["valid"] is False
    assert {"which", "loop"} <= {issue["nodeId"] for issue in found["issues"]}
    assert all(
        {"level", "code", "nodeId", "edgeId", "field", "message"} <= issue.keys()
        for issue in found["issues"]
    )
    assert sdk.get(made["id"])["definition"] == plain
    assert len(sdk.list_versions(made["id"])) == 1


def test_the_kinds_of_nodes_are_told(sdk: Any) -> None:
    schema = sdk.get_node_schemas()
    kinds = {one["kind"] for one in schema["kinds"]}
    assert {
        *("trigger", "condition", "loop", "action", "imagine", "function", "firecrawl", "table"),
        *("database", "ticket", "metronome", "approval", "end", "note"),
        *("http", "delay", "transform"),
    } == kinds
    assert all(one["configSchema"]["type"] == "object" for one in schema["kinds"])
    types = {one["type"] for one in schema["triggerTypes"]}
    assert {"manual", "function", "github", "periodic", "email", "telegram", "auth"} <= types
    operators = {one if isinstance(one, str) else one["operator"] for one in _listed(schema)}
    assert "not_contains" in operators
    assert schema["loopTypes"]


def _listed(schema: Any) -> list[Any]:
    found: list[Any] = schema["conditionOperators"]
    return found


def test_versions_are_saved_published_compared_and_deleted(sdk: Any) -> None:
    made = sdk.create(name="n", definition=workflow())["id"]
    first = sdk.create_version(made, label="mine", name="mine", description="the first")
    assert (first["version"], first["label"], first["status"]) == (0, "v0", "saved")
    assert (first["nodeCount"], first["edgeCount"]) == (4, 2)
    second = sdk.create_version(made, definition=workflow("Bye"))
    assert [one["id"] for one in sdk.list_versions(made)] == [second["id"], first["id"]]
    changed = sdk.update_version(made, first["id"], description="d", definition=workflow("Hi"))
    assert (changed["description"], changed["version"]) == ("d", 0)

    diff = sdk.diff_versions(made, second["id"], against_version_id=first["id"])
    assert (diff["baseVersionNumber"], diff["targetVersionNumber"]) in ((0, 1), (1, 0))
    assert (diff["nodes"]["changedCount"], diff["nodes"]["addedCount"]) == (1, 0)
    assert diff["edges"]["changed"] == []

    published = sdk.publish_version(made, first["id"], description="out")
    assert (published["status"], published["publishedVersionId"]) == ("active", first["id"])
    with pytest.raises(ApiClientError) as changed_late:
        sdk.update_version(made, first["id"], description="no")
    assert (changed_late.value.status, changed_late.value.code) == (400, "version_published")
    with pytest.raises(ApiClientError) as deleted:
        sdk.delete_version(made, first["id"])
    assert (deleted.value.status, deleted.value.code) == (400, "version_published")
    published = sdk.publish_version(
        made, second["id"], snapshot={"description": "s", "definition": workflow("See you")}
    )
    assert published["publishedVersionNumber"] == 1
    withdrawn = sdk.unpublish(made)
    assert (withdrawn["status"], withdrawn["publishedVersionId"]) == ("draft", None)
    assert sdk.delete_version(made, first["id"]) is True
    assert [one["id"] for one in sdk.list_versions(made)] == [second["id"]]
    history = [(one["action"], one["versionId"]) for one in sdk.list_deployments(made)]
    assert [action for action, _ in history] == ["unpublished", "published", "published"]
    assert [version for _, version in history[1:]] == [second["id"], first["id"]]
    assert len(sdk.list_deployments(made, limit=1)) == 1


def test_a_workflow_is_published_as_a_whole(sdk: Any) -> None:
    made = sdk.create(name="n", definition=workflow())["id"]
    published = sdk.publish(made)
    assert published["status"] == "active"
    version = published["publishedVersionId"]
    assert sdk.publish(made, active=False)["publishedVersionId"] is None
    assert sdk.publish(made, version_id=version)["publishedVersionId"] == version
    other = sdk.publish(made, definition=workflow("Bye"), description="bye")
    assert other["publishedVersionId"] != version
    assert sdk.run(made)["versionId"] == other["publishedVersionId"]


def test_a_workflow_is_given_to_another_user(sdk: Any, db: Database) -> None:
    made = sdk.create(name="n", definition=workflow())
    keys.create_key(db, name="k", user_id="grace", organization_id="default")
    keys.create_key(db, name="k", user_id="eve", organization_id="evil")
    candidates = {one["userId"] for one in sdk.list_owner_candidates(made["id"])}
    assert candidates == {made["userId"], "grace"}
    assert sdk.transfer_ownership(made["id"], "grace")["userId"] == "grace"
    with pytest.raises(ApiClientError) as refused:
        sdk.transfer_ownership(made["id"], "eve")
    assert refused.value.status == 422
