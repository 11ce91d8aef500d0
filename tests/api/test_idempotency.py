"""Requests that create something, sent more than once."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from app.api.idempotency import HEADER
from app.db import Database
from app.services import keys
from tests.api import states
from tests.api.conftest import DEFINITION, Caller, data, refused
from tests.api.test_etag import WAITING
from tests.processes import PATIENCE, wait_for

BODY: dict[str, Any] = {"name": "n", "definition": DEFINITION, "triggerSummary": None}
COUNT = "SELECT count(*) FROM metronomes"


def send(api: Caller, key: str = "k1", body: Any = None, **headers: str) -> Any:
    return api.post("metronomes", body or BODY, headers={HEADER: key, **headers})


def test_the_second_request_creates_nothing(api: Caller, db: Database) -> None:
    first, second = send(api), send(api)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.get_data() == second.get_data()
    assert "Idempotent-Replay" not in first.headers
    assert second.headers["Idempotent-Replay"] == "true"
    assert second.headers["ETag"] == first.headers["ETag"]
    assert states.count(db, COUNT) == 1
    created = "SELECT count(*) FROM audit_events WHERE action = 'metronome.created'"
    assert states.count(db, created) == 1


def test_what_was_created_is_found_where_the_answer_says(api: Caller) -> None:
    made = send(api)
    path = made.headers["Location"]
    assert data(api.get(path)) == data(made, 201)
    assert "Location" not in send(api).headers
    function = {"id": "call", "kind": "trigger", "subtype": "function", "config": {"slug": "s"}}
    nodes = {"nodes": [function, {"id": "e", "kind": "end"}]}
    callable_ = {**nodes, "edges": [{"source": "call", "target": "e"}]}
    assert api.post(f"{path}/publish", {"definition": callable_}).status_code == 200
    for below, body in (
        ("runs", {}),
        ("test-run", {}),
        ("versions", {"definition": DEFINITION}),
        ("triggers/function/s", {"payload": {}}),
        ("triggers/test", {"triggerType": "function", "payload": {}}),
    ):
        answer = api.post(f"{path}/{below}", body)
        created = data(answer, 201)
        found = data(api.get(answer.headers["Location"]))
        assert found["id"] == created.get("run", created)["id"]


def test_the_key_may_stand_in_the_body(api: Caller) -> None:
    first = data(api.post("metronomes", {**BODY, "idempotencyKey": "k1"}), 201)
    assert data(send(api)) == first
    both = {**BODY, "idempotencyKey": "k1"}
    assert data(send(api, body=both)) == first
    answer = send(api, "k2", both)
    assert refused(answer, 422, "invalid")["details"].keys() == {HEADER}


def test_the_answer_is_what_the_workflow_is_now(api: Caller) -> None:
    path = f"metronomes/{data(send(api), 201)['id']}"
    changed = data(api.patch(path, {"name": "changed"}))
    assert data(send(api)) == changed
    api.delete(path)
    assert data(send(api))["status"] == "archived"


@pytest.mark.parametrize(
    "other",
    [
        {**BODY, "name": "m"},
        {**BODY, "status": "active"},
        {"name": "n"},
        {**BODY, "concurrency": {"maxConcurrentRuns": 1}},
    ],
)
def test_the_key_of_another_request_is_refused(api: Caller, db: Database, other: Any) -> None:
    send(api)
    answer = refused(send(api, body=other), 422, "idempotency_key_reused")
    assert answer["details"].keys() == {"idempotencyKey"}
    assert states.count(db, COUNT) == 1


def test_the_order_of_keys_makes_no_other_request(api: Caller) -> None:
    for sent, status in ((BODY, 201), (dict(reversed(BODY.items())), 200)):
        answer = api.post(
            "metronomes",
            data=json.dumps(sent),
            content_type="application/json",
            headers={HEADER: "k1"},
        )
        assert answer.status_code == status


def test_what_was_refused_may_be_sent_again_mended(api: Caller) -> None:
    bad = {"name": "n", "definition": {"nodes": [{"id": "a", "kind": "rocket"}], "edges": []}}
    refused(send(api, body=bad), 422, "invalid_definition")
    data(send(api), 201)


def test_other_keys_and_other_organizations_create_more(
    api: Caller, other: Caller, db: Database
) -> None:
    ids = {data(one, 201)["id"] for one in (send(api), send(api, "k2"), send(other))}
    assert len(ids) == 3
    api.new_metronome()
    api.new_metronome()
    assert states.count(db, COUNT) == 5


def test_a_colleague_of_the_same_organization_gets_the_same(api: Caller, db: Database) -> None:
    first = data(send(api), 201)
    _, secret = keys.create_key(db, name="k", user_id="bob", organization_id="acme")
    bob = {"Authorization": f"Bearer {secret}"}
    assert data(api.post("metronomes", BODY, headers={HEADER: "k1", **bob})) == first


def test_after_a_day_the_key_is_free_again(api: Caller, db: Database) -> None:
    first = data(send(api), 201)["id"]
    age = "UPDATE idempotency_keys SET created_at = now() - interval '{}'"
    with db.connect() as connection:
        connection.exec_driver_sql(age.format("23 hours 59 minutes"))
    assert data(send(api))["id"] == first
    with db.connect() as connection:
        connection.exec_driver_sql(age.format("24 hours 1 minute"))
    second = data(send(api, body={"name": "another"}), 201)["id"]
    assert second != first
    assert data(send(api, body={"name": "another"}))["id"] == second


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä", "a\tb"])
def test_a_key_that_is_none_is_refused(api: Caller, db: Database, key: str) -> None:
    answer = refused(send(api, key), 422, "invalid")
    assert answer["details"].keys() == {HEADER}
    assert states.count(db, COUNT) == 0


@pytest.mark.parametrize("key", ["x" * 255, "~!\"'`\\%:;", '"quoted"'])
def test_any_visible_text_is_a_key(api: Caller, key: str) -> None:
    first = data(send(api, key), 201)
    assert data(send(api, key)) == first


def test_two_at_once_create_one(api: Caller, db: Database) -> None:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(send(api, body={"name": "n"})))
        for _ in range(4)
    ]
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("LOCK TABLE metronomes IN EXCLUSIVE MODE")  # the keys are free
        for thread in threads:
            thread.start()
        wait_for(lambda: states.count(db, WAITING) == 4, message="all are about to create")
        connection.commit()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.get_data() for answer in answers}) == 1
    assert states.count(db, COUNT) == 1


def test_two_who_reserve_at_once_get_one_id(api: Caller, db: Database) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(send(api))) for _ in range(2)]
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute(
            "INSERT INTO idempotency_keys (organization_id, scope, key, fingerprint, resource_id)"
            " VALUES ('acme', 'metronomes', 'k1', '', 'met_nobody')"
        )
        for thread in threads:
            thread.start()
        wait_for(lambda: states.count(db, WAITING) == 2, message="both wait for the key")
        connection.rollback()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answer.status_code for answer in answers) == [200, 201]
    assert len({answer.get_data() for answer in answers}) == 1


def test_a_crash_between_the_key_and_the_workflow_is_harmless(api: Caller, db: Database) -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(send(api)))
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("LOCK TABLE metronomes IN EXCLUSIVE MODE")
        thread.start()
        wait_for(lambda: states.count(db, WAITING) == 1, message="it is about to create")
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        connection.commit()
    thread.join(PATIENCE)
    refused(answers[0], 503, "database_unavailable")
    assert states.count(db, COUNT) == 0
    created = data(send(api), 201)
    reserved = "SELECT count(*) FROM idempotency_keys WHERE resource_id = :id"
    assert states.count(db, reserved, id=created["id"]) == 1
    assert data(send(api)) == created
