"""Starting runs over HTTP: of which version, and where the workflow limits its runs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.db import Database
from app.services import keys
from tests.api import states
from tests.api.conftest import DEFINITION, Caller, data, refused
from tests.processes import wait_for


def limited(api: Caller, most: int = 1, **policy: Any) -> str:
    """The path of a workflow with a limit."""
    return api.new_metronome(concurrency={"maxConcurrentRuns": most, **policy})


def has_place(api: Caller, run: str) -> None:
    """Wait until the run has a place in its group."""
    wait_for(lambda: data(api.get(run))["admitted"])


def test_a_run_tells_its_group_and_whether_it_has_a_place(api: Caller) -> None:
    free = data(api.get(api.new_run()))
    assert (free["concurrencyKey"], free["admitted"]) == (None, True)
    workflow = limited(api, key="trigger.input.branch")
    first, second = (
        data(api.get(api.new_run(workflow, input={"branch": "main"}))) for _ in range(2)
    )
    assert (first["concurrencyKey"], first["admitted"]) == ("main", True)
    assert (second["concurrencyKey"], second["admitted"]) == ("main", False)
    compact = data(api.get(f"{workflow}/runs/{second['id']}?view=compact"))
    assert compact["admitted"] is False


def test_one_too_many_is_409_with_the_runs_at_work(api: Caller) -> None:
    workflow = limited(api, onLimit="reject")
    first = api.new_run(workflow)
    body = refused(api.post(f"{workflow}/runs", {}), 409, "concurrency_limit")
    assert body["details"]["runIds"] == [first.rsplit("/", 1)[1]]
    waits = {"queueWhenCapacityUnavailable": True}
    assert data(api.post(f"{workflow}/runs", waits), 201)["admitted"] is False
    assert data(api.post(f"{first}/cancel"))["status"] == "cancelled"
    refused(api.post(f"{workflow}/runs", {}), 409, "concurrency_limit")


def test_the_oldest_is_cancelled_for_the_new_one(api: Caller) -> None:
    workflow = limited(api, onLimit="cancel_oldest")
    first = api.new_run(workflow)
    assert data(api.post(f"{workflow}/runs", {}), 201)["admitted"] is True
    assert data(api.get(first))["status"] == "cancelled"


def test_a_key_that_can_not_be_told_is_422(api: Caller) -> None:
    workflow = limited(api, key="trigger.input.branch")
    body = refused(api.post(f"{workflow}/runs", {"inputs": {"a": 1}}), 422, "concurrency_key")
    assert list(body["details"]) == ["inputs"]


def test_places_are_given_on_after_the_answer(api: Caller) -> None:
    workflow = limited(api)
    first, second = api.new_run(workflow), api.new_run(workflow)
    assert data(api.post(f"{second}/pause"))["admitted"] is False
    assert data(api.post(f"{second}/resume"))["admitted"] is False
    data(api.post(f"{first}/cancel"))
    has_place(api, second)
    assert data(api.post(f"{first}/retry"))["admitted"] is False
    data(api.post(f"{second}/cancel"))
    has_place(api, first)
    data(api.post(f"{first}/cancel"))
    assert data(api.post(f"{first}/retry"))["admitted"] is False, "it has no place yet"
    has_place(api, first)


def test_nothing_that_is_asked_of_a_run_waits_for_who_has_locked_its_workflow(
    api: Caller, db: Database
) -> None:
    workflow = limited(api)
    first, second = api.new_run(workflow), api.new_run(workflow)
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT FROM metronomes FOR UPDATE")
        began = time.monotonic()
        for path in (f"{first}/cancel", f"{first}/retry", f"{second}/pause", f"{second}/resume"):
            data(api.post(path))
        assert time.monotonic() - began < 4, "one of them has waited for the lock"
        connection.rollback()
    has_place(api, second)


def test_a_change_of_the_limit_admits_those_who_wait(api: Caller) -> None:
    workflow = limited(api)
    api.new_run(workflow)
    second = api.new_run(workflow)
    data(api.patch(workflow, {"concurrency": None}))
    assert data(api.get(second))["admitted"] is True


def test_deleting_what_has_ended_touches_no_place(api: Caller) -> None:
    workflow = limited(api)
    first, second = api.new_run(workflow), api.new_run(workflow)
    refused(api.delete(second), 409, "run_active")
    data(api.post(f"{second}/cancel"))
    assert api.delete(second).status_code == 200
    assert data(api.get(first))["admitted"] is True


def test_a_watchdogs_cancel_gives_the_place_on(api: Caller, app: Any, db: Database) -> None:
    workflow = limited(api)
    first, second = api.new_run(workflow), api.new_run(workflow)
    _, secret = keys.create_key(
        db, name="dog", user_id="rex", organization_id="acme", role="watchdog"
    )
    data(Caller(app, secret).post(f"{first}/cancel"))
    has_place(api, second)


# -- which version


def test_the_idempotency_key_may_come_as_a_header(api: Caller) -> None:
    workflow = api.new_metronome()
    headers = {"Idempotency-Key": "k"}
    first = api.post(f"{workflow}/runs", {}, headers=headers)
    again = api.post(f"{workflow}/runs", {"idempotencyKey": "k"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert data(again)["id"] == data(first, 201)["id"]
    assert again.headers["Idempotent-Replay"] == "true"
    other = api.post(f"{workflow}/runs", {"idempotencyKey": "other"}, headers=headers)
    refused(other, 422, "invalid")


@pytest.fixture
def versioned(api: Caller) -> tuple[str, str]:
    """A workflow with a saved version, and that version's id."""
    workflow = api.new_metronome()
    version = data(api.post(f"{workflow}/versions", {"definition": DEFINITION}), 201)
    return workflow, version["id"]


def test_a_run_is_of_the_draft_until_a_version_is_published(
    api: Caller, versioned: tuple[str, str]
) -> None:
    workflow, version = versioned
    draft = data(api.get(api.new_run(workflow)))["versionId"]
    assert draft != version
    data(api.post(f"{workflow}/versions/{version}/publish", {}))
    assert data(api.get(api.new_run(workflow)))["versionId"] == version
    data(api.post(f"{workflow}/unpublish", {}))
    assert data(api.get(api.new_run(workflow)))["versionId"] == draft


def test_a_deleted_version_can_not_be_run(api: Caller, versioned: tuple[str, str]) -> None:
    workflow, version = versioned
    assert data(api.get(api.new_run(workflow, versionId=version)))["versionId"] == version
    assert api.delete(f"{workflow}/versions/{version}").status_code == 200
    body = refused(api.post(f"{workflow}/runs", {"versionId": version}), 422, "invalid")
    assert list(body["details"]) == ["versionId"]


def test_a_version_of_another_workflow_can_not_be_run(
    api: Caller, versioned: tuple[str, str]
) -> None:
    _, version = versioned
    path = f"{api.new_metronome()}/runs"
    body = refused(api.post(path, {"versionId": version}), 422, "invalid")
    assert list(body["details"]) == ["versionId"]
