"""Retry over HTTP, and the deletion of trees."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused, stored


@pytest.mark.parametrize("body", [{}, {"from": "start"}, {"from": "failed"}])
@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_run_that_has_not_completed_is_queued_once_more(
    api: Caller, db: Database, state: str, body: dict[str, str]
) -> None:
    path = api.new_run(input={"a": 1})
    states.bring(db, path, state)
    before, steps = data(api.get(path)), data(api.get(f"{path}/steps"))

    run = data(api.post(f"{path}/retry", body))

    assert run["status"] == "queued"
    for name in ("input", "versionId", "attemptCount", "createdAt"):
        assert run[name] == before[name]
    for name in ("startedAt", "completedAt", "error", "output"):
        assert run[name] is None
    assert run["maxAttempts"] == run["attemptCount"] + 1
    assert stored(api, path) == run
    assert data(api.get(f"{path}/steps")) == steps
    with db.connect() as connection:
        query = "SELECT payload FROM audit_events WHERE action = 'run.retried'"
        payload = connection.execute(text(query)).scalar_one()
    assert payload == {"from": body.get("from", "start")}


@pytest.mark.parametrize("state", [*states.ACTIVE, "completed"])
def test_another_run_is_not_retried(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    before = data(api.get(path))
    body = refused(api.post(f"{path}/retry"), 409, "not_retryable")
    assert body["details"] == {"status": before["status"]}
    assert data(api.get(path)) == before


def test_a_second_retry_finds_the_run_queued(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "failed")
    api.post(f"{path}/retry")
    body = refused(api.post(f"{path}/retry"), 409, "not_retryable")
    assert body["details"] == {"status": "queued"}
    assert states.audits(db, path) == ["run.retried"]


@pytest.mark.parametrize("state", ["failed", "cancelled", "completed"])
def test_a_nested_run_is_retried_from_the_top_only(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    child = states.nested(db, path, state)
    body = refused(api.post(f"{child}/retry"), 409, "nested_run")
    assert body["details"] == {"status": state, "rootRunId": path.rpartition("/")[2]}


# -- delete


def test_what_is_below_a_run_is_deleted_with_it(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "failed")
    child = states.nested(db, path, "cancelled")
    grandchild = states.nested(db, child, "completed")
    states.put_step(db, grandchild, 1, "completed")
    other = api.new_run()

    assert api.delete(path).status_code == 200

    for gone in (path, child, grandchild):
        refused(api.get(gone), 404, "run_not_found")
    assert states.count(db, "SELECT count(*) FROM steps") == 0
    assert states.audits(db, grandchild) == ["run.deleted"]
    assert api.get(other).status_code == 200


@pytest.mark.parametrize("held", ["true", "false"])
def test_a_run_is_not_deleted_while_one_below_goes_on(api: Caller, db: Database, held: str) -> None:
    path = api.new_run()
    states.bring(db, path, "failed")
    child = states.nested(db, path, "cancelled" if held == "true" else "queued", held=held)
    body = refused(api.delete(path), 409, "run_active")
    assert "below" in body["message"]
    assert api.get(path).status_code == api.get(child).status_code == 200


def test_a_run_is_not_deleted_while_the_one_above_waits_for_it(api: Caller, db: Database) -> None:
    path = api.new_run()
    child = states.nested(db, path, "completed")
    refused(api.delete(child), 409, "run_active")
    api.post(f"{path}/cancel")
    assert api.delete(child).status_code == 200
