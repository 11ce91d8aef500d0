from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from app.db import Database
from tests.api import states
from tests.api.conftest import DEFINITION, Caller, data, refused, stored


def test_a_run_is_queued_with_all_that_was_given(api: Caller) -> None:
    metronome = api.new_metronome()
    body = {
        "input": {"a": [1, 2.5, None, "ä\U0001f600", {"b": True}], "big": 2**63 - 1},
        "triggerType": "manual_test",
        "idempotencyKey": "key 1",
        "maxAttempts": 3,
        "timeoutMs": 60_000,
        "attachedProjectId": "p",
        "attachedTicketId": "t",
    }
    ignored = {"queueWhenCapacityUnavailable": True, "pinnedAgentVersions": {"agent": "v1"}}
    run = data(api.post(f"{metronome}/runs", {**body, **ignored}), 201)
    assert {name: run[name] for name in body} == body
    assert (run["status"], run["attemptCount"], run["userId"]) == ("queued", 0, "ada")
    assert run["metronomeId"] == metronome.partition("/")[2]
    assert stored(api, f"{metronome}/runs/{run['id']}") == run
    assert data(api.get(f"{metronome}/runs")) == [run]


def test_no_body_at_all_runs_the_draft_with_nothing(api: Caller) -> None:
    metronome = api.new_metronome()
    for options in ({}, {"data": b""}, {"data": b"{}", "content_type": "application/json"}):
        run = data(api.post(f"{metronome}/runs", **options), 201)
        assert (run["input"], run["triggerType"], run["maxAttempts"]) == ({}, "manual", 1)


def test_inputs_is_another_name_for_input(api: Caller) -> None:
    metronome = api.new_metronome()
    assert data(api.post(f"{metronome}/runs", {"inputs": {"a": 1}}), 201)["input"] == {"a": 1}
    both = api.post(f"{metronome}/runs", {"inputs": {}, "input": {}})
    assert "inputs" in refused(both, 422, "invalid")["details"]
    bad = api.post(f"{metronome}/runs", {"inputs": {"a": {"b": ["\0"]}}})
    assert refused(bad, 422, "value_refused")["details"].keys() == {"inputs.a.b.0"}


def test_runs_of_one_draft_share_a_version(api: Caller, db: Database) -> None:
    metronome = api.new_metronome()

    def version() -> str:
        run = data(api.post(f"{metronome}/runs", {}), 201)
        assert isinstance(run["versionId"], str)
        return run["versionId"]

    first = version()
    assert version() == first
    api.patch(metronome, {"name": "the definition is the same"})
    assert version() == first
    api.patch(metronome, {"definition": {**DEFINITION, "name": "new"}})
    second = version()
    assert second != first
    assert version() == second
    earlier = data(api.post(f"{metronome}/runs", {"versionId": first}), 201)
    assert earlier["versionId"] == first
    assert states.count(db, "SELECT count(*) FROM versions") == 2


def test_an_inline_definition_is_a_version_of_its_own(api: Caller) -> None:
    metronome = api.new_metronome()
    draft = data(api.post(f"{metronome}/runs", {}), 201)["versionId"]
    inline = data(api.post(f"{metronome}/runs", {"definition": DEFINITION}), 201)["versionId"]
    assert inline != draft
    assert data(api.post(f"{metronome}/runs", {}), 201)["versionId"] == draft
    both = {"definition": DEFINITION, "versionId": draft}
    refused(api.post(f"{metronome}/runs", both), 422, "invalid")
    bad = {"definition": {"nodes": [{"id": "a", "kind": "z"}], "edges": []}}
    refused(api.post(f"{metronome}/runs", bad), 422, "invalid_definition")


def test_what_has_nothing_to_run_is_refused(api: Caller, db: Database) -> None:
    note = {"nodes": [{"id": "a", "kind": "note"}], "edges": []}
    empty: dict[str, Any] = {"nodes": [], "edges": []}
    for definition in (empty, note):
        metronome = api.new_metronome(definition)
        refused(api.post(f"{metronome}/runs", {}), 409, "nothing_to_run")
        inline = api.post(f"{metronome}/runs", {"definition": definition})
        assert "definition.nodes" in refused(inline, 422, "invalid")["details"]
    assert states.count(db, "SELECT count(*) FROM versions") == 0


