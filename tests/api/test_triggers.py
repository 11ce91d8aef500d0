"""Events through the front door: what starts runs, what doesn't, and what is told of both."""

from __future__ import annotations

import threading
from typing import Any

import jsonschema_rs
import pytest

from app.api.schemas.triggers import INBOUND_TYPES
from app.ids import new_id
from tests.api.conftest import Caller, data, refused

# A config of each type, and a payload that matches it.
MATCHING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "email": (
        {"emailLocalPart": "orders", "subjectContains": "order", "fromContains": "@example.org"},
        {"from": "Ada <ada@example.org>", "to": ["Orders@example.org"], "subject": "Order 17"},
    ),
    "telegram": (
        {"telegramCommand": "/go", "telegramChatId": "42"},
        {"message": {"text": "/go now", "chat": {"id": 42}, "from": {"username": "ada"}}},
    ),
    "thread_event": ({"threadCommand": "/deploy"}, {"message": "/deploy the site"}),
    "project_ticket": (
        {"ticketEventType": "status_changed", "ticketProjectId": "p1", "ticketToStatus": "done"},
        {"eventType": "status_changed", "project": {"id": "p1"}, "toStatus": "Done"},
    ),
    "resource": (
        {"resourceEventType": "deployed", "resourceKind": "function"},
        {"eventType": "deployed", "resource": {"kind": "function", "id": "r1"}},
    ),
    "database_entry": (
        {"databaseEventType": "document_created", "databaseCollection": "orders"},
        {"collection": "orders", "document": {"id": 1}},
    ),
    "auth": (
        {"authEventType": "user_registered", "authEmailContains": "@example.org"},
        {"user": {"email": "ada@example.org"}},
    ),
}


