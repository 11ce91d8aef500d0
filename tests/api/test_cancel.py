from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from app import create_app
from app.config import Settings
from app.db import Database
from tests.api import states
from tests.api.conftest import Caller, data, refused, stored
from tests.processes import PATIENCE, wait_for
from tests.wire import Wire

AUDIT = "SELECT count(*) FROM audit_events WHERE action = 'run.cancelled' AND run_id = :id"


def audits(db: Database, path: str) -> int:
    return states.count(db, AUDIT, id=path.rpartition("/")[2])


def moment(value: str) -> datetime:
    return datetime.fromisoformat(value)


@pytest.mark.parametrize("state", states.ACTIVE)
def test_an_active_run_is_cancelled_in_the_request(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    response = api.post(f"{path}/cancel")
    run = data(response)
    assert run["status"] == "cancelled"
    assert run["completedAt"] is not None
    assert run["nextAttemptAt"] is None
    assert response.headers["Cancel-Outcome"] == "cancelled"
    assert response.headers.get("Cancel-In-Flight") == ("n2" if state == "running" else None)
    assert (run["lockedBy"] is not None) == (state == "running")
    assert stored(api, path) == run
    assert audits(db, path) == 1


@pytest.mark.parametrize("state", states.ENDED)
def test_a_run_that_has_ended_is_answered_unchanged(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    before, had = stored(api, path), audits(db, path)
    response = api.post(f"{path}/cancel")
    assert data(response) == before
    assert response.headers["Cancel-Outcome"] == f"already_{state}"
    assert "Cancel-In-Flight" not in response.headers
    assert audits(db, path) == had


@pytest.mark.parametrize("state", states.ACTIVE)
def test_a_second_cancel_answers_the_same_bytes(api: Caller, db: Database, state: str) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    first, second = api.post(f"{path}/cancel"), api.post(f"{path}/cancel", {})
    assert second.get_data() == first.get_data()
    assert second.headers["Cancel-Outcome"] == "already_cancelled"
    assert second.headers.get("Cancel-In-Flight") == first.headers.get("Cancel-In-Flight")
    assert audits(db, path) == 1


def test_the_trace_after_a_cancel_keeps_what_has_ended(api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    before = data(api.get(f"{path}/steps"))
    api.post(f"{path}/cancel")
    after = data(api.get(f"{path}/steps"))
    assert after == before  # n2 is in flight, and its executor says how it ended
    assert [step["status"] for step in after] == ["completed", "running"]


@pytest.mark.parametrize(("state", "node"), [("sleeping", 0), ("waiting_approval", 1)])
def test_a_step_that_nobody_is_in_flight_in_ends_with_its_run(
    api: Caller, db: Database, state: str, node: int
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    assert ("wakeAt" in data(api.get(f"{path}/steps"))[node]["metadata"]) == (state == "sleeping")
    api.post(f"{path}/cancel")
    step = data(api.get(f"{path}/steps"))[node]
    assert step["status"] == "cancelled"
    assert step["completedAt"] is not None
    assert step["metadata"] == {}


def test_no_node_starts_after_the_answer(api: Caller, db: Database) -> None:
    path = api.new_run()
    with states.raw(db) as connection:
        claimed = states.claim(connection, path)
        assert states.begin(connection, claimed, 1, "n1") == "go"
        api.post(f"{path}/cancel")
        assert states.begin(connection, claimed, 2, "n2") == "stopped"
        assert states.end(connection, claimed, 1) == "stopped"
    (step,) = data(api.get(f"{path}/steps"))
    assert (step["nodeId"], step["status"]) == ("n1", "completed")


def test_twenty_cancels_at_once_are_one(app: Flask, api: Caller, db: Database) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    together = threading.Barrier(20)

    def cancel(_: int) -> tuple[str, bytes]:
        caller = Caller(app, api.headers["Authorization"].removeprefix("Bearer "))
        together.wait(PATIENCE)
        response = caller.post(f"{path}/cancel")
        assert response.status_code == 200
        return response.headers["Cancel-Outcome"], response.get_data()

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(cancel, range(20)))
    outcomes = sorted(outcome for outcome, _ in answers)
    assert outcomes == ["already_cancelled"] * 19 + ["cancelled"]
    assert len({body for _, body in answers}) == 1
    assert audits(db, path) == 1


def test_a_cancel_that_waits_for_a_boundary_sees_the_step_that_it_started(
    api: Caller, db: Database
) -> None:
    path = api.new_run()
    states.bring(db, path, "running")
    run_id = path.rpartition("/")[2]
    answers: list[Any] = []
    with states.raw(db) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT lease_token FROM runs WHERE id = %s FOR NO KEY UPDATE", (run_id,))
        (token,) = cursor.fetchone() or ("",)
        thread = threading.Thread(target=lambda: answers.append(api.post(f"{path}/cancel")))
        thread.start()
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND query LIKE '%FOR NO KEY UPDATE%'"
        )
        wait_for(lambda: states.count(db, waits) == 1, message="the cancel waits for the row")
        cursor.execute(
            "INSERT INTO steps (run_id, seq, metronome_id, node_id, node_type, status, attempt,"
            " lease_token, started_at)"
            " SELECT id, 3, metronome_id, 'late one, näher', 'http', 'running', 1, %s,"
            " clock_timestamp() FROM runs WHERE id = %s",
            (token, run_id),
        )
        connection.commit()
        thread.join(PATIENCE)
    (response,) = answers
    assert response.headers["Cancel-In-Flight"] == "n2,late%20one%2C%20n%C3%A4her"
    started = moment(data(api.get(f"{path}/steps"))[2]["startedAt"])
    assert moment(data(response)["completedAt"]) > started


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data": b""},
        {"data": b"{}", "content_type": "text/plain"},
        {"data": b" {} \n", "content_type": "application/json"},
        {"data": b"{}"},
        {"data": b"", "content_type": "application/x-www-form-urlencoded"},
        {"query_string": {"any": "thing"}},
    ],
)
def test_no_body_is_needed(api: Caller, options: dict[str, Any]) -> None:
    response = api.post(f"{api.new_run()}/cancel", **options)
    assert data(response)["status"] == "cancelled"


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b'"x"', b"1", b"{", b"\xff", b"[" * 50_000, b'{"a": nan}', b"\0"]
)
def test_a_body_that_is_no_object_cancels_nothing(api: Caller, body: bytes) -> None:
    path = api.new_run()
    refused(api.post(f"{path}/cancel", data=body), 400, "bad_request")
    assert data(api.get(path))["status"] == "queued"


