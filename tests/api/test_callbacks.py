from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from app.db import Database
from tests.api.conftest import Caller, data, refused
from tests.api.remote import TOKEN, parked

VERBS = ("complete", "fail", "heartbeat")
BODIES: dict[str, dict[str, Any]] = {"complete": {}, "fail": {"error": "no"}, "heartbeat": {}}


def call(nobody: Caller, path: str, body: Any = None, *, token: str = TOKEN, **options: Any) -> Any:
    """Call back with a token and no API key."""
    headers = {"Authorization": f"Bearer {token}"}
    return nobody.post(path, {} if body is None else body, headers=headers, **options)


def stored(db: Database) -> Any:
    """The result of the only step."""
    with db.connect() as connection:
        return connection.execute(text("SELECT result FROM steps")).scalar_one()


def test_the_work_is_completed_with_the_token_alone(
    api: Caller, nobody: Caller, db: Database
) -> None:
    path = parked(api, db)
    answer = call(nobody, f"{path}/complete", {"output": {"text": "done", "n": 2**60}})
    assert answer.headers["Callback-Outcome"] == "recorded"
    step = data(answer)
    assert (step["id"], step["status"], step["nodeId"]) == (path.split("/")[-1], "running", "ask")
    assert stored(db) == {"status": "completed", "output": {"text": "done", "n": 2**60}}
    (listed,) = data(api.get(f"{path.partition('/steps/')[0]}/steps"))
    assert listed.keys() == step.keys()


def test_without_output_it_is_empty(api: Caller, nobody: Caller, db: Database) -> None:
    call(nobody, f"{parked(api, db)}/complete")
    assert stored(db) == {"status": "completed", "output": {}}


@pytest.mark.parametrize(
    ("body", "retryable"),
    [({}, True), ({"retryable": False}, False), ({"retryable": True}, True)],
)
def test_the_work_fails(
    api: Caller, nobody: Caller, db: Database, body: dict[str, Any], retryable: bool
) -> None:
    answer = call(nobody, f"{parked(api, db)}/fail", {"error": "out of paper", **body})
    assert answer.headers["Callback-Outcome"] == "recorded"
    assert stored(db) == {"status": "failed", "error": "out of paper", "retryable": retryable}


def test_a_heartbeat_tells_whether_the_work_is_wanted(
    api: Caller, nobody: Caller, db: Database
) -> None:
    path = parked(api, db)
    assert data(call(nobody, f"{path}/heartbeat")) == {"status": "running", "runStatus": "running"}
    data(api.post(f"{path.partition('/steps/')[0]}/cancel"))
    told = data(call(nobody, f"{path}/heartbeat"))
    assert told == {"status": "cancelled", "runStatus": "cancelled"}


def test_the_second_callback_is_a_duplicate(api: Caller, nobody: Caller, db: Database) -> None:
    path = parked(api, db)
    call(nobody, f"{path}/complete", {"output": {"n": 1}})
    for verb, body in (("complete", {"output": {"n": 2}}), ("fail", {"error": "no"})):
        answer = call(nobody, f"{path}/{verb}", body)
        assert (answer.status_code, answer.headers["Callback-Outcome"]) == (200, "duplicate")
    assert stored(db)["output"] == {"n": 1}


@pytest.mark.parametrize(
    ("verb", "body", "kept"),
    [
        ("complete", {"output": {"n": 1}}, {"status": "completed", "output": {"n": 1}}),
        ("fail", {"error": "no"}, {"status": "failed", "error": "no"}),
    ],
)
def test_a_callback_after_a_cancel_is_kept_in_the_trace_and_changes_nothing_else(
    api: Caller,
    nobody: Caller,
    db: Database,
    verb: str,
    body: dict[str, Any],
    kept: dict[str, Any],
) -> None:
    path = parked(api, db)
    run_path = path.partition("/steps/")[0]
    data(api.post(f"{run_path}/cancel"))
    run, (before,) = data(api.get(run_path)), data(api.get(f"{run_path}/steps"))
    answer = call(nobody, f"{path}/{verb}", body)
    assert (answer.status_code, answer.headers["Callback-Outcome"]) == (200, "late")
    (after,) = data(api.get(f"{run_path}/steps"))
    late = after["metadata"].pop("lateCallback")
    assert late.pop("at")
    assert late == kept
    assert after == before
    assert data(api.get(run_path)) == run


