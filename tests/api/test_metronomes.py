from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from app.db import Database
from tests.api import states
from tests.api.conftest import DEFINITION, Caller, data, refused

OF_METRONOMES = "FROM audit_events WHERE action LIKE 'metronome.%%'"
BUILDER = {
    "nodes": [
        {
            "id": "start",
            "type": "custom",
            "position": {"x": 1.5, "y": 2},
            "data": {"kind": "trigger", "label": "Start"},
            "selected": True,
        },
        {"id": "finish", "type": "custom", "data": {"kind": "end"}, "width": 10},
    ],
    "edges": [{"source": "start", "target": "finish", "id": "e", "animated": False}],
    "viewport": {"zoom": 1.0},
    "name": "näme \U0001f600",
}


def test_a_metronome_is_created_with_all_that_was_given(api: Caller) -> None:
    body = {
        "name": "n",
        "definition": DEFINITION,
        "description": "d",
        "status": "active",
        "triggerSummary": "t",
    }
    created = data(api.post("metronomes", body), 201)
    assert {name: created[name] for name in body} == body
    assert created["userId"] == "ada"
    assert created["publishedVersionId"] is None
    assert data(api.get(f"metronomes/{created['id']}")) == created


def test_without_a_definition_it_is_an_empty_draft(api: Caller) -> None:
    created = data(api.post("metronomes", {"name": "n"}), 201)
    assert created["status"] == "draft"
    assert created["definition"] == {"nodes": [], "edges": []}
    assert created["description"] is None


@pytest.mark.parametrize("definition", [DEFINITION, BUILDER, {"nodes": [], "edges": []}])
def test_a_definition_comes_back_as_it_was_given(api: Caller, definition: Any) -> None:
    # to the byte: the order of the keys as well
    written = json.dumps(definition, separators=(",", ":"), ensure_ascii=False)
    sent = f'{{"name": "n", "definition": {written}}}'.encode()
    created = api.post("metronomes", data=sent, content_type="application/json")
    assert created.status_code == 201
    assert written in created.get_data(as_text=True)
    path = f"metronomes/{data(created, 201)['id']}"
    assert written in api.get(path).get_data(as_text=True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "\u3000\n"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": ["x"]}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "a\ud800b"}, "name"),
        ({"name": "n", "status": "archived"}, "status"),
        ({"name": "n", "status": "Draft"}, "status"),
        ({"name": "n", "status": None}, "status"),
        ({"name": "n", "description": 1}, "description"),
        ({"name": "n", "description": "\0"}, "description"),
        ({"name": "n", "description": "x" * 10_001}, "description"),
        ({"name": "n", "triggerSummary": {}}, "triggerSummary"),
        ({"name": "n", "trigger_summary": "x"}, "trigger_summary"),
        ({"name": "n", "id": "met_1"}, "id"),
        ({"name": "n", "definition": None}, "definition"),
        ({"name": "n", "definition": []}, "definition"),
        ({"name": "n", "definition": "{}"}, "definition"),
        ({"name": "n", "definition": {"nodes": {}}}, "definition.nodes"),
        ({"name": "n", "definition": {"nodes": [5]}}, "definition.nodes.0"),
    ],
)
def test_what_is_wrong_is_named(api: Caller, body: Any, field: str) -> None:
    response = api.post("metronomes", body)
    assert response.status_code == 422, response.get_data(as_text=True)
    assert field in json.loads(response.get_data())["details"]
    assert data(api.get("metronomes")) == []


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("\0", "NUL"),
        ("\ud800", "surrogate"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (2**63, "64 bits"),
    ],
)
def test_a_definition_that_can_not_be_stored_is_refused(api: Caller, label: Any, said: str) -> None:
    definition = {"nodes": [{"id": "a", "kind": "trigger", "label": label}], "edges": []}
    answer = api.post("metronomes", {"name": "n", "definition": definition})
    body = refused(answer, 422, "value_refused")
    ((field, (message,)),) = body["details"].items()
    assert field == "definition.nodes.0.label"
    assert said in message


def test_the_message_names_the_node(api: Caller) -> None:
    nodes = [{"id": "fetch", "kind": "http", "config": {"url": 5}}, {"id": "b", "kind": "rocket"}]
    response = api.post("metronomes", {"name": "n", "definition": {"nodes": nodes, "edges": []}})
    body = refused(response, 422, "invalid_definition")
    assert "node fetch" in body["message"]
    assert "definition.nodes.0.config.url" in body["details"]
    assert "definition.nodes.1.kind" in body["details"]