def test_an_unknown_field_is_refused_by_name(api: Caller) -> None:
    body = refused(api.post(f"{api.new_run()}/cancel", {"force": True}), 422, "invalid")
    assert body["details"] == {"force": ["there is no such field"]}


def test_who_cancelled_is_in_the_audit(api: Caller, db: Database) -> None:
    path = api.new_run()
    run = data(api.post(f"{path}/cancel"))
    with db.connect() as connection:
        row = connection.execute(
            text(
                "SELECT a.actor_user_id, a.organization_id, a.version_id, k.user_id, a.created_at"
                " FROM audit_events a JOIN api_keys k ON k.id = a.actor_key_id"
                " WHERE a.action = 'run.cancelled'"
            )
        ).one()
    assert row[:4] == ("ada", "acme", run["versionId"], "ada")
    assert row[4] == moment(run["updatedAt"])


@pytest.fixture
def wire(database_url: str) -> Any:
    between = Wire(database_url)
    yield between
    between.close()


@pytest.fixture
def wired(wire: Wire, api: Caller) -> Any:
    app = create_app(Settings(database_url=wire.url, listen=False))
    caller = Caller(app, api.headers["Authorization"].removeprefix("Bearer "))
    assert caller.get("metronomes").status_code == 200  # it has its connections
    yield caller
    app.extensions["metronome"].db.close()


def test_a_cancel_takes_one_round_trip(wire: Wire, wired: Caller, api: Caller) -> None:
    path = api.new_run()
    wire.queries.clear()
    data(wired.post(f"{path}/cancel"))
    assert len(wire.queries) == 1, wire.queries
    assert "api_keys" in wire.queries[0]


@pytest.mark.parametrize("state", ["running", "waiting_approval", "failed"])
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("GET", "/steps"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/retry"),
        ("POST", "/approve"),
    ],
)
def test_all_that_is_asked_of_a_run_takes_two_round_trips_at_the_most(
    wire: Wire, wired: Caller, api: Caller, db: Database, method: str, rest: str, state: str
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    wire.queries.clear()
    assert wired.send(method, f"{path}{rest}").status_code in (200, 409)
    assert len(wire.queries) in (1, 2), wire.queries


def test_a_pause_whose_answer_is_lost_is_sent_again(
    wire: Wire, wired: Caller, api: Caller, db: Database
) -> None:
    path = api.new_run()
    wire.lose_answer_to = "FOR NO KEY UPDATE"
    assert wired.post(f"{path}/pause").headers["Pause-Outcome"] == "already_paused"
    assert states.audits(db, path) == ["run.paused"]


@pytest.mark.parametrize(("verb", "state"), [("resume", "paused"), ("retry", "failed")])
def test_what_sets_a_run_going_is_not_sent_again(
    wire: Wire, wired: Caller, api: Caller, db: Database, verb: str, state: str
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    wire.lose_answer_to = "FOR NO KEY UPDATE"
    refused(wired.post(f"{path}/{verb}"), 503, "database_unavailable")
    assert data(api.get(path))["status"] == "queued"


def test_a_run_is_queued_in_two_round_trips(wire: Wire, wired: Caller, api: Caller) -> None:
    metronome = api.new_metronome()
    api.new_run(metronome)  # the first run of a draft makes a version of it
    wire.queries.clear()
    data(wired.post(f"{metronome}/runs", {}), 201)
    assert len(wire.queries) == 2, wire.queries


def test_a_restart_of_the_database_goes_unnoticed(wire: Wire, wired: Caller, api: Caller) -> None:
    for _ in range(3):
        path = api.new_run()
        wire.cut()
        assert wired.post(f"{path}/cancel").headers["Cancel-Outcome"] == "cancelled"


def test_a_cancel_whose_answer_is_lost_is_sent_again(
    wire: Wire, wired: Caller, api: Caller, db: Database
) -> None:
    path = api.new_run()
    wire.lose_answer_to = "FOR NO KEY UPDATE"
    response = wired.post(f"{path}/cancel")
    assert data(response)["status"] == "cancelled"
    assert response.headers["Cancel-Outcome"] == "already_cancelled"
    assert wire.lost == 1
    assert audits(db, path) == 1


def test_a_database_that_is_away_is_a_503(wire: Wire, wired: Caller, api: Caller) -> None:
    path = api.new_run()
    wire.away = True
    wire.cut()
    response = wired.post(f"{path}/cancel")
    refused(response, 503, "database_unavailable")
    assert response.headers["Retry-After"] == "2"
    assert "127.0.0.1" not in json.dumps(response.json)
    ready = refused(wired.get("/readyz"), 503, "not_ready")
    assert ready["details"] == {"database": "can't be reached"}
    assert wired.get("/healthz").status_code == 200
    wire.away = False
    assert data(wired.post(f"{path}/cancel"))["status"] == "cancelled"
