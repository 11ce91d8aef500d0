"""Requests for test runs: what is refused, what is answered, and what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app import create_app
from app.config import Settings
from app.db import Database
from app.services import keys
from tests.api.conftest import Caller, data, refused

DEFINITION = {
    "nodes": [
        {"id": "start", "kind": "trigger"},
        {"id": "fetch", "kind": "http", "config": {"url": "https://example.org"}},
        {
            "id": "shape",
            "kind": "transform",
            "config": {"output": "{{ steps.fetch.output.body.total }}"},
        },
        {"id": "send", "kind": "http", "config": {}},
        {"id": "done", "kind": "end"},
    ],
    "edges": [
        {"source": "start", "target": "fetch"},
        {"source": "fetch", "target": "shape"},
        {"source": "shape", "target": "send"},
        {"source": "send", "target": "done"},
    ],
}
ONE = {"selection": {"nodeId": "shape"}}
PATHS = ("test-runs", "test-runs/preview")


@pytest.fixture
def workflow(api: Caller) -> str:
    return api.new_metronome(DEFINITION)


def test_the_preview_tells_all(api: Caller, workflow: str) -> None:
    body = {
        "selection": {"type": "slice", "nodeIds": ["shape", "send"]},
        "fixture": {"input": {"a": 1}, "steps": {"done": {}}},
    }
    told = data(api.post(f"{workflow}/test-runs/preview", body))
    definition = told.pop("definition")
    assert [one["id"] for one in definition["nodes"]] == ["fetch", "shape", "send"]
    assert told == {
        "valid": False,
        "issues": [
            {
                "level": "error",
                "code": "incomplete_config",
                "nodeId": "send",
                "edgeId": None,
                "field": "definition.nodes.3.config.url",
                "message": told["issues"][0]["message"],
            },
            {
                "level": "warning",
                "code": "unused_fixture",
                "nodeId": None,
                "edgeId": None,
                "field": "fixture.steps.done",
                "message": told["issues"][1]["message"],
            },
        ],
        "metronomeId": workflow.rpartition("/")[2],
        "versionId": None,
        "triggerType": "manual_test",
        "input": {"a": 1},
        "nodes": [
            {"nodeId": "shape", "kind": "transform", "label": None},
            {"nodeId": "send", "kind": "http", "label": None},
        ],
        "fixtures": [
            {
                "nodeId": "fetch",
                "kind": "http",
                "output": {},
                "branch": None,
                "error": None,
                "skipped": False,
                "given": False,
            }
        ],
        "missingFixtures": [
            {
                "field": "fixture.steps.fetch",
                "nodeId": "fetch",
                "reads": ["steps.fetch.output.body.total"],
                "message": "The fixture has no steps.fetch.output.body.total.",
            }
        ],
        "sideEffects": [
            {"nodeId": "send", "kind": "http", "effect": "sends a request to another service"}
        ],
    }
    assert data(api.get(f"{workflow}/runs")) == []
    assert data(api.get(f"{workflow}/versions")) == []


def test_the_example_of_the_documentation_works(api: Caller) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "testing.rst").read_text()
    blocks = re.findall(r"code-block:: json\n\n((?:    .*\n|\n)+)", page)
    definition, body = (json.loads(block) for block in blocks)
    workflow = api.new_metronome(definition)
    told = data(api.post(f"{workflow}/test-runs/preview", body))
    assert (told["valid"], told["issues"], told["missingFixtures"]) == (True, [], [])
    assert [one["nodeId"] for one in told["fixtures"]] == ["fetch"]
    assert [one["nodeId"] for one in told["sideEffects"]] == ["send"]
    assert api.post(f"{workflow}/test-runs", body).status_code == 201


def test_answers_are_what_the_document_says(api: Caller, workflow: str) -> None:
    document = api.get("/openapi.json").json or {}
    for path, schema in (("test-runs", "RunAnswer"), ("test-runs/preview", "PreviewAnswer")):
        answer = api.post(f"{workflow}/{path}", ONE)
        whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        jsonschema_rs.validate(whole, answer.json)


def test_an_inline_definition_that_is_not_sound_is_no_preview(api: Caller, workflow: str) -> None:
    definition = {"nodes": [{"id": "x", "kind": "fixture", "config": {"output": {}}}]}
    body = {"selection": {"nodeId": "x"}, "definition": definition}
    told = data(api.post(f"{workflow}/test-runs/preview", body))
    assert not told["valid"]
    assert [one["code"] for one in told["issues"]] == ["unknown_kind"]
    assert (told["definition"], told["nodes"]) == (None, [])
    refused(api.post(f"{workflow}/test-runs", body), 422, "invalid_definition")


def test_a_test_is_of_a_version_that_is_in_no_list(api: Caller, workflow: str) -> None:
    run = data(api.post(f"{workflow}/test-runs", ONE), 201)
    assert (run["triggerType"], run["status"]) == ("manual_test", "queued")
    assert data(api.get(f"{workflow}/versions")) == []
    version = data(api.get(f"{workflow}/versions/{run['versionId']}"))
    assert version["version"] is None
    assert [one["kind"] for one in version["definition"]["nodes"]] == ["fixture", "transform"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "selection"),
        ({"selection": {}}, "selection.nodeIds"),
        ({"selection": {"nodeId": "shape", "nodeIds": ["shape"]}}, "selection.nodeIds"),
        ({"selection": {"nodeIds": []}}, "selection.nodeIds"),
        ({"selection": {"nodeIds": ["x"] * 1_001}}, "selection.nodeIds"),
        ({"selection": {"type": "node", "nodeIds": ["shape", "send"]}}, "selection.nodeIds"),
        ({"selection": {"type": "tree", "nodeId": "shape"}}, "selection.type"),
        ({"selection": {"nodeId": "shape", "depth": 1}}, "selection.depth"),
        ({"selection": {"nodeId": "nobody"}}, "selection.nodeId"),
        ({"selection": {"nodeIds": ["fetch", "nobody"]}}, "selection.nodeIds"),
        ({"selection": {"nodeIds": ["fetch", "done"]}}, "selection.nodeIds"),
        ({"selection": {"nodeId": "a\x00"}}, "selection.nodeId"),
        ({**ONE, "fixture": []}, "fixture"),
        ({**ONE, "fixture": {"outputs": {}}}, "fixture.outputs"),
        ({**ONE, "fixture": {"steps": {"nobody": {}}}}, "fixture.steps.nobody"),
        ({**ONE, "fixture": {"steps": {"fetch": {"a": ["\x00"]}}}}, "fixture.steps.fetch.a.0"),
        ({**ONE, "fixture": {"steps": {"fetch": 2**63}}}, "fixture.steps.fetch"),
        ({**ONE, "fixture": {"branches": {"fetch": "yes"}}}, "fixture.branches.fetch"),
        ({**ONE, "fixture": {"errors": {"fetch": "no"}}}, "fixture.errors.fetch"),
        ({**ONE, "fixture": {"loop": {"item": 1, "number": 2}}}, "fixture.loop.number"),
        ({**ONE, "fixture": {"trigger": {"payload": {}}}}, "fixture.trigger.payload"),
        ({**ONE, "input": {}, "fixture": {"input": {}}}, "fixture.input"),
        ({**ONE, "inputs": {}, "fixture": {"trigger": {"input": {}}}}, "fixture.trigger.input"),
        ({**ONE, "fixture": {"input": {"a": "\ud800"}}}, "fixture.input.a"),
        (
            {**ONE, "triggerType": "github", "fixture": {"trigger": {"type": "email"}}},
            "fixture.trigger.type",
        ),
        ({**ONE, "versionId": "ver_1"}, "versionId"),
        ({**ONE, "wait": True}, "wait"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    api: Caller, workflow: str, path: str, body: Any, field: str
) -> None:
    answer = api.post(f"{workflow}/{path}", body)
    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert field in (answer.json or {})["details"], answer.json
    assert data(api.get(f"{workflow}/runs")) == []


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("path", PATHS)
def test_a_fixture_has_its_bounds(api: Caller, workflow: str, path: str) -> None:
    status = 200 if path.endswith("preview") else 201
    deep = {**ONE, "fixture": {"steps": {"fetch": nested(59)}}}
    assert api.post(f"{workflow}/{path}", deep).status_code == status
    for too_deep in (60, 200):
        body = {**ONE, "fixture": {"steps": {"fetch": nested(too_deep)}}}
        error = refused(api.post(f"{workflow}/{path}", body), 422, "value_refused")
        assert list(error["details"]) == ["fixture"]
    # An input is not part of the definition, so it may be as deep as any.
    trigger = {"selection": {"nodeId": "fetch"}, "input": nested(64)}
    assert api.post(f"{workflow}/{path}", trigger).status_code == status


def test_a_selection_that_falls_apart_has_its_own_code(api: Caller, workflow: str) -> None:
    body = {"selection": {"nodeIds": ["fetch", "done"]}}
    error = refused(api.post(f"{workflow}/test-runs", body), 422, "not_connected")
    assert "'done'" in error["message"]


def test_a_test_that_is_sent_again_is_the_run_of_then(api: Caller, workflow: str) -> None:
    first = api.post(f"{workflow}/test-runs", ONE, headers={"Idempotency-Key": "k1"})
    run = data(first, 201)
    api.patch(workflow, {"definition": {"nodes": [{"id": "other", "kind": "end"}]}})
    again = api.post(f"{workflow}/test-runs", {**ONE, "idempotencyKey": "k1"})
    assert data(again) == run
    assert again.headers["Idempotent-Replay"] == "true"
    # The keys of all runs of a workflow are one room.
    assert data(api.post(f"{workflow}/test-run", {"idempotencyKey": "k1"}))["id"] == run["id"]
    # But a test is no run, and a run no test.
    real = api.post(f"{workflow}/runs", {"idempotencyKey": "k1"})
    refused(real, 422, "idempotency_key_reused")
    data(api.post(f"{workflow}/runs", {"idempotencyKey": "k3"}), 201)
    for path in ("test-run", "test-runs"):
        body = {**(ONE if path == "test-runs" else {}), "idempotencyKey": "k3"}
        answer = api.post(f"{workflow}/{path}", body)
        assert "manual" in refused(answer, 422, "idempotency_key_reused")["message"]
    both = {**ONE, "idempotencyKey": "k1"}
    answer = api.post(f"{workflow}/test-runs", both, headers={"Idempotency-Key": "k2"})
    assert answer.status_code == 422


def test_the_draft_runs_with_its_own_trigger_type(api: Caller, workflow: str) -> None:
    run = data(api.post(f"{workflow}/test-run", {"input": {"a": 1}}), 201)
    assert (run["triggerType"], run["input"]) == ("manual_test", {"a": 1})
    named = data(api.post(f"{workflow}/test-run", {"triggerType": "github"}), 201)
    assert named["triggerType"] == "github"
    sliced = {**ONE, "fixture": {"trigger": {"type": "github"}}}
    assert data(api.post(f"{workflow}/test-runs", sliced), 201)["triggerType"] == "github"


def test_an_archived_workflow_takes_no_tests(api: Caller, workflow: str) -> None:
    api.delete(workflow)
    for path, body in (("test-run", {}), ("test-runs", ONE), ("test-runs/preview", ONE)):
        refused(api.post(f"{workflow}/{path}", body), 409, "metronome_archived")


def test_a_version_that_was_deleted_takes_no_tests(api: Caller, workflow: str) -> None:
    version = data(api.post(f"{workflow}/versions", {}), 201)["id"]
    for path in PATHS:
        assert api.post(f"{workflow}/{path}", {**ONE, "versionId": version}).status_code < 300
    assert api.delete(f"{workflow}/versions/{version}").status_code == 200
    for path in PATHS:
        answer = api.post(f"{workflow}/{path}", {**ONE, "versionId": version})
        assert "deleted" in refused(answer, 422, "invalid")["message"]
    refused(api.post(f"{workflow}/test-run", {"versionId": version}), 422, "invalid")


def test_remarks_alone_are_nothing_to_run(api: Caller) -> None:
    workflow = api.new_metronome({"nodes": [{"id": "n", "kind": "note"}], "edges": []})
    for path in PATHS:
        body = {"selection": {"nodeId": "n"}}
        refused(api.post(f"{workflow}/{path}", body), 409, "nothing_to_run")


def test_a_version_of_another_workflow_is_none(api: Caller, other: Caller, workflow: str) -> None:
    theirs = other.new_metronome(DEFINITION)
    version = data(other.post(f"{theirs}/versions", {}), 201)["id"]
    for path in PATHS:
        answer = api.post(f"{workflow}/{path}", {**ONE, "versionId": version})
        unknown = api.post(f"{workflow}/{path}", {**ONE, "versionId": "ver_unknown"})
        assert answer.get_data() == unknown.get_data()


def test_a_fixture_that_is_too_big_is_named(database_url: str, db: Database) -> None:
    app = create_app(Settings(database_url=database_url, listen=False))
    _, secret = keys.create_key(db, name="test", user_id="ada", organization_id="acme")
    api = Caller(app, secret)
    workflow = api.new_metronome({**DEFINITION, "description": "x" * 500_000})
    fixture = {"steps": {"fetch": {"body": "y" * 600_000}}}
    error = refused(api.post(f"{workflow}/test-runs", {**ONE, "fixture": fixture}), 422, "invalid")
    assert list(error["details"]) == ["fixture"]
    app.extensions["metronome"].db.close()
