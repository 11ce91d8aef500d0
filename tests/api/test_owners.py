"""Who owns a workflow, and who could."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.db import Database
from app.services import keys
from tests.api import states
from tests.api.conftest import Caller, data, refused


def new_key(db: Database, user: str, role: str = "admin", organization: str = "acme") -> str:
    made, _ = keys.create_key(db, name="k", user_id=user, organization_id=organization, role=role)
    return made.id


def candidates(api: Caller, path: str, query: str = "") -> list[tuple[str, str, bool]]:
    found = data(api.get(f"{path}/owner-candidates{query}"))
    assert all(one["id"] == one["userId"] for one in found)
    return [(one["userId"], one["role"], one["isOwner"]) for one in found]


def test_the_candidates_are_the_users_with_valid_keys(
    api: Caller, other: Caller, db: Database
) -> None:
    new_key(db, "bob", "viewer")
    new_key(db, "bob", "operator")
    new_key(db, "bob", "watchdog")
    keys.revoke_key(db, new_key(db, "bob", "admin"))
    keys.revoke_key(db, new_key(db, "gone"))
    new_key(db, "mallory", organization="evil")
    path = api.new_metronome()
    expected = [("ada", "admin", True), ("bob", "operator", False)]
    assert candidates(api, path) == expected
    assert candidates(api, path, "?limit=1&offset=1") == expected[1:]
    assert candidates(api, path, "?offset=9") == []
    for limit, more in ((1, True), (2, False)):
        answer = json.loads(api.get(f"{path}/owner-candidates?limit={limit}").get_data())
        assert (answer["object"], answer["has_more"]) == ("list", more)
        assert answer["next_cursor"] == ("ada" if more else None)
    assert candidates(api, path, "?cursor=ada") == expected[1:]
    assert candidates(api, path, "?cursor=bob") == []


def test_a_workflow_goes_to_another_user(api: Caller, db: Database) -> None:
    new_key(db, "bob", "viewer")
    path = api.new_metronome()
    before = data(api.get(path))

    given = data(api.patch(f"{path}/owner", {"ownerUserId": "bob"}))

    changed = {name for name in before if before[name] != given[name]}
    assert changed == {"userId", "revision", "updatedAt"}
    assert given["userId"] == "bob"
    assert data(api.get(path)) == given
    assert candidates(api, path) == [("ada", "admin", False), ("bob", "viewer", True)]
    with db.connect() as connection:
        (event,) = connection.exec_driver_sql(
            "SELECT user_id, actor_user_id, payload FROM audit_events"
            " WHERE action = 'metronome.owner_changed'"
        ).all()
    payload = {"changed": ["userId"], "before": {"userId": "ada"}, "after": {"userId": "bob"}}
    assert tuple(event) == ("bob", "ada", payload)


def test_giving_it_to_its_owner_is_no_change(api: Caller, db: Database) -> None:
    path = api.new_metronome()
    before = data(api.get(path))
    assert data(api.patch(f"{path}/owner", {"ownerUserId": "ada"})) == before
    audits = "SELECT count(*) FROM audit_events WHERE action = 'metronome.owner_changed'"
    assert states.count(db, audits) == 0


@pytest.mark.parametrize("user", ["nobody", "gone", "mallory", "Bob", "bob ", "'", "😀"])
def test_only_a_candidate_can_become_the_owner(api: Caller, db: Database, user: str) -> None:
    new_key(db, "bob")
    new_key(db, "mallory", organization="evil")
    keys.revoke_key(db, new_key(db, "gone"))
    path = api.new_metronome()
    answer = refused(api.patch(f"{path}/owner", {"ownerUserId": user}), 422, "invalid")
    assert answer["details"].keys() == {"ownerUserId"}
    assert data(api.get(path))["userId"] == "ada"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ownerUserId"),
        ({"ownerUserId": None}, "ownerUserId"),
        ({"ownerUserId": ""}, "ownerUserId"),
        ({"ownerUserId": 5}, "ownerUserId"),
        ({"ownerUserId": "a\0"}, "ownerUserId"),
        ({"ownerUserId": "x" * 256}, "ownerUserId"),
        ({"ownerUserId": "ada", "role": "admin"}, "role"),
    ],
)
def test_what_is_wrong_with_a_transfer_is_named(api: Caller, body: Any, field: str) -> None:
    answer = refused(api.patch(f"{api.new_metronome()}/owner", body), 422, "invalid")
    assert answer["details"].keys() == {field}


def test_runs_keep_their_owner(api: Caller, db: Database) -> None:
    new_key(db, "bob")
    run = api.new_run()
    path = run.partition("/runs")[0]
    api.patch(f"{path}/owner", {"ownerUserId": "bob"})
    assert data(api.get(run))["userId"] == "ada"
