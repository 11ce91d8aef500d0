"""A process remembers whom a key stands for; a revoked key stops at once all the same."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from app.api.blueprint import Blueprint
from app.db import Database
from app.services import keys
from tests.api import states
from tests.api.conftest import Caller, data, refused

# What is asked without looking the key up before: see ``proves_key``.
REMEMBERING = {
    "cancel_run": ("POST", "/cancel"),
    "get_run": ("GET", ""),
    "list_run_steps": ("GET", "/steps"),
}
ALL = list(REMEMBERING.values())


@pytest.fixture
def key(app: Flask, db: Database, api: Caller) -> tuple[Caller, str]:
    """Somebody of the organization whom the process remembers, and the key's id."""
    made, secret = keys.create_key(db, name="k", user_id="eve", organization_id="acme")
    caller = Caller(app, secret)
    assert caller.get("metronomes").status_code == 200
    return caller, made.id


def test_all_that_remembers_is_known_here(app: Flask) -> None:
    found = {
        name
        for blueprint in app.blueprints.values()
        if isinstance(blueprint, Blueprint)
        for name in app.view_functions
        if blueprint.proves_key(name) and name.startswith(f"{blueprint.name}.")
    }
    assert {name.rpartition(".")[2] for name in found} == set(REMEMBERING)


@pytest.mark.parametrize(("method", "rest"), ALL)
@pytest.mark.parametrize("state", ["queued", "waiting_approval", "completed"])
def test_a_revoked_key_stops_at_once(
    key: tuple[Caller, str], api: Caller, db: Database, method: str, rest: str, state: str
) -> None:
    caller, key_id = key
    path = api.new_run()
    states.bring(db, path, state)
    before = data(api.get(path))
    keys.revoke_key(db, key_id)
    refused(caller.send(method, f"{path}{rest}"), 401, "invalid_api_key")
    assert data(api.get(path)) == before


@pytest.mark.parametrize(("method", "rest"), ALL)
@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("metronomes/met_1/runs/run_1", {}),
        ("metronomes/met_1/runs/run_!", {}),
        ("metronomes/met_1/runs/run_1", {"headers": {"X-Computer-Agents-Organization": "x"}}),
        ("metronomes/met_1/runs/run_1", {"data": "{", "content_type": "application/json"}),
        ("metronomes/met_1/runs/run_1", {"query_string": {"limit": "x", "view": "x"}}),
    ],
)
def test_who_has_a_revoked_key_is_told_nothing_else(
    key: tuple[Caller, str], db: Database, method: str, rest: str, path: str, options: Any
) -> None:
    caller, key_id = key
    assert caller.send(method, f"{path}{rest}", **options).status_code != 401
    keys.revoke_key(db, key_id)
    refused(caller.send(method, f"{path}{rest}", **options), 401, "invalid_api_key")


@pytest.mark.parametrize(("method", "rest"), ALL)
@pytest.mark.parametrize("column", ["id", "user_id", "role", "organization_id"])
def test_a_key_that_was_changed_is_looked_up_again(
    key: tuple[Caller, str], api: Caller, db: Database, method: str, rest: str, column: str
) -> None:
    caller, key_id = key
    path = api.new_run()
    value = "viewer" if column == "role" else "other"
    with db.connect() as connection:
        changed = text(f"UPDATE api_keys SET {column} = :value WHERE id = :id")
        connection.execute(changed, {"value": value, "id": key_id})
    answer = caller.send(method, f"{path}{rest}")
    if column == "organization_id":
        refused(answer, 404, "run_not_found")
    elif column == "role" and method == "POST":
        refused(answer, 403, "role_forbids")
    else:
        assert answer.status_code == 200
        assert api.get(path).status_code == 200