def test_the_same_idempotency_key_answers_the_same_run(api: Caller, db: Database) -> None:
    metronome = api.new_metronome()
    body = {"idempotencyKey": "k", "input": {"a": 1}}
    first = api.post(f"{metronome}/runs", body)
    assert first.status_code == 201
    assert "Idempotent-Replay" not in first.headers
    api.patch(metronome, {"definition": {**DEFINITION, "name": "new"}})
    for changed in ({}, {"definition": DEFINITION}, {"input": {"a": 2}}):
        again = api.post(f"{metronome}/runs", {**body, **changed})
        assert again.status_code == 200
        assert again.headers["Idempotent-Replay"] == "true"
        assert again.get_data() == first.get_data()
    api.delete(metronome)
    assert api.post(f"{metronome}/runs", body).get_data() == first.get_data()
    assert states.count(db, "SELECT count(*) FROM runs") == 1
    assert states.count(db, "SELECT count(*) FROM versions") == 1
    assert states.count(db, "SELECT count(*) FROM audit_events WHERE action = 'run.created'") == 1


def test_one_key_at_once_is_one_run(app: Flask, api: Caller, db: Database) -> None:
    metronome = api.new_metronome()
    secret = api.headers["Authorization"].removeprefix("Bearer ")

    def create(_: int) -> tuple[int, str]:
        answer = Caller(app, secret).post(f"{metronome}/runs", {"idempotencyKey": "k"})
        return answer.status_code, json.loads(answer.get_data())["data"]["id"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(16)))
    assert sorted(status for status, _ in answers) == [200] * 15 + [201]
    assert len({run for _, run in answers}) == 1
    assert states.count(db, "SELECT count(*) FROM runs") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": "x"}, "input"),
        ({"input": {"a": "\0"}}, "input.a"),
        ({"input": {"a": ["\udc00"]}}, "input.a.0"),
        ({"input": {"a": float("nan")}}, "input.a"),
        ({"input": {"a": float("-inf")}}, "input.a"),
        ({"input": {"a": 2**63}}, "input.a"),
        ({"input": {"a\0": 1}}, "input"),
        ({"inputs": 5}, "inputs"),
        ({"maxAttempts": 0}, "maxAttempts"),
        ({"maxAttempts": 101}, "maxAttempts"),
        ({"maxAttempts": "5"}, "maxAttempts"),
        ({"maxAttempts": 5.5}, "maxAttempts"),
        ({"maxAttempts": True}, "maxAttempts"),
        ({"maxAttempts": float("nan")}, "maxAttempts"),
        ({"maxAttempts": 10**30}, "maxAttempts"),
        ({"maxAttempts": None}, "maxAttempts"),
        ({"timeoutMs": 0}, "timeoutMs"),
        ({"timeoutMs": -1}, "timeoutMs"),
        ({"timeoutMs": 30 * 24 * 3600 * 1000 + 1}, "timeoutMs"),
        ({"triggerType": ""}, "triggerType"),
        ({"triggerType": "a b"}, "triggerType"),
        ({"triggerType": "manual\n"}, "triggerType"),
        ({"triggerType": "x" * 65}, "triggerType"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"idempotencyKey": "x" * 256}, "idempotencyKey"),
        ({"idempotencyKey": "\0"}, "idempotencyKey"),
        ({"idempotencyKey": 5}, "idempotencyKey"),
        ({"versionId": "nope"}, "versionId"),
        ({"versionId": "\0"}, "versionId"),
        ({"versionId": 1}, "versionId"),
        ({"attachedProjectId": {}}, "attachedProjectId"),
        ({"attachedTicketId": "x" * 256}, "attachedTicketId"),
        ({"queueWhenCapacityUnavailable": "true"}, "queueWhenCapacityUnavailable"),
        ({"queueWhenCapacityUnavailable": 1}, "queueWhenCapacityUnavailable"),
        ({"pinnedAgentVersions": []}, "pinnedAgentVersions"),
        ({"pinnedAgentVersions": {"a": 1}}, "pinnedAgentVersions.a.value"),
        ({"status": "running"}, "status"),
        ({"a\ud800b\0": 1}, "a\\ud800b\0"),
    ],
)
def test_what_is_wrong_is_named(api: Caller, body: Any, field: str) -> None:
    metronome = api.new_metronome()
    response = api.post(f"{metronome}/runs", body)
    assert response.status_code == 422, response.get_data(as_text=True)
    assert field in json.loads(response.get_data())["details"]
    assert data(api.get(f"{metronome}/runs")) == []