@pytest.mark.parametrize("verb", VERBS)
def test_all_that_is_not_the_steps_own_token_is_answered_alike(
    api: Caller, nobody: Caller, db: Database, verb: str
) -> None:
    path, other = parked(api, db), parked(api, db, token="another-token")
    run_path, _, own_id = path.partition("/steps/")
    other_run, _, other_id = other.partition("/steps/")
    body = BODIES[verb]
    answers = [
        call(nobody, f"{path}/{verb}", body, token="another-token"),
        call(nobody, f"{path}/{verb}", body, token=""),
        call(nobody, f"{path}/{verb}", body, token="é"),
        call(nobody, f"{run_path}/steps/{own_id[:-1]}2/{verb}", body),
        call(nobody, f"{run_path}/steps/{own_id}0/{verb}", body),
        call(nobody, f"{run_path}/steps/{other_id}/{verb}", body),
        call(nobody, f"{other_run}/steps/{own_id}/{verb}", body),
        call(nobody, f"{run_path}/steps/{'9' * 101}/{verb}", body),
        call(nobody, f"{run_path}/steps/step_%00_000001/{verb}", body),
        call(nobody, f"metronomes/met_1/runs/run_1/steps/step_1_000001/{verb}", body),
        call(
            nobody,
            f"metronomes/met_1/{run_path.partition('/')[2].partition('/')[2]}"
            f"/steps/{own_id}/{verb}",
            body,
        ),
        nobody.post(f"{path}/{verb}", body),
        nobody.post(f"{path}/{verb}", body, headers={"Authorization": f"Basic {TOKEN}"}),
        api.post(f"{path}/{verb}", body),  # an API key is no token
    ]
    bodies = [refused(answer, 401, "invalid_callback_token") for answer in answers]
    assert all(one == bodies[0] for one in bodies)
    assert all(answer.headers["WWW-Authenticate"] for answer in answers)
    with db.connect() as connection:
        assert (
            connection.execute(
                text("SELECT count(*) FROM steps WHERE result IS NOT NULL OR metadata IS NOT NULL")
            ).scalar_one()
            == 0
        )


def test_a_step_without_a_token_has_none(api: Caller, nobody: Caller, db: Database) -> None:
    path = parked(api, db)
    with db.connect() as connection:
        connection.execute(text("UPDATE steps SET callback_sha256 = NULL"))
    for token in ("", "None", TOKEN):
        refused(call(nobody, f"{path}/complete", token=token), 401, "invalid_callback_token")


def test_a_token_is_no_api_key(api: Caller, nobody: Caller, db: Database) -> None:
    run_path = parked(api, db).partition("/steps/")[0]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    refused(nobody.get(run_path, headers=headers), 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("complete", {"output": [1]}, "output"),
        ("complete", {"output": None}, "output"),
        ("complete", {"outputs": {}}, "outputs"),
        ("complete", {"output": {"a": ["x\x00"]}}, "output.a.0"),
        ("complete", {"output": {"a": 2**63}}, "output.a"),
        ("complete", {"output": {"a": "x" * 60_000}}, "output"),
        ("fail", {}, "error"),
        ("fail", {"error": ""}, "error"),
        ("fail", {"error": 5}, "error"),
        ("fail", {"error": "a\x00"}, "error"),
        ("fail", {"error": "x" * 10_001}, "error"),
        ("fail", {"error": "no", "retryable": "yes"}, "retryable"),
        ("heartbeat", {"progress": 5}, "progress"),
    ],
)
def test_a_body_that_can_not_be_kept_names_the_field(
    small: Caller, api: Caller, db: Database, verb: str, body: dict[str, Any], field: str
) -> None:
    answer = call(small, f"{parked(api, db)}/{verb}", body)
    assert answer.status_code == 422
    assert list(answer.json["details"]) == [field]
    assert stored(db) is None


@pytest.fixture
def small(database_url: str) -> Any:
    """A caller without a key, of an API that keeps little output."""
    from app import create_app
    from app.config import Settings

    app = create_app(Settings(database_url=database_url, listen=False, max_output_bytes=50_000))
    yield Caller(app, None)
    app.extensions["metronome"].db.close()


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"", 200), (b"[]", 400), (b"{", 400), (b"\xff", 400), (b'{"output": {"a": NaN}}', 422)],
)
def test_garbage_is_refused(
    api: Caller, nobody: Caller, db: Database, raw: bytes, status: int
) -> None:
    path = f"{parked(api, db)}/complete"
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    answer = nobody.send("POST", path, headers=headers, data=raw)
    assert answer.status_code == status


def test_a_body_that_is_too_big_or_no_json_is_refused(
    api: Caller, nobody: Caller, db: Database
) -> None:
    path = f"{parked(api, db)}/complete"
    refused(call(nobody, path, {"output": {"a": "x" * 200_000}}), 413, "body_too_large")
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}
    answer = nobody.send("POST", path, headers=headers, data=b"{}")
    refused(answer, 415, "unsupported_media_type")


def test_a_deeply_nested_output_is_refused_as_everywhere(
    api: Caller, nobody: Caller, db: Database
) -> None:
    path = f"{parked(api, db)}/complete"
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    assert call(nobody, path, {"output": {"a": deep}}).status_code == 200
    refused(call(nobody, path, {"output": {"a": [deep]}}), 422, "value_refused")


def test_a_deleted_run_is_unknown(api: Caller, nobody: Caller, db: Database) -> None:
    path = parked(api, db)
    run_path = path.partition("/steps/")[0]
    api.post(f"{run_path}/cancel")
    assert api.delete(run_path).status_code == 200
    refused(call(nobody, f"{path}/complete"), 401, "invalid_callback_token")


def test_other_methods_are_no_way_in(api: Caller, nobody: Caller, db: Database) -> None:
    path = f"{parked(api, db)}/complete"
    assert api.get(path).status_code == 405
    assert nobody.get(path).status_code == 401
    assert json.loads(nobody.get(path).get_data())["code"] == "unauthorized"