def definition(trigger_type: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """A workflow that begins with such a trigger."""
    return {
        "nodes": [
            {"id": "start", "kind": "trigger", "subtype": trigger_type, "config": config or {}},
            {"id": "finish", "kind": "end"},
        ],
        "edges": [{"id": "e1", "source": "start", "target": "finish"}],
    }


def published(api: Caller, trigger_type: str, config: dict[str, Any] | None = None) -> str:
    """The path of a workflow that is published with such a trigger."""
    path = api.new_metronome(definition(trigger_type, config))
    data(api.post(f"{path}/publish", {"active": True}))
    return path


def deliver(api: Caller, trigger_type: str, payload: Any = None, **fields: Any) -> dict[str, Any]:
    """Deliver an event for everybody; what is answered."""
    body = {"triggerType": trigger_type, "payload": payload or {}, **fields}
    answer = api.post("metronomes/events/inbound", body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: dict[str, Any] = answer.json or {}
    return found


def id_of(path: str) -> str:
    """The workflow's id in its path."""
    return path.removeprefix("metronomes/")


def runs_of(api: Caller, path: str) -> list[dict[str, Any]]:
    """The workflow's runs."""
    found: list[dict[str, Any]] = data(api.get(f"{path}/runs"))
    return found


def test_there_is_a_case_for_each_type_that_can_be_delivered() -> None:
    assert set(INBOUND_TYPES) == MATCHING.keys()


@pytest.mark.parametrize("trigger_type", INBOUND_TYPES)
def test_an_event_starts_a_run_of_what_listens_for_it(api: Caller, trigger_type: str) -> None:
    config, payload = MATCHING[trigger_type]
    path = published(api, trigger_type, config)
    answer = deliver(api, trigger_type, payload, sourceEventId="e1", summary="hello")
    assert (answer["success"], answer["object"], answer["matched_count"]) == (True, "list", 1)
    (event,) = answer["data"]
    (run,) = runs_of(api, path)
    assert (event["status"], event["runId"], event["reason"]) == ("matched", run["id"], None)
    assert (event["metronomeId"], event["summary"]) == (id_of(path), "hello")
    assert (run["triggerType"], run["input"]) == (trigger_type, payload)
    assert (run["triggerEventId"], run["idempotencyKey"]) == (event["id"], f"{trigger_type}:e1")
    (listed,) = data(api.get(f"{path}/trigger-events"))
    assert listed == event | {"payload": payload}


@pytest.mark.parametrize("trigger_type", INBOUND_TYPES)
def test_an_event_that_does_not_match_is_recorded_with_the_reason(
    api: Caller, trigger_type: str
) -> None:
    config, _ = MATCHING[trigger_type]
    path = published(api, trigger_type, config)
    answer = deliver(api, trigger_type, {"eventType": "something_else"})
    (event,) = answer["data"]
    assert answer["matched_count"] == 0
    assert (event["status"], event["runId"]) == ("ignored", None)
    assert any(name in event["reason"] for name in config)
    assert runs_of(api, path) == []


def test_an_event_that_comes_again_is_answered_as_it_was(api: Caller) -> None:
    one = published(api, "email", {"subjectContains": "order"})
    two = published(api, "email", {"subjectContains": "invoice"})
    first = deliver(api, "email", {"subject": "order"}, sourceEventId="e1")
    late = published(api, "email")
    assert deliver(api, "email", {"subject": "order"}, sourceEventId="e1") == first
    assert [event["status"] for event in first["data"]] == ["matched", "ignored"]
    assert [len(runs_of(api, path)) for path in (one, two, late)] == [1, 0, 0]
    assert len(data(api.get("metronomes/trigger-events"))) == 2


def test_the_idempotency_key_is_the_id_of_an_event_without_one(api: Caller) -> None:
    path = published(api, "email")
    body: dict[str, Any] = {"triggerType": "email", "payload": {"n": 1}}

    def send(key: str, **fields: Any) -> Any:
        headers = {"Idempotency-Key": key}
        answer = api.post("metronomes/events/inbound", {**body, **fields}, headers=headers)
        return answer.json if answer.status_code == 200 else refused(answer, 422, "invalid")

    first = send("k1")
    assert first["data"][0]["sourceEventId"] == "k1"
    assert send("k1") == first == send("k2", sourceEventId="k1")
    assert len(runs_of(api, path)) == 1
    assert send("k1", sourceEventId="e2")["data"][0]["sourceEventId"] == "e2"
    assert len(runs_of(api, path)) == 2
    assert "Idempotency-Key" in send("a key")["details"]


def test_events_without_an_id_are_all_new(api: Caller) -> None:
    path = published(api, "email")
    deliver(api, "email")
    deliver(api, "email")
    assert len(runs_of(api, path)) == 2


def test_an_event_that_failed_is_tried_again(api: Caller) -> None:
    path = published(api, "email")
    limit = {"maxConcurrentRuns": 1, "key": "trigger.input.customer"}
    data(api.patch(path, {"concurrency": limit}))
    (event,) = deliver(api, "email", {"n": 1}, sourceEventId="e1")["data"]
    assert event["status"] == "failed"
    assert "concurrency key" in event["reason"]
    data(api.patch(path, {"concurrency": None}))
    (event,) = deliver(api, "email", {"n": 1}, sourceEventId="e1")["data"]
    assert event["status"] == "matched"


def test_an_event_beyond_the_limit_of_runs_is_ignored(api: Caller) -> None:
    path = published(api, "email")
    data(api.patch(path, {"concurrency": {"maxConcurrentRuns": 1, "onLimit": "reject"}}))
    assert deliver(api, "email")["matched_count"] == 1
    (event,) = deliver(api, "email")["data"]
    assert event["status"] == "ignored"
    assert len(runs_of(api, path)) == 1


@pytest.mark.parametrize("status", ["paused", "archived"])
def test_a_workflow_that_is_not_active_ignores_events(api: Caller, status: str) -> None:
    path = published(api, "email")
    data(api.patch(path, {"status": status}))
    (event,) = deliver(api, "email")["data"]
    assert (event["status"], event["reason"]) == ("ignored", f"the metronome is {status}")
    data(api.patch(path, {"status": "active"}))
    assert deliver(api, "email")["matched_count"] == 1


def test_an_event_that_nobody_listens_for_is_recorded(api: Caller) -> None:
    path = published(api, "telegram")
    unpublished = api.new_metronome(definition("email"))
    (event,) = deliver(api, "email", {"subject": "hi"})["data"]
    assert (event["status"], event["metronomeId"]) == ("ignored", None)
    assert data(api.get("metronomes/trigger-events"))[0]["id"] == event["id"]
    assert data(api.get(f"{path}/trigger-events")) == []
    assert data(api.get(f"{unpublished}/trigger-events")) == []


def test_what_is_unpublished_does_not_listen_any_more(api: Caller) -> None:
    path = published(api, "email")
    data(api.post(f"{path}/unpublish"))
    assert deliver(api, "email")["matched_count"] == 0
    assert runs_of(api, path) == []


def test_events_stay_in_their_organization(api: Caller, other: Caller) -> None:
    path = published(api, "email")
    assert deliver(other, "email", sourceEventId="e1")["matched_count"] == 0
    assert deliver(api, "email", sourceEventId="e1")["matched_count"] == 1
    assert len(data(other.get("metronomes/trigger-events"))) == 1
    refused(other.get(f"{path}/trigger-events"), 404, "metronome_not_found")
    refused(other.get(f"{path}/trigger-summary"), 404, "metronome_not_found")


def test_runs_of_events_belong_to_the_workflows_owner(app: Any, db: Any, api: Caller) -> None:
    from app.services import keys

    path = published(api, "email")
    _, secret = keys.create_key(db, name="mail", user_id="mailer", organization_id="acme")
    deliver(Caller(app, secret), "email")
    (run,) = runs_of(api, path)
    assert run["userId"] == "ada"


def test_a_function_trigger_is_called_by_its_slug(api: Caller) -> None:
    path = published(api, "function", {"slug": "order"})
    answer = api.post(f"{path}/triggers/function/order", {"payload": {"n": 1}})
    found = data(answer, 201)
    assert found["matched"] is True
    assert found["run"]["input"] == {"n": 1}
    assert found["run"]["triggerType"] == "function"
    assert found["triggerEvent"]["runId"] == found["run"]["id"]
    assert found["triggerEvent"]["payload"] == {"n": 1}


def test_without_a_slug_a_function_trigger_has_its_nodes_id(api: Caller) -> None:
    path = published(api, "function")
    data(api.post(f"{path}/triggers/function/start", {}), 201)


@pytest.mark.parametrize("sent", [{"sourceEventId": "s1"}, {"idempotencyKey": "k1"}])
def test_a_call_that_comes_again_answers_the_run_of_then(api: Caller, sent: dict[str, Any]) -> None:
    path = published(api, "function", {"slug": "order"})
    first = data(api.post(f"{path}/triggers/function/order", {"payload": {"n": 1}, **sent}), 201)
    again = api.post(f"{path}/triggers/function/order", {"payload": {"n": 1}, **sent})
    assert data(again) == first
    assert again.headers["Idempotent-Replay"] == "true"
    assert len(runs_of(api, path)) == 1
    assert len(data(api.get(f"{path}/trigger-events"))) == 1


def test_triggers_of_one_workflow_are_called_apart_by_the_same_event(api: Caller) -> None:
    nodes = [
        {"id": slug, "kind": "trigger", "subtype": "function", "config": {"slug": slug}}
        for slug in ("create", "cancel")
    ]
    edges = [{"source": node["id"], "target": "finish"} for node in nodes]
    finish = {"id": "finish", "kind": "end"}
    path = api.new_metronome({"nodes": [*nodes, finish], "edges": edges})
    data(api.post(f"{path}/publish", {"active": True}))
    calls = f"{path}/triggers/function"
    first = data(api.post(f"{calls}/create", {"sourceEventId": "order-17"}), 201)["run"]
    second = data(api.post(f"{calls}/cancel", {"sourceEventId": "order-17"}), 201)["run"]
    assert first["idempotencyKey"] == "function:create:order-17"
    assert second["idempotencyKey"] == "function:cancel:order-17"
    assert len(runs_of(api, path)) == 2


@pytest.mark.parametrize(
    "again",
    [
        {"sourceEventId": "s1", "idempotencyKey": "k1"},
        {"sourceEventId": "s1", "idempotencyKey": "k2"},
        {"sourceEventId": "s2", "idempotencyKey": "k1"},
        {"sourceEventId": "s1"},
        {"idempotencyKey": "k1"},
    ],
)
@pytest.mark.parametrize("limit", [None, {"maxConcurrentRuns": 1, "onLimit": "reject"}])
def test_either_of_two_keys_finds_the_run_of_a_call(
    api: Caller, again: dict[str, str], limit: Any
) -> None:
    path = published(api, "function", {"slug": "order"})
    data(api.patch(path, {"concurrency": limit}))
    call = f"{path}/triggers/function/order"
    first = data(api.post(call, {"sourceEventId": "s1", "idempotencyKey": "k1"}), 201)
    assert first["run"]["idempotencyKey"] == "k1"
    answer = api.post(call, again)
    assert data(answer) == first
    assert answer.headers["Idempotent-Replay"] == "true"


def test_an_event_that_came_without_a_key_starts_nothing_with_one(api: Caller) -> None:
    path = published(api, "function", {"slug": "order"})
    call = f"{path}/triggers/function/order"
    first = data(api.post(call, {"sourceEventId": "s1"}), 201)
    assert data(api.post(call, {"sourceEventId": "s1", "idempotencyKey": "k1"})) == first
    assert len(runs_of(api, path)) == 1


def test_calls_of_one_event_at_once_start_one_run(api: Caller, app: Any) -> None:
    path = published(api, "function", {"slug": "order"})
    for number in range(5):
        together = threading.Barrier(4)
        found: list[str] = []

        def send(key: str, source: str = f"s{number}") -> None:
            together.wait()  # noqa: B023 - the threads end before the next turn
            body = {"sourceEventId": source, "idempotencyKey": f"{source}-{key}"}
            url = f"/v1/{path}/triggers/function/order"
            answer = app.test_client().post(url, json=body, headers=api.headers)
            found.append(answer.json["data"]["run"]["id"])  # noqa: B023

        threads = [threading.Thread(target=send, args=(key,)) for key in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1


def test_a_call_that_can_not_be_taken_is_refused_and_recorded(api: Caller) -> None:
    path = api.new_metronome(definition("function", {"slug": "order"}))
    call = f"{path}/triggers/function/order"
    refused(api.post(call, {}), 409, "not_published")
    data(api.post(f"{path}/publish", {"active": True}))
    refused(api.post(f"{path}/triggers/function/other", {}), 404, "trigger_not_found")
    data(api.patch(path, {"status": "paused"}))
    refused(api.post(call, {}), 409, "metronome_paused")
    data(api.patch(path, {"status": "archived"}))
    refused(api.post(call, {}), 409, "metronome_archived")
    data(api.patch(path, {"status": "active"}))
    data(api.patch(path, {"concurrency": {"maxConcurrentRuns": 1, "onLimit": "reject"}}))
    data(api.post(call, {}), 201)
    refused(api.post(call, {}), 409, "concurrency_limit")
    statuses = [event["status"] for event in data(api.get(f"{path}/trigger-events"))]
    assert statuses == ["ignored", "matched", "ignored", "ignored", "ignored", "ignored"]


def test_a_slug_of_others_is_as_unknown(api: Caller, other: Caller) -> None:
    path = published(api, "function", {"slug": "order"})
    theirs = other.post(f"{path}/triggers/function/order", {})
    refused(theirs, 404, "metronome_not_found")
    unknown = other.post(f"metronomes/{new_id('met')}/triggers/function/order", {})
    assert theirs.get_data() == unknown.get_data()
    assert data(api.get(f"{path}/trigger-events")) == []


def test_a_trigger_can_be_tried_out_before_it_is_published(api: Caller) -> None:
    path = api.new_metronome(definition("email", {"subjectContains": "order"}))
    body = {"triggerType": "email", "payload": {"subject": "Order 17"}, "sourceEventId": "e1"}
    found = data(api.post(f"{path}/triggers/test", body), 201)
    assert (found["matched"], found["triggerEvent"]["status"]) == (True, "matched")
    assert found["run"]["input"] == {"subject": "Order 17"}
    assert found["mismatch"] is None


def test_a_sample_that_does_not_match_runs_and_tells_why_it_would_be_ignored(api: Caller) -> None:
    path = api.new_metronome(definition("email", {"subjectContains": "order"}))
    body = {"triggerType": "email", "payload": {"subject": "Hello"}}
    found = data(api.post(f"{path}/triggers/test", body), 201)
    assert (found["matched"], found["triggerEvent"]["status"]) == (False, "matched")
    assert "subjectContains" in found["mismatch"]
    assert [run["id"] for run in runs_of(api, path)] == [found["run"]["id"]]


def test_a_trial_is_not_the_event_itself(api: Caller) -> None:
    path = published(api, "email")
    data(api.post(f"{path}/triggers/test", {"triggerType": "email", "sourceEventId": "e1"}), 201)
    refreshed = deliver(api, "email", sourceEventId="e1")
    assert refreshed["matched_count"] == 1
    assert len(runs_of(api, path)) == 2


def test_a_trial_takes_what_a_run_takes(api: Caller) -> None:
    path = api.new_metronome()
    body = {
        "definition": definition("github"),
        "idempotencyKey": "k1",
        "maxAttempts": 3,
        "timeoutMs": 60_000,
        "attachedProjectId": "p1",
        "attachedTicketId": "t1",
    }
    found = data(api.post(f"{path}/triggers/test", body), 201)["run"]
    assert found["triggerType"] == "manual_test"
    for name in ("idempotencyKey", "maxAttempts", "timeoutMs", "attachedTicketId"):
        assert found[name] == body[name]
    again = api.post(f"{path}/triggers/test", body)
    assert data(again)["run"] == found
    assert again.headers["Idempotent-Replay"] == "true"


def test_a_trial_that_can_not_be_started_is_recorded_as_failed(api: Caller) -> None:
    path = api.new_metronome({"nodes": [], "edges": []})
    refused(api.post(f"{path}/triggers/test", {}), 409, "nothing_to_run")
    (event,) = data(api.get(f"{path}/trigger-events"))
    assert (event["status"], event["triggerType"]) == ("failed", "manual_test")


def test_events_are_filtered(api: Caller) -> None:
    path = published(api, "email", {"subjectContains": "a"})
    deliver(api, "email", {"subject": "a"})
    deliver(api, "email", {"subject": "b"})
    data(api.post(f"{path}/triggers/test", {}), 201)
    for query, expected in (
        ("", 3),
        ("?status=matched", 2),
        ("?status=matched,ignored", 3),
        ("?status=failed", 0),
        ("?triggerType=email", 2),
        ("?triggerType=email&status=ignored", 1),
        ("?limit=2", 2),
        ("?offset=1", 2),
    ):
        assert len(data(api.get(f"{path}/trigger-events{query}"))) == expected, query
        assert len(data(api.get(f"metronomes/trigger-events{query}"))) == expected, query
    refused(api.get("metronomes/trigger-events?status=odd"), 422, "invalid")


def test_pages_of_events_lead_on(api: Caller) -> None:
    path = published(api, "email")
    for _ in range(5):
        deliver(api, "email")
    seen: list[str] = []
    more = ""
    for _ in range(3):
        page = api.get(f"{path}/trigger-events?limit=2{more}").json or {}
        deliver(api, "email")  # what comes meanwhile moves no page
        seen += [event["id"] for event in page["data"]]
        more = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 5


def test_a_summary_tells_what_has_come_of_each_type(api: Caller) -> None:
    path = published(api, "email", {"subjectContains": "a"})
    assert data(api.get(f"{path}/trigger-summary")) == []
    first = deliver(api, "email", {"subject": "a"})["data"][0]
    last = deliver(api, "email", {"subject": "b"})["data"][0]
    data(api.post(f"{path}/triggers/test", {}), 201)
    trial, email = data(api.get(f"{path}/trigger-summary"))
    assert trial["triggerType"] == "manual_test"
    assert email["triggerType"] == "email"
    counts = {name: email[name] for name in email if name.endswith("Count")}
    assert counts == {
        "totalCount": 2,
        "matchedCount": 1,
        "ignoredCount": 1,
        "failedCount": 0,
        "unauthorizedCount": 0,
    }
    (_, run) = runs_of(api, path)
    assert (email["lastRunId"], email["lastRunStatus"]) == (run["id"], "queued")
    assert email["lastRunAt"] == run["createdAt"]
    assert email["lastReceivedAt"] == email["lastIgnoredAt"] == last["createdAt"]
    assert email["lastMatchedAt"] == first["createdAt"]
    assert email["lastFailedAt"] is None
    assert email["lastEvent"]["id"] == last["id"]
    assert email["lastMatchedEvent"]["id"] == first["id"]


def test_a_long_payload_that_starts_nothing_is_not_kept(api: Caller) -> None:
    path = published(api, "email", {"subjectContains": "a"})
    deliver(api, "email", {"subject": "b", "body": "x" * 20_000})
    (event,) = data(api.get(f"{path}/trigger-events"))
    assert event["payload"] == {"omittedBytes": 20_028 - 3}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"triggerType": "github", "payload": {}}, "triggerType"),
        ({"triggerType": "email", "payload": {"a": "\x00"}}, "payload.a"),
        ({"triggerType": "email", "payload": [1]}, "payload"),
        ({"triggerType": "email", "sourceEventId": "\x00"}, "sourceEventId"),
        ({"triggerType": "email", "extra": 1}, "extra"),
        ({}, "triggerType"),
    ],
)
def test_what_can_not_be_taken_is_refused_by_its_field(
    api: Caller, body: dict[str, Any], field: str
) -> None:
    answer = api.post("metronomes/events/inbound", body)
    assert answer.status_code == 422
    assert list((answer.json or {})["details"]) == [field]
    assert data(api.get("metronomes/trigger-events")) == []


