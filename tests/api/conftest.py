"""The API in this process, on a real database, with two organizations that know nothing of
each other, and runs in every state that an executor can leave them in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from app.config import Settings
from app.db import Database
from app.services import keys

DEFINITION = {
    "nodes": [{"id": "start", "kind": "trigger"}, {"id": "finish", "kind": "end"}],
    "edges": [{"id": "e1", "source": "start", "target": "finish"}],
}


class Caller:
    """Sends requests with one API key."""

    def __init__(self, app: Flask, secret: str | None) -> None:
        self._client = app.test_client()
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def send(
        self, method: str, path: str, json: Any = None, *, headers: Any = None, **options: Any
    ) -> TestResponse:
        """One request; ``options`` are those of werkzeug's test client."""
        if json is not None:
            options["json"] = json
        path = path if path.startswith("/") else f"/v1/{path}"
        return self._client.open(
            path, method=method, headers={**self.headers, **(headers or {})}, **options
        )

    def get(self, path: str, **options: Any) -> TestResponse:
        """GET."""
        return self.send("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        """POST."""
        return self.send("POST", path, json, **options)

    def patch(self, path: str, json: Any = None, **options: Any) -> TestResponse:
        """PATCH."""
        return self.send("PATCH", path, json, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        """DELETE."""
        return self.send("DELETE", path, **options)

    def new_metronome(self, definition: Any = None, **fields: Any) -> str:
        """The path of a new workflow, such as ``metronomes/met_...``."""
        body = {"name": "test", "definition": definition or DEFINITION, **fields}
        return f"metronomes/{data(self.post('metronomes', body), 201)['id']}"

    def new_run(self, metronome: str | None = None, **fields: Any) -> str:
        """The path of a new run, such as ``metronomes/met_.../runs/run_...``."""
        metronome = metronome or self.new_metronome()
        return f"{metronome}/runs/{data(self.post(f'{metronome}/runs', fields), 201)['id']}"


def data(response: TestResponse, status: int = 200) -> Any:
    """What an answer holds, which is to have this status."""
    assert response.status_code == status, response.get_data(as_text=True)
    return json.loads(response.get_data())["data"]


def refused(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The body of an error, which is to have this status, this code and the shape of all errors."""
    text = response.get_data(as_text=True)
    assert response.status_code == status, text
    assert response.mimetype == "application/json"
    body: dict[str, Any] = json.loads(text)
    assert set(body) == {"error", "message", "code", "details"}
    assert body["code"] == code, text
    assert body["message"]
    assert isinstance(body["details"], dict)
    return body


def stored(api: Caller, path: str) -> Any:
    """A run as all answers show it: without what GET tells of the moment."""
    live = ("inFlight", "waitingFor", "childCount")
    return {name: value for name, value in data(api.get(path)).items() if name not in live}


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """The API; it notifies nobody."""
    built = create_app(Settings(database_url=database_url, listen=False, max_body_bytes=100_000))
    yield built
    built.extensions["metronome"].places.close()
    built.extensions["metronome"].db.close()


@pytest.fixture
def api(app: Flask, db: Database) -> Caller:
    """A caller of the organization "acme"."""
    _, secret = keys.create_key(db, name="test", user_id="ada", organization_id="acme")
    return Caller(app, secret)


@pytest.fixture
def other(app: Flask, db: Database) -> Caller:
    """A caller of another organization."""
    _, secret = keys.create_key(db, name="test", user_id="eve", organization_id="evil")
    return Caller(app, secret)


@pytest.fixture
def nobody(app: Flask) -> Caller:
    """A caller without a key."""
    return Caller(app, None)
