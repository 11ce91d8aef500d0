"""Approvals over HTTP."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from sqlalchemy import text

from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused


def asking(api: Caller, db: Database) -> str:
    """The path of a run that waits for an approval, in its second step."""
    path = api.new_run()
    states.bring(db, path, "waiting_approval")
    return path


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, ("approved", None)),
        ({"decision": "approved", "comment": "fine"}, ("approved", "fine")),
        ({"decision": "rejected", "comment": ""}, ("rejected", "")),
        ({"nodeId": "n2", "comment": None, "stepId": None}, ("approved", None)),
    ],
)
def test_a_decision_is_kept_and_the_run_goes_on(
    api: Caller, db: Database, body: dict[str, str], said: tuple[str, str | None]
) -> None:
    path = asking(api, db)

    run = data(api.post(f"{path}/approve", body))

    assert (run["status"], run["nextAttemptAt"]) == ("queued", None)
    with db.connect() as connection:
        result = connection.execute(text("SELECT result FROM steps WHERE seq = 2")).scalar_one()
        who = connection.execute(text("SELECT id FROM api_keys")).scalar_one()
    assert (result["decision"], result["comment"]) == said
    assert (result["userId"], result["keyId"]) == ("ada", who)
    assert result["decidedAt"].endswith("Z")
    assert states.audits(db, path) == [f"run.{said[0]}"]


def test_the_second_decision_is_too_late(api: Caller, db: Database) -> None:
    path = asking(api, db)
    step = data(api.get(path))["waitingFor"][0]["stepId"]
    api.post(f"{path}/approve", {"decision": "rejected"})
    body = refused(api.post(f"{path}/approve"), 409, "already_decided")
    assert body["details"] == {"status": "queued", "stepId": step, "nodeId": "n2"}
    assert states.audits(db, path) == ["run.rejected"]


def test_of_many_who_decide_at_once_one_does(app: Flask, api: Caller, db: Database) -> None:
    path = asking(api, db)
    together = threading.Barrier(10)

    def decide(number: int) -> int:
        caller = Caller(app, api.headers["Authorization"].removeprefix("Bearer "))
        together.wait(10)
        word = "approved" if number % 2 else "rejected"
        return caller.post(f"{path}/approve", {"decision": word}).status_code

    with ThreadPoolExecutor(10) as pool:
        assert sorted(pool.map(decide, range(10))) == [200] + [409] * 9
    assert len(states.audits(db, path)) == 1


@pytest.mark.parametrize(
    "state", ["queued", "running", "sleeping", "backoff", "paused", *states.ENDED]
)
def test_where_nothing_waits_nothing_is_decided(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    status = data(api.get(path))["status"]
    body = refused(api.post(f"{path}/approve"), 409, "not_waiting")
    assert body["details"] == {"status": status}


def test_after_a_cancel_nothing_waits(api: Caller, db: Database) -> None:
    path = asking(api, db)
    api.post(f"{path}/cancel")
    body = refused(api.post(f"{path}/approve"), 409, "not_waiting")
    assert body["details"] == {"status": "cancelled"}
    assert "cancelled" in body["message"]
    assert data(api.get("approvals")) == []


def test_in_a_pause_a_decision_is_kept_for_later(api: Caller, db: Database) -> None:
    path = asking(api, db)
    api.post(f"{path}/pause")
    (listed,) = data(api.get("approvals"))
    assert (listed["runId"], listed["runStatus"]) == (path.rpartition("/")[2], "paused")
    assert data(api.post(f"{path}/approve"))["status"] == "paused"
    assert data(api.get("approvals")) == []
    assert data(api.post(f"{path}/resume"))["status"] == "queued"


def test_behind_the_deadline_nothing_is_decided(api: Caller, db: Database) -> None:
    path = asking(api, db)
    with db.connect() as connection:
        connection.execute(text("UPDATE steps SET wake_at = now() WHERE seq = 2"))
    refused(api.post(f"{path}/approve"), 409, "approval_expired")
    assert data(api.get("approvals")) == []


def test_the_step_that_is_meant_can_be_named(api: Caller, db: Database) -> None:
    path = asking(api, db)
    states.put_step(db, path, 3, "waiting_approval", node_id="'other'")
    steps = [step["id"] for step in data(api.get(f"{path}/steps"))]
    for wrong in (
        {"nodeId": "nope"},
        {"stepId": "nope"},
        {"stepId": steps[0]},
        {"stepId": f"{steps[2]}9"},
        {"stepId": steps[2].replace("step_", "step_x", 1)},
        {"stepId": steps[2], "nodeId": "n2"},
        {"stepId": "step_" + "9" * 200},
    ):
        refused(api.post(f"{path}/approve", wrong), 409, "not_waiting")
    data(api.post(f"{path}/approve", {"stepId": steps[2]}))
    data(api.post(f"{path}/approve", {"nodeId": "n2"}))
    assert len(states.audits(db, path)) == 2


def test_what_waits_is_listed(api: Caller, db: Database) -> None:
    first, second = asking(api, db), asking(api, db)
    found = data(api.get("approvals"))
    assert [one["runId"] for one in found] == [path.rpartition("/")[2] for path in (first, second)]
    step = data(api.get(f"{first}/steps"))[1]
    assert found[0] == {
        "runId": first.rpartition("/")[2],
        "metronomeId": first.split("/")[1],
        "stepId": step["id"],
        "nodeId": "n2",
        "runStatus": "waiting_approval",
        "title": "Ship it?",
        "message": None,
        "deadline": None,
        "requestedAt": step["startedAt"],
    }
    body = api.get("approvals?limit=1").json or {}
    assert (len(body["data"]), body["has_more"]) == (1, True)
    assert data(api.get("approvals?offset=1")) == found[1:]
    refused(api.get("approvals?limit=101"), 422, "invalid")
    refused(api.get("approvals?status=paused"), 422, "invalid")