def test_an_input_too_deep_is_refused(api: Caller) -> None:
    metronome = api.new_metronome()
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    body = refused(api.post(f"{metronome}/runs", {"input": {"a": deep}}), 422, "value_refused")
    assert "input" in body["message"]


def test_a_compact_view_has_no_payloads(api: Caller) -> None:
    path = api.new_run(input={"a": 1})
    full, compact = data(api.get(path)), data(api.get(f"{path}?view=compact"))
    assert data(api.get(f"{path}?view=full")) == full
    assert full.keys() - compact.keys() == {"input", "output"}
    assert refused(api.get(f"{path}?view=small"), 422, "invalid")["details"].keys() == {"view"}


def test_attachments_are_set_and_cleared(api: Caller, db: Database) -> None:
    path = api.new_run(attachedTicketId="t")
    before = data(api.get(path))
    run = data(api.patch(path, {"attachedProjectId": "p"}))
    assert (run["attachedProjectId"], run["attachedTicketId"]) == ("p", "t")
    assert run["updatedAt"] > before["updatedAt"]
    run = data(api.patch(path, {"attachedTicketId": None}))
    assert (run["attachedProjectId"], run["attachedTicketId"]) == ("p", None)
    assert data(api.patch(path, {})) == run
    for bad in ({"attachedProjectId": ""}, {"attachedProjectId": 5}, {"status": "cancelled"}):
        refused(api.patch(path, bad), 422, "invalid")
    assert states.count(db, "SELECT count(*) FROM audit_events WHERE action = 'run.updated'") == 2


@pytest.mark.parametrize("state", states.ACTIVE)
def test_an_active_run_is_not_deleted(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    refused(api.delete(path), 409, "run_active")
    assert api.get(path).status_code == 200


def test_a_cancelled_run_that_still_drains_is_not_deleted(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    api.post(f"{path}/cancel")
    body = refused(api.delete(path), 409, "run_active")
    assert "in flight" in body["message"]


@pytest.mark.parametrize("state", states.ENDED)
def test_a_run_that_has_ended_is_deleted_with_its_steps(
    api: Caller, db: Database, state: str
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    assert data(api.get(f"{path}/steps"))
    assert api.delete(path).json == {"success": True, "deleted": True}
    for answer in (api.get(path), api.get(f"{path}/steps"), api.delete(path)):
        refused(answer, 404, "run_not_found")
    assert states.count(db, "SELECT count(*) FROM steps") == 0
    assert states.count(db, "SELECT count(*) FROM audit_events WHERE action = 'run.deleted'") == 1


def test_steps_come_in_order(api: Caller, db: Database) -> None:
    path = api.new_run()
    answer = json.loads(api.get(f"{path}/steps").get_data())
    assert answer == {"object": "list", "data": [], "has_more": False, "next_cursor": None}
    states.bring(db, path, "running")
    first, second = data(api.get(f"{path}/steps"))
    assert first["id"] < second["id"]
    assert (first["nodeId"], first["status"], first["attempt"]) == ("n1", "completed", 1)
    assert first["durationMs"] >= 0
    assert first["startedAt"] <= first["completedAt"] <= second["startedAt"]
    assert (second["completedAt"], second["durationMs"]) == (None, None)
    assert first["runId"] == path.rpartition("/")[2]