def test_a_change_leaves_the_rest(api: Caller) -> None:
    path = api.new_metronome(description="d", triggerSummary="t")
    before = data(api.get(path))
    after = data(api.patch(path, {"name": "new"}))
    assert after["name"] == "new"
    assert after["updatedAt"] > before["updatedAt"]
    assert after["revision"] == before["revision"] + 1
    same = {name: before[name] for name in ("name", "updatedAt", "revision")}
    assert {**after, **same} == before


def test_null_clears_what_may_be_empty(api: Caller) -> None:
    path = api.new_metronome(description="d", triggerSummary="t")
    after = data(api.patch(path, {"description": None, "triggerSummary": None}))
    assert (after["description"], after["triggerSummary"]) == (None, None)
    for field in ("name", "status", "definition"):
        refused(api.patch(path, {field: None}), 422, "invalid")


def test_no_change_writes_nothing(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    before = data(api.get(path))
    same = {name: before[name] for name in ("name", "status", "definition", "description")}
    for body in ({}, same, {"concurrency": None}):
        assert data(api.patch(path, body)) == before
    assert states.count(db, f"SELECT count(*) {OF_METRONOMES}") == 1


def test_what_stays_the_same_is_no_new_version(api: Caller) -> None:
    path = api.new_metronome()
    first, second = (
        data(api.get(api.new_run(path)))["versionId"]
        for _ in range(2)
        if data(api.patch(path, {"definition": DEFINITION}))
    )
    assert first == second
    changed = {**DEFINITION, "description": "new"}
    api.patch(path, {"definition": changed})
    assert data(api.get(api.new_run(path)))["versionId"] != first


def test_a_bad_change_changes_nothing(api: Caller) -> None:
    path = api.new_metronome()
    before = data(api.get(path))
    bad = {"name": "new", "definition": {"nodes": [{"id": "a", "kind": "z"}], "edges": []}}
    refused(api.patch(path, bad), 422, "invalid_definition")
    assert data(api.get(path)) == before


def test_archiving_is_idempotent_and_can_be_undone(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    for _ in range(2):
        assert api.delete(path).json == {"success": True, "deleted": True}
    archived = data(api.get(path))
    assert archived["status"] == "archived"
    assert states.count(db, "SELECT count(*) FROM audit_events WHERE action LIKE '%archived'") == 1
    assert data(api.get("metronomes")) == []
    assert data(api.get("metronomes?includeArchived=true")) == [archived]
    assert data(api.get("metronomes?status=archived")) == [archived]
    refused(api.post(f"{path}/runs", {}), 409, "metronome_archived")
    assert data(api.patch(path, {"status": "active"}))["status"] == "active"
    api.new_run(path)


def test_every_change_is_in_the_audit(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    api.patch(path, {"name": "new", "status": "active"})
    api.new_run(path)
    api.delete(path)
    with db.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT action, actor_user_id, payload {OF_METRONOMES} ORDER BY id"
        ).all()
    both = {
        "changed": ["name", "status"],
        "before": {"name": "test", "status": "draft"},
        "after": {"name": "new", "status": "active"},
    }
    gone = {
        "changed": ["status"],
        "before": {"status": "active"},
        "after": {"status": "archived"},
    }
    digest = rows[0][2]["definition"]
    assert digest.keys() == {"bytes", "sha256"}
    first = {"name": "test", "status": "draft", "definition": digest}
    assert [tuple(row) for row in rows] == [
        ("metronome.created", "ada", first),
        ("metronome.updated", "ada", both),
        ("metronome.archived", "ada", gone),
    ]


def test_of_a_definition_the_audit_has_the_size_and_a_digest(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    before = data(api.get("metronomes/audit-events?action=metronome.created"))[0]["payload"]
    api.patch(path, {"definition": {"nodes": [], "edges": []}})
    with db.connect() as connection:
        payload = connection.exec_driver_sql(
            f"SELECT payload {OF_METRONOMES} ORDER BY id DESC LIMIT 1"
        ).scalar_one()
    written = b'{"edges":[],"nodes":[]}'  # as the test client sorts it
    digest = {"bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}
    assert payload["changed"] == ["definition"]
    assert payload["after"] == {"definition": digest}
    assert payload["before"]["definition"] == before["definition"]
