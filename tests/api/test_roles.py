"""What a key may do by its role, on every operation that there is."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from flask import Flask

from app.db import Database
from app.domain.roles import PERMISSIONS, ROLES, Permission
from app.services import keys
from tests.api.conftest import Caller, data, refused
from tests.api.states import audits, count


@pytest.fixture
def with_role(app: Flask, db: Database) -> Any:
    """``with_role("viewer")``: a caller of the organization "acme" with that role."""

    def make(role: str) -> Caller:
        _, secret = keys.create_key(db, name=role, user_id="ada", organization_id="acme", role=role)
        return Caller(app, secret)

    return make


def guarded(api: Caller) -> list[tuple[str, str, Permission]]:
    """Method, path and permission of every operation of the document that needs an API key."""
    document = api.get("/openapi.json").json or {}
    return [
        (method.upper(), path, Permission(operation["x-permission"]))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != "parameters" and operation.get("security") is None
    ]


def test_every_operation_says_what_it_needs(api: Caller) -> None:
    found = guarded(api)
    assert len(found) > 15
    for method, path, needed in found:
        assert path.startswith("/v1/")
        assert (needed is Permission.READ) == (method == "GET"), path
    needs = {(method, path.removeprefix("/v1/metronomes")): one for method, path, one in found}
    run = "/{metronomeId}/runs/{runId}"
    for method, path, needed in (
        ("POST", f"{run}/cancel", Permission.CANCEL),
        ("POST", f"{run}/pause", Permission.OPERATE),
        ("POST", f"{run}/resume", Permission.OPERATE),
        ("POST", f"{run}/retry", Permission.OPERATE),
        ("POST", f"{run}/approve", Permission.OPERATE),
        ("POST", "/{metronomeId}/runs", Permission.RUN),
        ("PATCH", run, Permission.RUN),
        ("DELETE", run, Permission.EDIT),
        ("POST", "", Permission.EDIT),
        ("PATCH", "/{metronomeId}", Permission.EDIT),
        ("DELETE", "/{metronomeId}", Permission.EDIT),
    ):
        assert needs[method, path] is needed, (method, path)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_it_allows_and_nothing_else(
    api: Caller, with_role: Any, role: str
) -> None:
    caller = with_role(role)
    for method, path, needed in guarded(api):
        somewhere = re.sub(r"\{\w+\}", "unknown_1", path)
        answer = caller.send(method, somewhere, {} if method != "GET" else None)
        if needed in PERMISSIONS[role]:
            assert answer.status_code != 403, (method, path)
            continue
        body = refused(answer, 403, "role_forbids")
        assert body["details"] == {"role": role, "needs": needed.value}
        assert f"role {role}" in body["message"]
        assert f"`{needed.value}`" in body["message"]


def test_a_watchdog_cancels_and_changes_nothing_else(
    api: Caller, db: Database, with_role: Any
) -> None:
    path = api.new_run()
    metronome = path.partition("/runs")[0]
    watchdog = with_role("watchdog")
    assert data(watchdog.get("metronomes"))[0]["id"] == metronome.partition("/")[2]
    for method, where in (
        ("POST", f"{path}/pause"),
        ("POST", f"{path}/retry"),
        ("DELETE", path),
        ("POST", f"{metronome}/runs"),
        ("PATCH", metronome),
    ):
        refused(watchdog.send(method, where, {}), 403, "role_forbids")
    assert data(api.get(path))["status"] == "queued"
    assert data(watchdog.post(f"{path}/cancel"))["status"] == "cancelled"
    assert audits(db, path) == ["run.cancelled"]


def test_a_role_that_is_too_small_learns_nothing(
    api: Caller, other: Caller, with_role: Any
) -> None:
    """Neither whether a thing is there, nor whether what was sent would do."""
    viewer = with_role("viewer")
    answers = {
        viewer.post(f"{path}/cancel", body).get_data()
        for path in (api.new_run(), other.new_run(), "metronomes/m/runs/r", "metronomes/%00/runs/r")
        for body in ({}, {"nonsense": 1})
    }
    broken = viewer.post("metronomes/m/runs/r/cancel", data=b"{", content_type="text/plain")
    assert answers == {broken.get_data()}


def test_a_refused_request_changes_nothing(api: Caller, db: Database, with_role: Any) -> None:
    metronome = api.new_metronome()
    before = count(db, "SELECT count(*) FROM audit_events WHERE metronome_id IS NOT NULL")
    refused(with_role("operator").post(f"{metronome}/runs", {}), 403, "role_forbids")
    refused(with_role("viewer").patch(metronome, {"name": "mine"}), 403, "role_forbids")
    assert count(db, "SELECT count(*) FROM runs") == 0
    query = "SELECT count(*) FROM audit_events WHERE metronome_id IS NOT NULL"
    assert count(db, query) == before


def test_the_wrong_organization_is_told_before_the_role(with_role: Any) -> None:
    headers = {"X-Computer-Agents-Organization": "evil"}
    viewer = with_role("viewer")
    refused(viewer.post("metronomes", {}, headers=headers), 403, "wrong_organization")


def test_what_is_no_operation_needs_no_role(with_role: Any) -> None:
    viewer = with_role("viewer")
    refused(viewer.post("nothing/here"), 404, "path_not_found")
    refused(viewer.send("PUT", "metronomes"), 405, "method_not_allowed")
    assert viewer.send("OPTIONS", "metronomes/m/runs/r/cancel").status_code == 200
    assert viewer.send("HEAD", "metronomes").status_code == 200


def test_each_role_may_do_what_the_smaller_ones_may() -> None:
    allowed = [PERMISSIONS[role] for role in ROLES]
    assert all(small < big for small, big in pairwise(allowed))
    assert allowed[-1] == frozenset(Permission)
