"""Another organization's ids answer exactly as unknown ones do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.db import Database
from app.ids import new_id
from tests.api import states
from tests.api.conftest import Caller, data, refused

# Every operation on a workflow or a run that there is; the OpenAPI test holds this to be all.
METRONOME: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("PATCH", "", {"name": "mine"}),
    ("DELETE", "", None),
    ("GET", "/owner-candidates", None),
    ("PATCH", "/owner", {"ownerUserId": "eve"}),
    ("GET", "/versions", None),
    ("POST", "/versions", {}),
    ("POST", "/publish", {}),
    ("POST", "/unpublish", {}),
    ("GET", "/deployments", None),
    ("POST", "/validate", {}),
    ("GET", "/trigger-events", None),
    ("GET", "/trigger-summary", None),
    ("POST", "/triggers/test", {}),
    ("POST", "/triggers/function/start", {}),
]
VERSION: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "?revision=0", None),
    ("PATCH", "", {"description": "mine"}),
    ("DELETE", "", None),
    ("POST", "/publish", {}),
    ("GET", "/diff?againstVersionId=ver_1", None),
]
RUNS: list[tuple[str, str, Any]] = [
    ("GET", "/runs", None),
    ("POST", "/runs", {}),
    ("POST", "/test-run", {}),
    ("POST", "/test-runs", {"selection": {"nodeId": "start"}}),
    ("POST", "/test-runs/preview", {"selection": {"nodeId": "start"}}),
]
RUN: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "?view=compact", None),
    ("PATCH", "", {"attachedProjectId": "p"}),
    ("DELETE", "", None),
    ("GET", "/steps", None),
    ("GET", "/timeline", None),
    ("GET", "/timeline?view=compact", None),
    ("GET", "/result", None),
    ("GET", "/children", None),
    ("POST", "/cancel", {}),
    ("POST", "/pause", {}),
    ("POST", "/resume", {"confirmInDoubtReplay": True}),
    ("POST", "/retry", {"from": "failed"}),
    ("POST", "/approve", {"decision": "rejected"}),
]
IMPOSSIBLE = ["%00", "a%00b", "x" * 5_000, "%F0%9F%98%80", "%ED%A0%80", "a%20b", "'--", "%25s"]


@pytest.mark.parametrize(("method", "rest", "body"), METRONOME + RUNS)
def test_a_metronome_of_others_is_as_unknown(
    api: Caller, other: Caller, method: str, rest: str, body: Any
) -> None:
    path = api.new_metronome()
    before = data(api.get(path))
    theirs = other.send(method, f"{path}{rest}", body)
    refused(theirs, 404, "metronome_not_found")
    for unknown in (new_id("met"), *IMPOSSIBLE):
        answer = other.send(method, f"metronomes/{unknown}{rest}", body)
        assert answer.status_code == 404
        assert answer.get_data() == theirs.get_data()
    assert data(api.get(path)) == before


@pytest.mark.parametrize("status", ["saved", "published", "archived"])
@pytest.mark.parametrize(("method", "rest", "body"), VERSION)
def test_a_version_of_others_is_as_unknown(
    api: Caller, other: Caller, method: str, rest: str, body: Any, status: str
) -> None:
    metronome = api.new_metronome()
    version_id = data(api.post(f"{metronome}/versions"), 201)["id"]
    path = f"{metronome}/versions/{version_id}"
    if status == "published":
        data(api.post(f"{path}/publish"))
    elif status == "archived":
        api.delete(path)
    before = data(api.get(path)), data(api.get(metronome))
    theirs = other.send(method, f"{path}{rest}", body)
    refused(theirs, 404, "version_not_found")
    for who, unknown in (
        (api, f"{metronome}/versions/{new_id('ver')}"),
        (api, f"{api.new_metronome()}/versions/{version_id}"),  # of another workflow of ours
        (other, f"{other.new_metronome()}/versions/{version_id}"),  # under a workflow of theirs
        (api, f"metronomes/{new_id('met')}/versions/{version_id}"),
        *((api, f"{metronome}/versions/{one}") for one in IMPOSSIBLE),
        *((api, f"metronomes/{one}/versions/{version_id}") for one in IMPOSSIBLE),
    ):
        answer = who.send(method, f"{unknown}{rest}", body)
        assert answer.status_code == 404, unknown
        assert answer.get_data() == theirs.get_data()
    assert (data(api.get(path)), data(api.get(metronome))) == before


@pytest.mark.parametrize("state", ["queued", "running", "waiting_approval", "paused", "failed"])
@pytest.mark.parametrize(("method", "rest", "body"), RUN)
def test_a_run_of_others_is_as_unknown(
    api: Caller, other: Caller, db: Database, method: str, rest: str, body: Any, state: str
) -> None:
    path = api.new_run()
    states.bring(db, path, state)
    before = data(api.get(path))
    metronome, run_id = path.rsplit("/runs/")
    theirs = other.send(method, f"{path}{rest}", body)
    refused(theirs, 404, "run_not_found")
    for who, unknown in (
        (api, f"{metronome}/runs/{new_id('run')}"),
        (api, f"{api.new_metronome()}/runs/{run_id}"),  # of another workflow of ours
        (other, f"{other.new_metronome()}/runs/{run_id}"),  # under a workflow of theirs
        (api, f"metronomes/{new_id('met')}/runs/{run_id}"),
        *((api, f"{metronome}/runs/{one}") for one in IMPOSSIBLE),
        *((api, f"metronomes/{one}/runs/{run_id}") for one in IMPOSSIBLE),
    ):
        answer = who.send(method, f"{unknown}{rest}", body)
        assert answer.status_code == 404, unknown
        assert answer.get_data() == theirs.get_data()
    assert data(api.get(path)) == before


def test_the_404_differs_in_nothing_but_the_requests_id(api: Caller, other: Caller) -> None:
    path = api.new_run()
    theirs = other.post(f"{path}/cancel")
    unknown = other.post(f"{path[:-1]}x/cancel")
    assert theirs.get_data() == unknown.get_data()
    one, two = (dict(answer.headers) for answer in (theirs, unknown))
    assert one.pop("X-Request-Id") != two.pop("X-Request-Id")
    assert one == two


def test_lists_hold_nothing_of_others(api: Caller, other: Caller, db: Database) -> None:
    assert data(other.get("metronomes?includeArchived=true")) == []
    states.bring(db, api.new_run(), "waiting_approval")
    assert len(data(api.get("approvals"))) == 1
    assert data(other.get("approvals")) == []


def test_a_version_of_others_can_not_be_run(api: Caller, other: Caller) -> None:
    theirs = data(api.get(api.new_run()))["versionId"]
    metronome = other.new_metronome()
    first = other.post(f"{metronome}/runs", {"versionId": theirs})
    second = other.post(f"{metronome}/runs", {"versionId": new_id("ver")})
    assert first.get_data() == second.get_data()
    assert refused(first, 422, "invalid")["details"].keys() == {"versionId"}


def test_an_idempotency_key_of_others_is_free(api: Caller, other: Caller) -> None:
    mine = data(api.get(api.new_run(idempotencyKey="same")))
    theirs = data(other.get(other.new_run(idempotencyKey="same")))
    assert mine["id"] != theirs["id"]


def test_every_operation_on_an_id_is_tried_here(api: Caller) -> None:
    tried = {(method, f"/v1/metronomes/{{metronomeId}}{rest}") for method, rest, _ in METRONOME}
    tried |= {(method, f"/v1/metronomes/{{metronomeId}}{rest}") for method, rest, _ in RUNS}
    tried |= {
        (method, "/v1/metronomes/{metronomeId}/runs/{runId}" + re.sub(r"\?.*", "", rest))
        for method, rest, _ in RUN
    }
    tried |= {
        (method, "/v1/metronomes/{metronomeId}/versions/{versionId}" + re.sub(r"\?.*", "", rest))
        for method, rest, _ in VERSION
    }
    document = api.get("/openapi.json").json or {}
    there = {
        (method.upper(), path.replace("{slug}", "start"))
        for path, operations in document["paths"].items()
        for method in operations
        if "{" in path and method != "parameters" and "{stepId}" not in path  # test_callbacks.py
    }
    assert tried == there
