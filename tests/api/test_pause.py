"""Pause and resume over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused, stored


@pytest.mark.parametrize("state", [one for one in states.ACTIVE if one != "paused"])
def test_an_active_run_is_paused_and_goes_on(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)

    paused = api.post(f"{path}/pause")

    assert data(paused)["status"] == "paused"
    assert paused.headers["Pause-Outcome"] == "paused"
    assert paused.headers.get("Pause-In-Flight") == ("n2" if state == "running" else None)
    assert stored(api, path) == data(paused)

    resumed = api.post(f"{path}/resume")

    assert data(resumed)["status"] == "queued"
    assert resumed.headers["Resume-Outcome"] == "resumed"
    assert states.audits(db, path) == ["run.paused", "run.resumed"]


@pytest.mark.parametrize("state", states.ENDED)
def test_what_has_ended_is_neither_paused_nor_resumed(
    api: Caller, db: Database, state: str
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    before, had = stored(api, path), states.audits(db, path)

    paused = api.post(f"{path}/pause")
    assert data(paused) == before
    assert paused.headers["Pause-Outcome"] == f"already_{state}"

    body = refused(api.post(f"{path}/resume"), 409, "run_ended")
    assert body["details"] == {"status": state}
    assert states.audits(db, path) == had


def test_a_second_pause_answers_the_same_bytes(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    first, second = api.post(f"{path}/pause"), api.post(f"{path}/pause", {})
    assert second.get_data() == first.get_data()
    assert second.headers["Pause-Outcome"] == "already_paused"
    assert second.headers["Pause-In-Flight"] == "n2"
    assert states.audits(db, path) == ["run.paused"]


@pytest.mark.parametrize("state", ["queued", "running", "waiting_approval"])
def test_a_run_that_is_not_paused_is_answered_as_it_is(
    api: Caller, db: Database, state: str
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    before = stored(api, path)
    resumed = api.post(f"{path}/resume", {"confirmInDoubtReplay": True})
    assert data(resumed) == before
    assert resumed.headers["Resume-Outcome"] == "not_paused"
    assert states.audits(db, path) == []


def test_no_node_starts_in_a_pause(api: Caller, db: Database) -> None:
    path = api.new_run()
    with states.raw(db) as connection:
        claimed = states.claim(connection, path)
        assert states.begin(connection, claimed, 1, "n1") == "go"
        api.post(f"{path}/pause")
        assert states.begin(connection, claimed, 2, "n2") == "stopped"
        assert states.end(connection, claimed, 1) == "stopped"
    (step,) = data(api.get(f"{path}/steps"))
    assert step["status"] == "completed"


def test_what_is_in_flight_below_is_named_with_its_run(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    child = states.nested(db, path, "running", held="true")
    states.put_step(db, child, 1, "running", lease_token="'token'", node_id="'näh/er'")
    below = child.rpartition("/")[2]
    expected = f"n2,{below}/n%C3%A4h%2Fer"
    assert api.post(f"{path}/pause").headers["Pause-In-Flight"] == expected
    assert api.post(f"{path}/cancel").headers["Cancel-In-Flight"] == expected
    assert api.post(f"{child}/cancel").headers["Cancel-In-Flight"] == "n%C3%A4h%2Fer"


def test_a_header_does_not_grow_without_end(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    for seq in range(3, 203):
        node = f"'{'x' * 30}{seq}'"
        states.put_step(db, path, seq, "running", lease_token="'token'", node_id=node)
    answer = api.post(f"{path}/cancel")
    shown = answer.headers["Cancel-In-Flight"]
    assert len(shown) <= 4_000
    assert shown.count(",") + 1 + int(answer.headers["Cancel-In-Flight-More"]) == 201


def test_nothing_below_a_paused_run_is_resumed_alone(api: Caller, db: Database) -> None:
    path = api.new_run()
    child = states.nested(db, path)
    api.post(f"{path}/pause")
    _, metronome_id, _, run_id = path.split("/")
    body = refused(api.post(f"{child}/resume"), 409, "paused_by_parent")
    assert body["details"] == {"runId": run_id, "metronomeId": metronome_id}
    assert data(api.post(f"{path}/resume"))["status"] == "queued"
    assert data(api.get(child))["status"] == "queued"


def in_doubt(api: Caller, db: Database) -> str:
    """A run of which nobody knows whether its node "ship" has run."""
    path = api.new_run()
    states.bring(db, path, "paused")
    error = "'in doubt: the node ship may have run'"
    states.change(db, path, f"in_doubt = true, error = {error}, started_at = now()")
    lost = "'executor lost: the process that ran this node is gone, its effects are unknown'"
    states.put_step(db, path, 1, "failed", node_id="'ship'", unsafe="true", error=lost)
    return path


def test_a_run_in_doubt_is_resumed_only_with_a_confirmation(api: Caller, db: Database) -> None:
    path = in_doubt(api, db)
    assert data(api.get(path))["inDoubt"] is True
    for body in ({}, {"confirmInDoubtReplay": False}):
        answer = refused(api.post(f"{path}/resume", body), 409, "in_doubt")
        assert answer["message"] == "the run is in doubt: the node ship may have run"
        assert answer["details"] == {"status": "paused", "nodeIds": ["ship"]}
    run = data(api.post(f"{path}/resume", {"confirmInDoubtReplay": True}))
    assert (run["status"], run["inDoubt"], run["error"]) == ("queued", False, None)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_run_in_doubt_can_also_be_cancelled_or_retried(
    api: Caller, db: Database, verb: str
) -> None:
    run = data(api.post(f"{in_doubt(api, db)}/{verb}"))
    assert (run["status"], run["inDoubt"]) == ({"cancel": "cancelled"}.get(verb, "queued"), False)


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "approve"])
@pytest.mark.parametrize(
    "options",
    [{}, {"data": b""}, {"data": b"{}", "content_type": "text/plain"}, {"data": b" {} "}],
)
def test_no_body_is_needed(api: Caller, db: Database, verb: str, options: dict[str, Any]) -> None:
    path = api.new_run()
    needs = {"resume": "paused", "retry": "failed", "approve": "waiting_approval"}
    states.bring(db, path, needs.get(verb, "queued"))
    expected = "paused" if verb == "pause" else "queued"
    assert data(api.post(f"{path}/{verb}", **options))["status"] == expected


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("pause", {"force": True}, "force"),
        ("resume", {"confirm": True}, "confirm"),
        ("resume", {"confirmInDoubtReplay": "true"}, "confirmInDoubtReplay"),
        ("resume", {"confirmInDoubtReplay": 1}, "confirmInDoubtReplay"),
        ("resume", {"confirmInDoubtReplay": None}, "confirmInDoubtReplay"),
        ("retry", {"start": "failed"}, "start"),
        ("retry", {"from": "middle"}, "from"),
        ("retry", {"from": None}, "from"),
        ("approve", {"decision": "maybe"}, "decision"),
        ("approve", {"decision": True}, "decision"),
        ("approve", {"comment": 5}, "comment"),
        ("approve", {"comment": "\0"}, "comment"),
        ("approve", {"comment": "\ud800"}, "comment"),
        ("approve", {"comment": "x" * 10_001}, "comment"),
        ("approve", {"nodeId": ""}, "nodeId"),
        ("approve", {"stepId": "\0"}, "stepId"),
        ("approve", {"node": "x"}, "node"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_done(
    api: Caller, db: Database, verb: str, body: Any, field: str
) -> None:
    path = api.new_run()
    states.bring(db, path, "waiting_approval")
    before = data(api.get(path))
    assert field in refused(api.post(f"{path}/{verb}", body), 422, "invalid")["details"]
    assert data(api.get(path)) == before