def test_answers_are_what_the_document_says(api: Caller) -> None:
    document = api.get("/openapi.json").json or {}
    path = published(api, "email", {"subjectContains": "a"})
    call = published(api, "function", {"slug": "go"})
    event = {"triggerType": "email", "payload": {"subject": "a"}}
    for answer, schema in (
        (api.post("metronomes/events/inbound", event), "InboundAnswer"),
        (api.post("metronomes/events/inbound", {"triggerType": "email"}), "InboundAnswer"),
        (api.post(f"{call}/triggers/function/go", {}), "DeliveredAnswer"),
        (api.post(f"{path}/triggers/test", event), "DeliveredAnswer"),
        (api.post(f"{path}/triggers/test", {"triggerType": "email"}), "DeliveredAnswer"),
        (api.get("metronomes/trigger-events"), "TriggerEventList"),
        (api.get(f"{path}/trigger-events"), "TriggerEventList"),
        (api.get(f"{path}/trigger-summary"), "TriggerSummaryList"),
    ):
        whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
        jsonschema_rs.validate(whole, answer.json)
    schemas = document["components"]["schemas"]
    (summary,) = data(api.get(f"{path}/trigger-summary"))
    assert summary.keys() == schemas["TriggerSummary"]["properties"].keys()
    assert summary["lastEvent"].keys() == schemas["TriggerEvent"]["properties"].keys()


def test_two_deliveries_at_once_start_one_run(api: Caller, app: Any) -> None:
    path = published(api, "email")
    for number in range(5):
        together = threading.Barrier(4)
        ids: list[str] = []

        def send(source: str = f"e{number}") -> None:
            together.wait()  # noqa: B023 - the threads end before the next turn
            body = {"triggerType": "email", "sourceEventId": source}
            answer = app.test_client().post(
                "/v1/metronomes/events/inbound", json=body, headers=api.headers
            )
            ids.extend(event["id"] for event in answer.json["data"])  # noqa: B023

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 4
        assert len(set(ids)) == 1
        assert len(runs_of(api, path)) == number + 1
