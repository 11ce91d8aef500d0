"""Every type of event starts runs through the front door: real processes, real sockets."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from app.db import Database
from app.services import webhooks
from tests.api.test_triggers import MATCHING, definition
from tests.processes import Live


class Door:
    """Sends requests to a live API."""

    def __init__(self, live: Live) -> None:
        self._url = f"{live.base_url}/v1/metronomes"
        self._key = {"Authorization": f"Bearer {live.api_key}"}
        self._pool = urllib3.PoolManager()

    def send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Any]:
        """One request: the status, and the JSON of the answer."""
        sent = {"Content-Type": "application/json", **headers}
        answer = self._pool.request(method, self._url + path, body=body, headers=sent)
        return answer.status, json.loads(answer.data)

    def get(self, path: str) -> Any:
        """What is there."""
        return self.send("GET", path, None, self._key)[1]["data"]

    def post(self, path: str, body: Any) -> Any:
        """What came of it."""
        status, found = self.send("POST", path, json.dumps(body).encode(), self._key)
        assert status < 300, found
        return found

    def published(self, trigger_type: str, config: dict[str, Any]) -> str:
        """The id of a new workflow that listens."""
        body = {"name": "test", "definition": definition(trigger_type, config)}
        made: str = self.post("", body)["data"]["id"]
        self.post(f"/{made}/publish", {"active": True})
        return made


@pytest.fixture
def door(live: Live) -> Door:
    """The front door, with an executor behind it."""
    live.start_executor()
    live.wait_until_ready()
    return Door(live)


def test_every_type_of_event_starts_a_run_that_completes(
    door: Door, db: Database, wait_for: Callable[..., Any]
) -> None:
    listening = {}
    for trigger_type, (config, payload) in MATCHING.items():
        listening[trigger_type] = door.published(trigger_type, config)
        event = {"triggerType": trigger_type, "payload": payload, "sourceEventId": "e1"}
        first = door.post("/events/inbound", event)
        assert first["matched_count"] == 1
        assert door.post("/events/inbound", event) == first
    listening["function"] = door.published("function", {"slug": "go"})
    for _ in range(2):
        body = {"payload": {"n": 1}, "sourceEventId": "e1"}
        door.post(f"/{listening['function']}/triggers/function/go", body)
    listening["github"] = door.published("github", {"githubEventType": "push"})
    _, secret = webhooks.create(db, name="t", user_id="ada", organization_id="default")
    push = json.dumps({"ref": "refs/heads/main"}).encode()
    signature = "sha256=" + hmac.new(secret.encode(), push, hashlib.sha256).hexdigest()
    for given, expected in ((signature, 200), (signature, 200), (signature[:-1] + "x", 401)):
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": "d-1",
            "X-Hub-Signature-256": given,
        }
        status, _ = door.send("POST", "/github/inbound", push, headers)
        assert status == expected
    for trigger_type, metronome_id in listening.items():

        def completed(metronome_id: str = metronome_id) -> Any:
            (run,) = door.get(f"/{metronome_id}/runs")
            return run if run["status"] == "completed" else None

        assert wait_for(completed)["triggerType"] == trigger_type
