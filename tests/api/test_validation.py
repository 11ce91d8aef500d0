"""Validation over HTTP, and the node schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask

from app import create_app
from app.config import Settings
from app.db import Database
from app.nodes import REGISTRY
from app.services import keys
from tests.api.conftest import DEFINITION, Caller, data, refused
from tests.api.definitions import publishable

BROKEN = {"nodes": [{"id": "start", "kind": "trigger"}, {"id": "x", "kind": "nothing"}]}


def codes(found: Any) -> list[str]:
    return [issue["code"] for issue in found["issues"]]


def calling(**config: Any) -> dict[str, Any]:
    """A definition that runs another workflow."""
    return {
        "nodes": [
            {"id": "start", "kind": "trigger"},
            {"id": "call", "kind": "metronome", "config": config},
            {"id": "done", "kind": "end"},
        ],
        "edges": [{"source": "start", "target": "call"}, {"source": "call", "target": "done"}],
    }


def with_node(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "nodes": [
            {"id": "start", "kind": "trigger"},
            {"id": "n", **node},
            {"id": "z", "kind": "end"},
        ],
        "edges": [{"source": "start", "target": "n"}, {"source": "n", "target": "z"}],
    }


def test_a_definition_is_validated_without_being_saved(api: Caller) -> None:
    found = data(api.post("metronomes/validate", {"definition": DEFINITION}))
    assert found == {"valid": True, "mode": "publish", "issues": []}
    assert data(api.get("metronomes")) == []


def test_every_issue_says_what_and_where(api: Caller) -> None:
    found = data(api.post("metronomes/validate", {"mode": "shape", "definition": BROKEN}))
    assert found["valid"] is False
    assert found["mode"] == "shape"
    (issue,) = found["issues"]
    assert issue.keys() == {"level", "code", "nodeId", "edgeId", "field", "message"}
    assert (issue["level"], issue["code"], issue["nodeId"]) == ("error", "unknown_kind", "x")
    assert issue["field"] == "definition.nodes.1.kind"


def test_warnings_leave_a_definition_valid(api: Caller) -> None:
    nodes = [{"id": "start", "kind": "trigger"}]
    found = data(api.post("metronomes/validate", {"nodes": nodes}))
    assert found["valid"] is True
    assert codes(found) == ["no_end"]


def test_shape_asks_for_less_than_publish(api: Caller) -> None:
    draft = with_node({"kind": "http"})
    shape = data(api.post("metronomes/validate", {"mode": "shape", "definition": draft}))
    publish = data(api.post("metronomes/validate", {"mode": "publish", "definition": draft}))
    assert codes(shape) == []
    assert codes(publish) == ["incomplete_config"]


def test_nodes_and_edges_may_come_alone(api: Caller) -> None:
    found = data(api.post("metronomes/validate", DEFINITION))
    assert found["valid"] is True
    metronome = api.new_metronome()
    assert data(api.post(f"{metronome}/validate", {"nodes": []}))["valid"] is False


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "definition"),
        ({"edges": []}, "edges"),
        ({"definition": {}, "nodes": []}, "nodes"),
        ({"definition": []}, "definition"),
        ({"definition": None}, "definition"),
        ({"nodes": {}}, "nodes"),
        ({"definition": {}, "mode": "all"}, "mode"),
        ({"definition": {}, "versionId": "ver_1"}, "versionId"),
        ({"definition": {}, "more": 1}, "more"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(api: Caller, body: Any, field: str) -> None:
    assert field in refused(api.post("metronomes/validate", body), 422, "invalid")["details"]


def test_a_version_and_a_definition_are_not_both_validated(api: Caller) -> None:
    metronome = api.new_metronome()
    both = {"versionId": "ver_1", "nodes": []}
    assert (
        "versionId" in refused(api.post(f"{metronome}/validate", both), 422, "invalid")["details"]
    )


@pytest.mark.parametrize(
    "garbage",
    [
        {"nodes": [None, 5, "x", [], {}]},
        {"nodes": [{"id": "a", "kind": "http", "config": {"url": "\x00"}}]},
        {"nodes": [{"id": "\ud800", "kind": "trigger"}]},
        {"nodes": [{"id": "a", "kind": ["trigger"]}]},
        {"nodes": [{"id": 10**30}]},
        {"nodes": "x", "edges": {}},
    ],
)
@pytest.mark.parametrize("mode", ["shape", "publish"])
def test_garbage_is_issues(api: Caller, garbage: Any, mode: str) -> None:
    found = data(api.post("metronomes/validate", {"definition": garbage, "mode": mode}))
    assert found["valid"] is False


def test_a_deep_definition_is_an_issue(api: Caller) -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    found = data(api.post("metronomes/validate", {"definition": {"nodes": [], "metadata": deep}}))
    assert codes(found) == ["value_refused"]


def test_a_workflows_draft_is_validated(api: Caller) -> None:
    metronome = api.new_metronome(with_node({"kind": "delay"}))
    for body in (None, {}, {"mode": "publish"}):
        assert codes(data(api.post(f"{metronome}/validate", body))) == ["incomplete_config"]
    assert data(api.post(f"{metronome}/validate", {"mode": "shape"}))["valid"] is True
    found = data(api.post(f"{metronome}/validate", {"definition": DEFINITION}))
    assert found["valid"] is True


def test_a_version_is_validated(api: Caller) -> None:
    metronome = api.new_metronome()
    incomplete = {"definition": with_node({"kind": "delay"})}
    version = data(api.post(f"{metronome}/versions", incomplete), 201)["id"]
    found = data(api.post(f"{metronome}/validate", {"versionId": version}))
    assert codes(found) == ["incomplete_config"]
    assert data(api.post(f"{metronome}/validate"))["valid"] is True


def test_a_version_of_another_workflow_is_unknown(api: Caller, other: Caller) -> None:
    theirs = other.new_metronome()
    version = data(other.post(f"{theirs}/versions", {}), 201)["id"]
    for caller, metronome in ((api, api.new_metronome()), (other, other.new_metronome())):
        answer = caller.post(f"{metronome}/validate", {"versionId": version})
        assert refused(answer, 422, "invalid")["details"].keys() == {"versionId"}


def test_the_word_validate_is_no_id(api: Caller, other: Caller) -> None:
    assert data(api.post("metronomes/validate", DEFINITION))["valid"] is True
    assert "kinds" in data(api.get("metronomes/node-schemas"))
    refused(api.post("metronomes/met_1/validate"), 404, "metronome_not_found")
    refused(other.post(f"{api.new_metronome()}/validate"), 404, "metronome_not_found")


# -- workflows that are named


def test_a_workflow_that_is_named_must_exist(api: Caller, other: Caller) -> None:
    theirs = other.new_metronome(name="theirs")
    for config in (
        {"workflowId": "met_gone"},
        {"workflowName": "gone"},
        {"workflowId": theirs.removeprefix("metronomes/")},
        {"workflowName": "theirs"},
    ):
        found = data(api.post("metronomes/validate", {"definition": calling(**config)}))
        assert codes(found) == ["unknown_workflow"]
        assert found["issues"][0]["field"] == f"definition.nodes.1.config.{next(iter(config))}"


def test_bindings_may_name_any_workflow(api: Caller) -> None:
    named = calling(workflowId="{{ trigger.input.which }}")
    assert data(api.post("metronomes/validate", {"definition": named}))["issues"] == []


def test_an_unpublished_workflow_is_a_warning_and_an_archived_one_an_error(api: Caller) -> None:
    metronome = api.new_metronome(name="inner")
    by_name = {"definition": calling(workflowName="inner")}
    by_id = {"definition": calling(workflowId=metronome.removeprefix("metronomes/"))}
    for body in (by_name, by_id):
        assert codes(data(api.post("metronomes/validate", body))) == ["workflow_not_published"]
    data(api.post(f"{metronome}/publish", {"active": True}))
    for body in (by_name, by_id):
        assert codes(data(api.post("metronomes/validate", body))) == []
    api.delete(metronome)
    assert codes(data(api.post("metronomes/validate", by_id))) == ["archived_workflow"]
    assert codes(data(api.post("metronomes/validate", by_name))) == ["unknown_workflow"]


def test_a_name_that_two_workflows_have_is_an_error(api: Caller) -> None:
    for _ in range(3):
        api.new_metronome(name="twin")
    found = data(api.post("metronomes/validate", {"definition": calling(workflowName="twin")}))
    assert codes(found) == ["ambiguous_workflow"]


def test_a_workflow_can_not_run_itself(api: Caller) -> None:
    metronome = api.new_metronome(calling(workflowName="me"), name="me")
    found = data(api.post(f"{metronome}/validate"))
    assert codes(found) == ["recursive_workflow"]
    assert "inside of itself: me." in found["issues"][0]["message"]


def test_a_workflow_can_not_run_itself_through_others(api: Caller) -> None:
    api.new_metronome(calling(workflowName="b"), name="a")
    api.new_metronome(calling(workflowName="c"), name="b")
    last = api.new_metronome(name="c")
    assert codes(data(api.post(f"{last}/validate"))) == []
    body = {"definition": calling(workflowName="a")}
    found = data(api.post(f"{last}/validate", body))
    assert codes(found) == ["recursive_workflow"]
    assert "a -> b -> c" in found["issues"][0]["message"]
    # Seen from elsewhere, nothing is wrong with the three.
    assert codes(data(api.post("metronomes/validate", body))) == ["workflow_not_published"]
    data(api.patch(last, {"definition": calling(workflowName="a")}))
    assert codes(data(api.post("metronomes/validate", body))) == ["recursive_workflow"]


def test_runs_are_nested_ten_deep_at_most(api: Caller) -> None:
    api.new_metronome(name="w0")
    for level in range(1, 12):
        api.new_metronome(calling(workflowName=f"w{level - 1}"), name=f"w{level}")

    def found(level: int) -> list[str]:
        body = {"definition": calling(workflowName=f"w{level}")}
        return codes(data(api.post("metronomes/validate", body)))

    assert found(9) == ["workflow_not_published"]
    assert found(10) == ["nested_too_deep"]
    assert found(11) == ["nested_too_deep"]


# -- what the deployment has


def test_a_kind_without_a_connector_can_not_be_published(api: Caller) -> None:
    asked = {"definition": with_node({"kind": "action", "config": {"message": "hello"}})}
    found = data(api.post("metronomes/validate", asked))
    assert codes(found) == ["no_connector"]
    assert "METRONOME_CONNECTORS" in found["issues"][0]["message"]


def test_a_function_that_is_not_here_is_a_warning(api: Caller) -> None:
    asked = {"definition": with_node({"kind": "function", "config": {"functionName": "gone"}})}
    found = data(api.post("metronomes/validate", asked))
    assert (found["valid"], codes(found)) == (True, ["unknown_function"])


@pytest.fixture
def connected(database_url: str, db: Database, tmp_path: Any) -> Any:
    file = tmp_path / "connectors.toml"
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    file.write_text(
        f'[connectors."action.start_thread"]\nurl = "http://127.0.0.1:1"\nsecret = "{secret}"\n'
        f'[connectors.function]\nurl = "http://127.0.0.1:1"\nsecret = "{secret}"\n'
    )
    app = create_app(Settings(database_url=database_url, listen=False, connectors_file=file))
    yield app
    app.extensions["metronome"].db.close()


def test_connectors_serve_their_kinds_and_subtypes(connected: Flask, db: Database) -> None:
    _, secret = keys.create_key(db, name="test", user_id="ada", organization_id="acme")
    api = Caller(connected, secret)
    for node, wanted in (
        ({"kind": "action"}, []),
        ({"kind": "action", "subtype": "start_thread"}, []),
        ({"kind": "function", "config": {"functionName": "gone"}}, []),
        ({"kind": "ticket"}, ["no_connector"]),
    ):
        found = data(api.post("metronomes/validate", {"definition": with_node(node)}))
        assert codes(found) == wanted, node


# -- publishing looks


def test_a_time_that_is_over_is_a_warning(api: Caller) -> None:
    def told(**config: Any) -> list[str]:
        node = {"id": "start", "kind": "trigger", "subtype": "periodic", "config": config}
        asked = {"definition": publishable(trigger=node)}
        found = data(api.post("metronomes/validate", asked))
        assert found["valid"]
        return [f"{issue['code']} {issue['field']}" for issue in found["issues"]]

    over = ["schedule_is_over definition.nodes.0.config.scheduledTime"]
    assert told(scheduleType="one-time", scheduledTime="2020-01-31T08:00:00Z") == over
    assert told(scheduledTime="2020-01-31T08:00:00", scheduleTimezone="Asia/Tokyo") == over
    assert told(scheduleType="one-time", scheduledTime="2999-01-31T08:00:00Z") == []
    assert told(scheduleType="cron", cronExpression="0 0 1 1 *") == []


def test_what_is_not_valid_is_not_published(api: Caller) -> None:
    metronome = api.new_metronome(with_node({"kind": "http"}))
    error = refused(api.post(f"{metronome}/publish", {"active": True}), 422, "not_publishable")
    assert error["details"].keys() == {"definition.nodes.1.config.url"}
    assert data(api.get(metronome))["publishedVersionId"] is None


# -- the schemas


def test_the_node_schemas_are_the_registrys(api: Caller) -> None:
    found = data(api.get("metronomes/node-schemas"))
    assert [one["kind"] for one in found["kinds"]] == list(REGISTRY)
    assert found["loopTypes"] == ["fixed_count", "for_each", "until"]
    http = next(one for one in found["kinds"] if one["kind"] == "http")
    assert http["configSchema"]["required"] == ["url"]
    assert http["interruptible"] is True
    assert {"handle": "error", "description": "The node has failed for good."} in http["handles"]


@pytest.mark.parametrize("path", ["metronomes/node-schemas", "metronomes/validate"])
def test_the_answers_are_what_the_document_says(
    api: Caller, nobody: Caller, path: str, app: Flask
) -> None:
    document: Any = nobody.get("/openapi.json").json
    send: Callable[..., Any] = api.post if path.endswith("validate") else api.get
    body = {"json": {"definition": with_node({"kind": "http"})}} if send == api.post else {}
    name = "ValidationAnswer" if send == api.post else "NodeSchemasAnswer"
    whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema_rs.validate(whole, send(path, **body).json)
